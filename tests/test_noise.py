"""Noisy measurements: coefficients over the singular values, exact posteriors, the initial state."""

from __future__ import annotations

import guided_ode
import numpy as np
import pytest
import torch
from scipy.integrate import quad

from ccfast import Denoiser, Sampler
from ccfast.engine.registers import Registers
from ccfast.engine.restoration import initial_mean
from ccfast.engine.spectrum import NODES
from ccfast.kernels import reference
from ccfast.operators import AveragePooling, FourierBlur, Inpainting, Matrix, Operator, SeparableBlur
from ccfast.schedules import EDM, VP, Flow
from ccfast.solvers import DDIM, DDNM, Conjugate, PiGDM, Steered, _grid
from ccfast.solvers.conjugate._modes import Guidance, modes
from ccfast.solvers.registry import REGISTRY
from ccfast.testing import Gaussian, relative_error

pytestmark = pytest.mark.filterwarnings("ignore:jacobian. 'exact' is stable")

SHAPE = (1, 16)
SCHEDULES = {"vp": VP(), "edm": EDM(sigma_max=100.0), "flow": Flow()}
SPANS = {"vp": (0.5, 0.01), "edm": (3.0, 0.02), "flow": (0.3, 0.98)}
BLUR = SeparableBlur(SHAPE, [0.05, 0.25, 0.4, 0.25, 0.05], cutoff=0.01)
POOLING = AveragePooling(SHAPE, 4)
EYE = torch.eye(16, dtype=torch.float64).reshape(16, *SHAPE)


def unit_prior() -> Gaussian:
    return Gaussian(torch.zeros(16, dtype=torch.float64), torch.eye(16, dtype=torch.float64), SHAPE)


def dense(operator) -> np.ndarray:
    """The matrix H, (m, 16)."""
    return operator.forward(EYE).reshape(16, -1).numpy().T


def grid_of(schedule, times, noise_std):
    return _grid.grid_of(Denoiser(lambda x, t: x, schedule, "velocity"), np.asarray(times), noise_std)


