"""Adapters on a prior whose denoiser is known, through stand-ins and, where they are installed, the packages."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import ccfast
from ccfast.adapters import (
    denoise_at,
    from_diffusers,
    from_edm,
    to_azula,
)
from ccfast.operators import AveragePooling
from ccfast.schedules import VP, DiscreteVP, Flow
from ccfast.solvers import Conjugate
from ccfast.testing import Gaussian, relative_error

SHAPE = (3, 4, 4)
BETAS = torch.linspace(1e-4, 0.02, 1000)
NOT_HERE = "compared with the package itself where it is installed (extra bench-peers)"


@pytest.fixture(scope="module")
def prior():
    index = torch.arange(48, dtype=torch.float64)
    return Gaussian(0.2 * torch.sin(index), 0.2 * 0.8 ** (index[:, None] - index).abs(), SHAPE)


def states(count=2, seed=0):
    return torch.randn(count, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def exact(prior, x, sigma):
    """The exact denoiser E[x0 | x] for x = x0 + sigma n."""
    sigma = torch.as_tensor(sigma, dtype=torch.float64).expand(x.shape[0])
    return prior.denoise(x, torch.ones_like(sigma), sigma)


def scheduler(name="DDPMScheduler", betas=BETAS, **config):
    """A stand-in for a diffusers scheduler, with what is read of one: its class's name, betas and config."""
    return type(name, (), {"betas": betas, "config": {"num_train_timesteps": 1000, **config}})()


class DiffusersLike(torch.nn.Module):
    """A network with the signature of diffusers, which gives the exact prediction at integer times."""

    def __init__(self, prior, prediction):
        super().__init__()
        self.prior, self.prediction = prior, prediction
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        assert not return_dict
        assert class_labels == "a class"
        if self.prediction == "flow":
            s = timestep.double() / 1000
            mu, sigma = 1 - s, s
        else:
            alphabar = torch.cumprod(1 - BETAS.double(), 0)[timestep.long()]
            mu, sigma = alphabar.sqrt(), (1 - alphabar).sqrt()
        x0 = self.prior.denoise(sample, mu, sigma)
        mu, sigma = mu[:, None, None, None], sigma[:, None, None, None]
        eps = (sample - mu * x0) / sigma
        return (
            {"epsilon": eps, "sample": x0, "v_prediction": mu * eps - sigma * x0, "flow": eps - x0}[self.prediction],
        )


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "flow"])
def test_diffusers_predictions_give_the_exact_denoiser(prior, prediction):
    network = DiffusersLike(prior, prediction)
    other = (
        scheduler("FlowMatchEulerDiscreteScheduler") if prediction == "flow" else scheduler(prediction_type=prediction)
    )
    denoiser = from_diffusers(network, other, network_kwargs={"class_labels": "a class"})
    for t in (200 / 999, 700 / 999) if prediction != "flow" else (0.3, 0.8):
        mu, sigma = (
            torch.full((2,), float(f(t)), dtype=torch.float64) for f in (denoiser.schedule.mean, denoiser.schedule.std)
        )
        x = states()
        assert relative_error(denoiser(x, t), prior.denoise(x, mu, sigma)) < 1e-6  # The betas are float32.
    own = ccfast.Sampler(prior.denoiser(denoiser.schedule), AveragePooling(SHAPE, 2), Conjugate(6.0), steps=4)
    sampler = ccfast.Sampler(denoiser, AveragePooling(SHAPE, 2), Conjugate(6.0), times=own.plan.times)
    y = AveragePooling(SHAPE, 2).forward(states())
    if prediction == "flow":
        assert relative_error(sampler(y, seed=0), own(y, seed=0)) < 1e-6
    else:  # The times that the network gets are rounded to integers.
        assert relative_error(sampler(y, seed=0), own(y, seed=0)) < 2e-3


def test_diffusers_schedulers_of_other_kinds_are_refused(prior):
    network = DiffusersLike(prior, "epsilon")
    with pytest.raises(ValueError, match=r"scheduler: must have a table of betas.*got SomeScheduler; give Denoiser"):
        from_diffusers(network, scheduler("SomeScheduler", betas=None))
    with pytest.raises(ValueError, match="prediction_type must be one of epsilon, sample, v_prediction, got 'x'"):
        from_diffusers(network, scheduler(prediction_type="x"))


