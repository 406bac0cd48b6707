"""Unconditional solvers of higher order: observed orders on a Gaussian mixture, limits, and the corrector by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from row_shorthand import columns
from scipy.integrate import quad

from ccfast import Denoiser, Sampler
from ccfast.operators import AveragePooling
from ccfast.schedules import EDM, VP, Flow
from ccfast.solvers import DDIM, DEIS, DPMSolverPP, UniPC
from ccfast.testing import GaussianMixture, relative_error

SHAPE = (1, 8)
OPERATOR = AveragePooling(SHAPE, 4)
Y = torch.zeros(1, 1, 2, dtype=torch.float64)
SCHEDULES = {"vp": VP(), "edm": EDM(), "flow": Flow()}
MULTISTEP = [DPMSolverPP(3), DPMSolverPP(2, sde=True), DEIS(3), DEIS(2, "rho"), UniPC(2), UniPC(3)]


@pytest.fixture(scope="module")
def mixture() -> GaussianMixture:
    generator = torch.Generator().manual_seed(3)
    means = 0.6 * torch.randn(3, 8, dtype=torch.float64, generator=generator)
    roots = torch.randn(3, 8, 8, dtype=torch.float64, generator=generator) / 3
    return GaussianMixture([0.5, 0.3, 0.2], means, roots @ roots.mT + 0.3 * torch.eye(8), SHAPE)


def start_state() -> torch.Tensor:
    return torch.randn(1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def grid(schedule, rho_start, rho_end, steps, uniform_in):
    """Times that are uniform in t or in ln rho, but for the first step, which is halved again and again.

    A solver of order k starts with steps of lower order, whose error is the square of the first step's length. That
    length falls as 1/steps^2 here, so the error does not show up to order 4.
    """
    fractions = np.arange(steps + 1) / steps
    first = fractions[1] * 0.5 ** np.arange(int(np.log2(steps)) + 1, 0, -1)
    fractions = np.concatenate([fractions[:1], first, fractions[1:]])
    ends = schedule.time(np.array([rho_start, rho_end]))
    if uniform_in == "t" and not isinstance(schedule, EDM):  # EDM's t is rho.
        return ends[0] + (ends[1] - ends[0]) * fractions
    times = schedule.time(rho_start * (rho_end / rho_start) ** fractions)
    times[[0, -1]] = ends
    return times


def truth(prior, schedule, x, rho_start, rho_end, steps=1500):
    """The ODE dz/du = z - x0hat, with z = x/mu and u = ln rho, solved by the Runge-Kutta method of order 4."""

    def slope(u, z):
        t = float(schedule.time(np.exp(u)))
        mu, sigma = (torch.tensor([float(v(t))], dtype=torch.float64) for v in (schedule.mean, schedule.std))
        return z - prior.denoise(mu * z, mu, sigma)

    u, h = np.log(rho_start), np.log(rho_end / rho_start) / steps
    z = x / float(schedule.mean(schedule.time(rho_start)))
    for _ in range(steps):
        k1 = slope(u, z)
        k2 = slope(u + h / 2, z + h / 2 * k1)
        k3 = slope(u + h / 2, z + h / 2 * k2)
        k4 = slope(u + h, z + h * k3)
        z, u = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), u + h
    return z * float(schedule.mean(schedule.time(rho_end)))


SPAN = (2.0, 0.2)


@pytest.fixture(scope="module")
def solutions(mixture):
    return {name: truth(mixture, schedule, start_state(), *SPAN) for name, schedule in SCHEDULES.items()}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    ("solver", "order", "uniform_in"),
    [
        (DPMSolverPP(1), 1, "ln rho"),
        (DPMSolverPP(2), 2, "ln rho"),
        (DPMSolverPP(3), 3, "ln rho"),
        (DPMSolverPP(3), 3, "t"),
        *((DEIS(k, "t"), k + 1, "t") for k in range(4)),
        *((DEIS(k, "rho"), k + 1, "ln rho") for k in range(4)),
        (UniPC(1), 2, "ln rho"),
        (UniPC(2), 3, "ln rho"),
        (UniPC(2, "bh1"), 3, "ln rho"),
        (UniPC(2), 3, "t"),
        (UniPC(3), 4, "ln rho"),
    ],
    ids=str,
)
def test_observed_orders(mixture, solutions, solver, order, uniform_in, name):
    schedule, errors = SCHEDULES[name], []
    for steps in (128, 256):
        times = grid(schedule, *SPAN, steps, uniform_in)
        sampler = Sampler(mixture.denoiser(schedule, "v_prediction"), OPERATOR, solver, times=times)
        errors.append(relative_error(sampler(Y, x_init=start_state()), solutions[name]))
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.2, errors


def plan(solver, schedule, times, prediction="sample"):
    return solver.plan(Denoiser(lambda x, t: x, schedule, prediction, time_map=float), OPERATOR, np.asarray(times))


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_lowest_orders_are_ddim(name):
    times = grid(SCHEDULES[name], *SPAN, 4, "ln rho")
    for solver, same in (
        (DPMSolverPP(1), DDIM()),
        (DPMSolverPP(1, sde=True), DDIM(eta=1.0)),
        (DEIS(0), DDIM()),
        (DEIS(0, "rho"), DDIM()),
    ):
        for prediction in ("sample", "epsilon", "velocity"):
            got, expected = (columns(plan(s, SCHEDULES[name], times, prediction)) for s in (solver, same))
            assert {n: c.tolist() for n, c in got.items()} == {n: c.tolist() for n, c in expected.items()}


TIMES = [0.7, 0.5, 0.36, 0.2, 0.05]


def steps_of(schedule, times):
    """The numbers of the last step: (mu', sigma'/sigma, h, h of the step before, h of two steps ago)."""
    mu, sigma = schedule.mean(times), schedule.std(times)
    h = np.diff(-np.log(sigma / mu))
    return mu[-1], sigma[-1] / sigma[-2], h[-1], h[-2], h[-3]


def test_rows_of_dpm_solver_pp():
    """The rows are those printed in the paper, with the factor 2 in D2."""
    mu, ratio, h, h1, h2 = steps_of(VP(), TIMES)
    r0, r1 = h1 / h, h2 / h
    phi1 = np.exp(-h) - 1
    phi2 = phi1 / h + 1
    phi3 = phi2 / h - 0.5
    delta, delta1 = np.array([1, -1, 0]) / r0, np.array([0, 1, -1]) / r1  # They weigh D0, D-1, D-2.
    first = -mu * phi1 * np.array([1, 0, 0])
    D1 = delta + r0 / (r0 + r1) * (delta - delta1)
    D2 = 2 * (delta - delta1) / (r0 + r1)
    e = np.exp(-2 * h)
    for solver, x, weights in (
        (DPMSolverPP(2, lower_order_final=False), ratio, first - 0.5 * mu * phi1 * delta),
        (DPMSolverPP(3, lower_order_final=False), ratio, first + mu * phi2 * D1 - mu * phi3 * D2),
        (DPMSolverPP(2, True, False), ratio * np.exp(-h), mu * (1 - e) * (np.array([1, 0, 0]) + 0.5 * delta)),
    ):
        update = columns(plan(solver, VP(), TIMES))
        got = [float(update[n][-1]) if n in update else 0.0 for n in ("x", "F", "F1", "F2")]
        assert got == pytest.approx([x, *weights], rel=1e-11)
        if solver.sde:
            assert update["z"][-1] == pytest.approx(float(VP().std(TIMES[-1])) * np.sqrt(1 - e), rel=1e-12)


@pytest.mark.parametrize("name", ["vp", "flow"])
@pytest.mark.parametrize("basis", ["t", "rho"])
def test_coefficients_of_deis_against_quadrature_in_t(basis, name):
    schedule = SCHEDULES[name]
    times = np.array(TIMES if name == "vp" else [0.2, 0.3, 0.5, 0.8, 0.9])
    t, t_to, nodes = times[-2], times[-1], times[-2::-1]

    def value(s):
        return s if basis == "t" else float(schedule.rho(s))

    def rate(s):
        mu, sigma = float(schedule.mean(s)), float(schedule.std(s))
        return (mu * schedule.std_derivative(s) - sigma * schedule.mean_derivative(s)) / mu**2

    update = columns(plan(DEIS(3, basis, False), schedule, times, "epsilon"))
    for j in range(4):
        others = [value(n) for n in np.delete(nodes, j)]

        def integrand(s, j=j, others=others):
            return np.prod([(value(s) - o) / (value(nodes[j]) - o) for o in others]) * rate(s)

        expected = float(schedule.mean(t_to)) * quad(integrand, t, t_to, epsrel=1e-12)[0]
        assert update[f"F{j or ''}"][-1] == pytest.approx(expected, rel=1e-9)
    assert update["x"][-1] == pytest.approx(float(schedule.mean(t_to) / schedule.mean(t)), rel=1e-12)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_one_row_of_unipc_is_predictor_and_corrector(mixture, order, variant, lower):
    """A row joins the corrector of arXiv 2302.04867 and the next predictor, with one evaluation a step."""
    schedule = VP()
    times = np.linspace(0.7, 0.05, 7)
    mu, sigma = schedule.mean(times), schedule.std(times)
    lam = np.log(mu / sigma)

    def combine(h, ratios, differences, base, scale):
        if not ratios:
            return base
        b = np.expm1(-h) if variant == "bh2" else -h
        p, right = np.expm1(-h), []
        for i in range(1, len(ratios) + 1):
            factorial = np.prod(np.arange(1, i + 1))
            p = p / -h - 1 / factorial
            right.append(factorial * p / b)
        powers = np.array(ratios) ** np.arange(len(ratios))[:, None]
        c = np.linalg.solve(powers, right) if len(ratios) > 1 else [0.5]
        return base - scale * b * sum(ci * d / r for ci, d, r in zip(c, differences, ratios, strict=True))

    def evaluate(x, k):
        return mixture.denoise(x, *(torch.tensor([v[k]]) for v in (mu, sigma)))

    predicted = state = start_state()
    found = [evaluate(state, 0)]
    for k in range(len(times) - 1):
        h, p = lam[k + 1] - lam[k], min(order, k + 1, len(times) - 1 - k if lower else order)
        base = sigma[k + 1] / sigma[k] * state - mu[k + 1] * np.expm1(-h) * found[k]
        ratios = [(lam[k - j] - lam[k]) / h for j in range(1, p)]
        differences = [found[k - j] - found[k] for j in range(1, p)]
        predicted = combine(h, ratios, differences, base, mu[k + 1])
        if k + 1 < len(times) - 1:
            found.append(evaluate(predicted, k + 1))
            state = combine(h, [*ratios, 1.0], [*differences, found[k + 1] - found[k]], base, mu[k + 1])
    for prediction in ("sample", "epsilon", "velocity"):
        sampler = Sampler(mixture.denoiser(schedule, prediction), OPERATOR, UniPC(order, variant, lower), times=times)
        assert relative_error(sampler(Y, x_init=start_state()), predicted) < 1e-12


def test_the_sde_samples_the_variance_with_its_order():
    """For one pixel x0 ~ N(0, v), (x, x0hat of the step before) is a Gaussian chain, whose covariance is followed."""
    schedule, v = VP(), 0.4
    for order in (1, 2):
        errors = []
        for steps in (128, 256):
            times = grid(schedule, *SPAN, steps, "ln rho")
            update = columns(plan(DPMSolverPP(order, sde=True), schedule, times))
            marginal = schedule.mean(times) ** 2 * v + schedule.std(times) ** 2
            gain = schedule.mean(times) * v / marginal  # It gives x0hat = gain x.
            covariance = np.diag([marginal[0], 0.0])
            for k in range(len(times) - 1):
                earlier = update["F1"][k] if order == 2 else 0.0
                step = np.array([[update["x"][k] + update["F"][k] * gain[k], earlier], [gain[k], 0.0]])
                covariance = step @ covariance @ step.T + np.diag([update["z"][k] ** 2, 0.0])
            errors.append(covariance[0, 0] / marginal[-1] - 1)
        assert abs(np.log2(errors[0] / errors[1]) - order) < 0.2, errors


@pytest.mark.parametrize("solver", [s for s in MULTISTEP if not getattr(s, "sde", False)], ids=str)
def test_the_last_steps_of_a_short_run_lower_their_order(mixture, solver):
    """Below 15 steps the last one uses one estimate and the one before it two, unless ``lower_order_final`` is off."""

    def depths(solver, steps):
        made = plan(solver, VP(), np.linspace(0.9, 1e-3, steps + 1))
        ages = [{age for register, age in step.reads if register in "xF"} for step in made.steps]
        return [max(a) for a in ages]

    # A corrector looks one step further back than the predictor before it.
    correcting = isinstance(solver, UniPC)
    most = max(depths(solver, 40))
    for steps in (1, 2, 3, 5, 14):
        got = depths(solver, steps)
        assert got[-1] <= (min(2, steps - 1) if correcting else 0)
        assert max(got[-2:]) <= (3 if correcting else 1)
    for short, steps in ((replace(solver, lower_order_final=False), 14), (solver, 15)):
        assert depths(short, steps)[-1] == most
    # With the lower final orders a higher order is not much worse than a lower one, as it would be without them.
    x = torch.randn(8, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(4))

    def run(solver, steps):
        times = np.linspace(0.98, 1e-3, steps + 1)
        return Sampler(mixture.denoiser(VP()), OPERATOR, solver, times=times)(Y.repeat(8, 1, 1), x_init=x)

    fine = run(DPMSolverPP(2), 1000)
    for steps in (4, 8, 12):
        lowered, below = (
            relative_error(run(s, steps), fine) for s in (solver, replace(solver, order=solver.order - 1))
        )
        assert lowered < 1.5 * below, steps


@pytest.mark.parametrize("solver", MULTISTEP, ids=str)
@pytest.mark.parametrize("name", SCHEDULES)
def test_single_precision_and_an_end_free_of_noise(mixture, solver, name):
    schedule = SCHEDULES[name]
    times = np.append(grid(schedule, *SPAN, 8, "ln rho"), 1.0 if name == "flow" else 0.0)
    sampler = Sampler(mixture.denoiser(schedule, "velocity"), OPERATOR, solver, times=times)
    double, single = (sampler(Y.to(d), x_init=start_state().to(d), seed=0) for d in (torch.float64, torch.float32))
    assert relative_error(single, double) < 1e-5  # The bound is for a whole run, as in test_truth.


def test_a_flow_may_start_from_pure_noise(mixture):
    x = start_state()
    for solver in (DPMSolverPP(3), UniPC(3), DEIS(2), DEIS(2, basis="rho")):
        errors = []
        for steps in (20, 40):
            denoiser = mixture.denoiser(Flow(), "velocity")
            coarse, fine = (
                Sampler(denoiser, OPERATOR, solver, times=np.linspace(0, 0.9, n + 1))(Y, x_init=x)
                for n in (steps, 2 * steps)
            )
            errors.append(relative_error(coarse, fine))
        assert errors[1] < 0.01
        assert errors[1] < errors[0] / 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DPMSolverPP(4), "order: must be 1, 2 or 3, got 4"),
        (lambda: DPMSolverPP(3, sde=True), "order: must be 1 or 2 with sde=True, got 3"),
        (lambda: DEIS(4), "order: must be 0, 1, 2 or 3, got 4"),
        (lambda: DEIS(1, "lambda"), "basis: must be 't', 'rho' or 'log_rho', got 'lambda'"),
        (lambda: UniPC(0), "order: must be 1, 2 or 3, got 0"),
        (lambda: UniPC(lower_order_final=1), "lower_order_final: must be True or False, got 1"),
        (lambda: DEIS(lower_order_final="no"), "lower_order_final: must be True or False, got 'no'"),
        (lambda: DPMSolverPP(lower_order_final=None), "lower_order_final: must be True or False, got None"),
        (lambda: UniPC(2, "bh3"), "variant: must be 'bh1' or 'bh2', got 'bh3'"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
