"""Tools for tests: the one tolerance table, and priors whose denoiser is known exactly.

An analytic prior wraps its posterior mean E[x0 | x_t] as a network of any parametrisation, so that samplers can be
compared with exact posteriors and with each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .denoiser import Denoiser
from .schedules import Schedule

__all__ = ["LIBRARY", "TOLERANCE", "Gaussian", "GaussianMixture", "relative_error"]

TOLERANCE: dict[torch.dtype, float] = {
    torch.float64: 1e-12,
    torch.float32: 1e-6,
    torch.bfloat16: 2**-8,  # It is half a unit in the last place.
    torch.float16: 2**-11,
}
"""The relative error that one operation may have, by dtype. A whole run in float32 may have ten times as much."""

LIBRARY: dict[torch.dtype, float] = {
    torch.float64: 2e-15,
    torch.float32: 1e-6,
}
"""How much one operation of a library may change with the threads, the batch around an image, or the instruction set.

The bound is relative to the operation's largest value. It is about eight roundings, since a matrix product, Fourier
transform or convolution may add its sums up in another order. docs/promises.md says where such a library takes part.
All other results of one instruction set are equal to the bit. A whole run may change ten times as much.
"""


def relative_error(value: Tensor, truth: Tensor) -> float:
    """||value - truth|| / ||truth||, in float64."""
    value, truth = value.detach().double(), truth.detach().double()
    return float((value - truth).norm() / truth.norm())


class GaussianMixture:
    """A prior sum_k weights[k] N(means[k], covariances[k]) over images of a fixed shape.

    E[x0 | x] = sum_k pi_k(x) (m_k + mu C_k (mu^2 C_k + sigma^2 I)^-1 (x - mu m_k)), with pi_k the posterior weights.

    Args:
        weights: The positive weights of the components, (K,). They are normalised here.
        means: The means, (K, D).
        covariances: The symmetric positive semi-definite covariances, (K, D, D).
        shape: The shape of one image, which has D elements.
    """

    def __init__(
        self, weights: Sequence[float] | Tensor, means: Tensor, covariances: Tensor, shape: tuple[int, ...]
    ) -> None:
        self.weights = torch.as_tensor(weights, dtype=torch.float64)
        self.weights = self.weights / self.weights.sum()
        self.means = means.to(torch.float64)
        self.covariances = covariances.to(torch.float64)
        self.variances, self.vectors = torch.linalg.eigh(self.covariances)
        self.shape = shape

    def denoise(self, x: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x] for x (B, *shape) and mu, sigma (B,), computed in the dtype of x. It can be differentiated."""
        like = {"dtype": x.dtype, "device": x.device}
        means, variances, vectors = (v.to(**like) for v in (self.means, self.variances, self.vectors))
        mu, sigma = mu.to(**like)[:, None, None], sigma.to(**like)[:, None, None]
        offset = torch.einsum("kij,bki->bkj", vectors, x.flatten(1)[:, None] - mu * means)
        total = mu * mu * variances + sigma * sigma
        log_weight = self.weights.log().to(**like) - 0.5 * (offset.square() / total + total.log()).sum(-1)
        centred = torch.einsum("kij,bkj->bki", vectors, mu * variances / total * offset)
        posterior = torch.softmax(log_weight, dim=1)[..., None]
        return (posterior * (means + centred)).sum(1).reshape(x.shape)

    def denoiser(self, schedule: Schedule, prediction: str = "epsilon") -> Denoiser:
        """The exact denoiser as a network of the given parametrisation; its network time is the schedule time."""
        meaning = Denoiser(lambda x, t: x, schedule, prediction, time_map=float)

        def network(x: Tensor, t: Tensor) -> Tensor:
            times = t.detach().double().cpu().numpy()
            column = (-1, *(1,) * len(self.shape))
            c_in, p, q, _, _ = (
                torch.as_tensor(v, dtype=x.dtype, device=x.device).reshape(column) for v in meaning.coefficients(times)
            )
            state = x / c_in
            mu, sigma = (torch.as_tensor(np.asarray(v(times))) for v in (schedule.mean, schedule.std))
            return (self.denoise(state, mu, sigma) - p * state) / q

        return Denoiser(network, schedule, prediction, time_map=float, name=type(self).__name__)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Independent draws from the prior, float64 (count, *shape)."""
        k = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        z = torch.randn(count, self.means.shape[1], dtype=torch.float64, generator=generator)
        root = self.vectors * self.variances.clamp(min=0).sqrt()[:, None, :]
        return (self.means[k] + torch.einsum("bij,bj->bi", root[k], z)).reshape(count, *self.shape)


class Gaussian(GaussianMixture):
    """A prior N(mean, covariance), with mean (D,) and covariance (D, D)."""

    def __init__(self, mean: Tensor, covariance: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__([1.0], mean[None], covariance[None], shape)
