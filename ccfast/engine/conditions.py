"""The keyword arguments of a network, spread over the batch that it is called with."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["NOTHING", "Batch", "check_condition", "leaves", "mapped", "shape_of", "sizes", "spread"]

NOTHING: Mapping[str, Any] = MappingProxyType({})
"""The condition of a call that gives none."""


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
    return mapped(kwargs, lambda value: _rows(value, batch))


def mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A value with a function of every tensor in its mappings, lists and tuples in place of that tensor."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: mapped(item, function) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(mapped(item, function) for item in value)
    return value


def leaves(value: Any) -> list[Tensor]:
    """The tensors of a value, in the order in which ``mapped`` meets them."""
    found: list[Tensor] = []
    mapped(value, lambda tensor: found.append(tensor) or tensor)
    return found


def shape_of(value: Any) -> Hashable:
    """What two conditions must share for a captured run to serve both: all but the values of their tensors."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device
    if isinstance(value, Mapping):
        return Mapping, *((shape_of(key), shape_of(item)) for key, item in value.items())
    if type(value) in (list, tuple):
        return type(value), *map(shape_of, value)
    # 1, 1.0 and True are equal keys, as 0.0 and -0.0 are, but not the same to a network.
    return (type(value), repr(value)) if isinstance(value, str | int | float | bool | type(None)) else id(value)


def check_condition(condition: Mapping[str, Any] | None, images: int, device: torch.device) -> Mapping[str, Any]:
    """The condition of a call, {} for None.

    Raises:
        TypeError: It is no mapping from names to values.
        ValueError: A tensor has neither one row nor one for each of the images, or is on another device than the run.
    """
    if condition is None:
        return NOTHING
    if not isinstance(condition, Mapping) or not all(isinstance(name, str) for name in condition):
        raise TypeError(f"condition: must be a mapping from names of arguments to values, got {condition!r}")
    for name, rows in sizes(condition).items():
        if rows not in (1, images):
            raise ValueError(
                f"condition: {name} must have one row, or one for each of {images} images, got {rows} rows"
            )
    for tensor in leaves(condition):
        if tensor.device.type != device.type:
            raise ValueError(f"condition: must be on {device}, where the sampler runs, got a tensor on {tensor.device}")
    return condition


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
    """The number of rows of every tensor among keyword arguments, by name, such as nested['labels'][0]."""
    found: dict[str, int] = {}

    def visit(name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            found.update({name: len(value)} if value.ndim else {})
        elif isinstance(value, Mapping):
            for key, item in value.items():
                visit(f"{name}[{key!r}]", item)
        elif type(value) in (list, tuple):
            for key, item in enumerate(value):
                visit(f"{name}[{key}]", item)

    for name, value in kwargs.items():
        visit(name, value)
    return found
