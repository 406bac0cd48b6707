"""Options of Conjugate: order 2, fresh noise, centred splits, the stability guard, and the kinds of product."""

from __future__ import annotations

import warnings

import guided_ode
import numpy as np
import pytest
import torch
from recorder import Recorder
from row_shorthand import columns, spectra
from torch import nn

from ccfast import Denoiser, Sampler
from ccfast.engine.graphs.waits import WAITS
from ccfast.operators import AveragePooling, SeparableBlur
from ccfast.schedules import EDM, VE, VP, Flow
from ccfast.solvers import DDIM, DDNM, DDRM, DDS, DPS, Conjugate, DiffPIR, PiGDM, REDDiff
from ccfast.testing import Gaussian, relative_error

pytestmark = pytest.mark.filterwarnings("ignore:jacobian. 'exact' is stable")

SHAPE = (1, 16)
SCHEDULES = {"vp": VP(), "ve": VE(0.002, 80.0), "edm": EDM(), "flow": Flow()}
SPANS = {"vp": (0.5, 0.01), "ve": (3.0, 0.02), "edm": (3.0, 0.02), "flow": (0.3, 0.98)}
OPERATOR = AveragePooling(SHAPE, 4)


def times_of(name, steps):
    return guided_ode.in_rho(SCHEDULES[name], *SPANS[name], steps)


def problem(prior, name, batch=1, seed=0):
    schedule, start = SCHEDULES[name], SPANS[name][0]
    generator = torch.Generator().manual_seed(seed)
    x0 = prior.sample(batch, generator)
    z = torch.randn(batch, *SHAPE, dtype=torch.float64, generator=generator)
    return OPERATOR.forward(x0), float(schedule.mean(start)) * x0 + float(schedule.std(start)) * z


def run(prior, name, solver, y, x_init, steps=10, prediction="epsilon", **options):
    denoiser = prior.denoiser(SCHEDULES[name], prediction)
    return Sampler(denoiser, OPERATOR, solver, times=times_of(name, steps), **options)(y, x_init=x_init, seed=0)


# ------------------------------------------------------------------------------------------------ orders
@pytest.mark.parametrize("w", [2.0, 15.0])
@pytest.mark.parametrize("name", SCHEDULES)
def test_orders_of_convergence_to_the_guided_ode(prior, name, w):
    schedule, (start, end) = SCHEDULES[name], SPANS[name]
    y, x_init = problem(prior, name)
    projector = OPERATOR.project(torch.eye(16, dtype=torch.float64).reshape(16, *SHAPE)).reshape(16, 16).numpy()
    ybar, x = OPERATOR.pinv(y).flatten().numpy(), x_init.flatten().numpy()
    arguments = (prior, projector, ybar, schedule, x, (start, end), w)
    truth = {jacobian: guided_ode.solve(*arguments, jacobian) for jacobian in (True, False)}
    for order, options in (
        (2, {"order": 2}),
        (2, {"order": 2, "jacobian": "none"}),
        (1, {"centred": "prior"}),
        (2, {"centred": "prior", "order": 2}),
        (1, {"centred": "rayleigh"}),
        (2, {"centred": "rayleigh", "order": 2}),
    ):
        exact = truth[options.get("jacobian") != "none"]
        errors = [
            np.linalg.norm(run(prior, name, Conjugate(w, **options), y, x_init, steps).flatten().numpy() - exact)
            for steps in (40, 80)
        ]
        assert abs(np.log2(errors[0] / errors[1]) - order) < 0.2, (options, errors)
        assert errors[1] / np.linalg.norm(exact) < (0.04 if order == 1 else 2.4e-3), (options, errors)


@pytest.mark.parametrize("options", [{"order": 2}, {"eta": 0.8}, {"order": 2, "eta": 0.8}, {"centred": "prior"},
                                     {"centred": "rayleigh", "order": 2, "eta": 0.5}])  # fmt: skip
