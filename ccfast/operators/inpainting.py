"""Inpainting: some pixels are observed, the others are missing."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ._diagonal import Diagonal
from .operator import wide

__all__ = ["Inpainting"]


class Inpainting(Diagonal):
    """Hx = mask * x: the measurement is the masked image, of the same shape as the image.

    The coordinates are the masked image as well, and the singular values are the mask itself (0 or 1).

    Args:
        mask: 1 = observed. (C, H, W) or (1, H, W) for all images, (B, C, H, W) or (B, 1, H, W) with one mask for each
            image; (C, L) or (1, L) for signals. bool, integer or floating. A mask of one channel without ``shape``
            serves images with any number of channels. A picture (H, W) is refused; write mask[None].
        shape: of one image, (C, H, W) or (C, L). It fixes the number of channels, and is needed for masks (B, C, L) or
            (B, 1, L) with one mask for each signal and for signals whose C and L could be the sides of an image.

    Raises:
        ValueError: values other than 0 and 1, an image without an observed pixel, or a mask that does not fit shape.
    """

    argument = "mask"
    exchangeable = True

    def __init__(self, mask: Any, shape: tuple[int, ...] | None = None) -> None:
        super().__init__(mask, shape)

    def check_values(self, values: Tensor) -> None:
        if not ((values == 0) | (values == 1)).all():
            low, high = values.min(), values.max()
            cure = "; write mask > 127 for a picture whose white is observed" if low >= 0 and 1 < high <= 255 else ""
            raise ValueError(
                f"{type(self).__name__}: mask must hold 0 and 1 only, got values from {low} to {high}{cure}"
            )

    def _observed(self, x: Tensor) -> Tensor:
        mask = self.constant("singular_values", lambda: self.singular_values, x)
        return (wide(x) * mask).to(x.dtype)

    def encode(self, y: Tensor) -> Tensor:
        return self._observed(y)

    # H, H^T, H+ and P are one and the same map, which takes one pass instead of the four of the general rule
    def forward(self, x: Tensor) -> Tensor:
        self.check_image(x)
        return self._observed(x)

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return self._observed(y)

    pinv = adjoint
    project = forward
