"""The samplers DDRM, DiffPIR, DPS and PiGDM of deepinv, with its own parameters, on images in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccfast.adapters import to_deepinv

from .case import Case, Restore

__all__ = ["peers"]


def peers(case: Case) -> Iterator[tuple[str, Restore]]:
    """Every sampler's name and its run. DDRM takes only physics with an SVD, which here is the mask."""
    deepinv = import_module("deepinv")
    sampling, count = deepinv.sampling, case.evaluations
    physics, y = measurement(case)
    denoiser, shape = to_deepinv(case.denoiser), (1, *case.operator.shape)

    def run(model: Any, **options: Any) -> Restore:
        def restore() -> Tensor:
            torch.manual_seed(0)
            with torch.no_grad():
                return 2.0 * model(y, physics, seed=1, **options).float() - 1.0

        return restore

    if hasattr(physics, "U_adjoint"):
        yield "deepinv DDRM", run(sampling.DDRM(denoiser, sigmas=np.linspace(1, 0.002, count)))
    fidelity, noise = deepinv.optim.data_fidelity.L2(), case.noise_std / 2
    yield "deepinv DiffPIR", run(sampling.DiffPIR(denoiser, fidelity, sigma=max(noise, 1e-3), max_iter=count))
    yield "deepinv DPS", run(sampling.DPS(denoiser, num_steps=count), x_init=shape)
    guided = sampling.PosteriorDiffusion(
        sampling.PiGDMDataFidelity(),
        denoiser,
        sampling.VariancePreservingDiffusion(alpha=1.0),
        sampling.DDPMSolver(timesteps=torch.linspace(1, 0.0, count, dtype=torch.float64)),
    )
    yield "deepinv PiGDM", run(guided, x_init=shape)


def measurement(case: Case) -> tuple[Any, Tensor]:
    """deepinv's physics for our operator, and y for images in [0, 1]."""
    deepinv = import_module("deepinv")
    operator, noise = case.operator, case.noise_std / 2
    model = deepinv.physics.GaussianNoise(max(noise, 1e-3))  # Its samplers divide by the noise level.
    if case.word.startswith(("inpaint", "box")):
        mask = operator.singular_values.float().reshape(1, *operator.shape)
        physics = deepinv.physics.Inpainting(operator.shape, mask=mask, noise_model=model)
    else:
        physics = deepinv.physics.LinearPhysics(
            A=lambda x, **_: operator.forward(x), A_adjoint=lambda y, **_: operator.adjoint(y), noise_model=model
        )
    return physics, (case.y + operator.forward(torch.ones(1, *operator.shape))) / 2.0
