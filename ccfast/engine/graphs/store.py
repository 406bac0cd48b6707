"""CUDA graphs: the whole run of a program is captured once and then replayed, which leaves the host little to do.

A graph holds everything from the measurement to the restored images: H+ y, the first noise, all evaluations of the
network with their products, and all rows. Everything that differs between calls lies in tensors of the graph, which are
overwritten before a replay: y, the words of the noise, given states, network times and the table of coefficients. So
one graph serves every schedule of its length, where the backend reads coefficients from the device
(``Program.layout``). It serves every operator of a kind that can be exchanged (masks, blur kernels), whose constants
are copied. Any other operator, network, set of weights or of keyword tensors has a graph of its own.

All samplers of a process share the graphs, and a graph lives as long as a sampler that uses it. Together the graphs of
a device keep at most half of its memory. The least recently used ones are closed first.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from weakref import WeakSet, WeakValueDictionary

import torch
from torch import Tensor

from ...operators import Operator
from ..buffers import Buffers
from ..conditions import leaves, mapped, shape_of
from ..program import Program
from ..restoration import Request, restore
from .capture import Capture, CudaCapture, Recording, indexed
from .exchange import MismatchError, become, signature, stand_in
from .waits import find_wait

__all__ = ["Graph", "RefusedError", "Store", "graph_key", "store_of"]

SAME = 1e-4
"""The largest relative distance of two runs that differ by the order of sums alone."""

WARMUPS = 3
"""The runs in the lane before a capture, in which libraries make handles and workspaces and torch.compile compiles."""


class RefusedError(Exception):
    """A run cannot be captured or replayed, for the reason in the message."""


def graph_key(program: Program, operator: Operator, request: Request) -> tuple[Hashable, ...]:
    """The properties that two runs must share to be served by one graph."""
    y = request.y
    return (
        program.layout or id(program),
        program.network.identity(),
        signature(operator) if operator.exchangeable else id(operator),
        (tuple(y.shape), y.dtype, y.device),
        (len(request.states), request.batch, request.hard_consistency),
        shape_of(request.condition),
        (torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision),  # type: ignore[attr-defined]
    )


def inputs(request: Request) -> tuple[Tensor, ...]:
    """The tensors of a request, which a graph holds copies of."""
    return request.y, request.words, *request.states, *leaves(request.condition)


class Graph:
    """One captured run and the tensors that it reads and writes.

    Attributes:
        shape, dtype: The shape and dtype of the restored images.
        bytes: The bytes of memory that it keeps, which are 0 once it is closed.
        replays: The number of times that it was used.
        used: The count of its store at its last use.
        gain: The part of the time of an eager run that a replay saves.
        seconds: The seconds that the capture took, with its warm-up.
    """

    def __init__(self, program: Program, operator: Operator, request: Request) -> None:
        self.program, self.shape, self.dtype = program, operator.image_shape(request.y), request.y.dtype
        self.keep = program.network.held()  # Their addresses are in the graph, their identities in its key.
        self.operator = stand_in(operator) if operator.exchangeable else operator
        self.present: tuple[Program, Operator] = (program, operator)
        self.buffers = Buffers(program, self.shape, self.dtype)
        y, words = torch.empty_like(request.y), torch.empty_like(request.words)
        self.request = request._replace(y=y, words=words, states=tuple(map(torch.empty_like, request.states)))
        self.request = self.request._replace(condition=mapped(request.condition, torch.empty_like))
        self.out = torch.empty(0)
        self.recording: Recording | None = None
        self.programs, self.exchanged = WeakSet([program]), False
        self.bytes, self.replays, self.used, self.gain, self.seconds = 0, 0, 0, 0.0, 0.0

    def work(self) -> Tensor:
        """Run the program from the graph's own tensors to ``out``."""
        self.out, _ = restore(self.program, self.buffers, self.operator, self.request)
        return self.out

    def load(self, program: Program, operator: Operator, request: Request) -> None:
        """Overwrite what a replay reads. A MismatchError says that the constants of the operator do not fit."""
        for own, given in zip(inputs(self.request), inputs(request), strict=True):
            own.copy_(given)
        if self.present == (program, operator):
            return
        bound = program.bind(operator, self.request.y, self.request.batch.copies)
        self.buffers.load(bound)
        if self.present[1] is not operator:
            self.present = (program, self.operator)  # This holds if the copy fails midway.
            become(self.operator, operator)
            self.program.bind(self.operator, self.request.y, self.request.batch.copies).become(bound)
        self.present = program, operator

    def replay(self) -> None:
        assert self.recording is not None
        self.recording.replay()

    def close(self) -> None:
        """Free the memory."""
        self.recording, self.bytes, self.out, self.keep = None, 0, torch.empty(0), ()
        del self.buffers, self.request, self.present, self.operator


