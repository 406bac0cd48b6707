"""A run may start where mu = 0: every solver takes its limit there, or an error says that it has none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccfast import Denoiser, Sampler
from ccfast.operators import AveragePooling
from ccfast.schedules import DiscreteVP, Flow
from ccfast.solvers import DDIM, DEIS, Conjugate, DPMSolverPP, PiGDM
from ccfast.solvers.registry import REGISTRY
from ccfast.testing import relative_error

pytestmark = pytest.mark.filterwarnings("ignore:jacobian. 'exact' is stable")

SHAPE = (1, 8, 8)
OPERATOR = AveragePooling(SHAPE, 2)
PATHS = {
    "zero terminal snr": (DiscreteVP(np.append(np.linspace(1e-3, 0.2, 59), 1.0)), "v_prediction", [1.0, 0.7, 0.4, 0.1]),
    "sample": (DiscreteVP(np.append(np.linspace(1e-3, 0.2, 59), 1.0)), "sample", [1.0, 0.7, 0.4, 0.1]),
    "flow": (Flow(), "velocity", [0.0, 0.3, 0.6, 0.9]),
}
WITHOUT_LIMIT = "must start later than pure noise, got mu = 0|needs mu > 0 at every step; start later than pure noise"
BESIDE = (
    Conjugate(0.3, jacobian="none"),
    Conjugate(4.0, centred="prior"),
    Conjugate(4.0, centred="rayleigh"),
    Conjugate("bayes", jacobian="none"),
    Conjugate("bayes"),
    Conjugate(4.0, eta=1.0),
    Conjugate(4.0, lam=0.1),
    Conjugate(4.0, refresh=0.5),
    PiGDM(),
    DDIM(),
)
SOLVERS = {repr(solver): solver for solver in (*(entry.solver for entry in REGISTRY), *BESIDE)}
SLOW = ("DPMSolverPP", "UniPC", "DEIS(order=1, basis='log_rho'")
"""Multistep solvers in lambda or ln rho. Their step from lambda = -inf has order 1, and approaches its limit as
1/lambda or not at all."""


def network(x, t):
    return 0.3 * torch.tanh(x) + 0.1


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(solver, path, shift, noise_std=0.0):
    schedule, prediction, times = PATHS[path]
    times = [times[0] + shift * np.sign(times[1] - times[0]), *times[1:]]
    sampler = Sampler(Denoiser(network, schedule, prediction), OPERATOR, solver, times=times, noise_std=noise_std)
    return sampler(OPERATOR.forward(random(2, *SHAPE, seed=1)), x_init=random(2, *SHAPE, seed=2), seed=0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", SOLVERS)
def test_pure_noise_is_the_limit_or_refused(name, path):
    solver = SOLVERS[name]
    for noise in (0.0, 0.05):
        try:
            at = run(solver, path, 0.0, noise)
        except ValueError as refused:
            words = str(refused)
            assert "noise_std" in words or any(rule in words for rule in WITHOUT_LIMIT.split("|")), words
            continue
        if not name.startswith(SLOW):
            errors = [relative_error(run(solver, path, shift, noise), at) for shift in (1e-6, 1e-8)]
            assert errors[1] < 2e-2 if name == repr(Conjugate(0.3, jacobian="none")) else errors[1] < 1e-5, errors
        assert torch.isfinite(at).all()


@pytest.mark.parametrize("solver", [DDIM(), DPMSolverPP(1), DEIS(0), Conjugate(0.0)], ids=repr)
def test_ddim_from_pure_noise_is_the_recursion(solver):
    schedule, _, _ = PATHS["zero terminal snr"]
    index = np.array([59, 40, 12, 3])
    alphabar = np.cumprod(1 - np.append(np.linspace(1e-3, 0.2, 59), 1.0))[index]
    mu, sigma = np.sqrt(alphabar), np.sqrt(1 - alphabar)
    x = state = random(2, *SHAPE, seed=2)
    for k in range(3):
        v = network(state, None)
        state = mu[k + 1] * (mu[k] * state - sigma[k] * v) + sigma[k + 1] * (sigma[k] * state + mu[k] * v)
    sampler = Sampler(Denoiser(network, schedule, "v_prediction"), OPERATOR, solver, times=index / 59)
    assert relative_error(sampler(torch.zeros(2, 1, 4, 4, dtype=torch.float64), x_init=x), state) < 1e-12


def test_an_epsilon_network_is_refused_at_pure_noise_alone():
    schedule = PATHS["zero terminal snr"][0]
    denoiser = Denoiser(network, schedule, "epsilon")
    with pytest.raises(ValueError, match="'epsilon' does not determine the sample where mu = 0, got t = 1"):
        Sampler(denoiser, OPERATOR, DDIM(), times=[1.0, 0.5, 0.1])
    for start in (58 / 59, 0.999):
        Sampler(denoiser, OPERATOR, DDIM(), times=[start, 0.5, 0.1])


@pytest.mark.parametrize("name", SOLVERS)
def test_a_table_ends_at_the_estimate(name):
    """With a network that knows x0, every solver returns x0 up to rounding at the clean end."""
    x = random(2, *SHAPE, seed=3).clamp(-1, 1)
    schedule = DiscreteVP(np.linspace(1e-2, 0.2, 50))
    solver = SOLVERS[name]
    options = {"steps": 4, "start": 0.9}
    try:
        sampler = Sampler(Denoiser(lambda s, t: x.to(s) + 0 * s, schedule, "sample"), OPERATOR, solver, **options)
        result = sampler(OPERATOR.forward(x), seed=0)
    except (ValueError, TypeError) as refused:
        pytest.skip(str(refused))  # A solver may refuse a "sample" network; the error is its reason.
    # These solvers end at a state of their own, or their long last step leaves fresh noise or a part of the state.
    if name.startswith(("LML", "REDDiff", "BDIA")) or (name.startswith("Conjugate") and (solver.eta or solver.lam)):
        assert torch.isfinite(result).all()
    else:
        assert relative_error(result, x) < 1e-7
