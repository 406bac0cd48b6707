"""Samplers on priors with a closed-form score: the guided ODE, limits, parametrisations, schedules, precision."""

from __future__ import annotations

import guided_ode
import numpy as np
import pytest
import torch

from ccfast import Sampler
from ccfast.operators import AveragePooling, Inpainting
from ccfast.schedules import EDM, VE, VP, DiscreteVP, Flow
from ccfast.solvers import DDIM, DDNM, Conjugate
from ccfast.testing import relative_error

pytestmark = pytest.mark.filterwarnings("ignore:jacobian. 'exact' is stable")

SHAPE = (1, 16)
DDPM_BETAS = np.linspace(1e-4, 0.02, 1000)
SCHEDULES = {
    "vp": VP(),
    "discrete": DiscreteVP(DDPM_BETAS),
    "ve": VE(0.002, 80.0),
    "edm": EDM(),
    "flow": Flow(),
}
SPANS = {"vp": (0.5, 0.01), "discrete": (0.5, 0.01), "ve": (3.0, 0.02), "edm": (3.0, 0.02), "flow": (0.3, 0.98)}


def problem(prior, schedule, start, operator, seed=0):
    """The measurement y of a draw from the prior, and an initial state at ``start``, in float64."""
    generator = torch.Generator().manual_seed(seed)
    y = operator.forward(prior.sample(1, generator))
    z = torch.randn(1, *SHAPE, dtype=torch.float64, generator=generator)
    return y, float(schedule.mean(start)) * operator.pinv(y) + float(schedule.std(start)) * z


def dense(operator) -> np.ndarray:
    return operator.project(torch.eye(16, dtype=torch.float64).reshape(16, *SHAPE)).reshape(16, 16).numpy().T


@pytest.mark.parametrize("jacobian", ["exact", "one_projection", "none"])
@pytest.mark.parametrize("w", [2.0, 15.0])
@pytest.mark.parametrize("name", SCHEDULES)
def test_converges_to_the_guided_ode_at_first_order(prior, name, w, jacobian):
    schedule, (start, end) = SCHEDULES[name], SPANS[name]
    operator = AveragePooling(SHAPE, 4)
    y, x_init = problem(prior, schedule, start, operator)
    ybar = operator.pinv(y).flatten().numpy()
    truth = guided_ode.solve(
        prior, dense(operator), ybar, schedule, x_init.flatten().numpy(), (start, end), w, jacobian != "none"
    )
    errors = []
    for steps in (100, 200):
        times = guided_ode.in_rho(schedule, start, end, steps)
        sampler = Sampler(prior.denoiser(schedule), operator, Conjugate(w, jacobian=jacobian), times=times)
        errors.append(np.linalg.norm(sampler(y, x_init=x_init).flatten().numpy() - truth) / np.linalg.norm(truth))
    assert errors[1] < 0.02
    assert 0.9 < np.log2(errors[0] / errors[1]) < 1.15, errors


@pytest.mark.elsewhere
@pytest.mark.parametrize("name", SCHEDULES)
def test_without_guidance_it_is_ddim_and_with_much_it_is_ddnm(mixture, name):
    schedule, (start, end) = SCHEDULES[name], SPANS[name]
    operator = AveragePooling(SHAPE, 2)
    y, x_init = problem(mixture, schedule, start, operator)

    def run(solver):
        return Sampler(mixture.denoiser(schedule), operator, solver, start=start, end=end)(y, x_init=x_init)

    assert torch.equal(run(Conjugate(0.0)), run(DDIM()))
    assert relative_error(run(Conjugate(1e-9)), run(DDIM())) < 1e-8
    assert relative_error(run(Conjugate(1e6, jacobian="none")), run(DDNM(eta=0.0))) < 1e-9
    assert relative_error(run(Conjugate(15.0)), run(DDIM())) > 1e-2


@pytest.mark.parametrize("lam", [0.0, 0.3])
@pytest.mark.parametrize("jacobian", ["exact", "one_projection", "none"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_parametrisation_of_the_network_does_not_matter(mixture, name, jacobian, lam):
    schedule, (start, end) = SCHEDULES[name], SPANS[name]
    operator = Inpainting(torch.arange(16)[None] % 3 != 0)
    y, x_init = problem(mixture, schedule, start, operator)
    results = [
        Sampler(mixture.denoiser(schedule, prediction), operator, Conjugate(9.0, lam, jacobian), start=start, end=end)(
            y.float(), x_init=x_init.float()
        )
        for prediction in ("epsilon", "sample", "v_prediction", "velocity", *(["edm"] if name == "edm" else []))
    ]
    for result in results[1:]:
        assert relative_error(result, results[0]) < 1e-5


@pytest.mark.parametrize("name", ["ve", "edm"])
def test_ve_and_edm_converge_to_the_vp_solution(prior, name):
    """The guided ODE of x/mu over rho is the same for all schedules, so VP's solution is the truth."""
    operator, schedule, vp, (start, end) = AveragePooling(SHAPE, 4), SCHEDULES[name], SCHEDULES["vp"], SPANS["vp"]
    y, x_init = problem(prior, vp, start, operator)
    ybar, x = operator.pinv(y).flatten().numpy(), x_init.flatten().numpy()
    truth = guided_ode.solve(prior, dense(operator), ybar, vp, x, (start, end), 6.0) / float(vp.mean(end))
    errors = []
    for steps in (80, 160, 320):
        times = schedule.time(np.geomspace(*vp.rho((start, end)), steps + 1))
        first, last = (float(schedule.mean(t)) for t in (times[0], times[-1]))
        sampler = Sampler(prior.denoiser(schedule), operator, Conjugate(6.0), times=times)
        got = sampler(y, x_init=x_init / float(vp.mean(start)) * first) / last
        errors.append(np.linalg.norm(got.flatten().numpy() - truth) / np.linalg.norm(truth))
    assert errors[-1] < 0.01
    assert errors[0] > 1.7 * errors[1] > 1.7**2 * errors[2]


@pytest.mark.elsewhere
@pytest.mark.parametrize("jacobian", ["exact", "one_projection", "none"])
@pytest.mark.parametrize("w", [1.0, 15.0, 40.0])
@pytest.mark.parametrize(("name", "start"), [("vp", 1.0), ("vp", 0.6), ("flow", 0.0), ("flow", 0.6), ("ve", 80.0)])
def test_single_precision_follows_double(mixture, name, start, w, jacobian):
    schedule = SCHEDULES[name]
    prediction = "velocity" if name == "flow" else "epsilon"
    operator = AveragePooling(SHAPE, 4)
    y, x_init = problem(mixture, schedule, start, operator)
    sampler = Sampler(
        mixture.denoiser(schedule, prediction), operator, Conjugate(w, jacobian=jacobian), start=start, steps=10
    )
    double = sampler(y, x_init=x_init)
    single = sampler(y.float(), x_init=x_init.float())
    assert torch.isfinite(double).all()
    assert relative_error(single, double) < 1e-5


@pytest.mark.parametrize("name", ["vp", "ve", "flow"])
def test_a_step_may_end_free_of_noise(mixture, name):
    schedule = SCHEDULES[name]
    start, end = SPANS[name][0], 1.0 if name == "flow" else 0.0
    operator = AveragePooling(SHAPE, 4)
    y, x_init = problem(mixture, schedule, start, operator)
    for solver in (Conjugate(15.0), Conjugate(15.0, lam=0.2), DDNM(eta=0.8), DDIM(eta=1.0)):
        x = Sampler(mixture.denoiser(schedule), operator, solver, start=start, end=end)(y, x_init=x_init, seed=0)
        assert torch.isfinite(x).all()
