"""The compiled ops, each looked up once. FakeTensor and torch.compile learn here that they return nothing.

Importing this module loads the library, and raises ImportError where the package was installed without native code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

from ..._C import build_info, philox

__all__ = [
    "Scratch",
    "block",
    "build_info",
    "channel",
    "fourier_alias",
    "fourier_multiply",
    "fourier_pack",
    "fourier_unpack",
    "lincomb",
    "mask",
    "normal",
    "philox",
    "separable",
    "writes_only",
]

# These are the overloads, since looking one up costs as much as a small kernel.
lincomb = torch.ops.ccfast.lincomb.default
mask = torch.ops.ccfast.mask.default
block = torch.ops.ccfast.block.default
channel = torch.ops.ccfast.channel.default
separable = torch.ops.ccfast.separable.default
fourier_pack = torch.ops.ccfast.fourier_pack.default
fourier_multiply = torch.ops.ccfast.fourier_multiply.default
fourier_alias = torch.ops.ccfast.fourier_alias.default
fourier_unpack = torch.ops.ccfast.fourier_unpack.default
normal = torch.ops.ccfast.normal.default


# Torch's stable ABI does not show whether a derivative is taken, so the library asks this where grad mode is on.
_python = torch.library.Library("ccfast", "IMPL")
_python.impl("any_requires_grad", lambda tensors: any(map(_differentiated, tensors)), "CompositeExplicitAutograd")


def _differentiated(tensor: torch.Tensor) -> bool:
    """Whether a derivative is taken with respect to a tensor, backward or forward."""
    return tensor.requires_grad or forward_ad.unpack_dual(tensor).tangent is not None


class Scratch:
    """A float32 image to sum in: ``out`` itself, or a tensor that is kept where ``out`` is a half-precision one."""

    def __init__(self) -> None:
        self._own = torch.empty(0)

    def like(self, out: torch.Tensor) -> torch.Tensor:
        if out.dtype == torch.float32:
            return out
        if self._own.shape != out.shape:
            self._own = torch.empty(out.shape)
        return self._own


def writes_only(op: Any) -> Callable[..., None]:
    """The fake of an op, which writes to tensors that it is given and returns nothing: there is no shape to infer.

    A tensor on the meta device beside others brings a call here, which would otherwise do nothing and say nothing.
    """
    names = [argument.name for argument in op._schema.arguments]

    def fake(*arguments: object, **named: object) -> None:
        first = None
        for name, given in [*zip(names, arguments, strict=False), *named.items()]:
            for k, tensor in enumerate(given if isinstance(given, list | tuple) else (given,)):
                if not isinstance(tensor, torch.Tensor):
                    continue
                where = f"{name}[{k}]" if isinstance(given, list | tuple) else name
                first = first or (where, tensor.device)
                if tensor.device != first[1]:
                    raise RuntimeError(f"{where}: must be on {first[1]} as {first[0]}, got {tensor.device}")

    return fake


for _op in (
    lincomb,
    mask,
    block,
    channel,
    separable,
    fourier_pack,
    fourier_multiply,
    fourier_alias,
    fourier_unpack,
    normal,
):
    torch.library.register_fake(_op, writes_only(_op))
