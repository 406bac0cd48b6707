"""Stand-ins: an operator whose constants keep their addresses while it becomes another one of the same signature.

A captured graph reads the constants of its operator where they were when it was captured. So that it serves other masks
and kernels, it is captured with a stand-in, and the constants of the operator of each call are copied into its own.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor

from ...operators.operator import Operator, made_constant

__all__ = ["MismatchError", "become", "signature", "stand_in"]


class MismatchError(Exception):
    """Two operators are not of one signature after all: a constant has another shape."""


def signature(operator: Operator) -> tuple[Any, ...]:
    """What two exchangeable operators must share: their class, numbers, strings, and shapes and dtypes of tensors."""
    parts = []
    for name, value in sorted(vars(operator).items()):
        if isinstance(value, Tensor):
            parts.append((name, tuple(value.shape), value.dtype))
        elif isinstance(value, int | str | tuple | None):
            parts.append((name, value))
    return type(operator), *parts


def stand_in(operator: Operator) -> Operator:
    """A copy of the operator that has constants of its own, and remembers how they are made."""
    other = copy.copy(operator)
    other._cache, other._makers = {}, {}
    return other


def become(own: Operator, other: Operator) -> None:
    """Make a stand-in equal to the operator ``other``, whose constants are copied into those of the stand-in.

    Raises:
        MismatchError: A constant of ``other`` has another shape or dtype.
    """
    kept, makers = own._cache, own._makers
    assert makers is not None
    own._cache = {}  # A maker may ask for other constants, which must be those of the new operator.
    vars(own).update({name: value for name, value in vars(other).items() if name not in ("_cache", "_makers")})
    try:
        for key in kept:
            if key not in other._cache:
                other._cache[key] = own._cache[key] if key in own._cache else made_constant(key, makers[key])
            own._cache[key] = value = other._cache[key]
            if value.shape != kept[key].shape or value.dtype != kept[key].dtype:
                shapes = f"{tuple(value.shape)}, captured was {tuple(kept[key].shape)}"
                raise MismatchError(f"operator: {key[0]!r} of {other!r} has shape {shapes}")
            kept[key].copy_(value)
    finally:
        own._cache = kept
