"""The distances of samples from an exact posterior, in units of the posterior's standard deviation."""

from __future__ import annotations

import torch
from torch import Tensor

from .exact_posteriors import Posterior

__all__ = ["LEVELS", "Reference", "compare"]

DIRECTIONS, REFERENCE = 128, 16
LEVELS = (0.5, 0.9)
"""The nominal masses of the credible intervals."""


class Reference:
    """Random directions and exact draws along them, with which the samples of one measurement are compared.

    Args:
        posterior: the exact posterior of the measurement.
        count: the number of samples that will be compared; 16 times as many exact draws are made.
        seed: the seed of directions and draws.
    """

    def __init__(self, posterior: Posterior, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        directions = torch.randn(DIRECTIONS, len(posterior.mean), dtype=torch.float64, generator=generator)
        self.posterior = posterior
        self.directions = directions / directions.norm(dim=1, keepdim=True)
        self.sorted = (posterior.sample(REFERENCE * count, generator) @ self.directions.mT).sort(0).values
        self.own = posterior.sample(count, generator)


def compare(samples: Tensor, reference: Reference) -> dict[str, float]:
    """The distances of samples (N, D) from a posterior.

        sliced_wasserstein   (mean over unit directions u of W2(u.samples, u.exact)^2)^(1/2) / scale
        mean_error           ||mean - exact|| / (scale sqrt(D))
        covariance_error     ||covariance - exact||_F / ||exact||_F
        spread               (trace covariance / trace exact)^(1/2): 1 is right, 0 a point estimate
        coverage_50, _90     exact posterior mass of the samples' own central intervals, the mean over directions

    N exact samples are not at 0 either; ``floor`` in the results says where they are.
    """
    posterior, x = reference.posterior, samples.double()
    along = (x @ reference.directions.mT).sort(0).values
    copies = len(reference.sorted) // len(x)
    gap = (along.repeat_interleave(copies, 0) - reference.sorted).square().mean()
    offset = x - x.mean(0)
    covariance = offset.mT @ offset / (len(x) - 1)
    exact = posterior.covariance
    values = {
        "sliced_wasserstein": gap.sqrt() / posterior.scale,
        "mean_error": (x.mean(0) - posterior.mean).square().mean().sqrt() / posterior.scale,
        "covariance_error": (covariance - exact).norm() / exact.norm(),
        "spread": (covariance.trace() / exact.trace()).sqrt(),
    }
    for level in LEVELS:
        low, high = torch.quantile(along, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=along.dtype), dim=0)
        values[f"coverage_{round(100 * level)}"] = posterior.mass(reference.directions, low, high).mean()
    return {name: float(value) for name, value in values.items()}
