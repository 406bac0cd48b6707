"""Recipes: how a part of a measurement is restored, for each kind of degradation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .. import operators
from ..denoiser import Denoiser
from ..operators import Operator
from ..operators.proximal import proximal
from ..sampler import Sampler
from ..solvers import DPIR, Solver
from .degradations import Degradation
from .noise_field import noise_field
from .tiles import Box

__all__ = ["Recipe", "SamplerOptions", "recipe_of"]

Callback = Callable[[int, Tensor], None]
CUTOFF = 1e-3
"""Singular values of a blur below this are left to the prior alone."""
ITERATIONS = 15
"""The steps of conjugate gradients in a data step."""
QUIET = 0.1 / 127.5
"""The noise-to-signal ratio of the last state."""


@dataclass(frozen=True)
class SamplerOptions:
    """The options of the samplers.

    Attributes:
        steps: the number of network evaluations, None for what is usual.
        goal: "faithful" or "sharp", for which presets are taken.
        solver: None: that of the presets.
        hard_consistency: whether results agree with the measurement exactly.
    """

    steps: int | None = None
    goal: str = "faithful"
    solver: Solver | None = None
    hard_consistency: bool = False


class Recipe(ABC):
    """Restores parts of one measurement after the other.

    Attributes:
        margin: how far, in pixels of the result, a tile must see beyond what it restores.
        steps: the network evaluations of one result of one tile.
        usual: the same where the options say nothing.
        obeys_steps: whether it takes the number that the options say.
    """

    margin = 64
    usual = 5
    obeys_steps = True

    def __init__(self, denoiser: Denoiser, options: SamplerOptions, callback: Callback | None) -> None:
        self.denoiser, self.options, self.callback = denoiser, options, callback
        self.steps = (options.steps if self.obeys_steps else None) or self.usual
        parameters = getattr(denoiser.network, "parameters", lambda: iter(()))()
        self.device = next((parameter.device for parameter in parameters), torch.device("cpu"))

    @abstractmethod
    def begin(self, degradation: Degradation, hw: tuple[int, int], noise_std: float, seed: int) -> None:
        """Prepare for the parts of a measurement with these sides."""

    @abstractmethod
    def restore(self, y: Tensor, box: Box, seed: int) -> Tensor:
        """The image (1, 3, factor h, factor w) that belongs to a part of the measurement (1, C, h, w), on the CPU."""


class BySampler(Recipe):
    """A ``Sampler`` for each size of part. A whole mask chooses the solver and the times of all its parts."""

    def __init__(self, denoiser: Denoiser, options: SamplerOptions, callback: Callback | None) -> None:
        super().__init__(denoiser, options, callback)
        self._samplers: dict[Any, Sampler] = {}
        self._mask: Tensor | None = None
        self._chosen: Sampler | None = None

    def begin(self, degradation: Degradation, hw: tuple[int, int], noise_std: float, seed: int) -> None:
        self._degradation, self._seed, self._noise_std = degradation, seed, noise_std
        shape = (3, degradation.factor * hw[0], degradation.factor * hw[1])
        self._mask = None if degradation.mask is None else degradation.mask(shape, seed)
        self._whole = shape
        if degradation.mask is not None:
            self._samplers.clear()
            self._chosen = None

    def restore(self, y: Tensor, box: Box, seed: int) -> Tensor:
        factor = self._degradation.factor
        shape = (3, factor * y.shape[-2], factor * y.shape[-1])
        if self._mask is None:
            operator = self._operator_of(shape)
        else:
            mask = self._mask[:, box.top : box.bottom, box.left : box.right]
            operator = operators.Inpainting(mask if mask.any() else _one_pixel(mask))
        sampler = self._sampler_for(shape, operator)
        y = y.to(sampler.device)
        first = self._first_state(sampler, operator, y, box.times(factor), seed)
        return sampler(y, seed=seed, x_init=first, operator=operator, callback=self.callback).cpu()

    def _first_state(self, sampler: Sampler, operator: Operator, y: Tensor, box: Box, seed: int) -> Tensor:
        """The first state of a sampler, whose noise belongs to the places of the picture."""
        schedule, start = self.denoiser.schedule, sampler.plan.times[0]
        mean = proximal(operator, y, y.new_zeros((1, *operator.shape)), self._noise_std**2)
        noise = sampler.start_noise * float(schedule.std(start)) * noise_field(box, seed).to(y)
        return float(schedule.mean(start)) * mean + noise

    def _operator_of(self, shape: tuple[int, int, int]) -> Operator:
        sampler = self._samplers.get((shape, self._noise_std))
        return sampler.operator if sampler is not None else self._degradation.build(shape, self._seed)

    def _sampler_for(self, shape: tuple[int, int, int], operator: Operator) -> Sampler:
        key = shape, self._noise_std
        if key not in self._samplers:
            self._samplers[key] = self._made(operator)
        return self._samplers[key]

    def _made(self, operator: Operator) -> Sampler:
        options, steps = self.options, self.steps
        common: dict[str, Any] = {"noise_std": self._noise_std, "hard_consistency": options.hard_consistency}
        common["goal"] = options.goal
        like = self._like(operator)
        if like is None:
            return Sampler(self.denoiser, operator, options.solver, steps, **common)
        if self._chosen is None or self._mask is None:
            self._chosen = Sampler(self.denoiser, like, options.solver, steps, **common)
        common = {**common, "start_noise": self._chosen.start_noise}
        return Sampler(self.denoiser, operator, self._chosen.solver, times=self._chosen.plan.times, **common)

    def _like(self, operator: Operator) -> Operator | None:
        """The operator whose presets are taken, where that is another one."""
        if self._mask is not None and operator.shape != self._whole:
            equal = bool((self._mask == self._mask[:1]).all())
            return operators.Inpainting(self._mask[:1] if equal else self._mask, self._whole)
        like = self._degradation.like
        return None if like is None else like((operator.shape[0], operator.shape[1], operator.shape[2]), self._seed)


def _one_pixel(mask: Tensor) -> Tensor:
    """A mask that observes nothing cannot be an operator, and is given the mid-grey of its first pixel."""
    mask = mask.clone()
    mask[:, 0, 0] = True
    return mask


class Deblurring(Recipe):
    """DPIR on a canvas that reaches beyond the border of the measurement by the kernel, whose content is unknown.

    The first state is the data step from the measurement, continued by its edge.
    """

    usual = 8
    first = 0.38
    """The noise-to-signal ratio of the first evaluation, 49/255 of the range, as in the paper."""

    def begin(self, degradation: Degradation, hw: tuple[int, int], noise_std: float, seed: int) -> None:
        assert degradation.kernel is not None
        self._taps = taps = degradation.kernel
        self.margin = 64 + (max(taps.shape) + 7) // 8 * 8
        self._noise_std = noise_std
        self._samplers: dict[tuple[int, ...], Sampler] = {}

    def restore(self, y: Tensor, box: Box, seed: int) -> Tensor:
        rows, columns = self._taps.shape
        height, width = y.shape[-2:]
        top, left = rows - 1 - rows // 2, columns - 1 - columns // 2
        shape = (3, height + rows - 1, width + columns - 1)
        sampler = self._samplers.get(shape)
        if sampler is None:
            sampler = self._samplers[shape] = self._made(shape)
        solver, y = sampler.solver, y.to(sampler.device)
        assert isinstance(solver, DPIR)
        around = (left, columns - 1 - left, top, rows - 1 - top)
        schedule, start = self.denoiser.schedule, sampler.plan.times[0]
        penalty = solver.lam * (self._noise_std / float(schedule.rho(start))) ** 2
        first = proximal(sampler.operator, y, functional.pad(y, around, mode="replicate"), penalty)
        x = sampler(y, seed=seed, x_init=float(schedule.mean(start)) * first, callback=self.callback)
        return x[..., top : top + height, left : left + width].cpu()

    def _made(self, shape: tuple[int, int, int]) -> Sampler:
        operator = operators.Blur(
            shape, self._taps, "valid", CUTOFF, convention="convolution", normalize=False, iterations=ITERATIONS
        )
        last = min(max(self._noise_std, 2 * QUIET), self.first / 2)
        levels = np.append(np.geomspace(self.first, last, self.steps), QUIET)
        times = [float(self.denoiser.schedule.time(rho)) for rho in levels]
        return Sampler(self.denoiser, operator, DPIR(), times=times, noise_std=self._noise_std)


def denoised(denoiser: Denoiser, y: Tensor, noise_std: float) -> Tensor:
    """The mean of all images that y, with white noise of this level, may be of: one evaluation of the network."""
    t = float(denoiser.schedule.time(noise_std))
    with torch.inference_mode():
        return denoiser(float(denoiser.schedule.mean(t)) * y, t)


class Denoising(Recipe):
    """One evaluation of the network at the level of the noise, which is the mean of all that the picture may be."""

    usual, obeys_steps = 1, False

    def begin(self, degradation: Degradation, hw: tuple[int, int], noise_std: float, seed: int) -> None:
        self._noise_std = noise_std

    def restore(self, y: Tensor, box: Box, seed: int) -> Tensor:
        if not self._noise_std:
            return y
        x = denoised(self.denoiser, y.to(self.device), self._noise_std)
        if self.callback is not None:
            self.callback(0, x)
        return x.cpu()


class Dejpeg(Recipe):
    """Two evaluations at the level of a JPEG's error, with the nearest image that explains the file after each."""

    usual, obeys_steps = 2, False
    shares = (1.3, 0.65)
    """The levels of the evaluations, over the estimated error."""

    def begin(self, degradation: Degradation, hw: tuple[int, int], noise_std: float, seed: int) -> None:
        assert degradation.rounding is not None
        self._rounding, self._noise_std = degradation.rounding, noise_std

    def restore(self, y: Tensor, box: Box, seed: int) -> Tensor:
        if not self._noise_std:
            return y
        samples, x = _samples_255(y), y.to(self.device)
        for place, share in enumerate(self.shares):
            x = denoised(self.denoiser, x, share * self._noise_std)
            if self.callback is not None:
                self.callback(place, x)
            explained = self._rounding.explained(_samples_255(x.cpu()), samples)
            x = torch.from_numpy(explained / 127.5 - 1).permute(2, 0, 1)[None].to(x)
        return x.cpu()


def _samples_255(x: Tensor) -> np.ndarray:
    """An image (1, C, H, W) in [-1, 1] as (H, W, C) in [0, 255]."""
    return (x[0].permute(1, 2, 0).double().numpy() + 1) * 127.5


def recipe_of(
    denoiser: Denoiser, degradation: Degradation, options: SamplerOptions, callback: Callback | None
) -> Recipe:
    """The recipe for a degradation."""
    kind = BySampler
    if options.solver is None and degradation.kernel is not None:
        kind = Deblurring
    elif options.solver is None and degradation.denoises:
        kind = Denoising
    elif options.solver is None and degradation.jpeg:
        kind = Dejpeg
    return kind(denoiser, options, callback)
