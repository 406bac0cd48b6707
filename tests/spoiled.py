"""A batch in which one image is huge or not finite, and what the other images are then compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

__all__ = ["FACTORS", "batches", "check"]

FACTORS = {"huge": 1e8, "nan": torch.nan, "inf": torch.inf}
"""By what every value of the spoiled image is multiplied. Half precision holds the huge ones as infinity."""


def batches(tensors: Mapping[str, Tensor]) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """(image, tensors) for every image of a batch and every factor: that image is spoiled in all of the tensors."""
    for image in range(len(next(iter(tensors.values())))):
        for factor in FACTORS.values():
            changed = {name: tensor.clone() for name, tensor in tensors.items()}
            for tensor in changed.values():
                tensor[image] *= factor
            yield image, changed


def check(run: Callable[[Mapping[str, Tensor]], Tensor], tensors: Mapping[str, Tensor], bound: float) -> None:
    """Assert that ``run``, of a batch to a batch, gives every image what it gets beside ordinary ones.

    Args:
        bound: of the largest value of the other images; 0 asks for equal bits.
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