class Store:
    """All graphs of one device.

    Args:
        capture: The primitive that captures.
        clock: A clock in seconds, which measures the gain of a graph.
    """

    def __init__(self, capture: Capture, clock: Callable[[], float] = time.perf_counter) -> None:
        self.capture, self.clock = capture, clock
        self.graphs: WeakValueDictionary[Hashable, Graph] = WeakValueDictionary()
        self.captured, self.evicted = 0, 0
        self._uses = itertools.count(1)

    @property
    def bytes(self) -> int:
        return sum(graph.bytes for graph in list(self.graphs.values()))

    def capture_graph(self, key: Hashable, program: Program, operator: Operator, request: Request) -> Graph:
        """Capture a graph for these runs, and measure it against eager ones. It is called in the lane.

        Raises:
            RefusedError: Something in the run cannot be captured, or the graph alone is larger than the limit.
            Exception: An eager run raises it.
        """
        begun = self.clock()
        with torch.inference_mode(False), torch.no_grad():
            program.network.prepare()
            graph = Graph(program, operator, request)
            graph.load(*graph.present, request)
            wait = None if is_compiled(program.network.function()) else find_wait(graph.work, self.capture.device)
            if wait is not None:
                graph.close()
                raise RefusedError(f"capture not tried: {wait}")
            eager = [self._seconds(graph.work) for _ in range(WARMUPS)]
            try:
                with fresh_casts():
                    graph.recording = self.capture.record(graph.work)
            except Exception as error:
                self.capture.synchronize()
                graph.close()
                raise RefusedError(f"capture failed: {first_line(error)}") from error
            graph.bytes = graph.recording.bytes + graph.buffers.bytes
            if graph.bytes > self.capture.limit:
                sizes = f"it takes {graph.bytes >> 20} MiB, the limit is {self.capture.limit >> 20} MiB"
                graph.close()
                raise RefusedError(sizes)
            replays = [self._seconds(graph.replay) for _ in range(WARMUPS)]
        graph.gain = 1.0 - min(replays[1:]) / max(min(eager[1:]), 1e-9)
        graph.seconds = self.clock() - begun
        self.touch(graph)
        self.graphs[key] = graph
        self.captured += 1
        self._evict(graph)
        return graph

    def run(self, graph: Graph, program: Program, operator: Operator, request: Request) -> Tensor:
        """Replay a graph and return the images as a new tensor. It is called in the lane.

        Raises:
            RefusedError: The constants of the operator do not fit the graph.
        """
        try:
            with torch.inference_mode(False), torch.no_grad():
                graph.load(program, operator, request)
        except MismatchError as error:
            raise RefusedError(str(error)) from error
        graph.replay()
        graph.replays += 1
        self.touch(graph)
        return graph.out.clone()

    def serves(self, graph: Graph, program: Program, operator: Operator, request: Request) -> bool:
        """Whether a replay gives what an eager run does. It is tried for every other plan and the first other operator.

        They differ where a step is left to the reference, whose coefficients the graph holds as numbers.
        """
        exchanged = graph.operator is not operator and graph.present[1] is not operator
        if program in graph.programs and (graph.exchanged or not exchanged):
            return True
        with torch.inference_mode(False), torch.no_grad():
            graph.load(program, operator, request)
            graph.replay()
            buffers = Buffers(program, graph.shape, graph.dtype)
            eager, _ = restore(program, buffers, operator, request)
            same = equal_images(graph.out, eager)
        if same:
            graph.programs.add(program)
            graph.exchanged |= exchanged
        return same

    def touch(self, graph: Graph) -> None:
        graph.used = next(self._uses)

    def _evict(self, newest: Graph) -> None:
        """Close the least recently used graphs until the others fit."""
        while self.bytes > self.capture.limit:
            oldest = min((g for g in list(self.graphs.values()) if g.bytes and g is not newest), key=lambda g: g.used)
            self.capture.synchronize()  # A replay of it may still be running.
            oldest.close()
            self.evicted += 1

    def _seconds(self, work: Callable[[], object]) -> float:
        self.capture.synchronize()
        begun = self.clock()
        work()
        self.capture.synchronize()
        return self.clock() - begun


def equal_images(a: Tensor, b: Tensor) -> bool:
    """Whether two batches differ by the order of sums alone. An image that is not finite must be so in both."""
    a, b = a.flatten(1), b.flatten(1)
    finite = a.isfinite().all(1)
    if not torch.equal(finite, b.isfinite().all(1)):
        return False
    a, b = a[finite], b[finite]
    return bool(((a - b).norm(dim=1) <= SAME * b.norm(dim=1)).all())


def first_line(error: BaseException) -> str:
    """The first line of the error that came first, since ending a capture that failed raises another one."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


@contextmanager
def fresh_casts() -> Iterator[None]:
    """A context in which every evaluation under autocast casts the weights, as every replay of a graph has to.

    The casts that autocast keeps otherwise are shared by all threads: one that another thread made would be read by the
    graph long after it was freed.
    """
    keeps = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(keeps)


def is_compiled(function: object) -> bool:
    """Whether a network is the result of torch.compile, which a dispatch mode would keep from being compiled."""
    return hasattr(function, "_orig_mod") or hasattr(function, "_torchdynamo_orig_callable")


_stores: dict[torch.device, Store] = {}
_making = threading.Lock()


def store_of(device: torch.device) -> Store | None:
    """The store of a CUDA device; None for any other device."""
    if device.type != "cuda":
        return None
    device = indexed(device)
    with _making:
        if device not in _stores:
            _stores[device] = Store(CudaCapture(device))
        return _stores[device]
