"""Errors with something to keep: what ccfast raises beside Python's own exceptions."""

from __future__ import annotations

from torch import Tensor

__all__ = ["NonFiniteError"]


class NonFiniteError(FloatingPointError):
    """Images of a result hold NaN or infinite values.

    Attributes:
        images: their places in the batch.
        result: the whole result, (B, C, H, W), or (n, B, C, H, W) of ``Sampler.sample``: the other images are right.
    """

    def __init__(self, message: str, images: list[int], result: Tensor) -> None:
        super().__init__(message)
        self.images, self.result = images, result

    def __reduce__(self) -> tuple[type[NonFiniteError], tuple[str, list[int], Tensor]]:
        return type(self), (str(self), self.images, self.result)
