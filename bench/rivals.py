"""The published sampler as a rival of a step."""

from __future__ import annotations

import torch

from bench.published import Published
from ccfast.app.benchmark.measure import Rival
from ccfast.app.benchmark.steps import PreparedStep, W

__all__ = ["published"]


def published(prepared: PreparedStep) -> Rival | None:
    """The published sampler on a prepared step, None for an operator without full bases."""
    if prepared.operator.kind not in ("mask", "block", "channel", "separable"):
        return None
    arguments = (prepared.denoiser, prepared.operator, W, 0.0, prepared.times.tolist())
    sampler = Published(*arguments)
    # At w = 15 the errors of its ODE tolerance, 1e-5, and of float32 grow to some percent, by e^{w B/2}.
    exact = Published(*arguments, basis_dtype=torch.float64, tolerance=1e-10)
    return Rival(sampler, exact, sampler.table)
