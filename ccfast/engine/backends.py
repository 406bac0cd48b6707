"""The table of backends, one of which runs the operations of the loop. It is chosen when a Sampler is made."""

from __future__ import annotations

import torch

from ..kernels import cuda, native, reference, triton
from ..kernels.row import Backend

__all__ = ["BACKENDS", "can_run", "resolve"]

BACKENDS: dict[str, Backend] = {"cuda": cuda, "triton": triton, "native": native, "reference": reference}
"""The backends by name, in order of preference. The last one runs everywhere."""


def can_run(name: str, device: torch.device | str = "cpu", raise_error: bool = False) -> bool:
    """Whether a backend runs on a device. With ``raise_error`` the reason why it does not is raised as ValueError."""
    if name not in BACKENDS:
        raise ValueError(f"backend: must be 'auto' or one of {', '.join(map(repr, BACKENDS))}, got {name!r}")
    reason = BACKENDS[name].reason(torch.device(device))
    if reason and raise_error:
        raise ValueError(f"backend: {name!r} cannot run on {device}: {reason}")
    return reason is None


def resolve(name: str, device: torch.device) -> Backend:
    """The named backend, or for "auto" the first one that can run, where Triton's slow interpreter does not count."""
    if name == "auto":
        slow = {"triton"} if device.type == "cpu" else set()
        name = next(candidate for candidate in BACKENDS if candidate not in slow and can_run(candidate, device))
    can_run(name, device, raise_error=True)
    return BACKENDS[name]
