"""Batches in which one image is huge or not finite, and a check that the other images do not change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

__all__ = ["FACTORS", "batches", "check"]

FACTORS = {"huge": 1e8, "nan": torch.nan, "inf": torch.inf}
"""Every value of the spoiled image is multiplied by one of these. The huge ones are infinite in half precision."""


def batches(tensors: Mapping[str, Tensor]) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """For every image of a batch and every factor (image, tensors), in which that image is multiplied by the factor."""
    for image in range(len(next(iter(tensors.values())))):
        for factor in FACTORS.values():
            changed = {name: tensor.clone() for name, tensor in tensors.items()}
            for tensor in changed.values():
                tensor[image] *= factor
            yield image, changed


def check(run: Callable[[Mapping[str, Tensor]], Tensor], tensors: Mapping[str, Tensor], bound: float) -> None:
    """Assert that ``run``, of a batch to a batch, gives every image what it gets beside ordinary ones.

    Args:
        bound: the largest difference allowed, relative to the other images' largest value; 0 asks for equal bits.
    """
    ordinary = run(tensors)
    assert ordinary.isfinite().all()
    for image, changed in batches(tensors):
        got = run(changed)
        for other in range(len(ordinary)):
            if other == image:
                continue
            error = (got[other].double() - ordinary[other].double()).abs().max()
            allowed = bound * ordinary[other].abs().max().double()
            assert error <= allowed, f"image {image} changed image {other} by {error:.3g}, allowed is {allowed:.3g}"
