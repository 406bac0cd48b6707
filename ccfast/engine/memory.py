"""An estimate of the memory that a run takes, which is made without running it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ..operators import Operator
from .buffers import Buffers
from .conditions import NOTHING, Batch
from .program import Program

__all__ = ["MemoryEstimate", "estimate_memory"]


class MemoryEstimate(NamedTuple):
    """The bytes of a run: the loop's buffers, the activations that the network saves for its VJP, and its weights.

    Activations are all that autograd keeps between forward and backward, and 0 without a VJP. Temporaries that live
    only inside an operator, and outputs and products that a plan keeps for later steps, are not counted.
    """

    buffers: int
    activations: int
    weights: int

    @property
    def total(self) -> int:
        return sum(self)


def estimate_memory(
    program: Program, operator: Operator, batch: int, condition: Mapping[str, Any] = NOTHING
) -> MemoryEstimate:
    """Trace the network once on tensors without storage, and count what autograd would keep.

    Raises:
        RuntimeError: The network reads values (by numpy, .item() and the like), so that it cannot be traced.
    """
    network = program.network
    saved: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr(): p.numel() * p.element_size() for p in network.parameters}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if isinstance(tensor, torch._subclasses.FakeTensor):
            saved[id(storage)] = storage.nbytes()
            keep.append(storage)
        return tensor

    keep: list[object] = []
    shape = (batch, *operator.shape)
    with torch.enable_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        buffers = Buffers(program, shape, torch.float32)
        source = buffers.input
        tracked = any(need.tracked for need in program.needs)
        if any(need.h for need in program.needs) and not tracked:
            buffers.cotangent_like(source)
        if tracked:
            leaf = source.requires_grad_()
            try:
                with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
                    output = network.on(Batch(batch), condition).eager(leaf, buffers.given[0])
            except Exception as error:
                raise RuntimeError(
                    f"memory_estimate: network {network.denoiser!r} cannot be traced without values: {error}"
                ) from error
            buffers.cotangent_like(output)
        # H+ y and the result are two more tensors like the state.
        own = buffers.bytes + 2 * buffers.state.numel() * buffers.state.element_size()
    return MemoryEstimate(own, sum(saved.values()), sum(weights.values()))
