"""Values that are allowed but can hardly be meant: warnings that name what to look at."""

from __future__ import annotations

import warnings
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .operators import Operator

__all__ = ["FAR", "Values"]

FAR = 10.0
"""Times the largest value that an image in [-1, 1] can give, latents included: what lies beyond was not scaled."""


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


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=5)


def _gain(operator: Operator, y: Tensor) -> float:
    """About the largest value that H makes of an image in [-1, 1]."""
    if operator.kind == "mask":
        return float(operator.singular_values.max())
    ones = torch.ones(operator.image_shape(y), dtype=y.dtype, device=y.device)
    sums = float(operator.forward(ones).abs().amax())
    return sums if operator.kind == "krylov" else max(sums, float(operator.singular_values.max()))
