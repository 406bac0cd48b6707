"""The registry of solvers describes what a run does, and the table of docs/solvers.md is made from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ccfast import Denoiser, Sampler, solvers
from ccfast.engine.backends import BACKENDS, can_run
from ccfast.operators import AveragePooling, Inpainting
from ccfast.schedules import VP
from ccfast.solvers import Solver
from ccfast.solvers.registry import REGISTRY, fill, table
from ccfast.testing import GaussianMixture, relative_error

SHAPE = (1, 4, 4)
STEPS = 8


@pytest.fixture(scope="module")
def denoiser():
    return make_denoiser()


def make_denoiser():
    means = 0.5 * torch.randn(2, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return GaussianMixture([0.5, 0.5], means, torch.eye(16).expand(2, 16, 16), SHAPE).denoiser(VP())


def uniform(*shape):
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Counting(AveragePooling):
    """An operator that counts how often P and H are applied to an image in the loop."""

    def __init__(self):
        super().__init__(SHAPE, 2)
        self.count = 0

    def project(self, x):
        self.count += 1
        return super().project(x)

    def forward(self, x):
        self.count += 1
        return super().forward(x)


def test_the_table_of_the_page_is_the_registry():
    path = Path(__file__).parents[1] / "docs" / "solvers.md"
    document = path.read_text(encoding="utf-8")
    assert document == fill(document), "run python -m ccfast.solvers.registry docs/solvers.md"
    with pytest.raises(ValueError, match=r"document: must have the markers .* got 'nothing'"):
        fill("nothing")
    assert len(table().splitlines()) == 2 + len(REGISTRY)


def test_every_solver_has_a_row_of_its_own():
    public = {getattr(solvers, name) for name in solvers.__all__} - {Solver}
    assert {type(entry.solver) for entry in REGISTRY} == public
    assert len({entry.name for entry in REGISTRY}) == len(REGISTRY)
    for entry in REGISTRY:
        assert eval(entry.name, vars(solvers)) == entry.solver


@pytest.mark.elsewhere
def test_a_row_says_what_a_run_does(solver_entry, denoiser):
    e, operator = solver_entry, Counting()
    sampler = Sampler(denoiser, operator, e.solver, steps=STEPS, backend="reference", check_finite=False)
    y = uniform(1, 1, 2, 2)
    x_init = uniform(1, *SHAPE)
    operator.count = 0
    sampler(y, x_init=x_init, seed=0)
    stats = sampler.stats()
    assert stats["network_evaluations"] == e.evaluations * STEPS
    assert stats["vjps"] == e.vjps * STEPS
    iterations = getattr(e.solver, "iterations", 0)
    projections = sum(iterations if part == "M" else int(part) for part in e.projections.split(" + "))
    corrected = STEPS - isinstance(e.solver, solvers.DPIR)  # Its last step is the network's alone.
    assert operator.count == projections * corrected
    assert max(sampler.plan.depth.values(), default=0) == e.history
    other = sampler(y + 1.0, x_init=x_init, seed=0)
    assert torch.equal(other, sampler(y, x_init=x_init, seed=0)) is not e.measurement


SPANS = [(VP().default_start, VP().default_end), (0.5, 0.05)]
"""Spans of VP, uniform in t: the default, whose last steps are long in lambda, and one without such steps."""


def slope(solver, span):
    """The observed order on a Gaussian prior N(0, v), of the state or, where noise is drawn, of its variance."""
    v, errors, schedule = 0.25, [], VP()
    for steps in (160, 320):
        times = np.linspace(*span, steps + 1)
        denoiser = Denoiser(lambda x, t: x, schedule, "sample", time_map=float)
        plan = solver.plan(denoiser, AveragePooling(SHAPE, 2), times)
        times = plan.times  # Those of a solver with two evaluations in a step repeat.
        marginal = schedule.mean(times) ** 2 * v + schedule.std(times) ** 2
        gain = schedule.mean(times) * v / marginal  # It gives x0hat = gain x.
        # The states and estimates of this step and of three before it are linear in the first state and in the noise.
        depth = range(4)
        maps = {(name, age): plan.numbers(name, age) for name in "xF" for age in depth}
        covariance = np.zeros((4, 4))
        covariance[0, 0] = marginal[0]
        drawn = plan.numbers("z")
        for k in range(len(plan.steps)):
            row = [maps["x", j][k] + maps["F", j][k] * gain[k - j] if j <= k else 0.0 for j in depth]
            step = np.vstack([row, np.eye(3, 4)])
            covariance = step @ covariance @ step.T
            covariance[0, 0] += drawn[k] ** 2
        errors.append(abs(covariance[0, 0] / marginal[-1] - 1.0))
    return np.log2(errors[0] / errors[1])


BLIND = [
    entry
    for entry in REGISTRY
    if not entry.measurement and entry.order != "-" and type(entry.solver) is not solvers.LML
]


@pytest.mark.parametrize("entry", BLIND, ids=lambda entry: entry.name)
def test_the_order_is_what_is_observed_on_uniform_grids(entry):
    """The order is the least of the observed slopes, rounded."""
    slopes = [slope(entry.solver, span) for span in SPANS]
    assert round(min(slopes)) == int(entry.order), slopes


@pytest.mark.elsewhere
def test_noise_is_what_a_row_says(solver_entry, denoiser):
    mask = Inpainting(torch.arange(16).reshape(SHAPE) % 3 != 0)
    y, x_init = uniform(1, *SHAPE), uniform(1, *SHAPE)
    arguments = (denoiser, mask, solver_entry.solver)
    if solver_entry.noise == "no":
        with pytest.raises(ValueError, match=r"noise_std: .* noiseless measurements only"):
            Sampler(*arguments, noise_std=0.5)
        return
    samplers = [Sampler(*arguments, noise_std=noise) for noise in (0.0, 0.5)]
    clean, noisy = (sampler(y, x_init=x_init, seed=0) for sampler in samplers)
    # A kept register starts from a mean that depends on the noise, whatever x_init is.
    same = solver_entry.noise == "start" and not samplers[0].plan.keeps
    assert torch.equal(clean, noisy) is same


@pytest.mark.elsewhere
def test_backends_agree(solver_entry, denoiser):
    operator = AveragePooling(SHAPE, 2)
    y = uniform(2, 1, 2, 2).float()
    names = [name for name in BACKENDS if can_run(name)]
    # A whole run agrees to 1e-5, as in test_truth. A difference over 1e-2 amplifies rounding a hundredfold.
    bound = 1e-4 if solver_entry.evaluations > 1 else 1e-5
    for noise in (0.0, 0.1)[: 1 if solver_entry.noise == "no" else 2]:
        results = [
            Sampler(denoiser, operator, solver_entry.solver, steps=STEPS, noise_std=noise, backend=name)(y, seed=0)
            for name in names
        ]
        for result in results:
            assert relative_error(result, results[-1]) < bound
    assert results[-1].isfinite().all()
