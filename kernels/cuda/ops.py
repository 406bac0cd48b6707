"""The compiled ops of the GPU, each looked up once, and the stream that they are told to use."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from ..native.ops import writes_only

__all__ = [
    "combine",
    "finish",
    "fourier",
    "fourier_alias",
    "fourier_multiply",
    "fourier_pack",
    "fourier_unpack",
    "products",
    "separable",
    "stream",
]

_ops = torch.ops.ccfast


def _find(name: str) -> Any:
    """The overload of an op, whose lookup costs as much as a small kernel; None in a library without CUDA code."""
    return getattr(_ops, f"cuda_{name}").default if hasattr(_ops, f"cuda_{name}") else None


fourier = _find("fourier")
fourier_pack = _find("fourier_pack")
fourier_multiply = _find("fourier_multiply")
fourier_alias = _find("fourier_alias")
fourier_unpack = _find("fourier_unpack")
separable = _find("separable")
products = _find("products")
combine = _find("combine")
finish = _find("finish")


def stream(device: torch.device) -> int:
    """The argument ``stream`` of the ops: -1 where the library asks torch for the current stream, else its handle."""
    return -1 if _library_knows(device.index or 0) else torch.cuda.current_stream(device).cuda_stream


@lru_cache
def _library_knows(device: int) -> bool:
    """Whether the library finds the current stream, which takes a function that not every torch exports."""
    try:
        found = _ops.cuda_stream.default(device)
    except RuntimeError:
        return False
    return found == torch.cuda.current_stream(device).cuda_stream


for _op in (
    fourier,
    fourier_pack,
    fourier_multiply,
    fourier_alias,
    fourier_unpack,
    separable,
    products,
    combine,
    finish,
):
    if _op is not None:
        torch.library.register_fake(_op, writes_only(_op))
