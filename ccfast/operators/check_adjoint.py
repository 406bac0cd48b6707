"""A test for users, which tells whether their H^T is the adjoint of their H."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["check_adjoint"]


def check_adjoint(
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    tolerance: float | None = None,
    seed: int = 0,
) -> None:
    """Raise unless <H x, y> = <x, H^T y> for a batch of four pairs of Gaussian x and y.

    A map that is not linear (an offset, a clamp) fails as well, unless it happens to meet these pairs.

    Args:
        forward: (B, *shape) to measurements (B, ...).
        adjoint: measurements to (B, *shape).
        shape: of one image.
        dtype, device: of x and y.
        tolerance: of the difference relative to ||H x|| ||y|| + ||x|| ||H^T y||; None: 100 times the rounding of dtype.
        seed: of x and y.

    Raises:
        ValueError: the inner products differ (the message gives those that differ most), or a wrong shape.
        TypeError: a result that is not a tensor of this dtype.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((4, *shape), generator=generator, dtype=torch.float64).to(device=device, dtype=dtype)
    hx = forward(x)
    check_result("forward", hx, x, None)
    y = torch.randn(hx.shape, generator=generator, dtype=torch.float64).to(device=device, dtype=dtype)
    hty = adjoint(y)
    check_result("adjoint", hty, y, tuple(x.shape))
    x, hx, y, hty = (t.detach().cpu().double().flatten(1) for t in (x, hx, y, hty))
    left, right = (hx * y).sum(1), (x * hty).sum(1)
    scale = hx.norm(dim=1) * y.norm(dim=1) + x.norm(dim=1) * hty.norm(dim=1)
    tolerance = 100 * torch.finfo(dtype).eps if tolerance is None else tolerance
    wrong = ~((left - right).abs() <= tolerance * scale)  # In this form NaN counts as wrong.
    if wrong.any():
        worst = int(((left - right).abs() / scale).nan_to_num(torch.inf).argmax())
        raise ValueError(
            f"adjoint: must satisfy <H x, y> = <x, H^T y> within {tolerance:.3g} ||H x|| ||y||, "
            f"got {float(left[worst]):.8g} and {float(right[worst]):.8g}"
        )


def check_result(name: str, value: object, given: Tensor, shape: tuple[int, ...] | None) -> None:
    """Raise unless ``value`` is a tensor like ``given`` in batch, dtype and device, and of this shape (None: any)."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: must return a tensor, got {type(value).__name__}")
    if value.dtype != given.dtype or value.device != given.device:
        raise TypeError(
            f"{name}: must return {given.dtype} on {given.device}, as it was given, got {value.dtype} on {value.device}"
        )
    if value.shape[:1] != given.shape[:1] or value.ndim < 2 or shape not in (None, tuple(value.shape)):
        expected = f"({given.shape[0]}, ...)" if shape is None else str(shape)
        raise ValueError(f"{name}: must return shape {expected}, got {tuple(value.shape)}")
