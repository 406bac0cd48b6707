"""A number that tells whether a module would still run as it did when a graph of it was captured."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["identity_of"]

BOOKKEEPING = frozenset(nn.Module().__dict__) - {"training"}
"""Attributes of every module that do not change what it computes, or that are read one by one below."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

PLAIN = (bool, float, str, type(None))
"""The types of attributes that a forward pass reads by value, such as the scale of an adapter.

Integers are not among them, since too many are counters.
"""


def identity_of(module: nn.Module | None) -> int:
    """A number that stays the same as long as nothing changes that decides which kernels a forward pass runs.

    It is made from the modules, their order, mode, hooks and plain attributes, and the addresses of all tensors. The
    values of tensors do not count, since a graph reads them again at every replay.
    """
    return 0 if module is None else hash(tuple(_parts(module)))


def _parts(module: nn.Module) -> list[object]:
    found: list[object] = [id(module)]
    own: dict[str, Any] = module.__dict__
    for name in HOOKS:
        found.extend(map(id, own[name].values()))
    for tensors in (own["_parameters"], own["_buffers"]):
        found.extend(None if t is None else (id(t), t.data_ptr()) for t in tensors.values())
    for name, value in own.items():
        if name in BOOKKEEPING:
            continue
        if isinstance(value, PLAIN):
            found.append((name, value))
        elif isinstance(value, Tensor):
            found.append((name, value.data_ptr()))
    for child in own["_modules"].values():
        if child is not None:
            found.extend(_parts(child))
    return found
