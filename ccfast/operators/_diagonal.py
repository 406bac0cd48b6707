"""Operators that multiply every pixel by a number of its own."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from .operator import Operator, channels_last, check_array, check_shape, is_picture, wide

__all__ = ["Diagonal"]


class Diagonal(Operator):
    """Hx = values * x, values >= 0: they are the singular values, and U and V the identity where they are positive.

    Args:
        values: (C, H, W) or (1, H, W) for all images, (B, C, H, W) or (B, 1, H, W) with values of its own for each
            image; (C, L) or (1, L) for signals. Of one channel without ``shape`` they serve images with any number
            of channels.
        shape: of one image, (C, H, W) or (C, L). It fixes the number of channels, and is needed for values (B, C, L) or
            (B, 1, L) of each signal and for signals whose C and L could be the sides of an image.

    Raises:
        ValueError: values that the member does not allow, an image with zeros only, or a misfit with shape.
    """

    kind = "mask"
    argument: ClassVar[str]
    """The name that the member gives to its values."""

    def __init__(self, values: Any, shape: tuple[int, ...] | None = None) -> None:
        name, argument = type(self).__name__, self.argument
        values = check_array(name, argument, values)
        if values.numel() == 0:
            raise ValueError(f"{name}: {argument} must not be empty, got shape {tuple(values.shape)}")
        if shape is None:
            given = tuple(values.shape)
            if values.ndim not in (2, 3, 4) or is_picture(given, 8, 4) or channels_last(given[-3:]):
                raise ValueError(
                    f"{name}: {argument} must be (C, H, W), (B, C, H, W) or (C, L), 1 or C channels, got {given}"
                    f"{self._write(given)}"
                )
            shape = tuple(values.shape[1:] if values.ndim == 4 else values.shape)
            self.any_channels = shape[0] == 1
        else:
            shape = check_shape(name, shape)
            self.any_channels = False
        super().__init__(shape, shape)
        own = values.shape[values.ndim - len(shape) :]
        if values.ndim - len(shape) not in (0, 1) or own[1:] != shape[1:] or own[0] not in (1, shape[0]):
            raise ValueError(
                f"{name}: {argument} must be shape {shape} or have one channel, with or without a batch dimension "
                f"before, got {tuple(values.shape)}{self._write(tuple(values.shape))}"
            )
        if values.ndim > len(shape):
            self.batch = values.shape[0]
        self.check_values(values)
        empty = ~((values != 0).flatten(1) if self.batch is not None else (values != 0).flatten()[None]).any(1)
        if empty.any():
            which = f"none for images {empty.nonzero().flatten().tolist()}" if self.batch is not None else "none"
            observed = "an observed pixel (1)" if argument == "mask" else "a positive value"
            raise ValueError(f"{name}: {argument} must have {observed} for every image, got {which}")
        self.singular_values = values

    def _write(self, given: tuple[int, ...]) -> str:
        """What to write instead of values of this shape, where that can be guessed."""
        argument, shape = self.argument, getattr(self, "shape", None)
        if len(given) == 2 and (shape is None or given == shape[1:]):
            signals = f", or shape={given} to say that they are signals (C, L)" if shape is None else ""
            return f"; write {argument}[None] for an image (H, W){signals}"
        if len(given) == 3 and (channels_last(given) if shape is None else given[:2] == shape[1:]):
            return "; its channels come last, put them first (numpy.moveaxis or torch.movedim from -1 to 0)"
        if len(given) == 3 and shape is not None and given[1:] == shape[1:]:
            return f"; write {argument}[:, None] for one of each image"
        if len(given) == 4 and channels_last(given[1:]):
            return "; its channels come last, put them before the sides (numpy.moveaxis or torch.movedim from -1 to 1)"
        return ""

    def _cure(self, name: str, given: tuple[int, ...], shape: tuple[int | None, ...]) -> str:
        if len(self.shape) == 2 and given[2:] == self.shape:
            return f"; the {self.argument} is one for signals (C, L), write {self.argument}[None] for images (C, H, W)"
        if len(self.shape) == 3 and given[2:] == self.shape[1:] and given[0] == self.shape[0]:
            return f"; write {self.argument}[:, None] for one of each image"
        return super()._cure(name, given, shape)

    @abstractmethod
    def check_values(self, values: Tensor) -> None:
        """Raise ValueError for values that the member does not allow."""

    def _observed(self, x: Tensor) -> Tensor:
        """x where its values are positive, and zero elsewhere."""
        observed = self.constant("observed", lambda: (self.singular_values > 0).to(torch.float64), x)
        return (wide(x) * observed).to(x.dtype)

    def down(self, x: Tensor) -> Tensor:
        return self._observed(x)

    def lift(self, c: Tensor) -> Tensor:
        return self._observed(c)

    def decode(self, c: Tensor) -> Tensor:
        return self._observed(c)

    def image_shape(self, y: Tensor) -> tuple[int, ...]:
        return (y.shape[0], y.shape[1], *self.shape[1:])

    def _check(self, name: str, value: Tensor, shape: tuple[int | None, ...]) -> None:
        super()._check(name, value, (None, *shape[1:]) if self.any_channels else shape)
