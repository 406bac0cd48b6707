"""Coefficients for every element, such as a guidance weight that varies over the image, on every backend."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from row_shorthand import columns

from ccfast import Denoiser, Sampler
from ccfast.engine.backends import BACKENDS, can_run
from ccfast.engine.plan import Term
from ccfast.operators import AveragePooling, GaussianBlur, Inpainting
from ccfast.schedules import EDM, VP
from ccfast.solvers import DDNM, LML, Solver
from ccfast.solvers._grid import grid_of
from ccfast.testing import relative_error

SHAPE, STEPS = (3, 8, 12), 4
BACKEND_NAMES = [name for name in BACKENDS if can_run(name)]
OPERATORS = {
    "mask": lambda: Inpainting(torch.arange(96).reshape(1, 8, 12) % 3 != 0, SHAPE),
    "block": lambda: AveragePooling(SHAPE, 2),
    "separable": lambda: GaussianBlur(SHAPE, std=1.0),
}


@dataclass(frozen=True)
class LocalGuidance(Solver):
    """DDNM with a weight, and terms in x and P h, whose coefficients are arrays over the image or the batch.

    x' = mu' x0hat + sigma' eps + mu' weight r + pull x + P(twist h)
    """

    weight: np.ndarray
    pull: np.ndarray | None = None
    twist: np.ndarray | None = None

    def steps(self, grid, operator):
        rows, steps = grid.ddim(), np.arange(len(grid.t))
        for name, c, weight in (
            ("r", grid.data_scale, self.weight),
            ("x", 0.1 * steps, self.pull),
            ("h", 0.3 + steps, self.twist),
        ):
            if weight is not None:
                rows.add(name, np.multiply.outer(c, weight), projected=name == "h")
        return rows.steps()


def ramp(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.2, 1.5, shape)


def network(x, t):
    return torch.tanh(x + 0.1 * x.roll(1, -1)) * 0.9


def problem(operator, dtype, batch=2):
    generator = torch.Generator().manual_seed(0)
    image, x_init = (torch.randn(batch, *SHAPE, dtype=torch.float64, generator=generator) for _ in range(2))
    return operator.forward(image).to(dtype), x_init.to(dtype)


def by_hand(denoiser, operator, plan, y, x, weight, pull, twist):
    """The loop in plain torch, with broadcasting and new tensors."""
    weight, pull, twist = (torch.from_numpy(v) for v in (weight, pull, twist))
    ybar, mu, row = operator.pinv(y), torch.from_numpy(plan.mu.copy()), columns(plan)
    for k, step in enumerate(plan.steps):
        leaf = (step.c_in * x).requires_grad_()
        F = denoiser.network(leaf, torch.full((len(x),), step.network_time, dtype=x.dtype))
        r = ybar - operator.project(step.p * x + step.q * F.detach())
        (h,) = torch.autograd.grad(F, leaf, r)
        h = step.c_in * h
        F = F.detach()
        pulled = 0.1 * k * pull * x
        x = (
            row["x"][k] * x
            + row["F"][k] * F
            + mu[k + 1] * weight * r
            + pulled
            + operator.project((0.3 + k) * twist * h)
        )
    return x


@pytest.mark.parametrize("schedule", [VP(), EDM()], ids=["vp", "edm"])
@pytest.mark.parametrize("backend", BACKEND_NAMES)
@pytest.mark.parametrize("build", OPERATORS.values(), ids=OPERATORS)
def test_a_weight_of_every_element_against_a_loop(build, backend, schedule):
    """The weight varies over an image, its pixels, its rows, or the images of the batch."""
    operator = build()
    denoiser = Denoiser(network, schedule, "edm" if isinstance(schedule, EDM) else "epsilon")
    for weight, pull, twist in (
        (ramp(1, 8, 12), ramp(*SHAPE, seed=1), ramp(3, 1, 1, seed=2)),
        (ramp(2, *SHAPE), ramp(2, 1, 8, 1, seed=1), ramp(1, 8, 12, seed=2)),
    ):
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            y, x_init = problem(operator, dtype)
            sampler = Sampler(denoiser, operator, LocalGuidance(weight, pull, twist), steps=STEPS, backend=backend)
            exact = by_hand(denoiser, operator, sampler.plan, y.double(), x_init.double(), weight, pull, twist)
            assert relative_error(sampler(y, x_init=x_init), exact) < tolerance


@pytest.mark.parametrize("backend", BACKEND_NAMES)
def test_a_weight_of_one_everywhere_is_ddnm(backend):
    operator = OPERATORS["block"]()
    y, x_init = problem(operator, torch.float32)
    for weight in (np.ones((1, 1, 1)), np.ones(SHAPE)):
        results = [
            Sampler(Denoiser(network, VP()), operator, solver, steps=STEPS, backend=backend)(y, x_init=x_init)
            for solver in (LocalGuidance(weight), DDNM(eta=0.0))
        ]
        assert relative_error(*results) < 1e-6


@pytest.mark.parametrize("backend", BACKEND_NAMES)
def test_a_weight_acts_where_it_is(backend):
    """Where the weight is zero, the pixels are those of DDIM, as this network works on every pixel by itself."""
    operator, half = OPERATORS["mask"](), np.zeros((1, 8, 12))
    half[..., :6] = 1.0
    y, x_init = problem(operator, torch.float32)
    denoiser = Denoiser(lambda x, t: torch.tanh(x), VP())
    local, full, blind = (
        Sampler(denoiser, operator, LocalGuidance(w), steps=STEPS, backend=backend)(y, x_init=x_init)
        for w in (half, np.ones((1, 1, 1)), np.zeros((1, 1, 1)))
    )
    assert relative_error(local[..., :6], full[..., :6]) < 1e-6
    assert relative_error(local[..., 6:], blind[..., 6:]) < 1e-6
    assert relative_error(full, blind) > 1e-2


@pytest.mark.parametrize("together", [1, 2, 3])
def test_coefficients_of_each_image_follow_the_samples(together):
    """``sample`` repeats the batch and the coefficients that belong to its images."""
    operator = OPERATORS["block"]()
    y, _ = problem(operator, torch.float32)
    sampler = Sampler(Denoiser(network, VP()), operator, LocalGuidance(ramp(2, *SHAPE)), steps=STEPS)
    drawn = sampler.sample(y, 3, seed=1, together=together)
    assert relative_error(drawn[0], sampler(y, seed=1)) < 1e-6
    assert relative_error(drawn[2], sampler.sample(y, 3, seed=1)[2]) < 1e-6
    with pytest.raises(ValueError, match="row: r has coefficients for 2 images, got 3"):
        sampler(y.repeat(2, 1, 1, 1)[:3], seed=0)


def test_together_with_coefficients_of_each_image():
    """A rule adds its (B,) coefficients to those that a term has for every element."""

    @dataclass(frozen=True)
    class Both(LML):
        def steps(self, grid, operator):
            more = grid.rows().add("F", np.multiply.outer(grid.sigma_to, ramp(1, 8, 12))).steps()
            own = super().steps(grid, operator)
            return tuple(replace(a, row=(*a.row, *b.row)) for a, b in zip(own, more, strict=True))

    operator = OPERATORS["block"]()
    y, x_init = problem(operator, torch.float64)
    solver, denoiser = Both(0.5, 10.0), Denoiser(network, VP())
    exact = Sampler(denoiser, operator, solver, steps=STEPS, backend="reference")(y, x_init=x_init)
    for name in BACKEND_NAMES:
        sampler = Sampler(denoiser, operator, solver, steps=STEPS, backend=name)
        assert relative_error(sampler(y.float(), x_init=x_init.float()), exact) < 1e-5
    plain = Sampler(denoiser, operator, LML(0.5, 10.0), steps=STEPS)(y, x_init=x_init)
    assert relative_error(plain, exact) > 0.1


def test_nothing_is_cast_or_made_in_the_loop():
    """The coefficients become tensors once for every dtype, and the native backend runs their rows by itself."""
    operator = OPERATORS["mask"]()
    y, x_init = problem(operator, torch.float32)
    sampler = Sampler(Denoiser(network, VP()), operator, LocalGuidance(ramp(*SHAPE)), steps=STEPS)
    first = sampler(y, x_init=x_init)
    bound = sampler._program.bind(operator, y)
    made = [id(value) for value in bound.tensors()]
    assert len(made) == STEPS
    if sampler.backend == "native":
        assert not any("reference" in words for words in sampler.plan.kernels)
    assert torch.equal(sampler(y, x_init=x_init), first)
    assert sampler._program.bind(operator, y) is bound
    assert [id(value) for value in bound.tensors()] == made


def test_rules():
    operator, denoiser = OPERATORS["block"](), Denoiser(network, VP())
    for weight in (np.ones((8, 12)), np.ones((2, 8, 12)), np.ones((3, 8, 1, 12)), np.ones((1, 2, 3, 8, 12))):
        with pytest.raises(ValueError, match=r"row: r must have coefficients .* to fit images \(3, 8, 12\), got"):
            Sampler(denoiser, operator, LocalGuidance(weight))
    plan = Sampler(denoiser, operator, LocalGuidance(np.ones((1, 1, 1)))).plan
    assert "and r with coefficients of every element" in str(plan)
    assert plan.registers(0) >= {"x", "F", "r"}
    steps = np.full((5, 1, 1, 1), np.nan), np.ones((4, 1, 1, 1))
    grid = grid_of(denoiser, plan.times)
    with pytest.raises(ValueError, match=r"row: the coefficients of r must be finite, got .* in step 0 of test"):
        replace(plan, solver="test", steps=grid.rows().add("r", steps[0]).steps())
    with pytest.raises(ValueError, match=r"row: r must have 5 steps, got shape \(4, 1, 1, 1\)"):
        grid.rows().add("r", steps[1])
    for term, message in (
        (Term("x", 1, np.ones((1, 1, 1))), "row: x1 does not exist before step 1, got it in step 0"),
        (
            Term("y", 0, np.ones((1, 1, 1))),
            "reads y, which no rule writes or keeps; the registers .* are x, F",
        ),
        (Term("u", 0, np.ones((1, 1, 1))), "reads u, which no rule writes or keeps"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(plan, steps=[replace(step, row=(term,)) for step in plan.steps])
    with pytest.raises(ValueError, match="read-only"):
        next(term.a for term in plan.steps[0].row if term.register == "r")[0] = 2.0
