"""Conjugate integrators: C-PiGDM and C-PiGFM (Pandey, Yang, Mandt, NeurIPS 2024, arXiv 2405.17673) in closed form.

The linear part of the guided ODE is integrated exactly while eps (the velocity, for a flow) and its guidance term
g = (d eps/dx)^T r are held constant over the step. Written for x itself, never for the conjugate state, which loses
all digits in single precision as w grows.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from ...engine.jacobian import PRODUCTS
from ...engine.plan import Step
from ...engine.spectrum import SpectralTable
from ...kernels.row import Key
from ...operators import Operator
from ...schedules import Array
from ..solver import Grid, Solver, check_fraction, check_weight
from ._modes import STABILITY_LIMIT, Guidance, Modes, forms, modes, terms
from ._rayleigh import rayleigh
from .shifted import ShiftedConjugate

__all__ = ["Conjugate"]


@dataclass(frozen=True)
class Conjugate(Solver):
    """One step, noiseless, lam = 0, eps frozen (VP, VE, EDM); B = ln(1 + rho^2), a prime at the end of the step:

        x'    = mu' (x0hat + kappa r) + sigma' eps + d_N g + (d_P - d_N) P g
        kappa = 1 - exp(-w (B - B')/2)
        d_N   = -w mu' int_{rho'}^{rho} rho sigma/(1 + rho^2) d rho
        d_P   = the same with exp(-w (B(rho) - B')/2) under the integral

    and with the velocity frozen (Flow), g = (dv/dx)^T r:

        x'    = x0hat + kappa r - (1 - t') v + d_N g + (d_P - d_N) P g
        kappa = 1 - exp(-w int t (1 - t) dt),   d_N = w int t (1 - t)^2 dt,   d_P with exp(-w int_t^{t'}) inside

    With noise in the measurement kappa and d are functions of the singular value, and the residual in g is weighted;
    ``_modes`` has all the integrals, also those of the options. lam != 0 adds the isotropic term of the paper, which
    is a solver of its own, ``ShiftedConjugate``.

    Args:
        w: guidance weight >= 0; 0 is DDIM. "bayes": the weight for which a unit Gaussian prior is sampled exactly, with
            ``centred`` "prior" unless that is "rayleigh" (uncentred it converges with order one half only).
        lam: the paper's lambda, a decay rate per unit of schedule time (a shift of the conjugate basis). Only for
            noiseless measurements, order 1, eta 0, not centred, and a number w.
        jacobian: how the guidance term g enters. "exact": the step above, two projections; warns where the step is not
            stable. "one_projection": d_P on all modes (with noise, that of the largest singular value), one
            projection, stable for every w; of first order only. "none": no g, no derivative of the network, a
            different ODE. "auto": exact, but one_projection in the steps beyond the stability limit, w (B - B') = 13.7
            for order 1 and 6 for order 2 (Flow: 2 w int t (1 - t) dt).
        product: how g is taken from the network, ``engine.jacobian``. "reverse" is right for every network. "forward"
            and "finite_difference" need no autograd graph (memory of inference) and assume a symmetric Jacobian, which
            trained networks have only nearly. A difference costs one evaluation, about as much as a reverse product,
            and takes any network (compiled, exported, inference mode); forward mode costs two to three, and is exact.
        order: 2 extrapolates eps (or v) and g from the step before.
        eta: amount of fresh noise inside a step, 1 for the reverse SDE; 0 is the ODE.
        refresh: share of sigma' that is fresh noise at the end of a step, in [0, 1]: the step above runs on to
            sqrt(1 - refresh^2) rho', and noise of standard deviation refresh sigma' takes it back to rho'. None is
            left where sigma' = 0. Meant for few steps: what one step gets wrong the next one does not inherit. It does
            not converge to the posterior with more steps, as eta does. Noiseless, with 1, jacobian "none" and w to
            infinity it is DDRM with eta 1. Only with order 1, eta 0 and lam 0.
        centred: take the known part j of the Jacobian into the exponent. "prior": j of a unit Gaussian prior.
            "rayleigh": j = <r, g>/<r, r> of every image, on the device, for noiseless measurements.
    """

    w: float | str = 15.0
    lam: float = 0.0
    jacobian: str = "exact"
    product: str = "reverse"
    order: int = 1
    eta: float = 0.0
    centred: bool | str = False
    refresh: float = 0.0

    takes_noise = True

    def __post_init__(self) -> None:
        if self.w != "bayes":
            if isinstance(self.w, str):
                raise ValueError(f"w: must be a number or 'bayes', got {self.w!r}")
            check_weight("w", self.w)
        if not np.isfinite(self.lam):
            raise ValueError(f"lam: must be a finite number, got {self.lam}")
        for name, choices in (
            ("jacobian", ("exact", "one_projection", "none", "auto")),
            ("product", tuple(PRODUCTS)),
            ("order", (1, 2)),
            ("centred", (False, "prior", "rayleigh")),
        ):
            value = getattr(self, name)
            if value not in choices:
                rule = f"{', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}"
                raise ValueError(f"{name}: must be {rule}, got {value!r}")
        check_weight("eta", self.eta)
        check_fraction("refresh", self.refresh)
        if self.refresh and (self.eta or self.lam or self.order != 1):
            raise ValueError(f"refresh: must be 0 with order 2, eta or lam, got {self.refresh} in {self!r}")
        if self.centred and self.jacobian == "none":
            raise ValueError(f"centred: must be False with jacobian='none', got {self.centred!r}")
        if self.lam and (self.order != 1 or self.eta or self.centred or self.w == "bayes"):
            raise ValueError(f"lam: must be 0 with order 2, eta, centred or w='bayes', got {self.lam} in {self!r}")

    def steps(self, grid: Grid, operator: Operator) -> tuple[Step, ...]:
        if self.lam:
            shifted = ShiftedConjugate(float(self.w), self.lam, self.jacobian, self.product)
            return shifted.steps(grid, operator)
        self._check(grid)
        fresh = self.refresh * grid.sigma_to
        grid, scale = self._shortened(grid)
        guidance = self._guidance(grid, operator)
        m = modes(guidance, np.array([0.0, guidance.reference]))
        shared = self._shared(m, warn=True)
        null_and_range = self._terms(guidance, m, shared)
        rows = grid.ddim()
        on_device = self.centred == "rayleigh"
        for (register, age), c in null_and_range.items():
            null, on_range = c.T
            if register == "r":  # Residuals have no part in the null space.
                null = np.zeros_like(null)
            elif register == "h" and on_device:
                null = np.where(shared, 0.0, null)
            rows.add(register, null, age)
            if not grid.noise_std and not on_device:  # The range's coefficients are numbers.
                rows.add(register, on_range - null, age, projected=register != "r")
        rows.scale(scale).add("z", fresh)
        if grid.noise_std:
            table = self._noisy(guidance, scale, operator)
            return rows.weigh(table, "weight").add_spectra(table, {key: key for key in null_and_range}).steps()
        if on_device:
            rows.add_rule(rayleigh(guidance, null_and_range, shared, scale))
        return rows.steps()

    def _noisy(self, guidance: Guidance, scale: Array, operator: Operator) -> SpectralTable:
        """Where the measurement is noisy: the weight of the residual, and every term over the singular values."""

        def evaluate(s: Array) -> dict[Hashable, Array]:
            m = modes(guidance, np.concatenate([[0.0, guidance.reference], s]))
            omega = guidance.omega(s)
            ones = np.ones((len(omega), 2))
            row = self._terms(guidance, m, self._shared(m), np.concatenate([ones, omega], axis=1))
            # Residuals have no part in the null space; that of the others is in the numbers of the row.
            over_modes = {key: c[:, 2:] - (0.0 if key[0] == "r" else c[:, :1]) for key, c in row.items()}
            return {"weight": omega, **{key: scale[:, None] * c for key, c in over_modes.items()}}

        return SpectralTable(evaluate, operator)

    # ------------------------------------------------------------------------------------ parts of them
    def _check(self, grid: Grid) -> None:
        """Rules that join an option with the noise of the measurement or with the grid; ValueError."""
        if grid.noise_std and self.centred == "rayleigh":
            raise ValueError(
                "centred: must be False or 'prior' where the measurement is noisy, got 'rayleigh' with "
                f"noise_std={grid.noise_std}"
            )
        if grid.mu[0] <= 0 and ((self.w == "bayes" and self.jacobian != "none") or self.eta):
            raise ValueError(f"start: {self!r} must start later than pure noise, got mu = 0 at t = {grid.t[0]:g}")

    def _shortened(self, grid: Grid) -> tuple[Grid, Array]:
        """The steps before their fresh noise, and the scale of what they lead to."""
        return grid.shortened(np.sqrt(1.0 - self.refresh**2)) if self.refresh else (grid, np.ones_like(grid.t))

    def _guidance(self, grid: Grid, operator: Operator) -> Guidance:
        """A noiseless mode behaves alike at every singular value: 1 stands for it."""
        reference = float(operator.singular_values.max()) if grid.noise_std else 1.0
        bayes = self.w == "bayes" and self.centred is False and self.jacobian != "none"
        return Guidance(grid, self.w, reference, self.eta, self.centred == "prior" or bayes, self.order)

    def _shared(self, m: Modes, warn: bool = False) -> Array:
        """In which steps (n,) all modes take the Jacobian coefficients of the reference; may warn of instability."""
        with np.errstate(divide="ignore"):
            relaxation = -2.0 * np.log1p(-m.kappa[:, 1])
        limit = STABILITY_LIMIT[self.order]
        if warn and self.jacobian == "exact" and np.any(relaxation > limit):
            warnings.warn(
                f"jacobian: 'exact' is stable up to a relaxation of {limit:.1f} in a step, got {relaxation.max():.1f} "
                f"in {self!r}; take more steps, a smaller w or jacobian='auto'",
                RuntimeWarning,
                stacklevel=2,
            )
        return (relaxation > limit) & (self.jacobian == "auto") | (self.jacobian == "one_projection")

    def _terms(self, guidance: Guidance, m: Modes, shared: Array, omega: Array | float = 1.0) -> dict[Key, Array]:
        """The terms of modes (n, M), of which the first is the null space and the second the reference."""
        taken = np.full((len(m.d), 1), self.jacobian != "none")
        d, v = (np.where(shared[:, None], x[:, 1:2], x) * taken for x in (m.d, m.v))
        return terms(m._replace(d=d, v=v), *forms(guidance), omega / guidance.grid.data_scale[:, None])
