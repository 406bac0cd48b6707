"""Values that are allowed but can hardly be meant: warnings that name what to look at."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .operators import Operator

__all__ = ["FAR", "NO_CONTEXT", "Looks", "Values", "extent"]

FAR = 10.0
"""Times the largest value that an image in [-1, 1] can give, latents included: what lies beyond was not scaled."""


NO_CONTEXT = nullcontext()


class Values:
    """Looks at the values of measurements and results, for as many operators as a sampler is called with."""

    def __init__(self) -> None:
        self._gains: WeakKeyDictionary[Operator, float] = WeakKeyDictionary()

    def look_at_measurement(self, y: Tensor, largest: float, operator: Operator, noise_std: float) -> None:
        """Warn where y was not scaled to the range of the network, or is zero wherever the mask says it was observed.

        ``largest`` is the largest value of y. Nothing else is looked at for an operator that has been here before.
        """
        gain = self._gains.get(operator)
        new = gain is None
        if gain is None:
            gain = self._gains[operator] = _gain(operator, y)
        if largest > FAR * gain + 6 * noise_std:
            _warn(
                f"y: reaches {largest:.4g}, far outside of what images in [-1, 1], the data range of the network, "
                "give; pixels in [0, 255] are y/127.5 - 1, where H keeps a constant"
            )
        if new and operator.kind == "mask" and largest > 0:
            observed = (operator.singular_values > 0).to(y.device)
            if not bool(((y != 0) & observed).any()):
                _warn(
                    "mask: y is zero at all pixels that the mask says were observed, and not at the others; is the "
                    "mask inverted? 1 = observed"
                )

    def look_at_result(self, x: Tensor) -> None:
        """Warn of a result that is far outside of the data range."""
        largest = x.abs().flatten(1).amax(dim=1)
        images = (largest > FAR).nonzero().flatten().tolist()
        _warn(
            f"result: images {images} reach {float(largest.max()):.4g}, far outside of [-1, 1], the data range of the "
            "network; a smaller guidance weight, more steps or an earlier start may help"
        )


class Looks:
    """Looks for the largest absolute values of the tensors of one call, for which a device is waited for once.

    At once, each tensor is judged when it is given. Otherwise its extent is found in the order of the device's work and
    judged when ``read`` waits for all of them.
    """

    def __init__(self, at_once: bool = True) -> None:
        self.at_once = at_once
        self._pending: list[tuple[Tensor, Callable[[float], object]]] = []

    def take(self, x: Tensor, judge: Callable[[float], object]) -> None:
        """Have ``judge`` called with the largest absolute value of x, which is NaN if there is one."""
        if self.at_once or not x.numel():
            judge(extent(x))
        else:
            self._pending.append((_ends(x), judge))

    def read(self, x: Tensor | None = None) -> float:
        """Judge what is pending, and return the largest absolute value of x, or 0 without one."""
        if not self._pending:
            return 0.0 if x is None else extent(x)
        pending, self._pending = self._pending, []
        ends = [end for end, _ in pending] + ([] if x is None or not x.numel() else [_ends(x)])
        values = torch.cat(ends).tolist()
        sizes = [_larger(*values[k : k + 2]) for k in range(0, len(values), 2)]
        for (_, judge), size in zip(pending, sizes, strict=False):
            judge(size)
        return sizes[-1] if len(sizes) > len(pending) else 0.0

    def first(self) -> AbstractContextManager[object]:
        """A context in which a tensor that is refused is reported, and not the error that it has led to."""
        return self._first() if self._pending else NO_CONTEXT

    @contextmanager
    def _first(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            with suppress(RuntimeError):  # A device that is lost cannot be read; the first error says more.
                self.read()
            raise


def extent(x: Tensor) -> float:
    """The largest absolute value, NaN if there is one: no temporary of the size of x, and one wait for the device."""
    if not x.numel():
        return 0.0
    low, high = torch.stack(torch.aminmax(x)).tolist()
    return max(-low, high) if low == low else math.nan


def _ends(x: Tensor) -> Tensor:
    return torch.stack(torch.aminmax(x))


def _larger(low: float, high: float) -> float:
    return max(-low, high) if low == low else math.nan


def _warn(text: str) -> None:
    """Warn at the line outside of the package that has led here."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, UserWarning, stacklevel=level)


def _gain(operator: Operator, y: Tensor) -> float:
    """About the largest value that H makes of an image in [-1, 1]."""
    if operator.kind == "mask":
        return float(operator.singular_values.max())
    ones = torch.ones(operator.image_shape(y), dtype=y.dtype, device=y.device)
    sums = float(operator.forward(ones).abs().amax())
    return sums if operator.kind == "krylov" else max(sums, float(operator.singular_values.max()))