@pytest.mark.parametrize("name", ["vp", "edm", "flow"])
def test_the_parametrisation_of_the_network_does_not_matter(mixture, name, options):
    """Networks that get a scaled input, or whose eps combines states and outputs of two steps, give the same result."""
    y, x_init = problem(mixture, name, 2)
    predictions = ("epsilon", "sample", "v_prediction", "velocity", *(["edm"] if name == "edm" else []))
    for noise in (0.0,) if options.get("centred") == "rayleigh" else (0.0, 0.05):
        results = [run(mixture, name, Conjugate(9.0, **options), y, x_init, 5, p, noise_std=noise) for p in predictions]
        for result in results[1:]:
            assert relative_error(result, results[0]) < 1e-10


def test_second_order_of_an_unguided_step_is_adams_bashforth(mixture):
    """For w = 0 in VE, x' = x + int eps d sigma, and the coefficients are those of the textbook for unequal steps."""
    y, x_init = problem(mixture, "ve")
    times = np.array([3.0, 2.0, 1.4])
    denoiser = mixture.denoiser(SCHEDULES["ve"])
    got = Sampler(denoiser, OPERATOR, Conjugate(0.0, order=2), times=times)(y, x_init=x_init)
    eps = lambda x, t: denoiser.network(x, torch.tensor([t], dtype=torch.float64))  # noqa: E731
    first = eps(x_init, 3.0)
    middle = x_init - first
    h, before = -0.6, -1.0
    expected = middle + h * ((1 + h / (2 * before)) * eps(middle, 2.0) - h / (2 * before) * first)
    assert relative_error(got, expected) < 1e-12


def test_fresh_noise_without_guidance_is_sde_dpm_solver_1(mixture):
    """Without guidance eps loses mu' eta^2 (rho - rho'), and the noise has variance mu'^2 eta^2 (rho^2 - rho'^2)."""
    schedule, eta = SCHEDULES["vp"], 0.7
    times, denoiser = np.array([0.5, 0.3]), mixture.denoiser(schedule)
    row, plain = (columns(solver.plan(denoiser, OPERATOR, times)) for solver in (Conjugate(0.0, eta=eta), DDIM()))
    mu, rho, rho_to = (float(v) for v in (schedule.mean(0.3), schedule.rho(0.5), schedule.rho(0.3)))
    assert row["F"][0] == pytest.approx(plain["F"][0] - mu * eta**2 * (rho - rho_to), rel=1e-12)
    assert row["z"][0] == pytest.approx(mu * eta * np.sqrt(rho**2 - rho_to**2), rel=1e-12)


def test_centring_is_exact_where_the_jacobian_is_a_multiple_of_one():
    """For the unit Gaussian the option "rayleigh" finds j = sigma by itself, and is as exact as "prior"."""
    unit = Gaussian(torch.zeros(16, dtype=torch.float64), torch.eye(16, dtype=torch.float64), SHAPE)
    for name in ("vp", "edm"):
        y, x_init = problem(unit, name, 3)
        for order in (1, 2):
            by_table, by_image = (
                run(unit, name, Conjugate(9.0, centred=c, order=order), y, x_init) for c in ("prior", "rayleigh")
            )
            assert relative_error(by_image, by_table) < 1e-12
            assert relative_error(by_table, run(unit, name, Conjugate(9.0, order=order), y, x_init)) > 1e-3


def test_rayleigh_is_of_each_image_and_survives_a_residual_of_zero(mixture):
    y, x_init = problem(mixture, "vp", 3)
    solver = Conjugate(9.0, centred="rayleigh", order=2)
    together = run(mixture, "vp", solver, y, x_init)
    for b in range(3):
        alone = run(mixture, "vp", solver, y[b : b + 1], x_init[b : b + 1])
        assert relative_error(together[b : b + 1], alone) < 1e-12
    network = Denoiser(lambda x, t: x * 0.0, SCHEDULES["vp"], "sample")
    x = Sampler(network, OPERATOR, solver)(torch.zeros(1, 1, 4), x_init=torch.ones(1, *SHAPE))
    assert torch.isfinite(x).all()


