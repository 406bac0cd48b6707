"""HeavyBall against the loop over velocities of its paper, Adams-Bashforth, its orders and where it is stable."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch

from ccfast import Denoiser, Sampler
from ccfast.operators import Denoising
from ccfast.schedules import EDM, VE, VP, Flow
from ccfast.solvers import DDIM, HeavyBall
from ccfast.testing import GaussianMixture, relative_error

SHAPE = (1, 6)
OPERATOR = Denoising(SHAPE)
Y = torch.zeros(1, *SHAPE, dtype=torch.float64)
START = torch.randn(1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
SCHEDULES = {"vp": VP(), "edm": EDM(), "flow": Flow()}
BASHFORTH = ([1.0], [1.5, -0.5], [23 / 12, -4 / 3, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -3 / 8])


def mixture():
    generator = torch.Generator().manual_seed(3)
    means = torch.randn(3, 6, dtype=torch.float64, generator=generator)
    return GaussianMixture([0.5, 0.3, 0.2], means, 0.2 * torch.eye(6, dtype=torch.float64).repeat(3, 1, 1), SHAPE)


def run(solver, schedule, rho, prediction="epsilon"):
    """The solver's result on times that have these rho, divided by the last mu."""
    times = schedule.time(np.asarray(rho))
    mu = schedule.mean(times)
    sampler = Sampler(mixture().denoiser(schedule, prediction), OPERATOR, solver, times=times)
    return sampler(Y, x_init=START * float(mu[0])) / float(mu[-1])


def loop(rho, slope_of):
    """z of the ODE dz/drho = eps, where ``slope_of`` makes a slope of the list of all eps so far, the newest last."""
    z, seen, prior = START, [], mixture()
    for here, there in pairwise(rho):
        one = torch.ones(1, dtype=torch.float64)
        seen.append((z - prior.denoise(z, one, here * one)) / here)
        z = z + (there - here) * slope_of(seen)
    return z


class Velocities:
    """The published loop: v = (1 - b) v + b eps, and the slope is a mix of the last k velocities, divided by b."""

    def __init__(self, order):
        self.k = int(np.ceil(order))
        self.b, self.kept = order - self.k + 1, []

    def __call__(self, seen):
        old = self.kept[-1] if self.kept else seen[-1]
        self.kept.append((1 - self.b) * old + self.b * seen[-1])
        b = self.b
        mixes = [
            [b],
            [(2 + b) / 2, (b - 2) / 2],
            [(18 + 5 * b) / 12, (8 * b - 24) / 12, (6 - b) / 12],
            [(46 + 9 * b) / 24, (19 * b - 78) / 24, (42 - 5 * b) / 24, (b - 10) / 24],
        ]
        mix = mixes[min(len(seen), self.k) - 1]
        return sum(m * v for m, v in zip(mix, self.kept[::-1], strict=False)) / b


def heavy_ball(order, beta):
    """The slope d = (1 - beta) d + beta AB, from d = eps."""
    kept = []

    def slope(seen):
        weights = BASHFORTH[min(len(seen), order) - 1]
        fresh = sum(w * e for w, e in zip(weights, seen[::-1], strict=False))
        kept.append((1 - beta) * kept[-1] + beta * fresh if kept else fresh)
        return kept[-1]

    return slope


GRIDS = {"equal": np.linspace(3.0, 0.2, 11), "geometric": np.geomspace(3.0, 0.05, 11)}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("order", [0.5, 1, 1.5, 2, 2.5, 3, 3.3, 4])
@pytest.mark.parametrize("name", SCHEDULES)
def test_it_is_the_loop_over_velocities(name, order, grid):
    want = loop(GRIDS[grid], Velocities(order))
    assert relative_error(run(HeavyBall(order), SCHEDULES[name], GRIDS[grid]), want) < 1e-11


@pytest.mark.parametrize("beta", [0.3, 0.8, 1.0])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_heavy_ball_is_its_recursion(order, beta):
    for grid in GRIDS.values():
        got = run(HeavyBall(order, beta, "hb"), VP(), grid, "v_prediction")
        assert relative_error(got, loop(grid, heavy_ball(order, beta))) < 1e-11


def test_whole_orders_are_adams_bashforth_and_the_first_is_ddim():
    for order in (1, 2, 3, 4):
        want = loop(GRIDS["equal"], heavy_ball(order, 1.0))
        assert relative_error(run(HeavyBall(order), Flow(), GRIDS["equal"]), want) < 1e-11
    assert relative_error(run(HeavyBall(1), VP(), GRIDS["equal"]), run(DDIM(), VP(), GRIDS["equal"])) < 1e-13


@cache
def fine():
    return run(HeavyBall(2), VP(), np.linspace(3.0, 0.5, 2001))


@pytest.mark.parametrize(
    ("solver", "order"),
    [(HeavyBall(0.5), (0.9, 1.1)), (HeavyBall(1.5), (1.7, 2.1)), (HeavyBall(2.5), (2.3, 3.0)),
     (HeavyBall(2, 0.5, "hb"), (0.9, 1.1))],
    ids=repr,
)  # fmt: skip
def test_observed_orders(solver, order):
    """The slopes of the error between 80 and 160 steps, which are equal in rho, as the coefficients assume."""
    errors = [relative_error(run(solver, VP(), np.linspace(3.0, 0.5, n + 1)), fine()) for n in (80, 160)]
    assert order[0] < np.log2(errors[0] / errors[1]) < order[1]


@pytest.mark.parametrize(
    ("order", "limit"), [(1, 2.0), (1.5, 1.5), (2, 1.0), (2.5, 0.79), (3, 0.545), (3.5, 0.435), (4, 0.3)]
)
def test_where_it_is_stable(order, limit):
    """eps = s z and steps of 1 in rho: states fade below the largest stable s and grow above it."""

    def growth(s):
        count = 600
        schedule = VE(0.5, 1000.0)
        denoiser = Denoiser(lambda x, t: s * x, schedule, "epsilon", time_map=float)
        times = schedule.time(np.arange(count, -1.0, -1.0) + 1.0)
        sampler = Sampler(denoiser, OPERATOR, HeavyBall(order), times=times, check_finite=False)
        return float(sampler(Y, x_init=torch.ones_like(Y)).abs().max())

    assert growth(limit - 0.02) < 1.0 < growth(limit + 0.03)


@pytest.mark.parametrize("schedule", [Flow(), EDM()], ids=["flow", "edm"])
def test_it_starts_at_pure_noise(schedule):
    """A start without mean is a step of DDIM, whose eps later steps use; test_pure_noise.py asks for the limit."""
    times = schedule.time(np.array([np.inf, 3.0, 1.0, 0.4])) if isinstance(schedule, Flow) else None
    denoiser = mixture().denoiser(schedule, "velocity" if isinstance(schedule, Flow) else "epsilon")
    options = {"times": times} if times is not None else {"steps": 4}
    assert torch.isfinite(Sampler(denoiser, OPERATOR, HeavyBall(3.5), **options)(Y, seed=0)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": 0}, "order: must lie in .0, 4., got 0"),
        ({"order": 4.5}, "order: must lie in .0, 4., got 4.5"),
        ({"order": 2.5, "kind": "hb"}, "order: must be 1, 2, 3 or 4 for kind 'hb', got 2.5"),
        ({"beta": 0.5}, "beta: belongs to kind 'hb'"),
        ({"beta": 0.0, "kind": "hb", "order": 1}, "beta: must lie in .0, 1., got 0"),
        ({"kind": "nesterov"}, "kind: must be 'ghvb' or 'hb', got 'nesterov'"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        HeavyBall(**arguments)
