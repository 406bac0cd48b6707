"""Whole runs of the schedulers of diffusers, with their default settings, are those of the solvers on the same times.

What they do that we would not, each a row here: states of Euler and Heun are x/mu, and only the network's input is on
the path; timesteps are fractions, rounded, or cut off; sigmas are rounded to single precision; a zero terminal SNR ends
at alphabar = 2^-24, above what comes before; DDIM clips x0hat and keeps eps; ``thresholding`` clips to [-1, 1] unless
``sample_max_value`` says otherwise; v of EDM has the other sign; DEIS ends at the noise of the first timestep, or
repeats its last one; the third order lacks a factor 2; sigmas of Mochi are those of the data.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from extras import extra

from ccfast import Sampler, times
from ccfast.adapters import from_diffusers
from ccfast.kernels import reference
from ccfast.operators import Denoising
from ccfast.solvers import DDIM, DDPM, DEIS, Consistency, DPMSolverPP, Heun, Solver, UniPC
from ccfast.testing import relative_error

D = extra("diffusers", "diffusers")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # numpy's, of conversions inside of diffusers
    pytest.mark.filterwarnings("ignore:result. images"),  # A made-up network has estimates of any size.
]

SHAPE, SEED, STEPS = (2, 5, 6), 11, 10
OPERATOR = Denoising(SHAPE)
SPACINGS = [{"timestep_spacing": name} for name in ("leading", "trailing", "linspace")]
GRIDS = [{f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta")]
CLIPS = [
    {"thresholding": True},
    {"thresholding": True, "sample_max_value": 1.3, "dynamic_thresholding_ratio": 0.9},
]
BETAS = [
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "squaredcos_cap_v2"},
]
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
PREDICTIONS = ("epsilon", "sample", "v_prediction")


@dataclass
class Row:
    """A scheduler and the solver that takes its steps.

    Attributes:
        name: of the scheduler.
        solver: what is compared with it.
        settings: configurations beside the default one.
        config: what all of them have.
        predictions: its prediction types.
        rescaled: whether its states are x/mu.
        options: other arguments of its step.
        default: whether ``config`` alone is one of the settings.
    """

    name: str
    solver: Solver
    settings: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    predictions: tuple[str, ...] = PREDICTIONS
    rescaled: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    default: bool = True


MULTISTEP = [*SPACINGS, *GRIDS, *BETAS, {"final_sigmas_type": "sigma_min"}, ZERO_SNR]
SOME = [SPACINGS[1], GRIDS[0], GRIDS[2], ZERO_SNR]
FLOW = [{}, {"flow_shift": 3.0}]
REPEATS = DEIS(1, "log_rho", lower_order_final=False)
"""Grids whose last sigma repeats are a step shorter here, so that the order of another step would be lowered."""

ROWS = {
    # DDIM with linspace steps to t - N/steps and evaluates elsewhere; trailing does, too, where N/steps is no integer.
    "DDIM": Row("DDIM", DDIM(), [*SPACINGS[:2], *CLIPS, *BETAS, {"clip_sample_range": 0.5}, {"steps_offset": 1}]),
    "DDIM, not clipped": Row(
        "DDIM", DDIM(), [*SPACINGS[:2], *BETAS, {"set_alpha_to_one": False}], {"clip_sample": False}
    ),
    "DDIM, zero SNR": Row("DDIM", DDIM(), config=ZERO_SNR, predictions=PREDICTIONS[1:]),
    "DDIM, eta": Row("DDIM", DDIM(eta=0.7), SPACINGS[:2], options={"eta": 0.7}),
    "DDPM": Row("DDPM", DDPM(), [*SPACINGS, *CLIPS, {"clip_sample": False}]),
    # With trailing timesteps their last step, to alphabar = 1, adds the noise of a whole step.
    "DDPM, large": Row("DDPM", DDPM("large"), SPACINGS[::2], {"variance_type": "fixed_large"}),
    "DPM-Solver++ 1": Row("DPMSolverMultistep", DPMSolverPP(1), SOME, {"solver_order": 1}),
    "DPM-Solver++ 2": Row("DPMSolverMultistep", DPMSolverPP(), [*MULTISTEP, *CLIPS, {"use_lu_lambdas": True}]),
    "DPM-Solver++ 3": Row("DPMSolverMultistep", DPMSolverPP(3, curvature=0.5), MULTISTEP, {"solver_order": 3}),
    "DPM-Solver++ SDE 1": Row(
        "DPMSolverMultistep",
        DPMSolverPP(1, sde=True),
        SOME[:2],
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 1},
    ),
    "DPM-Solver++ SDE 2": Row(
        "DPMSolverMultistep", DPMSolverPP(sde=True), [*SPACINGS[:2], *GRIDS], {"algorithm_type": "sde-dpmsolver++"}
    ),
    "DPM-Solver++, flow": Row(
        "DPMSolverMultistep", DPMSolverPP(), FLOW, {"use_flow_sigmas": True}, ("flow_prediction", "epsilon", "sample")
    ),
    "DPM-Solver++, one step": Row("DPMSolverSinglestep", DPMSolverPP(1), GRIDS, {"solver_order": 1}),
    "UniPC": Row("UniPCMultistep", UniPC(), [*MULTISTEP, *CLIPS]),
    "UniPC 1": Row("UniPCMultistep", UniPC(1), SOME, {"solver_order": 1}),
    "UniPC 3": Row("UniPCMultistep", UniPC(3), SOME, {"solver_order": 3}),
    # B = -h of bh1 is infinite in their step to sigma = 0.
    "UniPC bh1": Row(
        "UniPCMultistep", UniPC(variant="bh1"), SPACINGS, {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}
    ),
    "UniPC, flow": Row("UniPCMultistep", UniPC(), FLOW, {"use_flow_sigmas": True}, ("flow_prediction",)),
    "DEIS 1": Row("DEISMultistep", DEIS(0), SPACINGS, {"solver_order": 1}),
    "DEIS": Row("DEISMultistep", DEIS(1, "log_rho"), [*SPACINGS, *BETAS, *CLIPS]),
    "DEIS, other grids": Row("DEISMultistep", REPEATS, GRIDS, default=False),
    "DEIS, flow": Row("DEISMultistep", REPEATS, FLOW, {"use_flow_sigmas": True}, ("flow_prediction",)),
    "DEIS 3": Row("DEISMultistep", DEIS(2, "log_rho"), SPACINGS, {"solver_order": 3}),
    # Their states are in single precision, of which nothing is left where cosine betas begin at sigma = 20291.
    "Euler": Row("EulerDiscrete", DDIM(), [s for s in MULTISTEP if s != BETAS[1]], rescaled=True),
    "Euler, continuous": Row(
        "EulerDiscrete",
        DDIM(),
        config={"timestep_type": "continuous", "use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 700.0},
        predictions=("v_prediction",),
        rescaled=True,
    ),
    "Euler ancestral": Row(
        "EulerAncestralDiscrete", DDIM(eta=1.0), SPACINGS, predictions=("epsilon", "v_prediction"), rescaled=True
    ),
    "Heun": Row(
        "HeunDiscrete", Heun(), [*SPACINGS, *GRIDS, {"clip_sample": True, "clip_sample_range": 0.7}], rescaled=True
    ),
    "EDM Euler": Row(
        "EDMEuler",
        DDIM(),
        [{"sigma_schedule": "exponential"}, {"sigma_data": 1.0}, {"final_sigmas_type": "sigma_min"}],
        predictions=("epsilon", "v_prediction"),
        rescaled=True,
    ),
    "EDM DPM-Solver++": Row(
        "EDMDPMSolverMultistep",
        DPMSolverPP(),
        [{"sigma_schedule": "exponential"}, {"sigma_data": 1.0}, *CLIPS],
        predictions=("epsilon", "v_prediction"),
        rescaled=True,
    ),
    "EDM DPM-Solver++, to sigma_min": Row(
        "EDMDPMSolverMultistep",
        DPMSolverPP(lower_order_final=False),
        config={"final_sigmas_type": "sigma_min"},
        predictions=("epsilon", "v_prediction"),
        rescaled=True,
    ),
    "flow matching": Row(
        "FlowMatchEulerDiscrete",
        DDIM(),
        [{"shift": 3.0}, *GRIDS, {"invert_sigmas": True}, {"shift_terminal": 0.1}],
        predictions=("",),
    ),
    "latent consistency": Row(
        "LCM", Consistency(), [{"timestep_scaling": 0.1}, {"beta_schedule": "linear"}, {"set_alpha_to_one": False}]
    ),
    # A sigma_min that single precision rounds leaves them noise in the last step.
    "consistency": Row(
        "CMStochasticIterative",
        Consistency(),
        [{"sigma_data": 1.0}, {"clip_denoised": False}, {"sigma_min": 0.125, "sigma_max": 20.0}],
        predictions=("",),
    ),
    "flow matching, consistency": Row("FlowMatchLCM", Consistency(), [{"shift": 3.0}], predictions=("",)),
    "flow matching, Heun": Row("FlowMatchHeunDiscrete", Heun(), [{"shift": 3.0}], predictions=("",)),
}


class Network(torch.nn.Module):
    """A network whose Jacobian is not symmetric, and which tells neighbouring times apart."""

    def forward(self, x, timestep):
        t = torch.as_tensor(timestep, dtype=x.dtype).reshape(-1, 1, 1, 1)
        return 0.7 * torch.tanh(x + 0.4 * x.roll(1, -1)) + 0.2 * x.roll(1, -2) + 0.1 * torch.sin(t / 150)


NETWORK = Network()


def settings(row: Row) -> list[dict[str, Any]]:
    return [row.config | extra for extra in [{}] * (row.default and {} not in row.settings) + row.settings]


def made(row: Row, config: dict[str, Any], prediction: str):
    named = {"prediction_type": prediction} if prediction else {}
    return getattr(D, f"{row.name}Scheduler")(**(config | named))


@cache
def noises(count: int) -> list[torch.Tensor]:
    """The unit noise of each step of a sampler, for one image and ``SEED``."""
    words = [torch.tensor([value]) for value in (SEED, 0, 0)]
    return [reference.normal(torch.empty(1, *SHAPE, dtype=torch.float64), *words, k + 1) for k in range(count)]


def theirs(scheduler, x: torch.Tensor, monkeypatch, **options: Any) -> torch.Tensor:
    """The loop of a pipeline, with the noise of the sampler."""
    state, drawn = x, iter(noises(2 * STEPS))
    module = inspect.getmodule(type(scheduler))
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(drawn))
    for t in scheduler.timesteps:
        given = scheduler.scale_model_input(state, t) if hasattr(scheduler, "scale_model_input") else state
        state = scheduler.step(NETWORK(given, t), t, state, **options).prev_sample
    return state


CASES = [(name, prediction) for name, row in ROWS.items() for prediction in row.predictions]


@pytest.mark.parametrize(("name", "prediction"), CASES)
def test_a_run_is_that_of_the_scheduler(name, prediction, monkeypatch):
    row = ROWS[name]
    noise = torch.randn(1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for config in settings(row):
        scheduler = made(row, config, prediction)
        before = copy.deepcopy(dict(scheduler.config))
        denoiser, grid = from_diffusers(NETWORK, scheduler), times.from_scheduler(scheduler, STEPS)
        assert dict(scheduler.config) == before
        scheduler.set_timesteps(STEPS)
        if "DEIS" in row.name:
            scheduler.sigmas = scheduler.sigmas.double()  # In single precision their differences of logarithms cancel.
        first = noise * float(getattr(scheduler, "init_noise_sigma", 1.0))
        expected = theirs(scheduler, first, monkeypatch, **row.options)
        mu = denoiser.schedule.mean(grid) if row.rescaled else np.ones(len(grid))
        sampler = Sampler(denoiser, OPERATOR, row.solver, times=grid)
        got = sampler(torch.zeros_like(first), x_init=first * mu[0], seed=SEED) / mu[-1]
        # Their coefficients are computed in single precision.
        assert relative_error(got, expected) < 1e-5, config
        if isinstance(row.solver, DDIM) and row.name == "DDIM" and config.get("clip_sample", True):
            assert sampler.clip is not None