# ------------------------------------------------------------------------------------------------ noise after a step
@pytest.mark.parametrize("options", [{}, {"jacobian": "one_projection"}, {"centred": "prior"}, {"centred": "rayleigh"}])
@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_refreshed_step_is_a_longer_one_and_noise(prior, name, noise, options):
    if noise and options.get("centred") == "rayleigh":
        return  # It is refused, as test_noise shows.
    schedule, share, (start, end) = SCHEDULES[name], 0.8, SPANS[name]
    # The step goes on to 0.6 = sqrt(1 - 0.8^2) of the noise.
    further = float(schedule.time(np.array([0.6 * schedule.rho(end)]))[0])
    denoiser, scale = prior.denoiser(schedule), float(schedule.mean(end) / schedule.mean(further))
    operator = SeparableBlur(SHAPE, [0.2, 0.6, 0.2]) if noise else OPERATOR

    def plan(end, **more):
        return Conjugate(9.0, **options, **more).plan(denoiser, operator, np.array([start, end]), noise)

    got, longer = plan(end, refresh=share), plan(further)
    assert columns(got)["z"] == pytest.approx(share * schedule.std(end), rel=1e-12)
    for term, c in columns(longer).items():
        if term != "z":
            assert columns(got)[term] == pytest.approx(scale * c, rel=1e-9, abs=1e-12), term
    assert spectra(got).keys() == spectra(longer).keys()
    assert bool(spectra(got)) is bool(noise)
    for term, c in spectra(longer).items():
        want = c if term == "weight" else scale * c
        assert np.allclose(spectra(got)[term], want, rtol=1e-9, atol=1e-12), term  # Cancelled terms leave rounding.
    rules = [plan.steps[0].rules for plan in (got, longer)]
    assert [len(own) for own in rules] == [options.get("centred") == "rayleigh"] * 2
    if rules[0]:
        generator = torch.Generator().manual_seed(0)
        registers = {(n, 0): torch.randn(1, *SHAPE, dtype=torch.float64, generator=generator) for n in "rh"}
        terms, expected = (
            own[0].fill(plan.steps[0], registers) for own, plan in zip(rules, (got, longer), strict=True)
        )
        assert [t.key for t in terms] == [t.key for t in expected]
        for term, want in zip(terms, expected, strict=True):
            assert float(term.a) == pytest.approx(scale * float(want.a), rel=1e-9), term


@pytest.mark.parametrize("name", SCHEDULES)
def test_refreshed_without_a_jacobian_is_ddrm(prior, name):
    y, x_init = problem(prior, name, 2)
    solver = Conjugate(1e9, jacobian="none", refresh=1.0)
    got, expected = (run(prior, name, s, y, x_init) for s in (solver, DDRM(eta=1.0)))
    assert relative_error(got, expected) < 1e-12
    assert relative_error(run(prior, name, Conjugate(1e9, jacobian="none"), y, x_init), expected) > 1e-2


def test_no_fresh_noise_is_left_at_the_end(prior):
    y, x_init = problem(prior, "vp")
    sampler = Sampler(prior.denoiser(VP()), OPERATOR, Conjugate(320.0, jacobian="none", refresh=1.0), 4, 0.5, 0.0)
    assert sampler.plan.numbers("z")[-1] == 0.0 < sampler.plan.numbers("z")[-2]
    assert relative_error(OPERATOR.forward(sampler(y, x_init=x_init, seed=0)), y) < 1e-9


# ------------------------------------------------------------------------------------------------ stability
def test_exact_warns_once_above_the_limit(prior):
    denoiser = prior.denoiser(VP())
    for solver, limit in ((Conjugate(40.0), "13.7"), (Conjugate(15.0, order=2), "6.0")):
        with pytest.warns(RuntimeWarning, match=rf"jacobian: 'exact' is stable up to .* {limit} in a step") as caught:
            Sampler(denoiser, OPERATOR, solver, start=0.6)
        assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Sampler(denoiser, OPERATOR)
        for jacobian in ("auto", "one_projection", "none"):
            Sampler(denoiser, OPERATOR, Conjugate(40.0, jacobian=jacobian), start=0.6)


@pytest.mark.parametrize("order", [1, 2])
def test_auto_stays_bounded_where_exact_does_not(prior, order):
    y, x_init = problem(prior, "vp")
    spread = {}
    for jacobian in ("exact", "auto"):
        solver = Conjugate(2000.0, jacobian=jacobian, order=order)
        sampler = Sampler(prior.denoiser(VP()), OPERATOR, solver, start=0.5, steps=10)
        spread[jacobian] = float(sampler(y, x_init=x_init).abs().max())
    assert spread["auto"] < 3 < 20 < spread["exact"]


