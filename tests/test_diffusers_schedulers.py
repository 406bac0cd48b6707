"""Schedulers of diffusers: each is read as it is, or refused with what to do instead.

What they do that we would not, each a row or a test here: the same config means other timesteps in each class (cut
off, rounded, fractions); some have options that they never read, others betas that are none; alphas_cumprod is not the
product of the betas; a prediction type goes with one path alone; sigmas may lie beyond the betas, and times may come
from sigmas that the timesteps do not belong to.
"""

from __future__ import annotations

import inspect
import pickle

import numpy as np
import pytest
import torch
from extras import extra

from ccfast import Sampler, times
from ccfast.adapters import from_diffusers
from ccfast.engine.clipping import DynamicThreshold, EstimateOnly
from ccfast.operators import Denoising
from ccfast.schedules import EDM, VE, DiscreteVP, Flow
from ccfast.solvers import DDIM
from ccfast.testing import relative_error

D = extra("diffusers", "diffusers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # numpy's, of conversions inside of diffusers

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
OPTIONS = [
    {},
    *({"timestep_spacing": name} for name in ("leading", "trailing", "linspace")),
    *({f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta")),
    {"use_lu_lambdas": True},
    {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1},
    {"final_sigmas_type": "sigma_min"},
    FLOW,
]
NAMES = [
    "DDIM",
    "DDIMParallel",
    "DDPM",
    "DDPMParallel",
    "EulerDiscrete",
    "EulerAncestralDiscrete",
    "HeunDiscrete",
    "LMSDiscrete",
    "LCM",
    "TCD",
    "UnCLIP",
    "DPMSolverMultistep",
    "DPMSolverSinglestep",
    "UniPCMultistep",
    "DEISMultistep",
    "SASolver",
    "CogVideoXDDIM",
]
X = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def network(x, timestep):
    return 2.0 * torch.tanh(x.roll(1, -1)) + 0.3


def options_of(name):
    scheduler = getattr(D, f"{name}Scheduler")
    known = inspect.signature(scheduler.__init__).parameters
    return [scheduler(**options) for options in OPTIONS if options.keys() <= known.keys()]


@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_told_the_scheduler_s_timesteps(name):
    steps = 6
    for scheduler in options_of(name):
        config = dict(scheduler.config)
        if (
            config.get("use_karras_sigmas")
            and config["beta_schedule"] != "linear"
            and name in ("DEISMultistep", "SASolver")
        ):
            continue  # They round to timesteps that repeat, of which some are left out.
        time_map, grid = from_diffusers(network, scheduler).time_map, times.from_scheduler(scheduler, steps)
        scheduler.set_timesteps(steps)
        given = scheduler.timesteps.double().numpy()
        given = given[: len(grid) - 1] if name != "HeunDiscrete" else given[np.append(True, np.diff(given) != 0)]
        told = np.array([time_map(t) for t in grid[:-1]])
        # What they cut off may lie just below a whole number, by rounding.
        slack = 1.001 if time_map.rounding == "down" else 2e-3
        assert np.abs(given - told).max() < slack, config
        assert (np.abs(given - told) < 2e-3).mean() > 0.8, config


def estimate(scheduler, alphabar, out, index):
    """x0hat by the formulas of the prediction types, clipped as the config says."""
    mu, sigma, config = alphabar**0.5, (1 - alphabar) ** 0.5, scheduler.config
    x0 = {"epsilon": (X - sigma * out) / mu, "sample": out, "v_prediction": mu * X - sigma * out}
    x0 = x0[config.get("prediction_type", "epsilon")]
    if config.get("thresholding"):
        s = torch.quantile(x0.flatten(1).abs(), config["dynamic_thresholding_ratio"], dim=1)
        s = s.clamp(min=1, max=config["sample_max_value"])[:, None, None, None]
        x0 = torch.maximum(torch.minimum(x0, s), -s) / s
    elif config.get("clip_sample"):
        limit = config.get("clip_sample_range", 1.0)
        x0 = x0.clamp(-limit, limit)
    if not hasattr(scheduler, "get_scalings_for_boundary_condition_discrete"):
        return x0
    c_skip, c_out = scheduler.get_scalings_for_boundary_condition_discrete(index)
    return c_out * x0 + c_skip * X


CLIPS = [
    {"clip_sample": False},
    {"clip_sample": True, "clip_sample_range": 0.6},
    {"thresholding": True},
    {"thresholding": True, "dynamic_thresholding_ratio": 0.8, "sample_max_value": 1.4},
]
CLIPPING = [
    "DDIM",
    "DDPM",
    "DDIMParallel",
    "DDPMParallel",
    "LCM",
    "UnCLIP",
    "HeunDiscrete",
    "DPMSolverMultistep",
    "UniPCMultistep",
    "DEISMultistep",
]


@pytest.mark.parametrize("name", [*CLIPPING, "PNDM", "LMSDiscrete", "KDPM2Discrete", "DPMSolverSinglestep", "SASolver"])
def test_the_estimate_is_that_of_the_formula(name):
    made = getattr(D, f"{name}Scheduler")
    known = inspect.signature(made.__init__).parameters
    kinds = [k for k in ("epsilon", "sample", "v_prediction") if not (name == "UnCLIP" and k == "v_prediction")]
    kinds = [k for k in kinds if not (name in ("LMSDiscrete", "KDPM2Discrete", "PNDM") and k == "sample")]
    for prediction in kinds:
        for clip in [{}, *(clip for clip in CLIPS if clip.keys() <= known.keys())]:
            scheduler = made(prediction_type=prediction, **clip)
            denoiser = from_diffusers(network, scheduler)
            for index in (40, 700):
                alphabar = float(scheduler.alphas_cumprod[index])
                expected = estimate(scheduler, alphabar, network(X, index), index)
                # LCM clips what the boundary condition then adds c_skip x to, 1.6e-6 x at timestep 40.
                bound = 1e-5 if name == "LCM" else 1e-6
                assert relative_error(denoiser(X, index / 999), expected) < bound, (prediction, clip)


def test_the_boundary_condition_counts_timesteps_whatever_the_network_is_told():
    scheduler = D.LCMScheduler(timestep_scaling=0.01)
    plain = from_diffusers(network, scheduler)
    scaled = from_diffusers(lambda x, t: network(x, 1000 * t), scheduler, time_scale=1e-3)
    assert relative_error(scaled(X, 40 / 999), plain(X, 40 / 999)) < 1e-12
    assert relative_error(plain(X, 40 / 999), from_diffusers(network, D.LCMScheduler())(X, 40 / 999)) > 0.1


def test_options_that_are_never_read_are_not_obeyed():
    for name in ("TCD", "CogVideoXDDIM"):
        assert getattr(D, f"{name}Scheduler")(clip_sample=True).config["clip_sample"]
        assert from_diffusers(network, getattr(D, f"{name}Scheduler")(clip_sample=True)).clip is None
    assert from_diffusers(network, D.DDIMScheduler()).clip == EstimateOnly((-1.0, 1.0))
    assert from_diffusers(network, D.DDPMScheduler()).clip == (-1.0, 1.0)
    assert from_diffusers(network, D.DDPMScheduler(thresholding=True, sample_max_value=2.0)).clip == DynamicThreshold(
        0.995, 2.0
    )


def test_products_are_the_scheduler_s_own():
    """CogVideoX shifts them after the betas are made."""
    scheduler = D.CogVideoXDDIMScheduler(snr_shift_scale=3.0)
    schedule = from_diffusers(network, scheduler).schedule
    t = np.arange(0, 1000, 37)
    np.testing.assert_allclose(schedule.mean(t / 999) ** 2, scheduler.alphas_cumprod[t].double().numpy(), rtol=1e-9)
    assert not np.allclose(schedule.mean(t / 999), DiscreteVP(scheduler.betas).mean(t / 999), rtol=0.1)


@pytest.mark.parametrize("count", [2, 6, 40])
def test_tables_of_few_timesteps(count):
    betas = np.linspace(0.01, 0.3, count).tolist()
    for name in ("DDPM", "DDIM", "EulerDiscrete", "UniPCMultistep", "HeunDiscrete", "PNDM"):
        scheduler = getattr(D, f"{name}Scheduler")(num_train_timesteps=count, trained_betas=betas)
        denoiser = from_diffusers(network, scheduler)
        assert denoiser.schedule.count == count
        assert [denoiser.time_map(t) for t in (0.0, 1.0)] == [0.0, count - 1.0]


def test_zero_terminal_snr_is_exact_where_the_scheduler_s_is():
    rescaled = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    for name, mean in (("DDIM", 0.0), ("DDPM", 0.0), ("EulerDiscrete", 2.0**-12), ("DPMSolverMultistep", 2.0**-12)):
        scheduler = getattr(D, f"{name}Scheduler")(**rescaled)
        denoiser = from_diffusers(network, scheduler)
        assert float(denoiser.schedule.mean(1.0)) == pytest.approx(mean, rel=1e-9)
        assert np.all(np.diff(denoiser.schedule.mean(np.arange(1000) / 999)) < 0)
        grid = times.from_scheduler(scheduler, 5)
        assert grid[0] == 1.0
        assert torch.isfinite(Sampler(denoiser, Denoising((3, 4, 5)), DDIM(), times=grid)(X, seed=0)).all()


def test_a_score_network_of_ve():
    scheduler = D.ScoreSdeVeScheduler(sigma_max=300.0)
    denoiser = from_diffusers(lambda x, sigma: -x / (1.0 + sigma[:, None, None, None] ** 2), scheduler)
    assert repr(denoiser.schedule) == repr(VE(0.01, 300.0))
    assert relative_error(denoiser(X, 2.5), X / (1.0 + 2.5**2)) < 1e-12  # E[x0 | x] of unit Gaussian data
    grid = times.from_scheduler(scheduler, 50)
    scheduler.set_timesteps(50)
    scheduler.set_sigmas(50)
    np.testing.assert_allclose(grid[:-1], scheduler.discrete_sigmas.double().numpy()[::-1], rtol=1e-6)
    assert grid[-1] == 0.0
    result = Sampler(denoiser, Denoising((3, 4, 5)), DDIM(), times=grid)(torch.zeros_like(X), x_init=300.0 * X)
    assert relative_error(result, X) < 0.3  # The ODE takes N(0, 300^2) to N(0, 1).


def test_dynamic_shifts_of_flow_matching():
    """mu comes from the size of the image, and is given to ``from_scheduler`` as it is to ``set_timesteps``."""
    for shift, s in (("exponential", np.e**0.8), ("linear", 0.8)):
        scheduler = D.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=shift)
        denoiser = from_diffusers(network, scheduler)
        plain = np.linspace(1.0, 1e-3, 4)
        expected = np.append(s / (s + 1 / plain - 1), 0.0)
        np.testing.assert_allclose(times.from_scheduler(scheduler, 4, mu=0.8), 1 - expected, atol=1e-6)
        assert isinstance(denoiser.schedule, Flow)
        assert denoiser.time_map(0.3) == pytest.approx(700.0)
    inverted = from_diffusers(network, D.FlowMatchEulerDiscreteScheduler(invert_sigmas=True))
    assert inverted.time_map(0.3) == pytest.approx(300.0)
    assert relative_error(inverted(X, 0.3), X + 0.7 * network(X, 300.0)) < 1e-12


def test_a_denoiser_can_be_pickled():
    for scheduler in (D.EulerDiscreteScheduler(), D.EDMEulerScheduler(), D.FlowMatchEulerDiscreteScheduler()):
        denoiser = from_diffusers(network, scheduler)
        again = pickle.loads(pickle.dumps(denoiser))
        assert torch.equal(again(X, 0.31), denoiser(X, 0.31))
        assert again.time_map(0.2345) == denoiser.time_map(0.2345)


def test_every_scheduler_is_read_or_refused_by_name():
    supported = {
        *NAMES,
        *CLIPPING,
        "CogVideoXDPM",
        "RePaint",
        "EDMEuler",
        "EDMDPMSolverMultistep",
        "FlowMatchEulerDiscrete",
    }
    supported |= {
        "FlowMatchHeunDiscrete",
        "FlowMatchLCM",
        "CMStochasticIterative",
        "KDPM2Discrete",
        "KDPM2AncestralDiscrete",
        "PNDM",
        "ScoreSdeVe",
    }
    names = [name for name in dir(D) if name.endswith("Scheduler") and not name.startswith("Flax")]
    assert len(names) > 40
    for name in names:
        try:
            scheduler = getattr(D, name)()
        except (ImportError, TypeError):  # A missing package, or arguments without defaults.
            scheduler = None
        if not hasattr(scheduler, "config"):
            scheduler = type(name, (), {"config": {}})()
            if name == "DPMSolverSDEScheduler":
                continue
        if name.removesuffix("Scheduler") in supported:
            denoiser = from_diffusers(network, scheduler)
            assert isinstance(denoiser.schedule, DiscreteVP | Flow | EDM | VE)
        else:
            with pytest.raises(ValueError, match=f"scheduler: {name} is not supported, since .*; "):
                from_diffusers(network, scheduler)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: D.DPMSolverMultistepScheduler(prediction_type="flow_prediction"),
            "prediction_type 'flow_prediction' needs use_flow_sigmas=True",
        ),
        (
            lambda: D.UniPCMultistepScheduler(prediction_type="v_prediction", use_flow_sigmas=True),
            "prediction_type must be one of flow_prediction, epsilon, sample with use_.*, got 'v_prediction'",
        ),
        (
            lambda: D.DDIMScheduler(prediction_type="other"),
            "prediction_type must be one of .*, got 'other'; give Denoiser",
        ),
        (lambda: D.EDMEulerScheduler(prediction_type="sample"), "prediction_type of EDM must be .*, got 'sample'"),
        (lambda: D.EulerDiscreteScheduler(interpolation_type="log_linear"), "interpolation_type must be 'linear'"),
    ],
)
def test_contradictions_are_refused(make, message):
    with pytest.raises(ValueError, match=f"scheduler: {message}"):
        from_diffusers(network, make())


def test_sigmas_beyond_the_betas_are_refused():
    scheduler = D.EulerDiscreteScheduler(use_karras_sigmas=True, sigma_min=0.02, sigma_max=700.0)
    from_diffusers(network, scheduler)
    with pytest.raises(ValueError, match=r"scheduler: its sigmas must be within .* up to 157\.4.*, got 700"):
        times.from_scheduler(scheduler, 5)
    with pytest.raises(TypeError, match=r"scheduler: must be a scheduler of diffusers, .*got dict"):
        from_diffusers(network, {"betas": []})
