"""A number that tells whether a module would still run as it did when a graph of it was captured."""

from __future__ import annotations

import weakref
from contextlib import suppress
from itertools import chain
from operator import getitem, is_, methodcaller
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["Identity", "identity_of"]

BOOKKEEPING = frozenset(nn.Module().__dict__) - {"training"}
"""Attributes of every module that do not change what it computes, or that are read one by one below."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

PLAIN = (bool, float, str, type(None))
"""The types of attributes that a forward pass reads by value, such as the scale of an adapter.

Integers are not among them, since too many are counters.
"""


def identity_of(module: nn.Module | None) -> int:
    """A number that stays the same as long as nothing changes that decides which kernels a forward pass runs.

    It is made from the modules, their order, types, mode, hooks and plain attributes, and the addresses of all tensors.
    The values of tensors do not count, since a graph reads them again at every replay.
    """
    return 0 if module is None else hash(tuple(_parts(module)))


def _parts(module: nn.Module) -> list[object]:
    found: list[object] = [id(module), type(module)]
    own: dict[str, Any] = module.__dict__
    if "_parameters" not in own:  # A scripted module holds its parts elsewhere, and its code cannot change.
        return [*found, module.training, *(t.data_ptr() for t in chain(module.parameters(), module.buffers()))]
    for name in HOOKS:
        found.extend(own[name])  # The number of a hook is never given again, other than its address.
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
        found.extend(() if child is None else _parts(child))
    return found


class Identity:
    """``identity_of`` a module, which is read whole only where something may have changed since the last time.

    The parts are compared list by list and not one by one, which takes a tenth of the time of a new reading.
    """

    def __init__(self) -> None:
        self._known: tuple[weakref.ref[nn.Module], _Reading, int] | None = None

    def of(self, module: nn.Module | None) -> int:
        """The number of a module."""
        if module is None:
            return 0
        known = self._known
        if known is not None and known[0]() is module and known[1].holds():
            return known[2]
        self._known = None
        number = identity_of(module)
        with suppress(KeyError):  # Some part may be a scripted module, which is read whole every time.
            self._known = weakref.ref(module), _Reading(module), number
        return number


class _Reading:
    """The parts of a module as flat lists, which are compared at once. It keeps no module and no weight alive."""

    def __init__(self, module: nn.Module) -> None:
        modules = list(module.modules())
        places = {id(part): place for place, part in enumerate(modules)}
        self._modules = [weakref.ref(part) for part in modules]
        own = [part.__dict__ for part in modules]
        self._hooks = RemovableHandle.next_id if not any(parts[name] for parts in own for name in HOOKS) else None
        named = [(place, name) for place, parts in enumerate(own) for name in parts if name not in BOOKKEEPING]
        kinds = [_kind(own[place][name]) for place, name in named]
        self._plain, self._tensors, self._others = (
            _split([pair for pair, kind in zip(named, kinds, strict=True) if kind == wanted])
            for wanted in ("plain", "tensor", "other")
        )
        children = chain.from_iterable(parts["_modules"].values() for parts in own)
        self._children = [None if child is None else places[id(child)] for child in children]
        self._seen = self._read(modules)

    def holds(self) -> bool:
        """Whether every part is as it was."""
        modules = [part() for part in self._modules]
        try:
            return self._read(modules) == self._seen
        except (KeyError, AttributeError):  # An attribute or a module is gone.
            return False

    def _read(self, modules: list[Any]) -> list[object]:
        own: list[dict[str, Any]] = [part.__dict__ for part in modules]
        found: list[object] = [list(map(len, own))]
        for name in ("_parameters", "_buffers"):
            held = [parts[name] for parts in own]
            tensors = list(chain.from_iterable(map(_VALUES, filter(None, held))))
            found += [
                list(map(len, held)),
                list(map(id, tensors)),
                [None if t is None else t.data_ptr() for t in tensors],
            ]
        held = [parts["_modules"] for parts in own]
        children = chain.from_iterable(map(_VALUES, filter(None, held)))
        known = (None if place is None else modules[place] for place in self._children)
        found += [list(map(len, held)), all(map(is_, children, known))]
        if self._hooks != RemovableHandle.next_id:  # Every hook of the process takes a number.
            found += [(place, name, *parts[name]) for place, parts in enumerate(own) for name in HOOKS if parts[name]]
        plain = _fetch(own, *self._plain)  # Types are compared first, since a tensor cannot be compared with a number.
        found += [list(map(type, plain)), plain, list(map(type, _fetch(own, *self._others)))]
        found += [[t.data_ptr() for t in _fetch(own, *self._tensors)]]
        return found


_VALUES = methodcaller("values")


def _kind(value: object) -> str:
    return "plain" if isinstance(value, PLAIN) else "tensor" if isinstance(value, Tensor) else "other"


def _split(pairs: list[tuple[int, str]]) -> tuple[list[int], list[str]]:
    return [place for place, _ in pairs], [name for _, name in pairs]


def _fetch(own: list[dict[str, Any]], places: list[int], names: list[str]) -> list[Any]:
    """The attributes with these names of the modules at these places."""
    return list(map(getitem, [own[place] for place in places], names))