# ------------------------------------------------------------------------------------------------ products
PRODUCTS = ("forward", "finite_difference")


@pytest.mark.parametrize("options", [{}, {"order": 2}, {"centred": "rayleigh"}, {"jacobian": "one_projection"}])
@pytest.mark.parametrize("name", ["vp", "edm", "flow"])
def test_products_of_a_true_score_agree(prior, mixture, name, options):
    """Forward mode is exact. A difference is exact for a Gaussian, whose score is linear, and close for a mixture."""
    prediction = {"vp": "v_prediction", "edm": "edm", "flow": "velocity"}[name]
    for p, tolerance in ((prior, 1e-9), (mixture, 5e-3)):
        y, x_init = problem(p, name, 2)
        reverse, forward, difference = (
            run(p, name, Conjugate(9.0, product=product, **options), y, x_init, 5, prediction)
            for product in ("reverse", *PRODUCTS)
        )
        assert relative_error(forward, reverse) < 1e-11
        assert relative_error(difference, reverse) < tolerance
        noiseless = run(p, name, Conjugate(9.0, jacobian="none"), y, x_init, 5, prediction)
        assert relative_error(noiseless, reverse) > 4 * tolerance  # The product matters.


@pytest.mark.parametrize("product", PRODUCTS)
def test_products_in_single_precision_and_with_noise(prior, product):
    y, x_init = problem(prior, "vp", 2)
    for noise in (0.0, 0.1):
        reverse, other = (
            run(prior, "vp", Conjugate(9.0, product=p), y.float(), x_init.float(), 5, noise_std=noise)
            for p in ("reverse", product)
        )
        # The outputs agree to 1e-7. A difference over a hundredth of |x| makes 1e-5 of that, in each of several steps.
        assert relative_error(other, reverse) < (1e-5 if product == "forward" else 1e-4)


class Counting(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv1d(1, 1, 3, padding=1).to(dtype)
        self.tracked: list[bool] = []

    def forward(self, x, t):
        self.tracked.append(x.requires_grad)
        return torch.tanh(self.convolution(x))


@pytest.mark.parametrize("product", PRODUCTS)
def test_no_graph_is_recorded_and_inference_mode_is_welcome(product):
    network = Counting()
    sampler = Sampler(Denoiser(network, VP()), OPERATOR, Conjugate(product=product), steps=4)
    y = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(0))
    outside = sampler(y, seed=0)
    assert network.tracked == [False] * 8
    assert sampler.stats()["network_evaluations"] == 8
    assert sampler.stats()["vjps"] == 0
    assert sampler.plan.vjp_steps == 4
    assert sampler.memory_estimate(2).activations == 0
    with torch.inference_mode():
        inside = sampler(y, seed=0)
    torch.testing.assert_close(inside, outside, rtol=0, atol=0)


@pytest.mark.elsewhere
def test_a_network_without_gradients_can_be_differenced():
    weight = Counting().convolution.weight.detach()

    def detached(x, t):
        return torch.tanh(nn.functional.conv1d(x.detach(), weight, padding=1))

    def attached(x, t):
        return torch.tanh(nn.functional.conv1d(x, weight, padding=1))

    y = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(0))
    got, same = (
        Sampler(Denoiser(network, VP()), OPERATOR, Conjugate(3.0, product="finite_difference"))(y, seed=0)
        for network in (detached, attached)
    )
    assert torch.equal(got, same)
    with pytest.raises(ValueError, match=r"must be differentiable .* use product='finite_difference'"):
        Sampler(Denoiser(detached, VP()), OPERATOR, Conjugate(3.0))(y, seed=0)


