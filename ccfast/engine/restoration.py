"""One run of a program, from a measurement to the restored images. It is run eagerly, or captured by a CUDA graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..kernels import reference
from ..kernels.reference import seed_words
from ..latents import Decoded
from ..operators import Operator
from ..operators.conjugate_gradients import damped
from .bound import PREPARE, Bound
from .buffers import Buffers
from .conditions import NOTHING, Batch
from .program import Callback, Program
from .registers import Registers

__all__ = ["Draws", "Request", "initial_mean", "restore", "take_back"]

INITIAL_ITERATIONS = 30
"""The steps of conjugate gradients for the initial state, where the operator does not say how many it takes."""


class Draws(NamedTuple):
    """The numbers that the noise of a batch is made from, one of each for every image.

    Attributes:
        seeds: The 64-bit seeds.
        places: The places of images among those that share a seed.
        draws: The numbers of draws among those for the same measurement.
    """

    seeds: list[int]
    places: list[int]
    draws: list[int]

    def repeated(self, first: int, count: int) -> Draws:
        """The draws first, ..., first + count - 1 of every image: a whole batch of the first, then one of the next."""
        draws = [first + k for k in range(count) for _ in self.seeds]
        return Draws(self.seeds * count, self.places * count, draws)

    def take(self, places: list[int]) -> Draws:
        """The numbers of the images at these places of the batch."""
        return Draws(*([column[place] for place in places] for column in self))

    def words(self, device: torch.device) -> Tensor:
        """The bits of the seeds, the places and the draws, (3, B) int64, moved to the device without waiting for it."""
        host = torch.stack([seed_words(self.seeds, torch.device("cpu")), *map(torch.tensor, self[1:])])
        return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)


class Request(NamedTuple):
    """A call of a sampler, whose arguments have been checked.

    Attributes:
        y: The measurements.
        words: The words of their ``Draws``.
        states: Nothing, or the given state at the first time, or the given states at the first two times.
        batch: Which of the caller's measurements y holds.
        hard_consistency: Whether the run ends with x + H+ (y - H x).
        condition: Keyword arguments of the network, beside the denoiser's own.
    """

    y: Tensor
    words: Tensor
    states: tuple[Tensor, ...] = ()
    batch: Batch = Batch(0)
    hard_consistency: bool = False
    condition: Mapping[str, Any] = NOTHING


def restore(
    program: Program, buffers: Buffers, operator: Operator, request: Request, callback: Callback | None = None
) -> tuple[Tensor, int]:
    """The last state, a new tensor, and the number of steps that were taken. Nothing here waits for the device."""
    y, states = request.y, request.states
    seeds, places, draws = request.words
    bound = program.bind(operator, y, request.batch.copies)
    if bound.per_image:
        bound.check_batch(len(y))
    buffers.load(bound)
    buffers.given.copy_(buffers.times)
    ops, plain = program.backend.bind(operator), reference.bind(operator)
    by = ops if bound.starts(operator, buffers.state.numel()) else plain
    normal = by.normal

    def draw(out: Tensor, step: int) -> Tensor:
        return normal(out, seeds, places, draws, step)

    registers = Registers(operator, y, ops, plain)
    registers["ybar", 0] = ybar = operator.pinv(y)
    if bound.wants_coordinates:
        registers.coordinates = operator.encode(y)
    in_row = isinstance(bound.shrink, float)
    wanted = program.plan.noise_std and (buffers.kept or not (states or in_row))
    mean = initial_mean(program, bound, registers) if wanted else ybar
    if buffers.kept:
        buffers.begin_kept(mean)
        registers.update({(name, 0): kept for name, kept in buffers.kept.items()})
    if states:
        buffers.begin(states)
        registers.update({("x", age): buffers.states[age] for age in range(1, len(states))})
        prepare(program, bound, buffers, registers, len(states) - 1)
    else:
        draw(buffers.spare, 0)
        numbers = buffers.table and buffers.table.start
        by.update(
            bound.start,
            [buffers.spare, ybar if in_row else mean],
            buffers.state,
            buffers.input,
            program.c_in[0],
            numbers,
        )
    network = program.network.on(request.batch, request.condition)
    steps = program.run(network, buffers, bound, registers, draw, callback, max(0, len(states) - 1))
    x = buffers.state.clone()
    if request.hard_consistency:
        x += ybar - operator.project(x)
    return x, steps


def prepare(program: Program, bound: Bound, buffers: Buffers, registers: Registers, first: int) -> None:
    """Make the network's input of the first step from a given state."""
    by = registers.ops if bound.starts(registers.operator, buffers.state.numel()) else registers.plain
    numbers = buffers.table and buffers.table.prepare[first]
    by.update(PREPARE, [buffers.state], buffers.spare, buffers.input, program.c_in[first], numbers)


def take_back(
    program: Program, operator: Operator, x: Tensor, condition: Mapping[str, Any] = NOTHING
) -> tuple[Tensor, Tensor]:
    """Run a program without noise from the state x, and return the states at its last two times, the last one first."""
    bound, buffers = program.bind(operator, x), Buffers(program, tuple(x.shape), x.dtype)
    buffers.load(bound)
    buffers.given.copy_(buffers.times)
    buffers.state.copy_(x)
    registers = Registers(operator, x, program.backend.bind(operator), reference.bind(operator))
    prepare(program, bound, buffers, registers, 0)
    network = program.network.on(Batch(len(x)), condition)
    program.run(network, buffers, bound, registers, lambda out, step: out)
    return buffers.state, buffers.states[1]


def initial_mean(program: Program, bound: Bound, registers: Registers) -> Tensor:
    """The mean of the initial state, mu apart: H+ y, or with noise in the measurement (H^T H + noise_std^2)^-1 H^T y.

    The latter multiplies every mode of H+ y by s^2/(s^2 + noise_std^2), so that small singular values do not amplify
    the noise. An operator without singular values finds it by conjugate gradients.
    """
    operator, noise = registers.operator, program.plan.noise_std
    if isinstance(operator, Decoded):
        return operator.start(registers.measurement, noise)
    if noise and operator.kind == "krylov":
        right = operator.adjoint(registers.measurement).mul_(noise**-2)
        count = getattr(operator, "iterations", INITIAL_ITERATIONS)
        return damped(operator.forward, operator.adjoint, right, noise**-2, count)
    if isinstance(bound.shrink, float):
        return registers["ybar", 0] * bound.shrink
    if bound.shrink is None or registers.coordinates is None:
        return registers["ybar", 0]
    return operator.lift(registers.coordinates * bound.shrink)
