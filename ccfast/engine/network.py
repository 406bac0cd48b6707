"""The network as the engine calls it: in its own dtype, on its device, under the run's autocast, and never changed.

A Denoiser says what a network means; ``Network`` holds what it takes to run somebody else's code many times. Nothing of
it is kept between runs but the wrapper of torch.compile: weights, buffers, hooks and keyword arguments are read when
they are used, so that whatever the owner changes is seen.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..denoiser import Denoiser
from . import network_faults as faults
from .conditions import Batch, spread
from .identity import identity_of

__all__ = ["Network", "NetworkRun", "same_device"]

ARITHMETIC = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""Dtypes that a network may compute in; weights in others (float8, integers) are only stored so."""


class Network:
    """A Denoiser's network, prepared for a device, an autocast dtype and, where wanted, torch.compile.

    Args:
        denoiser: the network with its meaning.
        device: where it runs; None takes that of its weights, or the CPU for a network without any. It must be theirs,
            unless hooks bring them there (offloading).
        autocast: None, torch.bfloat16 or torch.float16.
        compile_network: whether to run it through torch.compile.

    Attributes:
        dtype: of the network's input: that of its weights; None for a network without any, which is then called in the
            dtype of the state.

    Raises:
        ValueError: an argument that breaks its rule, weights without values (on the "meta" device), or a network in
            train mode whose layers would make a restoration random or be changed by it.
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
        self.denoiser, self.autocast, self.compiles = denoiser, autocast, compile_network
        self._compiled: tuple[object, Callable[..., object]] | None = None
        self.integer_times = False  # until the network asks for them
        self.copies_input = False  # until it works in place on an input that requires grad
        self.in_train_mode = False
        self.dtype: torch.dtype | None = None
        self.uncompiled: Callable[..., object] = denoiser.network
        loaded = (p.device for p in self.parameters if not p.is_meta)
        self.device = next(loaded, torch.device("cpu")) if device is None else torch.device(device)
        self.prepare()

    @property
    def module(self) -> nn.Module | None:
        """The network, without the wrapper of DistributedDataParallel, which serves training alone; None for a callable
        that is no module."""
        network = self.denoiser.network
        if isinstance(network, nn.parallel.DistributedDataParallel):
            network = network.module
        return network if isinstance(network, nn.Module) else None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters in the network's order; none where it is no torch.nn.Module."""
        module = self.module
        return [] if module is None else list(module.parameters())

    def prepare(self) -> None:
        """Look at the network as it is now. Called once before every loop."""
        self.in_train_mode = faults.check_mode(self.denoiser)
        self.dtype, module, home, unloaded = None, self.module, None, False
        self.uncompiled = self.denoiser.network if module is None else module
        if module is None:
            return
        for weight in module.parameters():
            if weight.is_meta:
                unloaded = True
            elif home is None:
                home = weight.device
            if weight.dtype in ARITHMETIC:
                self.dtype = weight.dtype
                if home is not None:
                    break
        misplaced = home is not None and not (home == self.device or same_device(home, self.device))
        if (misplaced or (unloaded and home is None)) and not faults.has_hooks(module):
            if home is None:
                raise ValueError(
                    f"network {self.denoiser!r}: its weights must have values, got the 'meta' device; load them with "
                    "load_state_dict(..., assign=True)"
                )
            raise ValueError(f"device: the network's parameters are on {home}, got device={str(self.device)!r}")

    def function(self) -> Callable[..., object]:
        """What is called: the network, or the wrapper that torch.compile has made of it as it is now."""
        network = self.uncompiled
        if not self.compiles:
            return network
        made = self._compiled
        if made is None or made[0] is not network:
            self._compiled = made = (network, torch.compile(network))
        return made[1]

    def on(self, batch: Batch) -> NetworkRun:
        """The network for one run on a batch."""
        return NetworkRun(self, batch)

    def held(self) -> tuple[object, ...]:
        """The objects that a captured run depends on: what is called, and its keyword arguments."""
        return self.function(), *self.denoiser.network_kwargs.values()

    def identity(self) -> tuple[object, ...]:
        """Equal for two runs that do the same work at the same addresses; valid while ``held()`` is held."""
        named = tuple((name, id(value)) for name, value in sorted(self.denoiser.network_kwargs.items()))
        return id(self.function()), self.dtype, self.autocast, identity_of(self.module), named


class NetworkRun:
    """The network during one run, with its keyword arguments spread over the batch.

    Calling it gives F for a scaled input and network times (B,), as ``Denoiser.trim`` leaves it (``whole``: with the
    channels of a learned variance). The network may overwrite both inputs, and its output is valid until the next call.
    """

    def __init__(self, network: Network, batch: Batch) -> None:
        self.network, self.denoiser, self.autocast = network, network.denoiser, network.autocast
        self._batch, self._function = batch, network.function()
        kwargs = network.denoiser.network_kwargs
        self._kwargs = spread(kwargs, batch) if kwargs else {}
        self._watches = network.in_train_mode  # in its first evaluation, which shows enough

    def __call__(self, x: Tensor, t: Tensor, whole: bool = False) -> Tensor:
        network = self.network
        numbers = faults.random_numbers() if self._watches else None
        try:
            given = x.clone() if network.copies_input and x.requires_grad else x
            times = t.long() if network.integer_times else t
            if self.autocast is None:
                output = self._function(given, times, **self._kwargs)
            else:
                with torch.autocast(x.device.type, self.autocast):
                    output = self._function(given, times, **self._kwargs)
        except Exception as error:
            if not self._adapt(error, x, t):
                raise
            return self(x, t, whole)
        if numbers is not None:
            faults.check_random_numbers(self.denoiser, numbers)
            self._watches = False
        return (
            output
            if type(output) is Tensor and output.shape == x.shape and not whole
            else self.denoiser.trim(output, x, whole)
        )

    def eager(self, x: Tensor, t: Tensor) -> Tensor:
        """The same without torch.compile, for tracing and dual numbers."""
        self._function, self._watches = self.network.uncompiled, False
        try:
            return self(x, t)
        finally:
            self._function = self.network.function()

    def _adapt(self, error: Exception, x: Tensor, t: Tensor) -> bool:
        """Whether the evaluation can be done again, with a copy of x or integer times; or an error with a cure."""
        network = self.network
        if not network.copies_input and faults.wrote_a_leaf(error, x):
            network.copies_input = True
            return True
        if not network.integer_times and faults.wants_integers(error) and bool((t == t.round()).all()):
            network.integer_times = True
            return True
        better = faults.explained(error, self.denoiser, self._batch, t)
        if better is not None:
            raise better from error
        error.add_note(f"raised by network {self.denoiser!r} on x {tuple(x.shape)} {x.dtype}, t {t.dtype}")
        return False


def same_device(a: torch.device, b: torch.device) -> bool:
    """Whether two devices are one; ``cuda`` is the current CUDA device."""
    if a.type != b.type:
        return False
    if a.type != "cuda":
        return True
    here = torch.cuda.current_device()
    return (here if a.index is None else a.index) == (here if b.index is None else b.index)
