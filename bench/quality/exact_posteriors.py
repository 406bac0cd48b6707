"""Inverse problems whose posterior is known: Gaussian or mixture priors, linear measurements, Gaussian noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ccfast.operators import AveragePooling, Inpainting, Operator, SeparableBlur
from ccfast.testing import Gaussian, GaussianMixture

__all__ = ["PROBLEMS", "Posterior", "Problem"]

STD = 0.5
"""The marginal standard deviation of every component of a prior, about that of photographs in [-1, 1]."""


@dataclass(frozen=True)
class Posterior:
    """The posterior p(x | y) of one measurement, a Gaussian mixture in float64.

    Attributes:
        weights: the weights of the components, (K,).
        means: their means, (K, D).
        roots: roots R of their covariances R R^T, (K, D, D).
    """

    weights: Tensor
    means: Tensor
    roots: Tensor

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Independent draws, (count, D)."""
        k = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        z = torch.randn(count, self.means.shape[1], dtype=torch.float64, generator=generator)
        x = self.means[k]
        for component, root in enumerate(self.roots):
            own = k == component
            x[own] += z[own] @ root.mT
        return x

    @cached_property
    def mean(self) -> Tensor:
        """The mean of the mixture, (D,)."""
        return self.weights @ self.means

    @cached_property
    def covariance(self) -> Tensor:
        """The covariance of the mixture, (D, D), within the components and between them."""
        offset = self.means - self.mean
        within = torch.einsum("k,kij,klj->il", self.weights, self.roots, self.roots)
        return within + torch.einsum("k,ki,kj->ij", self.weights, offset, offset)

    @cached_property
    def scale(self) -> float:
        """The root of the mean variance of a value, which is the unit of all distances."""
        return math.sqrt(float(self.covariance.trace()) / len(self.mean))

    def mass(self, directions: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """P(low <= u.x <= high) for each direction u, (n,); directions are (n, D), both bounds (n,)."""
        centres = directions @ self.means.mT
        spread = (directions @ self.roots).square().sum(-1).sqrt().mT.clamp_min(1e-12)
        cdf = torch.special.ndtr((torch.stack([low, high])[..., None] - centres) / spread)
        return (cdf[1] - cdf[0]) @ self.weights


@dataclass(frozen=True)
class Problem:
    """A prior, an operator and a noise level.

    Attributes:
        name: the name of the problem in tables.
        prior: has a closed form, on images of ``prior.shape``.
        operator: H.
        noise_std: the standard deviation of the measurement's noise.
    """

    name: str
    prior: GaussianMixture
    operator: Operator
    noise_std: float

    def draw(self, count: int, seed: int) -> Tensor:
        """Measurements of ``count`` draws from the prior, as float64 (count, *measurement_shape)."""
        generator = torch.Generator().manual_seed(seed)
        y = self.operator.forward(self.prior.sample(count, generator))
        return y + self.noise_std * torch.randn(y.shape, dtype=y.dtype, generator=generator)

    @cached_property
    def modes(self) -> tuple[Tensor, Tensor, Tensor]:
        """U (m, r), s (r,) and V^T (r, D) of the thin SVD of H, without singular values that are zero to rounding."""
        pixels = math.prod(self.prior.shape)
        eye = torch.eye(pixels, dtype=torch.float64).reshape(pixels, *self.prior.shape)
        u, s, vt = torch.linalg.svd(self.operator.forward(eye).reshape(pixels, -1).mT, full_matrices=False)
        kept = s > 1e-9 * s[0]
        return u[:, kept], s[kept], vt[kept]

    def posterior(self, y: Tensor) -> Posterior:
        """p(x | y) of one measurement (*measurement_shape,).

        In the coordinates c = U^T y/s = V^T x + (noise_std/s) n of the thin SVD, a component N(m, C) of the prior has
        the gain G = C V (V^T C V + noise_std^2/s^2)^-1. The posterior has the component N(m + G (c - V^T m),
        (I - G V^T) C), whose weight is the old one times N(c; V^T m, V^T C V + noise_std^2/s^2).
        """
        u, s, vt = self.modes
        c = (y.flatten().double() @ u) / s
        means, roots, logs = [], [], []
        for weight, m, covariance in zip(self.prior.weights, self.prior.means, self.prior.covariances, strict=True):
            total = vt @ covariance @ vt.mT + torch.diag((self.noise_std / s) ** 2)
            factor = torch.linalg.cholesky(total)
            misfit = c - vt @ m
            gain = torch.cholesky_solve(vt @ covariance, factor).mT
            left = covariance - gain @ vt @ covariance
            values, vectors = torch.linalg.eigh((left + left.mT) / 2)
            white = torch.linalg.solve_triangular(factor, misfit[:, None], upper=False)
            means.append(m + gain @ misfit)
            roots.append(vectors * values.clamp_min(0).sqrt())
            logs.append(weight.log() - 0.5 * white.square().sum() - factor.diagonal().log().sum())
        return Posterior(torch.softmax(torch.stack(logs), 0), torch.stack(means), torch.stack(roots))


# ------------------------------------------------------------------------------------------------ priors
def covariance(shape: tuple[int, ...], lengths: tuple[float, ...]) -> Tensor:
    """STD^2 times the Kronecker product of correlations exp(-|i - j|/length), one for each axis but the channels."""
    result = torch.full((1, 1), STD**2, dtype=torch.float64)
    for count, length in zip(shape[1:], lengths, strict=True):
        index = torch.arange(count, dtype=torch.float64)
        result = torch.kron(result, torch.exp(-(index[:, None] - index).abs() / length))
    return result


def gaussian(shape: tuple[int, ...]) -> Gaussian:
    """A Gaussian prior with a correlation length of five pixels, whose mean is a wave of amplitude 0.3."""
    pixels = math.prod(shape)
    mean = 0.3 * torch.sin(torch.arange(pixels, dtype=torch.float64))
    return Gaussian(mean, covariance(shape, (5.0,) * (len(shape) - 1)), shape)


def mixture(shape: tuple[int, ...]) -> GaussianMixture:
    """A prior of three components, which are rough, smooth, and stretched along the last axis.

    Their means are smooth and about a standard deviation apart.
    """
    axes = len(shape) - 1
    covariances = torch.stack(
        [covariance(shape, (*(b,) * (axes - 1), a)) for a, b in ((2.0, 2.0), (10.0, 10.0), (8.0, 2.0))]
    )
    generator = torch.Generator().manual_seed(len(shape) * math.prod(shape))
    smooth = covariance(shape, (6.0,) * axes)
    root = torch.linalg.cholesky(smooth)
    means = torch.randn(3, math.prod(shape), dtype=torch.float64, generator=generator) @ root.mT
    return GaussianMixture([0.5, 0.3, 0.2], means, covariances, shape)


# ------------------------------------------------------------------------------------------------ operators
def mask(shape: tuple[int, ...]) -> Operator:
    """A mask that hides half of the pixels at random."""
    generator = torch.Generator().manual_seed(1)
    return Inpainting(torch.rand(shape, generator=generator, dtype=torch.float64) < 0.5)


def pool(shape: tuple[int, ...]) -> Operator:
    return AveragePooling(shape, 2 if len(shape) == 3 else 4)


def blur(shape: tuple[int, ...]) -> Operator:
    """A Gaussian blur with a standard deviation of 1.2 pixels and reflected borders."""
    index = torch.arange(-4, 5, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (index / 1.2) ** 2)
    return SeparableBlur(shape, (kernel / kernel.sum()).tolist())


LINE, SMALL, LARGE = (1, 16), (1, 8, 8), (1, 16, 16)

_ROWS: tuple[tuple[str, Callable, tuple[int, ...], Callable, float], ...] = (
    ("gaussian", gaussian, LINE, mask, 0.0),
    ("gaussian", gaussian, SMALL, pool, 0.05),
    ("gaussian", gaussian, SMALL, blur, 0.1),
    ("gaussian", gaussian, LARGE, mask, 0.2),
    ("mixture", mixture, LINE, mask, 0.0),
    ("mixture", mixture, SMALL, pool, 0.0),
    ("mixture", mixture, SMALL, pool, 0.5),
    ("mixture", mixture, SMALL, blur, 0.05),
    ("mixture", mixture, LARGE, pool, 0.2),
)


def build(row: tuple) -> Problem:
    family, prior, shape, operator, noise = row
    name = f"{family} {math.prod(shape)}, {operator.__name__}, noise {noise:g}"
    return Problem(name, prior(shape), operator(shape), noise)


PROBLEMS: tuple[Problem, ...] = tuple(build(row) for row in _ROWS)