def test_edm_and_k_diffusion_are_inverse_to_each_other(prior):
    model = lambda x, sigma: exact(prior, x, sigma)  # noqa: E731
    denoiser = from_edm(model, 0.002, 80.0)
    x, sigma = states(), torch.tensor([0.3, 4.0], dtype=torch.float64)
    assert relative_error(denoise_at(denoiser)(x, sigma), exact(prior, x, sigma)) < 1e-12
    for schedule in (VP(), Flow(), DiscreteVP(BETAS)):
        adapted = denoise_at(prior.denoiser(schedule))
        assert relative_error(adapted(x, sigma), exact(prior, x, sigma)) < 1e-9
        assert relative_error(adapted(x, 0.7), exact(prior, x, 0.7)) < 1e-9


def test_other_packages_see_the_clipped_estimate(prior):
    """And a network in half precision is told whole times."""
    seen = []

    def network(x, t):
        seen.append(t.tolist())
        return 3.0 * torch.tanh(x)

    for clip in ((-0.5, 0.7), "dynamic"):
        denoiser = ccfast.Denoiser(network, DiscreteVP(BETAS), "sample", clip=clip)
        sigma = float(denoiser.schedule.rho(421 / 999))
        got = denoise_at(denoiser)(states(), sigma)
        assert relative_error(got, denoiser(states() * float(denoiser.schedule.mean(421 / 999)), 421 / 999)) < 1e-12
        assert float(got.abs().max()) <= 1.0
        denoise_at(denoiser)(states().bfloat16(), sigma)
    assert seen == [[421.0, 421.0]] * len(seen)


def test_edm_takes_the_range_from_the_network_where_it_is_finite(prior):
    model = SimpleNamespace(sigma_min=0, sigma_max=float("inf"), sigma_data=0.7)
    model = type("Net", (), {**vars(model), "__call__": lambda self, x, sigma: x})()
    schedule = from_edm(model).schedule
    assert (schedule.sigma_min, schedule.sigma_max, schedule.sigma_data) == (0.002, 80.0, 0.7)


# ------------------------------------------------------------------------------------ the packages themselves
def test_azula_denoiser_and_path(prior):
    azula = pytest.importorskip("azula.sample", reason=NOT_HERE)
    schedule = VP()
    denoiser = to_azula(prior.denoiser(schedule))
    x, t = states(), torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = denoiser.schedule(t)
    assert float(alpha) == pytest.approx(float(schedule.mean(0.4)))
    mean = prior.denoise(x, alpha.expand(2), sigma.expand(2))
    assert relative_error(denoiser(x, t).mean, mean) < 1e-12
    sampler = azula.DDIMSampler(denoiser, start=0.9, stop=0.01, steps=8, silent=True, dtype=torch.float64)
    ours = ccfast.Sampler(
        prior.denoiser(schedule), AveragePooling(SHAPE, 2), ccfast.solvers.DDIM(), steps=8, start=0.9, end=0.01
    )
    y = ours.operator.forward(x)
    assert relative_error(sampler(x), ours(y, x_init=x)) < 1e-9
    with pytest.raises(ValueError, match="times from 0 to 1 = noise"):
        to_azula(prior.denoiser(Flow()))


def test_diffusers_network_and_scheduler():
    diffusers = pytest.importorskip("diffusers", reason=NOT_HERE)
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=16, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=1000, clip_sample=False, set_alpha_to_one=False)
    denoiser = from_diffusers(unet, scheduler)
    scheduler.set_timesteps(10)
    steps = scheduler.timesteps
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    theirs = x
    with torch.no_grad():
        for t in steps:
            theirs = scheduler.step(unet(theirs, t).sample, t, theirs).prev_sample
    ours = ccfast.Sampler(
        denoiser, AveragePooling((3, 16, 16), 2), ccfast.solvers.DDIM(), times=(steps.double() / 999).tolist()
    )
    last = ours(torch.zeros(1, 3, 8, 8), x_init=x)
    # Their tenth step goes from index 0 to index 0 (set_alpha_to_one=False), which changes nothing.
    assert relative_error(last, theirs) < 1e-4
    assert all(p.requires_grad for p in unet.parameters())
