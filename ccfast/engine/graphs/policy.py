"""The graphs of one sampler: the decision which calls are captured and which run eagerly, and its statistics."""

from __future__ import annotations

import threading
import warnings
from collections import Counter, OrderedDict
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from ...operators import Operator
from ..program import Program
from ..restoration import Request
from .exchange import MismatchError
from .store import Graph, RefusedError, Store, graph_key

__all__ = ["Graphs"]

LEAST_GAIN = 0.02
"""The part of the time that a replay must save for "auto" to use it, since a graph keeps memory of its own."""

MOST_CAPTURES = 3
"""The number of times that a graph may be evicted, because others need its memory, before it is given up."""

REMEMBERED = 256
"""The number of keys that a sampler remembers to have met or to have refused."""


class Graphs:
    """Decides for each call of a sampler whether it is captured, replayed or run eagerly.

    "auto" captures a call of a kind that it has met before, since a capture takes as long as several calls.
    ``Sampler.warmup`` captures at once. Where a capture fails or takes too much memory "auto" gives up with a
    RuntimeWarning, and where a replay saves less than 2 % of the time it gives up in silence. True captures the first
    call, and raises where it cannot. False never captures.

    Args:
        mode: The word "auto", True or False.
        store: The graphs of the device, or None for a device without graphs.
        device: The device of the sampler.

    Raises:
        ValueError: The mode is another one, or True without a CUDA device.
    """

    def __init__(self, mode: bool | str, store: Store | None, device: torch.device) -> None:
        if not (isinstance(mode, bool) or mode == "auto"):
            raise ValueError(f"graph: must be 'auto', True or False, got {mode!r}")
        if mode is True and store is None:
            raise ValueError(f"graph: True needs a CUDA device, got device {str(device)!r}")
        self.mode, self.store, self.device = mode, store, device
        self._graphs: dict[Hashable, Graph] = {}
        self._met: OrderedDict[Hashable, str | None] = OrderedDict()  # The values say why keys were refused.
        self._own: dict[Hashable, Hashable] = {}  # Keys that a graph of another plan does not serve get a key of ours.
        self._eager: Counter[str] = Counter()
        self._lost: Counter[Hashable] = Counter()
        self._warned: set[str] = set()
        self._lock = threading.Lock()

    def run(
        self,
        program: Program,
        operator: Operator,
        request: Request,
        callback: bool = False,
        now: bool = False,
    ) -> Tensor | None:
        """The restored images, or None for a call that has to run eagerly.

        Args:
            program, operator, request: The run.
            callback: Whether the call has a callback.
            now: Whether a call of a kind that was not met before is captured.

        Raises:
            ValueError: The mode is True, and the call cannot be captured.
        """
        if self.mode is False or self.store is None:
            return None
        if callback:
            return self._decline("a callback looks at every step")
        key: Hashable = graph_key(program, operator, request)
        key = self._own.get(key, key)
        reason = self._reason(key, now or self.mode is True)
        if reason is not None:
            return self._decline(reason)
        with self.store.capture.lane() as hand_over:
            try:
                graph = self._graph(key, program, operator, request)
                if self.mode is True or graph.gain >= LEAST_GAIN:
                    return hand_over(self.store.run(graph, program, operator, request))
                reason, say = f"a graph saves {graph.gain:.1%}, asked are {LEAST_GAIN:.0%}", False
            except RefusedError as error:
                if self.mode is True:
                    raise self._error(str(error)) from error
                reason, say = str(error), True
        with self._lock:
            self._graphs.pop(key, None)
            self._met[key] = reason
        return self._decline(reason, say)

    def _reason(self, key: Hashable, now: bool) -> str | None:
        """Why a key is not captured or replayed, or None where it is. The key counts as met from now on."""
        with self._lock:
            met = key in self._met
            reason = self._met.setdefault(key, None)
            self._met.move_to_end(key)
            while len(self._met) > REMEMBERED:
                self._met.popitem(last=False)
        return reason if met or now else "the first of its kind"

    def _graph(self, key: Hashable, program: Program, operator: Operator, request: Request) -> Graph:
        """The graph of a key, which this or another sampler has captured, or a new one."""
        assert self.store is not None
        graph = self.store.graphs.get(key)
        if graph is not None and graph.bytes:
            try:
                serves = self.store.serves(graph, program, operator, request)
            except MismatchError as error:
                raise RefusedError(str(error)) from error
            if not serves and graph.program is program:
                raise RefusedError("operator: the graph of another one gives another result")
            if not serves:
                self._own[key] = key = (id(program), key)
                return self._graph(key, program, operator, request)
        else:
            with self._lock:
                self._lost[key] += key in self._graphs
                lost = self._lost[key]
            if lost >= MOST_CAPTURES:
                raise RefusedError(f"evicted {lost} times: the graphs in use take more than the limit of the device")
            graph = self.store.capture_graph(key, program, operator, request)
        with self._lock:
            self._graphs[key] = graph
        return graph

    def _error(self, reason: str) -> ValueError:
        return ValueError(f"graph: True cannot be had: {reason}")

    def _decline(self, reason: str, say: bool = False) -> None:
        if self.mode is True:
            raise self._error(reason)
        with self._lock:
            self._eager[reason] += 1
            say = say and reason not in self._warned
            self._warned.add(reason)
        if say:
            warnings.warn(f"graph: runs eagerly: {reason}", RuntimeWarning, stacklevel=5)

    def stats(self) -> dict[str, Any]:
        """The statistics that ``Sampler.stats`` shows under "graph"."""
        with self._lock:
            eager, graphs = dict(self._eager), [g for g in self._graphs.values() if g.bytes]
        numbers = {"mode": self.mode, "eager": eager, "replays": sum(g.replays for g in graphs)}
        if self.store is None:
            return numbers | {"reason": "off" if self.mode is False else f"no CUDA device, but {self.device}"}
        shown = [
            {"shape": g.shape, "dtype": str(g.dtype), "bytes": g.bytes, "replays": g.replays, "gain": g.gain,
             "seconds": g.seconds}
            for g in graphs
        ]  # fmt: skip
        device = {"captured": self.store.captured, "evicted": self.store.evicted, "bytes": self.store.bytes}
        return numbers | {"graphs": shown, "device": device | {"limit": self.store.capture.limit}}
