"""The conjugate step centred on the Rayleigh quotient of every image, computed on the device.

j = <r, g>/<r, r> with r the residual and g = (dn/dx)^T r, both at hand. Over the step, and back to the one before,
j(X) = j u(X)/u(X_n), with eps u is the j of a unit Gaussian prior, rho^2/(1 + rho^2)/lever, and for a flow (where that
changes its sign) the lever. The exponent is then linear in j, and every coefficient of a step is a sum over the points
of its quadrature:

    D = exp(-c int R + j c int R lever u/u_n),    kappa = 1 - D(X_n),    d, v, W, churn, spread = sum weights D
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..engine.plan import Reduction
from ..schedules import Array
from .base import Grid
from .conjugate_modes import Forms, Guidance, Modes, StepRule, forms, is_flow, lever, starts, terms

__all__ = ["rayleigh"]


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


def rayleigh(guidance: Guidance, null: Mapping[str, Array], shared: Array) -> Reduction:
    """The reduction of a plan whose numbers are those of the null space.

    Args:
        null: terms of all steps (n, M), the first mode being the null space.
        shared: steps in which the null space takes the Jacobian coefficients of the range.
    """
    grid, order = guidance.grid, guidance.order
    steps = [Exponents(guidance, k) for k in range(len(grid.t))]
    now, before = forms(guidance)
    shapes = shape(grid, starts(grid))
    # what no mode uses is left out; the residuals' own part j r of g comes with the term of g
    guided = [name for name in ("h", "h1") if np.any(null[name])]
    residuals = ["r", "r1"][: order if "h1" in guided else 1]
    projected = [name for name, c in null.items() if name not in ("r", "r1") and np.any(c)]

    def coefficients(k: int, dots: Mapping[str, Tensor]) -> dict[str, Tensor]:
        j = steps[k].centre(dots["rr"], dots["rg"])
        here, there = (Forms(*(float(c[k, 0]) for c in form)) for form in (now, before))
        earlier = there._replace(j=j * float(shapes[max(k - 1, 0)] / shapes[k]))
        row = terms(steps[k].modes(j), here._replace(j=j), earlier, 1.0 / float(grid.data_scale[k]))
        found = {name: row[name] for name in residuals}
        for name in projected:
            if shared[k] and name in guided:
                found[name] = row[name]
            else:
                found["P" + name] = row[name] - float(null[name][k, 0])
        return {name: value for name, value in found.items() if k or not name.endswith("1")}

    vectors = {"r": {"r": np.ones_like(shapes)}, "g": {"r": now.alpha[:, 0], "h": now.beta[:, 0]}}
    names = [*residuals, *(name for name in guided if np.any(shared)), *("P" + name for name in projected)]
    return Reduction(vectors, {"rr": ("r", "r"), "rg": ("r", "g")}, coefficients, tuple(names))