def test_no_residual_no_product(prior):
    """No product is taken where r = 0, which this network achieves from the first step on."""
    for product in PRODUCTS:
        solver = Conjugate(9.0, product=product)
        network = Denoiser(lambda x, t: x * 0.0, VP(), "sample")
        for scale in (0.0, 1.0):
            x_init = torch.full((2, *SHAPE), scale)
            assert torch.isfinite(Sampler(network, OPERATOR, solver)(torch.zeros(2, 1, 4), x_init=x_init)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_not_differenced_unless_asked_for(dtype):
    network = Counting(dtype)
    y = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(0))
    exact = Sampler(Denoiser(network, VP()), OPERATOR, Conjugate(3.0))(y, seed=0)
    with pytest.raises(ValueError, match=f"product: 'finite_difference' subtracts .* rounded to {dtype}"):
        Sampler(Denoiser(network, VP()), OPERATOR, Conjugate(3.0, product="finite_difference"))(y, seed=0)
    rounded = Sampler(Denoiser(network, VP()), OPERATOR, Conjugate(3.0, product="rounded_difference"))(y, seed=0)
    # The network has one layer, whose Jacobian is not symmetric.
    assert relative_error(rounded, exact) < 0.2
    solver, options = Conjugate(product="finite_difference"), {"autocast": torch.bfloat16}
    sampler = Sampler(Denoiser(Counting(), VP()), OPERATOR, solver, **options)
    with pytest.raises(ValueError, match=r"rounded to torch\.bfloat16"):
        sampler(y, seed=0)


# ------------------------------------------------------------------------------------------------ the loop
aten = torch.ops.aten


@pytest.mark.parametrize(
    ("solver", "noise"),
    [
        (Conjugate(), 0.1),
        (Conjugate("bayes", order=2, eta=0.5), 0.1),
        (Conjugate(order=2, eta=0.5), 0.0),
        (Conjugate(centred="rayleigh", order=2, jacobian="auto"), 0.0),
        (Conjugate(refresh=1.0), 0.1),
        (Conjugate(product="forward"), 0.0),
        (Conjugate(product="finite_difference"), 0.1),
        *((solver, 0.1) for solver in (PiGDM(), DDRM(), DDNM(eta=0.5), DiffPIR(), DDS(), DPS(), REDDiff())),
    ],
)
def test_the_loop_never_waits_and_repeats_itself(solver, noise, monkeypatch):
    operator = SeparableBlur(SHAPE, [0.2, 0.6, 0.2])
    sampler = Sampler(Denoiser(Counting(), VP()), operator, solver, steps=4, noise_std=noise)
    y = torch.rand(2, *SHAPE)
    sampler(y, seed=0)  # The first run moves the operator's and the plan's constants.
    inside, run_loop = [], sampler._program.run

    def recorded(*args):
        with Recorder() as recorder:
            steps = run_loop(*args)
        inside.append(recorder.operations)
        return steps

    monkeypatch.setattr(sampler._program, "run", recorded)
    sampler(y, seed=0)
    sampler(y, seed=1)
    assert not WAITS & set(inside[0])
    assert inside[0] == inside[1]  # No operation depends on values.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"w": "song"}, "w: must be a number or 'bayes', got 'song'"),
        ({"order": 3}, "order: must be 1 or 2, got 3"),
        ({"eta": -1.0}, "eta: must be a finite number >= 0, got -1.0"),
        ({"centred": True}, "centred: must be False, 'prior' or 'rayleigh', got True"),
        ({"centred": "prior", "jacobian": "none"}, "centred: must be False with jacobian='none', got 'prior'"),
        ({"product": "backward"}, "product: must be 'reverse', 'forward', .*, got 'backward'"),
        ({"lam": 0.1, "order": 2}, "lam: must be 0 with order 2, .*, got 0.1"),
        ({"lam": 0.1, "eta": 1.0}, "lam: must be 0 with order 2, .*, got 0.1"),
        ({"refresh": 1.5}, r"refresh: must lie in \[0, 1\], got 1.5"),
        ({"refresh": 0.5, "order": 2}, "refresh: must be 0 with order 2, eta or lam, got 0.5"),
        ({"refresh": 0.5, "eta": 1.0}, "refresh: must be 0 with order 2, eta or lam, got 0.5"),
        ({"refresh": 0.5, "lam": 0.1}, "refresh: must be 0 with order 2, eta or lam, got 0.5"),
        ({"lam": 0.1, "w": "bayes"}, "lam: must be 0 with order 2, .*, got 0.1"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        Conjugate(**options)


def test_fresh_noise_cannot_start_from_the_pure_noise_of_a_flow(prior):
    with pytest.raises(ValueError, match=r"start: .* must start later than pure noise, got mu = 0 at t = 0"):
        Sampler(prior.denoiser(Flow(), "velocity"), OPERATOR, Conjugate(eta=1.0), start=0.0)