def observe(prior, operator, noise_std, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x0 = prior.sample(1, generator)
    clean = operator.forward(x0)
    y = clean + noise_std * torch.randn(clean.shape, dtype=torch.float64, generator=generator)
    return x0, y, torch.randn(1, *SHAPE, dtype=torch.float64, generator=generator)


# ------------------------------------------------------------------------------------------------ coefficients
@pytest.mark.parametrize("w", [2.0, 40.0, "bayes"])
@pytest.mark.parametrize(("s", "noise"), [(1.0, 0.001), (0.3, 0.1), (0.01, 0.05), (1e-4, 1.0)])
@pytest.mark.parametrize(("name", "start", "end"), [("vp", 0.9, 0.4), ("vp", 0.2, 0.001), ("edm", 40.0, 5.0)])
def test_kappa_has_the_closed_forms_of_the_paper(name, start, end, s, noise, w):
    schedule = SCHEDULES[name]
    a, high, low = s**2 + noise**2, float(schedule.clock(start)), float(schedule.clock(end))
    m = modes(Guidance(grid_of(schedule, [start, end], noise), w, s, 0.0, False, 1), np.array([s]))
    logarithm = np.log((a - s**2 * np.exp(-high)) / (a - s**2 * np.exp(-low)))
    if w == "bayes":
        total = s**2 / a * (np.exp(high) - np.exp(low)) + s**4 / a**2 * (logarithm + high - low)
        centred = modes(Guidance(grid_of(schedule, [start, end], noise), w, s, 0.0, True, 1), np.array([s]))
        # The centred exponent is the logarithm alone.
        assert centred.kappa[0, 0] == pytest.approx(-np.expm1(-0.5 * s**2 / a * (logarithm + high - low)), rel=1e-9)
    else:
        total = w * (s**2 * (high - low) - noise**2 * logarithm) / a
    # The closed form loses digits by cancellation where s is much smaller than the noise.
    assert m.kappa[0, 0] == pytest.approx(-np.expm1(-0.5 * total), rel=1e-9)


@pytest.mark.parametrize("w", [2.0, 20.0, "bayes"])
@pytest.mark.parametrize("noise", [0.01, 0.5])
@pytest.mark.parametrize(("name", "start", "end"), [("vp", 0.5, 0.3), ("edm", 2.0, 0.3), ("flow", 0.2, 0.6)])
def test_all_coefficients_against_quadrature_in_another_variable(name, start, end, noise, w):
    """The variable is B for diffusion and t for flow, in the guided ODE with omega frozen."""
    schedule, eta, reference = SCHEDULES[name], 0.7, 1.0
    s = np.array([0.0, 1.0, 0.2, 0.01])
    before = 2 * start - end if name != "flow" else start - 0.1
    grid = grid_of(schedule, [before, start, end], noise)
    m = modes(Guidance(grid, w, reference, eta, False, 2), s)
    c = 1 + eta**2

    def rate(t, mode):  # It is the exponent's derivative by t.
        mu, sigma, rho = (float(f(t)) for f in (schedule.mean, schedule.std, schedule.rho))
        r2 = rho**2 / (1 + rho**2)
        gain = mode**2 / (r2 * mode**2 + noise**2)
        if name == "flow":
            return (sigma / mu) * gain * (1.0 if w == "bayes" else w * r2 * mu**2)
        weight = (1 + rho**2) if w == "bayes" else w * r2
        return 0.5 * float(schedule.clock_derivative(t)) * weight * gain

    low, high = min(start, end), max(start, end)

    def integral(f):
        return quad(f, low, high, epsabs=1e-13, epsrel=1e-11, limit=200)[0]

    for i, mode in enumerate(s):

        def decay(t, mode=mode):
            return np.exp(-c * quad(rate, *sorted((t, end)), args=(mode,), epsabs=1e-13, epsrel=1e-11)[0])

        lever, scale = schedule.std, 1.0 if name == "flow" else float(schedule.mean(end))
        d = -c * scale * integral(lambda t: rate(t, reference) * float(lever(t)) * decay(t))  # noqa: B023
        assert m.kappa[1, i] == pytest.approx(1 - decay(start), rel=1e-8, abs=1e-14)
        assert m.d[1, i] == pytest.approx(d, rel=1e-8)
        if name == "flow":
            churn = -(eta**2) * integral(lambda t: decay(t) / t)
            spread = integral(lambda t: 2 * eta**2 * (1 - t) / t * decay(t) ** 2)
            change = integral(lambda t: ((1 - t) * decay(t) - (1 - end)) / (start - before))
        else:
            slope = lambda t: float(schedule.clock_derivative(t)) * (1 + schedule.rho(t) ** 2) / 2 / schedule.rho(t)  # noqa: E731
            churn = -scale * eta**2 * integral(lambda t: slope(t) * decay(t))  # noqa: B023
            spread = (scale * eta) ** 2 * integral(lambda t: 2 * schedule.rho(t) * slope(t) * decay(t) ** 2)  # noqa: B023
            gap = float(schedule.rho(before) - schedule.rho(start))
            change = -scale * integral(
                lambda t: slope(t) * (schedule.rho(t) * decay(t) - schedule.rho(end)) / gap  # noqa: B023
            )
        assert m.churn[1, i] == pytest.approx(churn, rel=1e-8)
        assert m.spread[1, i] == pytest.approx(np.sqrt(spread), rel=1e-8)
        # For the flow n = -v, so the formula for x' has the other sign twice.
        assert m.W[1, i] == pytest.approx(-change if name == "flow" else change, rel=1e-7, abs=1e-12)


SPECTRAL = [e.solver for e in REGISTRY if e.noise == "yes" and e.solver.needs_singular_values]


@pytest.mark.parametrize("solver", [*SPECTRAL, DDNM(eta=0.0), Conjugate("bayes", order=2, eta=0.5)], ids=repr)
def test_coefficients_over_many_singular_values_are_those_over_few(solver):
    """Every mode has the coefficient that an operator with few modes has, also at kinks and steps."""
    kernel = np.exp(-(np.arange(-15, 16) ** 2) / 8.0)[:, None] * np.exp(-(np.arange(-13, 14) ** 2) / 6.0)
    many = FourierBlur((1, 63, 64), kernel / kernel.sum(), cutoff=1e-6)
    s = many.singular_values.numpy()
    chosen = np.unique(s[s > 0])[5::17]
    few = Matrix(np.diag(chosen), (1, len(chosen)), cutoff=0.0)
    assert len(np.unique(s)) > NODES > len(chosen)
    for name in ("vp", "edm", "flow"):
        schedule = SCHEDULES[name]
        plan = solver.plan(Denoiser(lambda x, t: x, schedule, "sample"), many, np.linspace(*SPANS[name], 4), 0.05)
        compared = 0
        for spectrum in plan.spectra:
            got, want = (spectrum.table.on(op).over_modes[spectrum.name][spectrum.step] for op in (many, few))
            place = [np.argmin(np.abs(s.ravel() - value)) for value in chosen]
            own = [np.argmin(np.abs(few.singular_values.numpy().ravel() - value)) for value in chosen]
            assert got.ravel()[place] == pytest.approx(want.ravel()[own], rel=1e-9, abs=1e-13)
            assert not np.any(got[s == 0])
            compared += 1
        assert compared


@pytest.mark.parametrize("operator", [BLUR, POOLING, Inpainting(torch.arange(16)[None] % 3 != 0, SHAPE)])
@pytest.mark.parametrize("jacobian", ["exact", "one_projection", "none"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_vanishing_noise_gives_the_noiseless_row(prior, name, jacobian, operator):
    schedule, (start, end) = SCHEDULES[name], SPANS[name]
    x0, y, z = observe(prior, operator, 0.0)
    x_init = float(schedule.mean(start)) * x0 + float(schedule.std(start)) * z
    solvers = [Conjugate(9.0, jacobian=jacobian), PiGDM(0.5), Conjugate(9.0, jacobian=jacobian, order=2, eta=0.3)]
    for solver in solvers:
        noisy, exact = (
            Sampler(prior.denoiser(schedule), operator, solver, start=start, end=end, noise_std=noise)(
                y, x_init=x_init, seed=1
            )
            for noise in (1e-9, 0.0)
        )
        # The coefficients differ by (sigma_y/(r s))^2, where r > 0.02 and s > 0.01.
        assert relative_error(noisy, exact) < 1e-9


# ------------------------------------------------------------------------------------------------ the ODE
@pytest.mark.parametrize("operator", [BLUR, POOLING], ids=["blur", "pooling"])
@pytest.mark.parametrize(("w", "noise"), [(15.0, 0.02), ("bayes", 0.3)])
@pytest.mark.parametrize("name", SCHEDULES)
def test_converges_to_the_noisy_guided_ode(prior, name, w, noise, operator):
    """First and second order, plain and centred, converge to the solution by dense SVD and Runge-Kutta."""
    schedule, (start, end) = SCHEDULES[name], SPANS[name]
    x0, y, z = observe(prior, operator, noise)
    x_init = float(schedule.mean(start)) * x0 + float(schedule.std(start)) * z
    _, s, vt = np.linalg.svd(dense(operator), full_matrices=False)

    def weight(rho):
        r2 = rho**2 / (1 + rho**2)
        scale = w * r2 if w != "bayes" else (1 + rho) ** 2 if name == "flow" else 1 + rho**2
        return (vt.T * (scale * s**2 / (r2 * s**2 + noise**2))) @ vt

    truth = guided_ode.solve(
        prior,
        vt.T @ vt,
        operator.pinv(y).flatten().numpy(),
        schedule,
        x_init.flatten().numpy(),
        (start, end),
        weight,
    )
    centred = {"centred": "prior"}
    for options, order in (({}, 1), ({"order": 2}, 2), (centred, 1), ({**centred, "order": 2}, 2)):
        errors = []
        for steps in (40, 80):
            sampler = Sampler(
                prior.denoiser(schedule),
                operator,
                Conjugate(w, **options),
                times=guided_ode.in_rho(schedule, start, end, steps),
                noise_std=noise,
            )
            errors.append(np.linalg.norm(sampler(y, x_init=x_init).flatten().numpy() - truth) / np.linalg.norm(truth))
        assert errors[1] < (0.02 if order == 1 else 2e-3), (options, errors)
        assert abs(np.log2(errors[0] / errors[1]) - order) < 0.2, (options, errors)


# ------------------------------------------------------------------------------------------------ exact posteriors
def posterior(operator, y, noise):
    """The mean and covariance of x0 given y for the unit Gaussian prior."""
    h = dense(operator)
    covariance = np.linalg.inv(np.eye(16) + h.T @ h / noise**2)
    return covariance @ h.T @ y.numpy().ravel() / noise**2, covariance


def mean_and_covariance(sampler, y, mean, root, monkeypatch, stochastic=False):
    """The mean and covariance of the result for an initial state N(mean, root root^T), without Monte Carlo.

    The sampler is affine in the state and its noise. A run for each unit of the initial state and of the noise of every
    step gives one column of a root of the covariance.
    """
    steps = len(sampler.plan.steps)
    count = 1 + 16 + (16 * steps if stochastic else 0)
    x_init = torch.from_numpy(mean).expand(count, 16).clone()
    x_init[1:17] += torch.from_numpy(root.T)

    def impulses(out, seeds, places, draws, step):
        out.zero_()
        if stochastic and step > 0:
            first = 17 + 16 * (step - 1)
            out[first : first + 16] = EYE
        return out

    backend = sampler._program.backend
    bind = backend.bind
    monkeypatch.setattr(backend, "bind", lambda operator: bind(operator)._replace(normal=impulses))
    monkeypatch.setattr(reference, "normal", impulses)  # It serves float64 states.
    x = sampler(y.expand(count, *y.shape[1:]), x_init=x_init.reshape(count, *SHAPE)).reshape(count, 16).numpy()
    responses = x[1:] - x[0]
    return x[0], responses.T @ responses


def start_of(schedule, time, mean, covariance):
    """The mean and covariance of the exact state at a time."""
    mu, sigma = float(schedule.mean(time)), float(schedule.std(time))
    return mu * mean, mu**2 * covariance + sigma**2 * np.eye(16)


UNIT_SPANS = {"vp": (1.0, 1e-4), "edm": (80.0, 0.01), "flow": (0.01, 0.999)}


@pytest.mark.parametrize("noise", [0.1, 0.5])
@pytest.mark.parametrize("name", SCHEDULES)
def test_bayes_weights_give_the_exact_posterior_of_a_unit_gaussian(name, noise, monkeypatch):
    schedule, (start, end) = SCHEDULES[name], UNIT_SPANS[name]
    _, y, _ = observe(unit_prior(), BLUR, noise)
    mean, covariance = posterior(BLUR, y, noise)
    (first, first_c), (last, last_c) = (start_of(schedule, t, mean, covariance) for t in (start, end))
    times = schedule.time(np.geomspace(*schedule.rho((start, end)), 161))
    times[0], times[-1] = start, end
    for order in (1, 2):
        errors = []
        for grid in (times[::2], times):
            solver = Conjugate("bayes", order=order)
            sampler = Sampler(unit_prior().denoiser(schedule), BLUR, solver, times=grid, noise_std=noise)
            got, got_c = mean_and_covariance(sampler, y, first, np.linalg.cholesky(first_c), monkeypatch)
            errors.append([np.linalg.norm(got - last) / np.linalg.norm(last),
                           np.linalg.norm(got_c - last_c) / np.linalg.norm(last_c)])  # fmt: skip
        rates = np.log2(np.divide(*errors))
        assert np.all(np.abs(rates - order) < 0.2), (order, rates)
        assert np.all(np.array(errors[1]) < (0.04 if order == 1 else 0.004)), (order, errors)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_stochastic_sampler_has_the_posterior_s_standard_deviation(name, order, monkeypatch):
    schedule, (start, end), noise = SCHEDULES[name], UNIT_SPANS[name], 0.2
    _, y, _ = observe(unit_prior(), BLUR, noise)
    mean, covariance = posterior(BLUR, y, noise)
    (first, first_c), (last, last_c) = (start_of(schedule, t, mean, covariance) for t in (start, end))
    times = schedule.time(np.geomspace(*schedule.rho((start, end)), 161))
    times[0], times[-1] = start, end
    solver = Conjugate("bayes", eta=1.0, order=order)
    sampler = Sampler(unit_prior().denoiser(schedule), BLUR, solver, times=times, noise_std=noise)
    got, got_c = mean_and_covariance(sampler, y, first, np.linalg.cholesky(first_c), monkeypatch, stochastic=True)
    _, _, vt = np.linalg.svd(dense(BLUR))
    std, exact = (np.sqrt(np.einsum("ij,jk,ik->i", vt, c, vt)) for c in (got_c, last_c))
    assert np.abs(std / exact - 1).max() < 0.01
    assert np.linalg.norm(got - last) < 0.01 * np.linalg.norm(last)


# ------------------------------------------------------------------------------------------------ extremes
class Diagonal(Operator):
    """H = diag(s) on signals, with given singular values."""

    kind = "mask"

    def __init__(self, s):
        super().__init__(SHAPE, SHAPE)
        self.singular_values = torch.as_tensor(s, dtype=torch.float64)[None]

    def down(self, x):
        return x * (self.singular_values > 0)

    lift = down

    def encode(self, y):
        s = self.singular_values
        return (y * torch.where(s > 0, 1 / s, 0.0)).to(y.dtype)

    decode = down


@pytest.mark.parametrize("noise", [0.001, 0.03, 1.0])
@pytest.mark.parametrize("start", [0.4, 1.0])
@pytest.mark.parametrize(
    "solver",
    [
        Conjugate(15.0),
        Conjugate(40.0, order=2, eta=1.0, jacobian="auto"),
        Conjugate("bayes"),
        Conjugate(15.0, jacobian="none"),
        PiGDM(0.5),
        DDIM(),
    ],
)
def test_small_singular_values_stay_finite(solver, start, noise):
    s = np.append(np.geomspace(1e-4, 1.0, 15), 0.0)
    operator, prior, schedule = Diagonal(s), unit_prior(), VP()
    x0, y, _ = observe(prior, operator, 0.0)
    # Every measurement is three standard deviations off.
    y = (operator.forward(x0) + 3 * noise * torch.where(torch.arange(16) % 2 == 0, 1.0, -1.0)).float()
    sampler = Sampler(prior.denoiser(schedule), operator, solver, start=start, steps=20, noise_std=noise)
    x = sampler(y, seed=0)
    assert torch.isfinite(x).all()
    assert x.abs().max() < 30
    assert relative_error(x, sampler(y.double(), seed=0)) < 1e-4  # Each of 20 steps may amplify rounding.


@pytest.mark.parametrize("noise", [0.001, 0.03, 1.0])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_initial_state_is_within_three_standard_deviations(name, noise):
    """The state is within three sigma of mu x0 + sigma eps, though ybar is off by up to 3e4."""
    schedule, (start, _) = SCHEDULES[name], SPANS[name]
    s, seen = np.append(np.geomspace(1e-4, 1.0, 15), 0.0), []

    def network(x, t):
        seen.append(x.double())
        return torch.zeros_like(x)

    x0, _, _ = observe(unit_prior(), POOLING, 0.0)
    operator = Diagonal(s)
    y = operator.forward(x0) + 3 * noise * torch.where(torch.arange(16) % 2 == 0, 1.0, -1.0)
    sampler = Sampler(Denoiser(network, schedule), operator, DDIM(), start=start, noise_std=noise)
    sampler(y.float(), seed=0)
    eps = torch.empty(1, *SHAPE, dtype=torch.float64)
    words = (torch.tensor([value]) for value in (0, 0, 0))
    reference.normal(eps, *words, 0)
    mu, sigma = float(schedule.mean(start)), float(schedule.std(start))
    assert ((seen[0] - mu * x0 - sigma * eps).abs() < 3 * sigma).all()
    assert (operator.pinv(y) - x0).abs().max() > 2.9 * noise / s[0]


def test_the_initial_mean_is_the_posterior_mean_of_a_unit_gaussian(prior):
    noise = 0.2
    _, y, _ = observe(prior, BLUR, noise)
    sampler = Sampler(prior.denoiser(VP()), BLUR, noise_std=noise)
    mean, _ = posterior(BLUR, y, noise)
    ops = reference.bind(BLUR)
    registers = Registers(BLUR, y, ops, ops)
    registers.coordinates = BLUR.encode(y)
    got = initial_mean(sampler._program, sampler._program.bind(BLUR, y), registers)
    np.testing.assert_allclose(got.numpy().ravel(), mean, rtol=1e-11, atol=1e-13)


# ------------------------------------------------------------------------------------------------ other solvers, calls
def test_pigdm_weights_the_residual(prior):
    """One step equals the formula of the paper with a dense H."""
    schedule, noise, w, times = VP(), 0.1, 0.7, np.array([0.4, 0.3])
    x0, y, z = observe(prior, BLUR, noise)
    mu, sigma = float(schedule.mean(0.4)), float(schedule.std(0.4))
    x = mu * x0 + sigma * z
    got = Sampler(prior.denoiser(schedule), BLUR, PiGDM(w), times=times, noise_std=noise)(y, x_init=x)
    plain = Sampler(prior.denoiser(schedule), BLUR, DDIM(), times=times)(y, x_init=x)
    h, c = dense(BLUR), prior.covariances[0].numpy()
    gain = mu * c @ np.linalg.inv(mu**2 * c + sigma**2 * np.eye(16))
    mean = prior.means[0].numpy()
    x0hat = mean + gain @ (x.numpy().ravel() - mu * mean)
    r2 = sigma**2
    score = gain.T @ h.T @ np.linalg.solve(r2 * h @ h.T + noise**2 * np.eye(16), y.numpy().ravel() - h @ x0hat) * r2
    step = float(schedule.mean(0.3)) / mu * w / 2 * float(schedule.clock_derivative(0.4)) * 0.1
    np.testing.assert_allclose((got - plain).numpy().ravel(), step * score, rtol=1e-9, atol=1e-12)


def test_another_operator_in_a_call_is_that_operator_s_sampler(prior):
    """Kernels of unit sum share the largest singular value, and so the guidance term's dependence on it."""
    one, two = (FourierBlur(SHAPE, kernel, cutoff=0.01) for kernel in ([0.2, 0.6, 0.2], [0.1, 0.2, 0.4, 0.2, 0.1]))
    _, y, _ = observe(prior, two, 0.1)
    a, b = (Sampler(prior.denoiser(VP()), operator, Conjugate(5.0), noise_std=0.1) for operator in (one, two))
    assert relative_error(a(y, seed=0, operator=two), b(y, seed=0)) < 1e-12
    assert relative_error(a(y, seed=0), b(y, seed=0)) > 1e-3


def test_one_operator_for_every_image_and_samples(prior):
    kernels = torch.tensor([[0.2, 0.6, 0.2], [0.3, 0.4, 0.3]], dtype=torch.float64)
    both = FourierBlur(SHAPE, kernels, cutoff=0.01)
    y = both.forward(prior.sample(2, torch.Generator().manual_seed(0)))
    sampler = Sampler(prior.denoiser(VP()), both, Conjugate(5.0), noise_std=0.1)
    together = sampler(y, seed=[3, 4])
    for b in (0, 1):
        alone = FourierBlur(SHAPE, kernels[b], cutoff=0.01)
        one = Sampler(prior.denoiser(VP()), alone, Conjugate(5.0), noise_std=0.1)(y[b : b + 1], seed=[3 + b])
        assert relative_error(together[b : b + 1], one) < 1e-9
    assert relative_error(sampler.sample(y, 2, seed=[3, 4], together=2)[0], together) < 1e-12


def test_a_noisy_plan_asks_for_few_values_of_the_integrands(monkeypatch):
    """A step takes two panels of 16 points, over 512 nodes and not over all 4096 modes."""
    operator = FourierBlur((3, 64, 64), torch.rand(9, 9, generator=torch.Generator().manual_seed(0)) / 40, cutoff=0.001)
    assert operator.singular_values.numel() == 4096
    denoiser, values, rate = Denoiser(lambda x, t: x, VP()), [], Guidance.rate

    def counted(self, rho, s):
        rates = rate(self, rho, s)
        values.append(rates.size)
        return rates

    monkeypatch.setattr(Guidance, "rate", counted)
    times = VP().check_times(np.linspace(0.4, 0.001, 6))
    for solver in (Conjugate(), Conjugate("bayes", order=2, eta=0.5)):
        values.clear()
        plan = solver.plan(denoiser, operator, times, 0.05)
        assert {len(spectrum.table.nodes) for spectrum in plan.spectra} == {NODES}
        assert 0 < sum(values) <= 5 * 2 * 16 * NODES
    assert "with coefficients over 512 singular values" in str(plan)


# ------------------------------------------------------------------------------------------------ errors
class Krylov(Diagonal):
    kind = "krylov"


@pytest.mark.parametrize(
    ("solver", "operator", "options", "message"),
    [
        (Steered(), BLUR, {}, r"noise_std: Steered\(.*\) handles noiseless .* 0, got 0.1; Conjugate, PiGDM, DDRM"),
        (Conjugate(), Krylov(np.ones(16)), {}, "noise_std: .* needs the singular values .* got 0.1; DDS and DPS"),
        (Conjugate(lam=0.1), BLUR, {}, "lam: must be 0 where the measurement is noisy, got 0.1 with noise_std=0.1"),
        (Conjugate(centred="rayleigh"), BLUR, {}, "centred: must be False or 'prior' .* got 'rayleigh' with"),
        (Conjugate(), BLUR, {"noise_std": -0.1}, "noise_std: must be a finite number >= 0, got -0.1"),
        (Conjugate(), BLUR, {"hard_consistency": True}, "hard_consistency: must be False .* True with noise_std=0.1"),
    ],
)
def test_errors(prior, solver, operator, options, message):
    with pytest.raises(ValueError, match=message):
        Sampler(prior.denoiser(VP()), operator, solver, **{"noise_std": 0.1, **options})


def test_bayes_weights_cannot_start_from_pure_noise_of_a_flow(prior):
    with pytest.raises(ValueError, match=r"start: .* must start later than pure noise, got mu = 0 at t = 0"):
        Sampler(prior.denoiser(Flow(), "velocity"), BLUR, Conjugate("bayes"), start=0.0, noise_std=0.1)
