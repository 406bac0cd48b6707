"""DDPM with its three variances, compared with the published loop on the same noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccfast import Denoiser, Sampler
from ccfast.engine.backends import BACKENDS, can_run
from ccfast.kernels import reference
from ccfast.operators import AveragePooling
from ccfast.schedules import VP, DiscreteVP
from ccfast.solvers import DDIM, DDPM, DDRM
from ccfast.testing import relative_error

SHAPE = (2, 4, 6)
OPERATOR = AveragePooling(SHAPE, 2)
Y = torch.zeros(2, 2, 2, 3, dtype=torch.float64)
BETAS = np.linspace(1e-4, 0.02, 1000)


def network(x, t):
    """eps, and the variance channels v, which take values over all of [-1, 1]."""
    return torch.cat([torch.tanh(x + 0.2 * x.roll(1, -1)), torch.sin(3.0 * x + t[:, None, None, None])], dim=1)


def start(dtype=torch.float64):
    return torch.randn(2, *SHAPE, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_it_is_the_published_loop_on_respaced_betas(variance):
    """The steps follow Nichol and Dhariwal's posterior, with the betas of the indices that are kept."""
    indices = [900, 700, 420, 200, 60, 20]
    schedule, bars = DiscreteVP(BETAS), np.cumprod(1 - BETAS)[indices]
    denoiser = Denoiser(network, schedule, time_map=lambda t: t)
    times = np.array(indices) / 999
    got = Sampler(denoiser, OPERATOR, DDPM(variance), times=times)(Y, x_init=start(), seed=3)
    x = start()
    words = torch.tensor([3, 3]), torch.tensor([0, 1]), torch.tensor([0, 0])
    for k in range(5):
        bar, before = bars[k], bars[k + 1]
        beta = 1 - bar / before
        tilde = beta * (1 - before) / (1 - bar)
        eps, v = network(x, torch.full((2,), times[k], dtype=torch.float64)).chunk(2, dim=1)
        x0 = (x - np.sqrt(1 - bar) * eps) / np.sqrt(bar)
        mean = np.sqrt(before) * beta / (1 - bar) * x0 + np.sqrt(1 - beta) * (1 - before) / (1 - bar) * x
        u = (v + 1) / 2
        drawn = {"small": tilde + 0 * v, "large": beta + 0 * v}.get(variance, beta**u * tilde ** (1 - u))
        z = reference.normal(torch.empty_like(x), *words, k + 1)
        x = mean + drawn.sqrt() * z
    assert relative_error(got, x) < 1e-9


def test_a_step_to_the_data_draws_no_noise():
    for variance in ("large", "learned", "small"):
        sampler = Sampler(Denoiser(network, VP()), OPERATOR, DDPM(variance), times=[0.5, 0.2, 0.0])
        first, second = (sampler(Y, x_init=start(), seed=seed, callback=lambda k, x0: k == 0) for seed in (0, 1))
        assert relative_error(first, second) > 0.01
        last = Sampler(Denoiser(network, VP()), OPERATOR, DDPM(variance), times=[0.2, 0.0])
        assert torch.equal(last(Y, x_init=start(), seed=0), last(Y, x_init=start(), seed=1))


def test_the_small_variance_is_ancestral_ddim():
    runs = (Sampler(Denoiser(network, VP()), OPERATOR, solver) for solver in (DDPM(), DDIM(eta=1.0)))
    got, expected = (sampler(Y, x_init=start(), seed=0) for sampler in runs)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backends_agree_on_a_learned_variance(dtype):
    names = [name for name in BACKENDS if can_run(name)]
    runs = [Sampler(Denoiser(network, VP()), OPERATOR, DDPM("learned"), backend=name) for name in names]
    results = [sampler(Y.to(dtype), x_init=start(dtype), seed=[4, 5]) for sampler in runs]
    for sampler, result in zip(runs, results, strict=True):
        assert relative_error(result, results[0]) < 1e-5
        alone = sampler(Y[1:].to(dtype), x_init=start(dtype)[1:], seed=[5])
        assert relative_error(alone, result[1:]) < 1e-5


def test_errors():
    with pytest.raises(ValueError, match="variance: must be 'small', 'large' or 'learned', got 'both'"):
        DDPM("both")
    plain = Denoiser(lambda x, t: x, VP())
    with pytest.raises(ValueError, match=r"must return twice the channels of \(2, 2, 4, 6\), with a learned variance"):
        Sampler(plain, OPERATOR, DDPM("learned"))(Y, x_init=start())
    # Every other solver drops the learned variance.
    assert Sampler(Denoiser(network, VP()), OPERATOR, DDRM())(Y, x_init=start(), seed=0).shape == (2, *SHAPE)
