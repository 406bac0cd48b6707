"""Inpainting: some pixels are observed, the others are missing."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .base import Operator, check_array, check_shape, wide

__all__ = ["Inpainting"]


class Inpainting(Operator):
    """Hx = mask * x: the measurement is the masked image, of the same shape as the image.

    The coordinates are the masked image as well, and the singular values are the mask itself (0 or 1).

    Args:
        mask: 1 = observed. (C, H, W) or (1, H, W) for all images, (B, C, H, W) or (B, 1, H, W) with one mask for each
            image; (C, L) or (1, L) for signals. bool, integer or floating. A mask of one channel without ``shape``
            serves images with any number of channels.
        shape: of one image, (C, H, W) or (C, L); needed only to fix the number of channels, and for masks
            (B, C, L) or (B, 1, L) with one mask for each signal.

    Raises:
        ValueError: values other than 0 and 1, an image without an observed pixel, or a mask that does not fit shape.
    """

    kind = "mask"

    def __init__(self, mask: Any, shape: tuple[int, ...] | None = None) -> None:
        name = type(self).__name__
        mask = check_array(name, "mask", mask)
        if mask.numel() == 0:
            raise ValueError(f"{name}: mask must not be empty, got shape {tuple(mask.shape)}")
        if shape is None:
            if mask.ndim not in (2, 3, 4):
                raise ValueError(
                    f"{name}: mask must be (C, H, W), (B, C, H, W) or (C, L), 1 or C channels, got {tuple(mask.shape)}"
                )
            shape = tuple(mask.shape[1:] if mask.ndim == 4 else mask.shape)
            self.any_channels = shape[0] == 1
        else:
            shape = check_shape(name, shape)
            self.any_channels = False
        super().__init__(shape, shape)
        own = mask.shape[mask.ndim - len(shape) :]
        if mask.ndim - len(shape) not in (0, 1) or own[1:] != shape[1:] or own[0] not in (1, shape[0]):
            raise ValueError(
                f"{name}: mask must be shape {shape} or have one channel, with or without a batch dimension before, "
                f"got {tuple(mask.shape)}"
            )
        if mask.ndim > len(shape):
            self.batch = mask.shape[0]
        if not ((mask == 0) | (mask == 1)).all():
            raise ValueError(f"{name}: mask must hold 0 and 1 only, got values from {mask.min()} to {mask.max()}")
        empty = ~(mask.flatten(1) if self.batch is not None else mask.flatten()[None]).any(1)
        if empty.any():
            which = f"none for images {empty.nonzero().flatten().tolist()}" if self.batch is not None else "none"
            raise ValueError(f"{name}: mask must have an observed pixel (1) for every image, got {which}")
        self.singular_values = mask

    def _masked(self, x: Tensor) -> Tensor:
        mask = self.constant("singular_values", lambda: self.singular_values, x)
        return (wide(x) * mask).to(x.dtype)

    def down(self, x: Tensor) -> Tensor:
        return self._masked(x)

    def lift(self, c: Tensor) -> Tensor:
        return self._masked(c)

    def encode(self, y: Tensor) -> Tensor:
        return self._masked(y)

    def decode(self, c: Tensor) -> Tensor:
        return self._masked(c)

    # H, H^T, H+ and P are one and the same map: one pass instead of the four of the general rule
    def forward(self, x: Tensor) -> Tensor:
        self.check_image(x)
        return self._masked(x)

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return self._masked(y)

    pinv = adjoint
    project = forward

    def image_shape(self, y: Tensor) -> tuple[int, ...]:
        return (y.shape[0], y.shape[1], *self.shape[1:])

    def _check(self, name: str, value: Tensor, shape: tuple[int | None, ...]) -> None:
        super()._check(name, value, (None, *shape[1:]) if self.any_channels else shape)
