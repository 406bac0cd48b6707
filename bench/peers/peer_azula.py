"""The samplers PiGDM, DPS, DiffPIR and MMPS of azula, with its own parameters, on our path from 0.999 to 0.001."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ccfast.adapters import to_azula

from .case import Case, Restore

__all__ = ["peers"]


def peers(case: Case) -> Iterator[tuple[str, Restore]]:
    """Every sampler's name and its run. PiGDM takes noiseless measurements only, DiffPIR and MMPS noisy ones only."""
    guidance, sample = import_module("azula.guidance"), import_module("azula.sample")
    covariance = import_module("azula.linalg.covariance").IsotropicCovariance
    denoiser, operator, y = to_azula(case.denoiser), case.operator, case.y
    grid: dict[str, Any] = {"start": 0.999, "stop": 0.001, "steps": case.evaluations, "silent": True}

    def run(sampler: Any) -> Restore:
        def restore() -> Tensor:
            torch.manual_seed(0)
            return sampler(torch.randn(1, *operator.shape))

        return restore

    yield "azula DPSSampler", run(guidance.DPSSampler(denoiser, y=y, A=operator.forward, **grid))
    if not case.noise_std:
        yield (
            "azula PGDMSampler",
            run(guidance.PGDMSampler(denoiser, y=y, A=operator.forward, A_inv=operator.pinv, **grid)),
        )
        return
    variance = torch.tensor(case.noise_std**2)
    guided = guidance.DiffPIRDenoiser(denoiser, y=y, A=operator.forward, var_y=variance)
    yield "azula DiffPIRDenoiser", run(sample.DDIMSampler(guided, eta=1.0, **grid))
    guided = guidance.MMPSDenoiser(denoiser, y=y, A=operator.forward, cov_y=covariance(variance))
    yield "azula MMPSDenoiser", run(sample.DDIMSampler(guided, **grid))
