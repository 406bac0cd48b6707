"""Runs that begin with a fraction of the initial noise: what they give on Gaussian priors, and who refuses them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from ccfast import Sampler
from ccfast.engine.backends import BACKENDS, can_run
from ccfast.operators import AveragePooling, Denoising, Matrix
from ccfast.schedules import EDM, VE, VP, Flow
from ccfast.solvers import DDNM, LML, PSLD, Conjugate
from ccfast.solvers.registry import REGISTRY
from ccfast.testing import Gaussian, relative_error

pytestmark = pytest.mark.filterwarnings("ignore:jacobian. 'exact' is stable")

SHAPE = (1, 16)
PATHS = {
    "vp": (VP(), 0.6, 0.0),
    "flow": (Flow(), 0.3, 1.0),
    "ve": (VE(0.002, 80.0), 3.0, 0.002),
    "edm": (EDM(), 3.0, 0.002),
}
NOISES = (0.0, 0.3)


def draws(plan) -> bool:
    return any(("z", 0) in step.reads for step in plan.steps)


def operators():
    matrix = torch.rand(8, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {"pooling": AveragePooling(SHAPE, 4), "matrix": Matrix(matrix, SHAPE), "denoising": Denoising(SHAPE)}


OPERATORS = operators()


@pytest.fixture(scope="module")
def unit():
    return Gaussian(torch.zeros(16, dtype=torch.float64), torch.eye(16, dtype=torch.float64), SHAPE)


def measured(prior, operator, noise):
    generator = torch.Generator().manual_seed(3)
    y = operator.forward(prior.sample(1, generator))
    return y + noise * torch.randn(y.shape, generator=generator, dtype=y.dtype)


@pytest.mark.parametrize("noise", NOISES)
def test_a_deterministic_run_begins_where_it_is_told_and_others_refuse(solver_entry, prior, noise):
    """On a Gaussian prior a run without noise in its steps is affine, and from the mean gives the mean of samples."""
    solver, operator, options = solver_entry.solver, OPERATORS["pooling"], {"steps": 3, "noise_std": noise}
    if noise and solver_entry.noise == "no":
        pytest.skip("the solver refuses noise in the measurement")
    denoiser, y = prior.denoiser(VP()), measured(prior, operator, noise)
    whole = Sampler(denoiser, operator, solver, **options)
    if draws(whole.plan):
        for start_noise in (0.0, 0.5):
            with pytest.raises(ValueError, match=r"start_noise: must be 1 where steps draw fresh noise, .* got 0"):
                Sampler(denoiser, operator, solver, start_noise=start_noise, **options)
        return
    none, half = (Sampler(denoiser, operator, solver, start_noise=s, **options) for s in (0.0, 0.5))
    mean = none(y, seed=0)
    assert torch.equal(mean, none(y, seed=1))
    # A pooled value of four has the singular value 1/2.
    start = float(whole.plan.mu[0]) * operator.pinv(y) * 0.25 / (0.25 + noise**2)
    assert relative_error(whole(y, x_init=start), mean) < 1e-12
    if isinstance(solver, LML | PSLD):  # The preconditioner of the one and the norms of the other are not affine.
        return
    z = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    opposite = [whole(y, x_init=start + sign * z) for sign in (1.0, -1.0)]
    assert relative_error(opposite[0], mean) > 1e-3
    assert relative_error(0.5 * (opposite[0] + opposite[1]), mean) < 1e-10
    assert relative_error(0.5 * (whole(y, seed=5) + mean), half(y, seed=5)) < 1e-10


def test_both_kinds_of_solver_were_met():
    kinds = {draws(Sampler(_plain(), OPERATORS["pooling"], entry.solver, steps=3).plan) for entry in REGISTRY}
    assert kinds == {True, False}


def _plain():
    return Gaussian(torch.zeros(16), torch.eye(16), SHAPE).denoiser(VP())


def posterior_mean(operator, y, noise):
    """(H^T H + noise^2)^-1 H^T y, by a dense solve."""
    columns = operator.forward(torch.eye(16, dtype=torch.float64).reshape(16, *SHAPE)).flatten(1)
    if not noise:
        return operator.pinv(y)
    normal = columns @ columns.mT + noise**2 * torch.eye(16, dtype=torch.float64)
    return torch.linalg.solve(normal, columns @ y.flatten()).reshape(1, *SHAPE)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", OPERATORS)
def test_with_the_weight_of_a_unit_gaussian_it_is_the_posterior_mean(unit, name, path):
    """It is exact without noise, and of first order with noise."""
    (schedule, start, end), operator = PATHS[path], OPERATORS[name]
    for noise in NOISES:
        y, errors = measured(unit, operator, noise), []
        for steps in (5, 20, 80)[: 3 if noise else 1]:
            sampler = Sampler(
                unit.denoiser(schedule),
                operator,
                Conjugate("bayes"),
                steps,
                start,
                end,
                noise_std=noise,
                start_noise=0.0,
            )
            errors.append(relative_error(sampler(y), posterior_mean(operator, y, noise)))
        if not noise:
            assert errors[0] < 1e-12
            continue
        assert errors[0] < 0.1
        assert all(2.5 < a / b < 5.5 for a, b in pairwise(errors)), errors


def test_without_the_jacobian_noise_takes_it_elsewhere(unit):
    """The guidance is then (1 + rho^2) times that of a unit Gaussian, so that the measurement counts for too much."""
    operator, errors = OPERATORS["denoising"], []
    y = measured(unit, operator, 0.3)
    truth = posterior_mean(operator, y, 0.3)
    for steps in (20, 80, 320):
        solver = Conjugate("bayes", jacobian="none")
        sampler = Sampler(unit.denoiser(VP()), operator, solver, steps, noise_std=0.3, start_noise=0.0)
        error = sampler(y) - truth
        assert torch.all(error * y > 0), "its values are nearer those of the measurement"
        errors.append(float(error.norm() / truth.norm()))
    assert errors[0] < errors[1] < errors[2]
    assert errors[2] - errors[1] < 0.5 * (errors[1] - errors[0]), "it converges, to another limit"


@pytest.mark.parametrize("start_noise", [0.0, 0.3])
def test_backends_and_levels_agree(mixture, start_noise):
    operator = OPERATORS["pooling"]
    y = measured(mixture, operator, 0.1).float().expand(3, -1, -1).contiguous()
    results = []
    for name in (name for name in BACKENDS if can_run(name)):
        sampler = Sampler(mixture.denoiser(VP()), operator, Conjugate(9.0), backend=name, start_noise=start_noise)
        results.append(sampler(y, seed=0, noise_std=[0.0, 0.1, 0.1]))
        # A level that is planned in a call begins with the same fraction of the noise.
        own = Sampler(sampler.denoiser, operator, sampler.solver, noise_std=0.1, start_noise=start_noise, backend=name)
        assert relative_error(own(y, seed=0)[1:], results[-1][1:]) < 1e-5
        assert (relative_error(results[-1][1], results[-1][2]) < 1e-5) is (start_noise == 0)
    for result in results:
        assert relative_error(result, results[-1]) < 1e-5


def test_it_is_refused_where_it_is_no_fraction_or_a_level_draws(mixture):
    denoiser, operator = mixture.denoiser(VP()), OPERATORS["pooling"]
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"start_noise: must lie in \[0, 1\], got"):
            Sampler(denoiser, operator, Conjugate(), start_noise=wrong)
    for wrong in (True, "0", torch.zeros(2)):
        with pytest.raises(TypeError, match=r"start_noise: must be a number in \[0, 1\] or None, got"):
            Sampler(denoiser, operator, Conjugate(), start_noise=wrong)
    sampler = Sampler(denoiser, operator, DDNM(eta=0.0), start_noise=0.0)
    assert "from the mean" in str(sampler.plan)
    with pytest.raises(ValueError, match=r"start_noise: must be 1 .* with noise in the measurement"):
        sampler(measured(mixture, operator, 0.0), noise_std=0.1)  # DDNM+ draws.
