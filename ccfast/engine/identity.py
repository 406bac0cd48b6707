"""What a captured graph has of a module: whether it is still the module that was captured."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["identity_of"]

BOOKKEEPING = frozenset(nn.Module().__dict__) - {"training"}
"""Entries of every module that change without any change in what it computes, or are looked at by themselves."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

PLAIN = (bool, float, str, type(None))
"""Attributes that a forward pass reads by value, such as the scale of an adapter; integers are counters too often."""


def identity_of(module: nn.Module | None) -> int:
    """Equal as long as nothing that decides the kernels of a forward pass has changed, values of tensors apart.

    That is the modules, their order, mode, hooks and plain attributes, and the addresses of all tensors: a graph reads
    these again at every replay, so that it sees what is written to them.
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
