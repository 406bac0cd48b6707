"""The samplers of ccfast that other packages have too, with as many evaluations, and ours with five steps."""

from __future__ import annotations

from collections.abc import Iterator

import ccfast
from ccfast.solvers import DPS, Conjugate, DiffPIR, PiGDM, Solver

from .case import Case, Restore

__all__ = ["peers"]


def peers(case: Case) -> Iterator[tuple[str, Restore]]:
    """Every sampler's name and its run, with the published parameters."""
    count = case.evaluations
    yield "ccfast preset, 5 steps", run(case, None, 5, None)
    yield "ccfast Conjugate none, 5 steps", run(case, Conjugate(jacobian="none"), 5, None)
    yield "ccfast PiGDM", run(case, PiGDM(1.0, "constant", eta=0.0), count, 0.999)
    yield "ccfast DPS", run(case, DPS(), count, 0.999)
    yield "ccfast DDRM", run(case, ccfast.solvers.DDRM(), count, 0.999)
    yield "ccfast DiffPIR", run(case, DiffPIR(), count, 0.999)


def run(case: Case, solver: Solver | None, steps: int, start: float | None) -> Restore:
    sampler = ccfast.Sampler(case.denoiser, case.operator, solver, steps, start, noise_std=case.noise_std)
    return lambda: sampler(case.y, seed=0)
