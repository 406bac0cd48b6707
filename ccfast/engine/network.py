"""The network as the engine calls it: frozen, in its own dtype, with weight casts made once.

A Denoiser says what a network means; ``Network`` holds what it takes to run it many times.
"""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from ..denoiser import Denoiser

__all__ = ["Network"]

AUTOCAST_WEIGHTS = (nn.modules.conv._ConvNd, nn.Linear, nn.MultiheadAttention)
"""Modules whose weights autocast would cast in every call."""


class Network:
    """A Denoiser's network, prepared for a device, an autocast dtype and, where wanted, torch.compile.

    Args:
        denoiser: the network with its meaning.
        device: where its parameters must be; None takes theirs, or the CPU for a network without parameters.
        autocast: None, torch.bfloat16 or torch.float16; the weights of convolutions and linear layers are then cast
            once, and again only after they were changed in place.
        compile_network: whether to run it through torch.compile.

    Attributes:
        parameters: of the network, in its own order; empty where it is no torch.nn.Module.
        dtype: of the network's parameters; None for a network without any (it is then called in the state's dtype).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        device: torch.device | str | None = None,
        autocast: torch.dtype | None = None,
        compile_network: bool = False,
    ) -> None:
        if autocast not in (None, torch.bfloat16, torch.float16):
            raise ValueError(f"autocast: must be None, torch.bfloat16 or torch.float16, got {autocast!r}")
        self.denoiser = denoiser
        module = denoiser.network if isinstance(denoiser.network, nn.Module) else None
        parameters = list(module.parameters()) if module is not None else []
        first = next((p for p in parameters if p.is_floating_point()), None)
        self.dtype = None if first is None else first.dtype
        own = torch.device("cpu") if first is None else first.device
        self.device = own if device is None else torch.device(device)
        if first is not None and not same_device(own, self.device):
            raise ValueError(f"device: the network's parameters are on {own}, got device={str(self.device)!r}")
        self.autocast = autocast
        self._source, self.parameters = module, parameters
        self._compile = compile_network
        self._lock = threading.Lock()
        self._version = -1
        self._callable = denoiser.network
        self.prepare()

    def prepare(self) -> None:
        """Cast and compile, unless that was done for the present weights. Called once before every loop."""
        version = sum(p._version for p in self.parameters) if self.autocast else 0
        with self._lock:
            if version == self._version:
                return
            target = self.denoiser.network
            if self.autocast and self._source is not None:
                target = with_cast_weights(self._source, self.autocast)
            self._callable = torch.compile(target) if self._compile else target
            self._version = version

    def __call__(self, x: Tensor, t: Tensor, whole: bool = False) -> Tensor:
        """F for a scaled input and network times (B,); ``whole``: with the channels of a learned variance."""
        context = torch.autocast(x.device.type, self.autocast) if self.autocast else nullcontext()
        with context:
            output = self._callable(x, t, **self.denoiser.network_kwargs)
        return self.denoiser.trim(output, x, whole)

    def eager(self, x: Tensor, t: Tensor) -> Tensor:
        """The same without torch.compile, for tracing."""
        with torch.autocast(x.device.type, self.autocast) if self.autocast else nullcontext():
            return self.denoiser.predict(x, t)

    def held(self) -> tuple[object, ...]:
        """The objects that a captured run depends on: what is called, and its keyword arguments."""
        return self._callable, *self.denoiser.network_kwargs.values()

    def identity(self) -> tuple[object, ...]:
        """Equal for two runs that read the same weights at the same addresses; valid while ``held()`` is held."""
        module = self._source
        tensors = () if module is None else (*module.parameters(), *module.buffers())
        addresses = hash(tuple(t.data_ptr() for t in tensors))
        named = tuple((name, id(value)) for name, value in sorted(self.denoiser.network_kwargs.items()))
        training = module is not None and module.training
        return id(self._callable), self._version, self.autocast, training, addresses, named

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Parameters without requires_grad while any loop runs; restored when the last one ends."""
        with _freeze_lock:
            for p in self.parameters:
                if p.requires_grad or id(p) in _frozen:
                    _frozen[id(p)] += 1
                    p.requires_grad_(False)
        try:
            yield
        finally:
            with _freeze_lock:
                for p in self.parameters:
                    if id(p) in _frozen:
                        _frozen[id(p)] -= 1
                        if not _frozen[id(p)]:
                            del _frozen[id(p)]
                            p.requires_grad_(True)


_freeze_lock = threading.Lock()
_frozen: Counter[int] = Counter()
"""How many running loops hold each parameter that required grad before them."""


def with_cast_weights(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of the module in which convolution and linear weights have ``dtype``; everything else is shared."""
    cast = {
        id(p)
        for part in module.modules()
        if isinstance(part, AUTOCAST_WEIGHTS)
        for p in part.parameters(recurse=False)
        if p.dtype == torch.float32
    }
    shared = {id(b): b for b in module.buffers()}
    for p in module.parameters():
        value = p.detach().to(dtype) if id(p) in cast else p.detach()
        shared[id(p)] = nn.Parameter(value, requires_grad=False)
    return copy.deepcopy(module, shared)


def same_device(a: torch.device, b: torch.device) -> bool:
    """Whether two devices are one; ``cuda`` is the current CUDA device."""
    if a.type != b.type:
        return False
    if a.type != "cuda":
        return True
    here = torch.cuda.current_device()
    return (here if a.index is None else a.index) == (here if b.index is None else b.index)
