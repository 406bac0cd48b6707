"""The conjugate step centred on the Rayleigh quotient of every image, computed on the device.

j = <r, g>/<r, r> with r the residual and g = (dn/dx)^T r, both at hand. Over the step, and back to the one before,
j(X) = j u(X)/u(X_n), with eps u is the j of a unit Gaussian prior, rho^2/(1 + rho^2)/lever, and for a flow (where that
changes its sign) the lever. The exponent is then linear in j, and every coefficient of a step is a sum over the points
of its quadrature:

    D = exp(-c int R + j c int R lever u/u_n),    kappa = 1 - D(X_n),    d, v, W, churn, spread = sum weights D
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from ...engine.plan import Rule, Step, Term
from ...engine.registers import Registers
from ...kernels.reference import combine, dot
from ...kernels.row import Key
from ...schedules import Array
from .._grid import Grid
from ._modes import Forms, Guidance, Modes, StepRule, forms, is_flow, lever, starts, terms

__all__ = ["Rayleigh", "rayleigh"]


class Exponents:
    """The quadrature of one step as tensors: (1, Q) exponents, (Q, 5) functionals, made once for every device."""

    def __init__(self, guidance: Guidance, k: int) -> None:
        grid, c = guidance.grid, 1.0 + guidance.eta**2
        rule = StepRule(guidance, k)
        rate = c * guidance.rate(rule.rho, np.array([guidance.reference]))
        start = starts(grid)[k : k + 1]
        self.highest = 1.0 / float(lever(grid, start)[0])
        plain, plain_total = rule.cumulative(rate)
        ratio = shape(grid, rule.rho) / shape(grid, start)
        slope, slope_total = rule.cumulative(rate * lever(grid, rule.rho) * ratio)
        self._host = (plain, plain_total, slope, slope_total, rule.functionals, rule.offset, rule.spread)
        self._device: dict[torch.device, list[Tensor]] = {}

    def centre(self, rr: Tensor, rg: Tensor) -> Tensor:
        """j of every image (B,): 0 where there is no residual, at most 1/lever, beyond which the error would grow."""
        return torch.where(rr > 0, rg / rr.where(rr > 0, 1.0), 0.0).clamp(max=self.highest)

    def modes(self, j: Tensor) -> Modes:
        """The coefficients of the range for every image."""
        if j.device not in self._device:
            self._device[j.device] = [torch.from_numpy(np.asarray(a)).to(j.device) for a in self._host]
        plain, plain_total, slope, slope_total, functionals, offset, spread = self._device[j.device]
        decay = torch.exp(j[:, None] * slope - plain)
        kappa = -torch.expm1(j * slope_total - plain_total)
        d, v, W, churn, churn_change = (decay @ functionals + offset).unbind(1)
        return Modes(kappa, d, v, W, churn, churn_change, (decay.square() @ spread).sqrt())


def shape(grid: Grid, rho: Array) -> Array:
    """u, how j changes along the path."""
    return lever(grid, rho) if is_flow(grid) else rho * rho / (1.0 + rho * rho) / lever(grid, rho)


class Rayleigh(Rule):
    """The terms of the range in step k, for every image.

    Args:
        null: terms of all steps (n, M), the first mode being the null space, whose numbers the row has already.
        shared: whether the null space takes the Jacobian coefficients of the range.
        scale: of x'.
    """

    def __init__(self, guidance: Guidance, null: Mapping[Key, Array], shared: bool, scale: float, k: int) -> None:
        grid, self.shared, self.scale = guidance.grid, shared, scale
        self.step, (now, before) = Exponents(guidance, k), forms(guidance)
        self.now, self.before = (Forms(*(float(c[k, 0]) for c in form)) for form in (now, before))
        shapes = shape(grid, starts(grid))
        self.earlier, self.data_scale = float(shapes[max(k - 1, 0)] / shapes[k]), 1.0 / float(grid.data_scale[k])
        self.null = {key: float(c[k, 0]) for key, c in null.items()}
        # The register h is the product with respect to the network's input, c_in x.
        self.fold = {("h", age): float(grid.c_in[k - age]) for age in (0, 1) if age <= k}
        self.g = {("r", 0): self.now.alpha, ("h", 0): self.now.beta * self.fold["h", 0]}
        # What no mode uses is left out; the residuals' own part j r of g comes with the term of g.
        used = [key for key, c in null.items() if np.any(c) and key[1] <= k]
        aged = guidance.order if ("h", 1) in used else 1
        self.residuals = [key for key in null if key[0] == "r" and key[1] < aged and key[1] <= k]
        self.projected = [key for key in used if key[0] != "r"]
        self.reads = tuple(self.g)
        self.gives = (*self.residuals, *self.projected)

    def fill(self, step: Step, registers: Registers) -> list[Term]:
        r, g = registers["r", 0], combine(self.g, registers)
        wide = r.float() if r.dtype in (torch.float16, torch.bfloat16) else r
        j = self.step.centre(dot(wide, wide), dot(wide, g))
        now, before = self.now._replace(j=j), self.before._replace(j=j * self.earlier)
        row = terms(self.step.modes(j), now, before, self.data_scale)
        found = [Term(*key, self.scale * row[key]) for key in self.residuals]
        for key in self.projected:
            factor = self.scale * self.fold.get(key, 1.0)
            if self.shared and key[0] == "h":
                found.append(Term(*key, factor * row[key]))
            else:
                found.append(Term(*key, factor * (row[key] - self.null[key]), 1.0))
        return found


def rayleigh(guidance: Guidance, null: Mapping[Key, Array], shared: Array, scale: Array) -> Callable[[int], Rayleigh]:
    """The rule of every step, of arrays over the steps."""
    return lambda k: Rayleigh(guidance, null, bool(shared[k]), float(scale[k]), k)
