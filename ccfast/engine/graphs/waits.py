"""The search for operations that wait for the device, on which a capture would fail, before anything is captured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["WAITS", "WaitError", "find_wait"]

aten = torch.ops.aten

WAITS = frozenset(
    {
        aten._local_scalar_dense.default,
        aten.item.default,
        aten.equal.default,
        aten.nonzero.default,
        aten.masked_select.default,
        aten._unique2.default,
        aten.unique_dim.default,
        aten.unique_consecutive.default,
        aten.repeat_interleave.Tensor,
        aten.bincount.default,
        aten.histc.default,
    }
)
"""The operations that bring a number to the host, or whose result has a shape that depends on values."""

INDEXING = frozenset({aten.index.Tensor, aten.index_put.default, aten.index_put_.default})
"""The operations that wait where an index is a mask."""

COPIES = frozenset({aten._to_copy.default, aten.copy_.default})
"""The operations that may copy between the host and the device."""


class WaitError(Exception):
    """An operation waits for the device; it is named in the message."""


class Watch(TorchDispatchMode):
    """A dispatch mode of one thread that raises a WaitError where an operation on tensors of a device waits for it."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in WAITS and self._is_here(args[0]):
            raise WaitError(f"{function} waits for the device")
        if function in INDEXING and any(
            isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        ):
            raise WaitError(f"{function} with a mask waits for the device")
        if function in COPIES and self._crosses(function, args, kwargs):
            raise WaitError(f"{function} between the host and the device waits for it")
        return function(*args, **kwargs)

    def _is_here(self, value: object) -> bool:
        return isinstance(value, Tensor) and value.device.type == self.device.type

    def _crosses(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether a copy leads from the host to the device or back, and not from pinned memory without waiting."""
        if function is aten.copy_.default:
            to, source, blocks = args[0].device, args[1], not (args[2] if len(args) > 2 else False)
        else:
            to, source, blocks = kwargs.get("device") or args[0].device, args[0], not kwargs.get("non_blocking", False)
        kinds = {torch.device(to).type, source.device.type}
        return len(kinds) == 2 and self.device.type in kinds and (blocks or source.is_cuda or not source.is_pinned())


def find_wait(work: Callable[[], object], device: torch.device) -> str | None:
    """The operation at which some work waits for a device, in words, or None where none was found.

    The work is done until there. Errors of its own are left to the next time that it is done, since the watch itself
    may be what a network cannot bear.
    """
    try:
        with Watch(device):
            work()
    except WaitError as error:
        return str(error)
    except Exception:
        return None
    return None
