"""The network as the engine calls it: in its own dtype, on its device, under the run's autocast, and never changed.

A Denoiser says what the output of a network means, and ``Network`` runs it. Of somebody else's network nothing is kept
between runs but the wrapper of torch.compile. Weights, buffers, hooks and keyword arguments are read when they are
used, so that a run sees whatever their owner has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..denoiser import Denoiser
from . import network_faults as faults
from .conditions import NOTHING, Batch, spread
from .identity import Identity

__all__ = ["Network", "NetworkRun", "same_device"]

ARITHMETIC = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""The dtypes in which a network may compute. Weights of other dtypes (float8, integers) are only stored in them."""


class Network:
    """A Denoiser's network, prepared for a device, an autocast dtype and, where wanted, torch.compile.

    Args:
        denoiser: The network with its parametrisation.
        device: The device of the run. None takes the device of the weights, or the CPU for a network without any. The
            weights must be on this device, unless hooks bring them there (offloading).
        autocast: The dtype torch.bfloat16 or torch.float16, or None.
        compile_network: Whether the network runs through torch.compile.

    Attributes:
        dtype: The dtype of the network's input, which is that of its weights; None for a network without weights, whose
            input has the dtype of the state.

    Raises:
        ValueError: An argument breaks its rule, the weights have no values (on the "meta" device), or the network is in
            train mode and has layers that would make a restoration random or be changed by it.
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
        self.integer_times = False  # This becomes True when the network fails for want of integer times.
        self.copies_input = False  # This becomes True when it fails in place on an input that requires grad.
        self.in_train_mode = False
        self.dtype: torch.dtype | None = None
        self._identity, self._prepared = Identity(), 0
        self.uncompiled: Callable[..., object] = denoiser.network
        loaded = (p.device for p in self.parameters if not p.is_meta)
        self.device = next(loaded, torch.device("cpu")) if device is None else torch.device(device)
        self.prepare()

    @property
    def module(self) -> nn.Module | None:
        """The network without the wrapper of DistributedDataParallel, or None for a callable that is no module."""
        network = self.denoiser.network
        if isinstance(network, nn.parallel.DistributedDataParallel):
            network = network.module
        return network if isinstance(network, nn.Module) else None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters in the network's order. A callable that is no torch.nn.Module has none."""
        module = self.module
        return [] if module is None else list(module.parameters())

    def prepare(self) -> None:
        """Check the network and read its dtype as they are now. This is called once before every loop."""
        network = self.denoiser.network
        own = self._identity.of(network) if isinstance(network, nn.Module) else 0
        if own and own == self._prepared and not self.in_train_mode and not faults.reaches_out(network):
            return
        self._prepared = 0
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
        self._prepared = own

    def function(self) -> Callable[..., object]:
        """The function that is called: the network, or the wrapper that torch.compile makes of the present network."""
        network = self.uncompiled
        if not self.compiles:
            return network
        made = self._compiled
        if made is None or made[0] is not network:
            self._compiled = made = (network, torch.compile(network))
        return made[1]

    def on(self, batch: Batch, condition: Mapping[str, Any] = NOTHING) -> NetworkRun:
        """The network for one run on a batch, with the keyword arguments ``condition`` beside the denoiser's own."""
        return NetworkRun(self, batch, condition)

    def held(self) -> tuple[object, ...]:
        """The objects that a captured run depends on: the function that is called, and its keyword arguments."""
        return self.function(), *self.denoiser.network_kwargs.values()

    def identity(self) -> tuple[object, ...]:
        """A key that is equal for runs that do the same work at the same addresses, as long as ``held()`` is alive.

        It is that of the network as ``prepare`` found it.
        """
        named = tuple((name, id(value)) for name, value in sorted(self.denoiser.network_kwargs.items()))
        return id(self.function()), self.dtype, self.autocast, self._prepared, named


class NetworkRun:
    """The network during one run, with its keyword arguments spread over the batch.

    A call with a scaled input and network times (B,) returns F as ``Denoiser.trim`` leaves it. With ``whole`` it has
    the channels of a learned variance, too. The network may overwrite both inputs, and its output is valid until the
    next call.
    """

    def __init__(self, network: Network, batch: Batch, condition: Mapping[str, Any] = NOTHING) -> None:
        self.network, self.denoiser, self.autocast = network, network.denoiser, network.autocast
        self._batch, self._function = batch, network.function()
        self._given = {**network.denoiser.network_kwargs, **condition}
        self._kwargs = spread(self._given, batch) if self._given else {}
        self._watches = network.in_train_mode  # The first evaluation shows whether it draws random numbers.

    def __call__(self, x: Tensor, t: Tensor, whole: bool = False) -> Tensor:
        network, gradients = self.network, torch.is_grad_enabled()
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
        finally:
            if torch.is_grad_enabled() != gradients:  # The network has switched it, and not back.
                torch.set_grad_enabled(gradients)
        if numbers is not None:
            faults.check_random_numbers(self.denoiser, numbers)
            self._watches = False
        if type(output) is Tensor and output.shape == x.shape and output.is_floating_point() and not whole:
            return output
        return self.denoiser.trim(output, x, whole)

    def eager(self, x: Tensor, t: Tensor) -> Tensor:
        """Evaluate the network without torch.compile, for tracing and dual numbers."""
        self._function, self._watches = self.network.uncompiled, False
        try:
            return self(x, t)
        finally:
            self._function = self.network.function()

    def _adapt(self, error: Exception, x: Tensor, t: Tensor) -> bool:
        """Whether a failed evaluation can be repeated, with a copy of x or integer times. A known cure is raised."""
        network = self.network
        if not network.copies_input and faults.wrote_a_leaf(error, x):
            network.copies_input = True
            return True
        if not network.integer_times and faults.wants_integers(error) and bool((t == t.round()).all()):
            network.integer_times = True
            return True
        network.integer_times &= not faults.wants_integers(error)  # The tensor that it names was not the times.
        better = faults.explained(error, self.denoiser, self._given, self._batch, t)
        if better is not None:
            raise better from error
        error.add_note(f"raised by network {self.denoiser!r} on x {tuple(x.shape)} {x.dtype}, t {t.dtype}")
        return False


def same_device(a: torch.device, b: torch.device) -> bool:
    """Whether two devices are the same, where ``cuda`` without an index means the current CUDA device."""
    if a.type != b.type:
        return False
    if a.type != "cuda":
        return True
    here = torch.cuda.current_device()
    return (here if a.index is None else a.index) == (here if b.index is None else b.index)
