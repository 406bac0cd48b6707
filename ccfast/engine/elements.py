"""Coefficients of a row that differ from element to element of the image: checked once, and cast for the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..operators import Operator
from ..schedules import Array

__all__ = ["cast_elements", "check_batch", "check_elements"]


def check_elements(elements: Mapping[str, Array], operator: Operator) -> Mapping[str, Array]:
    """Those of a plan, by term: (n, C, H, W) or (n, B, C, H, W), any dimension but the first may be 1.

    Raises:
        ValueError: they do not fit the images of the operator.
    """
    shape = (None, *operator.shape[1:]) if operator.any_channels else operator.shape
    for name, column in elements.items():
        own = np.shape(column)[-len(shape) :]
        extra = np.ndim(column) - len(shape)
        if extra not in (1, 2) or any(n not in (1, want or n) for n, want in zip(own, shape, strict=True)):
            raise ValueError(
                f"elements: {name} must be (steps, C, H, W) or (steps, B, C, H, W) ((C, L) for signals), any but the "
                f"first 1, to fit images {operator.shape}, got {np.shape(column)}"
            )
    return elements


def cast_elements(
    rows: Sequence[Mapping[str, Array]], numbers: Sequence[Mapping[str, float]], like: Tensor, copies: int
) -> list[dict[str, Tensor]]:
    """Coefficients of each step as tensors in the dtype and on the device of ``like``, a batch of images.

    Args:
        rows: of each step, by term, without the dimension of the steps.
        numbers: what is added to every element of a term.
        like: (B, *shape).
        copies: how often the images that the coefficients of one image each are for follow each other in the batch.
    """

    def cast(column: Array, number: float) -> Tensor:
        value = torch.from_numpy(column + number).to(like)
        own = value.ndim == like.ndim and len(value) > 1
        return value.repeat(copies, *(1 for _ in like.shape[1:])) if own else value

    with torch.inference_mode(False):
        return [
            {name: cast(column, number.get(name, 0.0)) for name, column in row.items()}
            for row, number in zip(rows, numbers, strict=True)
        ]


def check_batch(elements: Sequence[Mapping[str, Tensor]], like: Tensor) -> None:
    """Raise ValueError where coefficients of one image each are for another number of images than there are."""
    for row in elements:
        for name, value in row.items():
            if value.ndim == like.ndim and len(value) not in (1, len(like)):
                raise ValueError(f"elements: {name} has coefficients for {len(value)} images, got {len(like)}")
