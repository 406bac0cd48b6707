"""The published sampler as a rival of a step."""

from __future__ import annotations

from bench.published import Published
from ccfast.bench.measure import Rival
from ccfast.bench.steps import StepProblem
from ccfast.solvers import Conjugate

__all__ = ["LIMIT", "published"]

LIMIT = 5e-2
"""Relative error that the published sampler is allowed at w = 15: its tolerance of 1e-5 grows by e^{w B/2}."""


def published(problem: StepProblem) -> Rival | None:
    """None for an operator without full bases."""
    if problem.operator.kind not in ("mask", "block", "channel", "separable"):
        return None
    solver = Conjugate()
    sampler = Published(problem.denoiser, problem.operator, solver.w, solver.lam, problem.times.tolist())
    return Rival(sampler, LIMIT, sampler.table)
