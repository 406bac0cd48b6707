"""The registry of solvers: what it says is what a run does, and the table of docs/solvers.md is made from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ccfast import Sampler, solvers
from ccfast.engine.backends import BACKENDS, can_run
from ccfast.operators import AveragePooling, Inpainting
from ccfast.schedules import VP
from ccfast.solvers import Solver
from ccfast.solvers.registry import REGISTRY, fill, table
from ccfast.testing import GaussianMixture, relative_error

SHAPE = (1, 4, 4)
STEPS = 6


@pytest.fixture(scope="module")
def denoiser():
    return make_denoiser()


def make_denoiser():
    means = 0.5 * torch.randn(2, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return GaussianMixture([0.5, 0.5], means, torch.eye(16).expand(2, 16, 16), SHAPE).denoiser(VP())


def uniform(*shape):
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Counting(AveragePooling):
    """Notes when P and H are applied to an image in the loop."""

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
    sampler = Sampler(denoiser, operator, e.solver, steps=STEPS, backend="reference")
    y = uniform(1, 1, 2, 2)
    x_init = uniform(1, *SHAPE)
    operator.count = 0
    sampler(y, x_init=x_init, seed=0)
    stats = sampler.stats()
    assert stats["network_evaluations"] == e.evaluations * STEPS
    assert stats["vjps"] == e.vjps * STEPS
    iterations = getattr(e.solver, "iterations", 0)
    projections = sum(iterations if part == "M" else int(part) for part in e.projections.split(" + "))
    assert operator.count == projections * STEPS
    assert max(sampler.plan.depth.values(), default=0) == e.history
    other = sampler(y + 1.0, x_init=x_init, seed=0)
    assert torch.equal(other, sampler(y, x_init=x_init, seed=0)) is not e.measurement


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
    # the mean that a kept register starts from knows of the noise, whatever x_init
    same = solver_entry.noise == "start" and not samplers[0].plan.keeps
    assert torch.equal(clean, noisy) is same


@pytest.mark.elsewhere
def test_backends_agree(solver_entry, denoiser):
    operator = AveragePooling(SHAPE, 2)
    y = uniform(2, 1, 2, 2).float()
    names = [name for name in BACKENDS if can_run(name)]
    # 1e-5 of a whole run, as in test_truth; a difference over 1e-2 makes a hundred times more of rounding in its part
    bound = 1e-4 if solver_entry.evaluations > 1 else 1e-5
    for noise in (0.0, 0.1)[: 1 if solver_entry.noise == "no" else 2]:
        results = [
            Sampler(denoiser, operator, solver_entry.solver, steps=STEPS, noise_std=noise, backend=name)(y, seed=0)
            for name in names
        ]
        for result in results:
            assert relative_error(result, results[-1]) < bound
    assert results[-1].isfinite().all()
