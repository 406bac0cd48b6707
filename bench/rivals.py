"""The published sampler as a rival of a step."""

from __future__ import annotations

import torch

from bench.published import Published
from ccfast.app.benchmark.measure import Rival
from ccfast.app.benchmark.steps import PreparedStep, W

__all__ = ["published"]


def published(prepared: PreparedStep) -> Rival | None:
    """None for an operator without full bases."""
    if prepared.operator.kind not in ("mask", "block", "channel", "separable"):
        return None
    arguments = (prepared.denoiser, prepared.operator, W, 0.0, prepared.times.tolist())
    sampler = Published(*arguments)
    # at w = 15 its ODE tolerance of 1e-5 and its float32 have grown to some percent, by e^{w B/2}
    exact = Published(*arguments, basis_dtype=torch.float64, tolerance=1e-10)
    return Rival(sampler, exact, sampler.table)
