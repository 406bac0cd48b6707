"""The engine: the one sampling loop, on preallocated buffers, with nothing in it that waits for the device."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from .kernels.reference import Ops
from .network import Network
from .plan import Plan

__all__ = ["Buffers", "Program"]

Callback = Callable[[int, Tensor], object]


class Buffers:
    """What the loop writes to, for one shape of batch. One run at a time.

    state and spare take turns as the state; ``input`` is the network's (the state itself where dtype and scale allow);
    ``cotangent`` is made at the first step that needs it, in the dtype of the network's output.
    """

    def __init__(self, program: Program, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        device = program.network.device
        input_dtype = program.network.dtype or dtype
        time_dtype = torch.float64 if input_dtype == torch.float64 else torch.float32
        self.state = torch.empty(shape, dtype=dtype, device=device)
        self.spare = torch.empty_like(self.state)
        scaled = any(c != 1.0 for c in program.c_in)
        self.input = torch.empty(shape, dtype=input_dtype, device=device) if scaled or input_dtype != dtype else None
        self.noise = torch.empty_like(self.state) if program.plan.update.keys() & {"z"} else None
        self.cotangent: Tensor | None = None
        table = torch.tensor(program.plan.network_times, dtype=time_dtype, device=device)
        self.times = list(table[:, None].expand(-1, shape[0]).contiguous())

    def cotangent_like(self, output: Tensor) -> Tensor:
        if self.cotangent is None or self.cotangent.dtype != output.dtype:
            self.cotangent = torch.empty(output.shape, dtype=output.dtype, device=output.device)
        return self.cotangent

    @property
    def bytes(self) -> int:
        tensors = (self.state, self.spare, self.input, self.noise, self.cotangent, *self.times)
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)


class Program:
    """A plan bound to a network and a backend: the loop's coefficients as plain numbers."""

    def __init__(self, plan: Plan, network: Network, backend: ModuleType) -> None:
        self.plan, self.network, self.backend = plan, network, backend
        self.c_in = [*map(float, plan.c_in), 1.0]
        self.p, self.q = plan.p.tolist(), plan.q.tolist()
        # autograd differentiates with respect to the scaled input: h = c_in times that
        self.rows = [
            {name: a * (self.c_in[k] if name in ("h", "Ph") else 1.0) for name, a in row.items()}
            for k, row in enumerate(plan.rows())
        ]
        self.needs_vjp = [bool({"h", "Ph"} & row.keys()) for row in self.rows]
        self.needs_residual = [bool({"r", "h", "Ph"} & row.keys()) for row in self.rows]

    def run(
        self,
        buffers: Buffers,
        ops: Ops,
        ybar: Tensor,
        draw_noise: Callable[[Tensor, int], object],
        callback: Callback | None = None,
    ) -> int:
        """Take ``buffers.state`` from the first time to the last; returns the number of steps taken.

        Args:
            ops: the backend's operations, bound to the operator of the measurement behind ``ybar`` = H+ y.
            draw_noise: fills a tensor with the noise of a step (k + 1 at step k).
            callback: called as callback(k, x0hat); stops the run after step k when it returns True.
        """
        b = buffers
        if b.input is not None:
            ops.update({"x": 1.0}, {"x": b.state}, b.spare, b.input, self.c_in[0])
        for k, row in enumerate(self.rows):
            with torch.set_grad_enabled(self.needs_vjp[k]):
                leaf = (b.state if b.input is None else b.input).detach().requires_grad_(self.needs_vjp[k])
                output = self.network(leaf, b.times[k])
            tensors = {"x": b.state, "F": output.detach(), "ybar": ybar}
            if self.needs_residual[k]:
                tensors["r"] = b.cotangent_like(output)
                ops.residual(b.state, tensors["F"], ybar, self.p[k], self.q[k], tensors["r"])
            if self.needs_vjp[k]:
                tensors["h"] = vector_jacobian_product(self.network, output, leaf, tensors["r"])
            if b.noise is not None and "z" in row:
                tensors["z"] = b.noise
                draw_noise(b.noise, k + 1)
            stop = callback is not None and callback(k, ops.denoised(b.state, tensors["F"], self.p[k], self.q[k]))
            ops.update(row, tensors, b.spare, b.input, self.c_in[k + 1])
            b.state, b.spare = b.spare, b.state
            if stop is True:
                return k + 1
        return self.plan.steps


def vector_jacobian_product(network: Network, output: Tensor, leaf: Tensor, cotangent: Tensor) -> Tensor:
    """(dF/dx)^T r, or ValueError where the graph from x to F is cut (the product would silently be zero)."""
    gradient = None
    if output.requires_grad:
        (gradient,) = torch.autograd.grad(output, leaf, cotangent, allow_unused=True)
    if gradient is None:
        raise ValueError(
            f"network {network.denoiser!r}: its output must be differentiable with respect to x, but it is detached "
            "(no_grad, detach or numpy inside?); use a solver that takes no derivative, such as "
            "Conjugate(jacobian='none') or DDNM()"
        )
    return gradient
