"""Batches in which one image is huge or not finite, and a check that the other images do not change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product

import torch
from torch import Tensor

__all__ = ["FACTORS", "batches", "check"]

FACTORS = {"huge": 1e8, "nan": torch.nan, "inf": torch.inf}
"""Every value of the spoiled image is multiplied by one of these. The huge ones are infinite in half precision."""


def batches(tensors: Mapping[str, Tensor], in_turn: bool = False) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """(image, tensors) for every image of a batch and every factor: that image is spoiled in all of the tensors.

    With ``in_turn`` every factor spoils one image only, the first factor the first image, and so on.
    """
    images = len(next(iter(tensors.values())))
    for number, (image, factor) in enumerate(product(range(images), FACTORS.values())):
        if in_turn and number // len(FACTORS) != number % len(FACTORS) % images:
            continue
        changed = {name: tensor.clone() for name, tensor in tensors.items()}
        for tensor in changed.values():
            tensor[image] *= factor
        yield image, changed


def check(
    run: Callable[[Mapping[str, Tensor]], Tensor], tensors: Mapping[str, Tensor], bound: float, in_turn: bool = False
) -> None:
    """Assert that ``run``, of a batch to a batch, gives every image what it gets beside ordinary ones.

    Args:
        bound: The bound of the difference, as a share of the largest value of the other images; 0 asks for equal bits.
        in_turn: Whether every factor spoils one image only.
    """
    ordinary = run(tensors)
    assert ordinary.isfinite().all()
    for image, changed in batches(tensors, in_turn):
        got = run(changed)
        for other in range(len(ordinary)):
            if other == image:
                continue
            error = (got[other].double() - ordinary[other].double()).abs().max()
            allowed = bound * ordinary[other].abs().max().double()
            assert error <= allowed, f"image {image} changed image {other} by {error:.3g}, allowed is {allowed:.3g}"
