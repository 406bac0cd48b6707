"""Protection of a run from the settings of torch that are in force where its caller stands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor
from torch._C import _functorch  # type: ignore[attr-defined]
from torch.autograd import forward_ad

__all__ = ["check_transforms", "settled"]


@contextmanager
def settled(device: torch.device) -> Iterator[None]:
    """A context without the caller's autocast, inference mode, gradients and default device, in this thread alone.

    The default device is that of the run, on which a network may then make tensors without naming a device. Inside of
    one autocast context torch also keeps the casts of weights from one evaluation to the next.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for kind in {"cpu", device.type}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device() != device:
            stack.enter_context(device)
        yield


def check_transforms(name: str, *values: Tensor) -> None:
    """Raise where a result would silently miss a derivative or a dimension.

    Raises:
        RuntimeError: A value carries a forward-mode tangent, or the call is made under a transform of torch.func.
    """
    if _functorch.peek_interpreter_stack() is not None:
        raise RuntimeError(
            "torch.func: a sampler cannot be called under grad, vmap, jvp or another transform; give a batch instead "
            "of vmap, and differentiate a function of your own that calls the denoiser"
        )
    for value in values:
        if forward_ad._current_level >= 0 and forward_ad.unpack_dual(value).tangent is not None:
            raise RuntimeError(
                f"{name}: carries a forward-mode tangent, but a sampler cannot be differentiated; pass the primal, "
                f"torch.autograd.forward_ad.unpack_dual({name}).primal"
            )
