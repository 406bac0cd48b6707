"""Keyword arguments of a network, spread over the batch that it is called with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Batch", "sizes", "spread"]


class Batch(NamedTuple):
    """Which of the caller's measurements a batch holds.

    Attributes:
        images: size of the batch, copies included.
        copies: how many copies of the measurements it holds, one batch after the other.
        places: which of the caller's measurements are in it, for a part of them; None: all.
        given: how many measurements the caller gave; None: as many as are in the batch.
    """

    images: int
    copies: int = 1
    places: tuple[int, ...] | None = None
    given: int | None = None

    @property
    def measurements(self) -> int:
        """How many measurements the caller gave."""
        return self.images // self.copies if self.given is None else self.given


def spread(kwargs: Mapping[str, Any], batch: Batch) -> dict[str, Any]:
    """The keyword arguments for a batch.

    A tensor of one row serves every image, and one with a row for each of the caller's measurements follows them. Any
    other tensor, and whatever is no tensor, is handed over as it is. Mappings, lists and tuples are looked into.
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
