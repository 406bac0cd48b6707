"""Coefficients of every element: a guidance weight that varies over the image, through the Sampler on every backend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from ccfast import Denoiser, Sampler
from ccfast.engine.backends import BACKENDS, can_run
from ccfast.engine.plan import Plan
from ccfast.kernels import reference
from ccfast.operators import AveragePooling, GaussianBlur, Inpainting
from ccfast.schedules import EDM, VP
from ccfast.solvers import DDNM, LML, Solver
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
    """DDNM with a weight of its own for every element, and a pull a x + P(b h), each over the image or a batch.

    x' = mu' x0hat + sigma' eps + mu' weight r + pull x + P(twist h)
    """

    weight: np.ndarray
    pull: np.ndarray | None = None
    twist: np.ndarray | None = None

    def update(self, grid, operator):
        return grid.ddim()

    def elements(self, grid, operator):
        steps = np.arange(len(grid.t))
        given = {"r": (grid.data_scale, self.weight), "x": (0.1 * steps, self.pull), "Ph": (0.3 + steps, self.twist)}
        return {name: np.multiply.outer(c, weight) for name, (c, weight) in given.items() if weight is not None}


def ramp(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.2, 1.5, shape)


def network(x, t):
    return torch.tanh(x + 0.1 * x.roll(1, -1)) * 0.9


def problem(operator, dtype, batch=2):
    generator = torch.Generator().manual_seed(0)
    image, x_init = (torch.randn(batch, *SHAPE, dtype=torch.float64, generator=generator) for _ in range(2))
    return operator.forward(image).to(dtype), x_init.to(dtype)


def by_hand(denoiser, operator, plan, y, x, weight, pull, twist):
    """The loop in plain torch: everything broadcast, every tensor new."""
    weight, pull, twist = (torch.from_numpy(v) for v in (weight, pull, twist))
    ybar, mu = operator.pinv(y), torch.from_numpy(plan.mu.copy())
    for k, row in enumerate(plan.rows()):
        c_in = float(plan.c_in[k])
        leaf = (c_in * x).requires_grad_()
        F = denoiser.network(leaf, torch.full((len(x),), plan.network_times[k], dtype=x.dtype))
        r = ybar - operator.project(plan.p[k] * x + plan.q[k] * F.detach())
        (h,) = torch.autograd.grad(F, leaf, r)
        h = c_in * h
        F = F.detach()
        pulled = 0.1 * k * pull * x
        x = row["x"] * x + row["F"] * F + mu[k + 1] * weight * r + pulled + operator.project((0.3 + k) * twist * h)
    return x


@pytest.mark.parametrize("schedule", [VP(), EDM()], ids=["vp", "edm"])
@pytest.mark.parametrize("backend", BACKEND_NAMES)
@pytest.mark.parametrize("build", OPERATORS.values(), ids=OPERATORS)
def test_a_weight_of_every_element_against_a_loop(build, backend, schedule):
    """Over an image, over its pixels, over its rows, and of each image of the batch."""
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
            for solver in (LocalGuidance(weight), DDNM())
        ]
        assert relative_error(*results) < 1e-6


@pytest.mark.parametrize("backend", BACKEND_NAMES)
def test_a_weight_acts_where_it_is(backend):
    """Without measurement where it is zero: those pixels are DDIM's, as the network sees no other pixel."""
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
    """``sample`` repeats the batch, and with it what belongs to its images."""
    operator = OPERATORS["block"]()
    y, _ = problem(operator, torch.float32)
    sampler = Sampler(Denoiser(network, VP()), operator, LocalGuidance(ramp(2, *SHAPE)), steps=STEPS)
    drawn = sampler.sample(y, 3, seed=1, together=together)
    assert relative_error(drawn[0], sampler(y, seed=1)) < 1e-6
    assert relative_error(drawn[2], sampler.sample(y, 3, seed=1)[2]) < 1e-6
    with pytest.raises(ValueError, match="elements: r has coefficients for 2 images, got 3"):
        sampler(y.repeat(2, 1, 1, 1)[:3], seed=0)


def test_together_with_coefficients_of_each_image():
    """A reduction adds its (B,) to what a term has for every element."""

    @dataclass(frozen=True)
    class Both(LML):
        def elements(self, grid, operator):
            return {"F": np.multiply.outer(grid.sigma_to, ramp(1, 8, 12))}

    operator = OPERATORS["block"]()
    y, x_init = problem(operator, torch.float64)
    solver, denoiser = Both(0.5, 10.0), Denoiser(network, VP())
    exact = Sampler(denoiser, operator, solver, steps=STEPS, backend="reference")(y, x_init=x_init)
    for name in BACKEND_NAMES:
        sampler = Sampler(denoiser, operator, solver, steps=STEPS, backend=name)
        assert relative_error(sampler(y.float(), x_init=x_init.float()), exact) < 1e-5
    plain = Sampler(denoiser, operator, LML(0.5, 10.0), steps=STEPS)(y, x_init=x_init)
    assert relative_error(plain, exact) > 0.1


def test_nothing_is_cast_or_made_in_the_loop(monkeypatch):
    """The coefficients become tensors once a dtype; and the native backend knows their rows itself."""
    operator = OPERATORS["mask"]()
    y, x_init = problem(operator, torch.float32)
    sampler = Sampler(Denoiser(network, VP()), operator, LocalGuidance(ramp(*SHAPE)), steps=STEPS)
    first = sampler(y, x_init=x_init)
    made = [id(value) for row in sampler._program._elements[y.dtype, y.device, 1] for value in row.values()]
    assert len(made) == STEPS
    if sampler.backend == "native":
        monkeypatch.setattr(reference, "update", None)
    assert torch.equal(sampler(y, x_init=x_init), first)
    (rows,) = sampler._program._elements.values()
    assert [id(value) for row in rows for value in row.values()] == made


def test_rules():
    operator, denoiser = OPERATORS["block"](), Denoiser(network, VP())
    for weight in (np.ones((8, 12)), np.ones((2, 8, 12)), np.ones((3, 8, 1, 12)), np.ones((1, 2, 3, 8, 12))):
        with pytest.raises(ValueError, match=r"elements: r must be \(steps, C, H, W\) .* to fit images \(3, 8, 12\)"):
            Sampler(denoiser, operator, LocalGuidance(weight))
    plan = Sampler(denoiser, operator, LocalGuidance(np.ones((1, 1, 1)))).plan
    assert "and for each element r" in str(plan)
    assert plan.registers(0) >= {"x", "F", "r"}
    columns = {name: getattr(plan, name) for name in ("times", "mu", "sigma", "network_times", "c_in", "p", "q")}
    for elements, message in (
        ({"r": np.full((5, 1, 1, 1), np.nan)}, "elements: the coefficients of r must be finite"),
        ({"r": np.ones((4, 1, 1, 1))}, r"elements: r must have 5 steps, got shape \(4, 1, 1, 1\)"),
        ({"x1": np.ones((5, 1, 1, 1))}, "elements: x1 does not exist before step 1"),
        ({"y": np.ones((5, 1, 1, 1))}, "terms are x, F, r, h, ybar, z, u"),
        ({"u": np.ones((5, 1, 1, 1))}, "update: u needs an auxiliary"),
    ):
        with pytest.raises(ValueError, match=message):
            Plan("test", update={}, elements=elements, **columns)
    with pytest.raises(ValueError, match="read-only"):
        plan.elements["r"][0] = 2.0
