"""One run of a program, from a measurement to the restored images: what a graph captures, and what runs without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..kernels.reference import seed_words
from ..operators import Operator
from ..operators.conjugate_gradients import damped
from .buffers import Buffers
from .program import Callback, Measurement, Program

__all__ = ["Request", "initial_mean", "noise_words", "restore"]

INITIAL_ITERATIONS = 30
"""Conjugate gradient steps for the initial state of an operator that does not say how many it takes."""


class Request(NamedTuple):
    """The tensors of a call, checked.

    Attributes:
        y: the measurement.
        words: (3, B) int64: the bits of the seed of each image, its place among those of one seed, and the draw.
        states: none, the state at the first time, or the states at the first two times.
        copies: how many copies of the measurements y holds, one after the other.
    """

    y: Tensor
    words: Tensor
    states: tuple[Tensor, ...] = ()
    copies: int = 1


def noise_words(seeds: Sequence[int], samples: Sequence[int], draws: Sequence[int], device: torch.device) -> Tensor:
    """``Request.words`` on the device, moved without waiting for it."""
    words = torch.stack([seed_words(seeds, torch.device("cpu")), torch.tensor(samples), torch.tensor(draws)])
    return words.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else words.to(device)


def restore(
    program: Program,
    buffers: Buffers,
    operator: Operator,
    request: Request,
    hard_consistency: bool = False,
    callback: Callback | None = None,
) -> tuple[Tensor, int]:
    """The last state, a tensor of its own, and the number of steps taken. Nothing in it waits for the device."""
    y, (seeds, places, draws), states, copies = request
    measurement = program.measure(operator, y, copies)

    def draw_noise(out: Tensor, step: int) -> Tensor:
        return measurement.ops.normal(out, seeds, places, draws, step)

    mean = initial_mean(program, operator, y, measurement) if buffers.slots or not states else measurement.ybar
    if buffers.slots:
        buffers.begin_slots(mean)
    if states:
        buffers.begin(states)
    else:
        program.start(buffers, measurement, mean, draw_noise)
    steps = program.run(buffers, measurement, draw_noise, callback, int(len(states) == 2))
    x = buffers.state.clone()
    if hard_consistency:
        x += measurement.ybar - operator.project(x)
    return x, steps


def initial_mean(program: Program, operator: Operator, y: Tensor, measurement: Measurement) -> Tensor:
    """H+ y; with noise every mode of it times s^2/(s^2 + noise_std^2), so that small singular values do no harm.

    That is (H^T H + noise_std^2)^-1 H^T y, which an operator without singular values finds by conjugate gradients.
    """
    noise = program.plan.noise_std
    if noise and operator.kind == "krylov":
        right = operator.adjoint(y).mul_(noise**-2)
        count = getattr(operator, "iterations", INITIAL_ITERATIONS)
        return damped(operator.forward, operator.adjoint, right, noise**-2, count)
    if measurement.shrink is None or measurement.coordinates is None:
        return measurement.ybar
    return operator.lift(measurement.coordinates * measurement.shrink)
