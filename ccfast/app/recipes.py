"""Recipes: how a part of a measurement is restored, for each kind of degradation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import operators
from ..denoiser import Denoiser
from ..operators import Operator
from ..sampler import Sampler
from ..solvers import Solver
from .degradations import Degradation
from .tiles import Box

__all__ = ["Recipe", "SamplerOptions", "recipe_of"]

Callback = Callable[[int, Tensor], None]


@dataclass(frozen=True)
class SamplerOptions:
    """The options of the samplers.

    Attributes:
        steps: the number of network evaluations.
        solver: None: that of the presets.
        hard_consistency: whether results agree with the measurement exactly.
    """

    steps: int = 5
    solver: Solver | None = None
    hard_consistency: bool = False


class Recipe(ABC):
    """Restores parts of one measurement after the other.

    Attributes:
        margin: how far, in pixels of the result, a tile must see beyond what it restores.
    """

    margin = 64

    def __init__(self, denoiser: Denoiser, options: SamplerOptions, callback: Callback | None) -> None:
        self.denoiser, self.options, self.callback = denoiser, options, callback
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
        x = sampler(y.to(sampler.device), seed=seed, operator=operator, callback=self.callback)
        return x.cpu()

    def _operator_of(self, shape: tuple[int, int, int]) -> Operator:
        sampler = self._samplers.get((shape, self._noise_std))
        return sampler.operator if sampler is not None else self._degradation.build(shape, self._seed)

    def _sampler_for(self, shape: tuple[int, int, int], operator: Operator) -> Sampler:
        key = shape, self._noise_std
        if key not in self._samplers:
            self._samplers[key] = self._made(operator)
        return self._samplers[key]

    def _made(self, operator: Operator) -> Sampler:
        options = self.options
        common: dict[str, Any] = {"noise_std": self._noise_std, "hard_consistency": options.hard_consistency}
        if self._mask is not None and operator.shape != self._whole:
            if self._chosen is None:
                whole = operators.Inpainting(self._mask)
                self._chosen = Sampler(self.denoiser, whole, options.solver, options.steps, **common)
            common |= {"start_noise": self._chosen.start_noise}
            return Sampler(self.denoiser, operator, self._chosen.solver, times=self._chosen.plan.times, **common)
        return Sampler(self.denoiser, operator, options.solver, options.steps, **common)


def _one_pixel(mask: Tensor) -> Tensor:
    """A mask that observes nothing cannot be an operator, and is given the mid-grey of its first pixel."""
    mask = mask.clone()
    mask[:, 0, 0] = True
    return mask


def recipe_of(
    denoiser: Denoiser, degradation: Degradation, options: SamplerOptions, callback: Callback | None
) -> Recipe:
    """The recipe for a degradation."""
    return BySampler(denoiser, options, callback)
