"""The keyword arguments of a network, spread over the batch that it is called with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Batch", "sizes", "spread"]


class Batch(NamedTuple):
    """The measurements of the caller that a batch holds.

    Attributes:
        images: The number of images of the batch, with all copies.
        copies: The number of copies of the measurements, which follow each other.
        places: The places of its measurements among those of the caller, or None where it holds all.
        given: The number of measurements that the caller gave, or None where the batch holds all.
    """

    images: int
    copies: int = 1
    places: tuple[int, ...] | None = None
    given: int | None = None

    @property
    def measurements(self) -> int:
        """The number of measurements that the caller gave."""
        return self.images // self.copies if self.given is None else self.given


def spread(kwargs: Mapping[str, Any], batch: Batch) -> dict[str, Any]:
    """The keyword arguments for a batch.

    A tensor with one row serves every image, and one with a row for each of the caller's measurements is sorted and
    copied as they are. Any other value is passed on unchanged. Mappings, lists and tuples are spread item by item.
    """
    return {name: _spread(value, batch) for name, value in kwargs.items()}


def _spread(value: Any, batch: Batch) -> Any:
    if isinstance(value, Tensor):
        return _rows(value, batch)
    if isinstance(value, Mapping):
        return {key: _spread(item, batch) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_spread(item, batch) for item in value)
    return value


def _rows(value: Tensor, batch: Batch) -> Tensor:
    if not value.ndim or len(value) == batch.images:
        return value
    if len(value) == 1:
        return value.expand(batch.images, *value.shape[1:])
    if len(value) != batch.measurements:
        return value
    if batch.places is not None:
        value = value[torch.tensor(batch.places, device=value.device)]
    return value.repeat(batch.copies, *(1 for _ in value.shape[1:]))


def sizes(kwargs: Mapping[str, Any]) -> dict[str, int]:
    """The number of rows of every tensor among keyword arguments, by name."""
    found: dict[str, int] = {}
    for name, value in kwargs.items():
        if isinstance(value, Tensor):
            found |= {name: len(value)} if value.ndim else {}
        elif isinstance(value, Mapping):
            found |= {f"{name}[{key!r}]": n for key, n in sizes(value).items()}
        elif type(value) in (list, tuple):
            found |= {f"{name}[{key}]": n for key, n in sizes({str(k): item for k, item in enumerate(value)}).items()}
    return found
