"""Solvers of inverse problems: one step against its formula in dense algebra, exact cases, limits and refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ccfast import Sampler
from ccfast.engine.plan import Term
from ccfast.kernels import reference
from ccfast.operators import AveragePooling, Bicubic, LinearOperator, Matrix, SeparableBlur
from ccfast.operators.conjugate_gradients import damped
from ccfast.schedules import EDM, VE, VP, DiscreteVP, Flow
from ccfast.solvers import DDIM, DDNM, DDRM, DDS, DPS, Conjugate, DiffPIR, PiGDM, REDDiff, Steered
from ccfast.solvers.dps import misfit_direction
from ccfast.solvers.registry import REGISTRY
from ccfast.testing import Gaussian, GaussianMixture, relative_error

SHAPE = (1, 12)
SCHEDULES = {"vp": (VP(), 0.5, 0.3), "edm": (EDM(), 2.0, 0.7), "flow": (Flow(), 0.4, 0.6)}
BLUR = SeparableBlur(SHAPE, [0.05, 0.25, 0.4, 0.25, 0.05], cutoff=0.01)
DEFICIENT = Matrix(
    np.random.default_rng(0).normal(size=(9, 6)) @ np.random.default_rng(1).normal(size=(6, 12)) / 6, SHAPE
)
EYE = torch.eye(12, dtype=torch.float64).reshape(12, *SHAPE)


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def mixture() -> GaussianMixture:
    roots = normal(3, 12, 12, seed=3) / 4
    return GaussianMixture([0.5, 0.3, 0.2], normal(3, 12, seed=4), roots @ roots.mT + 0.05 * torch.eye(12), SHAPE)


def dense(operator) -> np.ndarray:
    """The matrix H, (m, 12)."""
    return operator.forward(EYE).reshape(12, -1).numpy().T


class Step:
    """One step of a sampler, with its parts x0hat, eps and z as numpy vectors and H by its full SVD."""

    def __init__(self, prior, solver, operator, name, noise=0.0, end=None, seed=7):
        schedule, start, stop = SCHEDULES[name]
        end = stop if end is None else end
        y, x = normal(1, *operator.measurement_shape, seed=5), normal(1, *SHAPE, seed=6)
        times = [start, end]
        sampler = Sampler(prior.denoiser(schedule, "v_prediction"), operator, solver, times=times, noise_std=noise)
        self.got = sampler(y, x_init=x, seed=seed).flatten().numpy()
        self.mu, self.mu_to = map(float, schedule.mean(times))
        self.sigma, self.sigma_to = map(float, schedule.std(times))
        x0hat = prior.denoise(x, *(torch.tensor([v], dtype=torch.float64) for v in (self.mu, self.sigma)))
        self.x0hat, self.x = x0hat.flatten().numpy(), x.flatten().numpy()
        self.eps = (self.x - self.mu * self.x0hat) / self.sigma
        words = [torch.tensor([v]) for v in (seed, 0, 0)]
        self.z = reference.normal(torch.empty(1, *SHAPE, dtype=torch.float64), *words, 1).flatten().numpy()
        self.H, self.y = dense(operator), y.flatten().numpy()
        u, s, self.vt = np.linalg.svd(self.H)
        rank = int((s > 1e-9).sum())
        self.s = np.append(s[:rank], np.zeros(12 - rank))
        self.ybar = np.append((u.T @ self.y)[:rank] / s[:rank], np.zeros(12 - rank))

    @property
    def fresh(self):
        """The standard deviation of ancestral noise."""
        rho, rho_to = self.sigma / self.mu, self.sigma_to / self.mu_to
        return self.sigma_to * np.sqrt(1 - (rho_to / rho) ** 2)

    def modes(self, coefficient):
        """The image whose modes are coefficient(s, x0hat_s, eps_s, z_s, ybar_s)."""
        parts = zip(self.s, self.vt @ self.x0hat, self.vt @ self.eps, self.vt @ self.z, self.ybar, strict=True)
        return self.vt.T @ np.array([coefficient(*part) for part in parts])


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("operator", [BLUR, DEFICIENT], ids=["blur", "deficient"])
def test_ddrm_is_its_formula_in_every_mode(mixture, operator, name, noise):
    eta, eta_b = 0.6, 0.9
    step = Step(mixture, DDRM(eta, eta_b), operator, name, noise)
    mu, sigma = step.mu_to, step.sigma_to

    def mode(s, x0, eps, z, ybar):
        if s == 0:
            return mu * x0 + np.sqrt(1 - eta**2) * sigma * eps + eta * sigma * z
        if s * sigma < mu * noise:
            return mu * x0 + np.sqrt(1 - eta**2) * sigma * s * (ybar - x0) / noise + eta * sigma * z
        variance = sigma**2 - (mu * eta_b * noise / s) ** 2
        return mu * ((1 - eta_b) * x0 + eta_b * ybar) + np.sqrt(variance) * z

    assert step.got == pytest.approx(step.modes(mode), abs=1e-11)


def test_ddrm_stays_finite_and_ends_on_the_measurement(mixture):
    step = Step(mixture, DDRM(), BLUR, "vp", end=0.0)
    assert step.H @ step.got == pytest.approx(step.H @ np.linalg.pinv(step.H, rcond=1e-9) @ step.y, abs=1e-10)
    s = np.append(np.geomspace(1e-4, 1.0, 11), 0.0)
    operator = Matrix(np.diag(s), SHAPE, cutoff=0.0)
    for solver in (DDRM(), DDRM(0.0, 0.5), DDNM(eta=0.5), DiffPIR(), DPS(), DDS(), REDDiff(), PiGDM(0.1)):
        for noise in (0.001, 0.03, 1.0):
            sampler = Sampler(mixture.denoiser(VP()), operator, solver, start=1.0, end=0.0, noise_std=noise)
            y = operator.forward(mixture.sample(1, torch.Generator().manual_seed(0)))
            x = sampler((y + noise * normal(*y.shape)).float(), seed=0)
            assert x.abs().max() < 20.0, (solver, noise)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("operator", [BLUR, DEFICIENT], ids=["blur", "deficient"])
def test_ddnm_is_its_formula_in_every_mode(mixture, operator, name, noise):
    """The step is as published, with noise eta sigma', and where the measurement is noisy DDNM+ in every mode."""
    eta = 0.7
    step = Step(mixture, DDNM(eta), operator, name, noise)
    mu, sigma, kept = step.mu_to, step.sigma_to, np.sqrt(1 - eta**2) * step.sigma_to

    def mode(s, x0, eps, z, ybar):
        r = ybar - x0 if s else 0.0
        if noise and s and s * sigma < mu * noise:
            return mu * x0 + kept * s / noise * r + eta * sigma * z
        if noise and s:
            return mu * ybar + np.sqrt(sigma**2 - (mu * noise / s) ** 2) * z
        return mu * (x0 + r) + kept * (eps + r if name == "flow" else eps) + eta * sigma * z

    assert step.got == pytest.approx(step.modes(mode), abs=1e-11)


@pytest.mark.parametrize("schedule", [VP(), DiscreteVP(np.linspace(1e-4, 0.02, 1000)), VE(0.01, 50.0), EDM()], ids=repr)
def test_ddnm_takes_its_fresh_noise_in_short_steps_too(mixture, schedule):
    """The noise is eta sigma' in every step of any grid, while in short steps DDIM's noise is a small part of that."""
    rhos = np.geomspace(3.0, 0.05, 201)
    plan = DDNM().plan(mixture.denoiser(schedule), BLUR, schedule.time(rhos))
    assert plan.numbers("z") == pytest.approx(0.85 * plan.sigma[1:], rel=1e-12)


# A solver that has a guidance weight samples from another distribution than the posterior.
WEIGHTLESS = [e.solver for e in REGISTRY if e.measurement and getattr(e.solver, "w", None) in (None, "bayes")]
NOISY = [solver for solver in WEIGHTLESS if solver.takes_noise]


@pytest.mark.parametrize("solver", [*NOISY, DDNM(eta=0.0)], ids=repr)
def test_more_steps_do_not_add_the_noise_of_the_measurement_up(solver):
    """The measurement's noise is one vector in every step, and a solver that counts it anew each time adds it up.

    The prior is an AR(1) process whose posterior is known: a draw from it has twice the error of its mean.
    """
    size, noise, images = 32, 0.1, 48
    away = (torch.arange(size)[:, None] - torch.arange(size)).abs()
    covariance = 0.25 * 0.9 ** away.double()
    prior = Gaussian(torch.zeros(size, dtype=torch.float64), covariance, (1, size))
    operator = SeparableBlur((1, size), [0.05, 0.25, 0.4, 0.25, 0.05], boundary="circular", cutoff=1e-3)
    eye = torch.eye(size, dtype=torch.float64)
    H = operator.forward(eye[:, None]).flatten(1).mT
    x = prior.sample(images, torch.Generator().manual_seed(2))
    y = operator.forward(x) + noise * normal(images, 1, size, seed=3)
    posterior = covariance - covariance @ H.mT @ (H @ covariance @ H.mT + noise**2 * eye).inverse() @ H @ covariance
    drawn = 2 * float(posterior.trace()) / size
    # In five steps the heuristics of most solvers do not resolve a prior that is so correlated.
    for steps in (40, 160):
        sampler = Sampler(prior.denoiser(VP()), operator, solver, steps, 0.9, 1e-3, noise_std=noise)
        error = float((sampler(y, seed=0) - x).square().mean())
        # The error may exceed that of a draw by 0.75 dB, which the heuristics of the solvers cost.
        assert 10 * np.log10(error / drawn) < 0.75, (steps, 10 * np.log10(error / drawn))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("operator", [BLUR, DEFICIENT], ids=["blur", "deficient"])
def test_the_proximal_step_of_diffpir_is_the_minimiser(mixture, operator, name):
    lam, zeta, noise = 5.0, 0.4, 0.1
    step = Step(mixture, DiffPIR(lam, zeta), operator, name, noise)
    penalty = lam * (noise / 2) ** 2 * step.mu**2 / step.sigma**2
    best = np.linalg.solve(step.H.T @ step.H + penalty * np.eye(12), step.H.T @ step.y + penalty * step.x0hat)
    direction = (step.x - step.mu * best) / step.sigma
    expected = step.mu_to * best + step.sigma_to * (np.sqrt(1 - zeta) * direction + np.sqrt(zeta) * step.z)
    assert step.got == pytest.approx(expected, abs=1e-11)
    small, none = (Step(mixture, DiffPIR(lam, zeta), operator, name, n).got for n in (1e-6, 0.0))
    assert small == pytest.approx(none, abs=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("operator", [BLUR, DEFICIENT], ids=["blur", "deficient"])
def test_dps_descends_the_norm_of_the_misfit(mixture, operator, name):
    step = Step(mixture, DPS(zeta=0.3), operator, name, noise=0.1)
    x = torch.tensor(step.x).reshape(1, *SHAPE).requires_grad_()
    x0hat = mixture.denoise(x, *(torch.tensor([v], dtype=torch.float64) for v in (step.mu, step.sigma)))
    norm = (operator.forward(x0hat).flatten() - torch.tensor(step.y)).norm()
    (gradient,) = torch.autograd.grad(norm, x)
    direction = np.sqrt(step.sigma_to**2 - step.fresh**2)
    ddpm = step.mu_to * step.x0hat + direction * step.eps + step.fresh * step.z
    assert step.got == pytest.approx(ddpm - 0.3 * gradient.flatten().numpy(), abs=1e-11)


def test_dps_takes_the_norm_of_every_image_and_survives_none(mixture):
    denoiser = mixture.denoiser(VP())
    y = torch.cat([normal(1, 1, 12, seed=1), 100.0 * normal(1, 1, 12, seed=2)])
    sampler = Sampler(denoiser, BLUR, DPS())
    together = sampler(y, seed=[3, 4])
    for b in range(2):
        assert relative_error(together[b : b + 1], sampler(y[b : b + 1], seed=[3 + b])) < 1e-12
    x = normal(2, *SHAPE)
    assert not misfit_direction(BLUR, BLUR.forward(x), x).any()


@pytest.mark.parametrize("operator", [BLUR, DEFICIENT, AveragePooling(SHAPE, 3)], ids=["blur", "deficient", "pooling"])
def test_dds_solves_its_equations(mixture, operator):
    """As many steps as H has singular values solve them; fewer give what dense conjugate gradients give."""
    eta = 0.5

    def expected(step, best):
        direction = np.sqrt(1 - eta**2) * step.eps + eta * step.z
        return step.mu_to * best + step.sigma_to * direction

    step = Step(mixture, DDS(12, eta=eta), operator, "vp")
    projected = step.x0hat + np.linalg.pinv(step.H, rcond=1e-9) @ (step.y - step.H @ step.x0hat)
    assert step.got == pytest.approx(expected(step, projected), abs=1e-7)  # The blur's condition number is 50.
    step = Step(mixture, DDS(12, gamma=3.0, eta=eta), operator, "edm", 0.1)
    A, b = np.eye(12) + 3.0 * step.H.T @ step.H, step.x0hat + 3.0 * step.H.T @ step.y
    assert step.got == pytest.approx(expected(step, np.linalg.solve(A, b)), abs=1e-9)
    for count in (1, 2, 3):
        step = Step(mixture, DDS(count, gamma=3.0, eta=eta), operator, "edm", 0.1)
        right = b - A @ step.x0hat
        krylov = np.stack([np.linalg.matrix_power(A, k) @ right for k in range(count)], 1)
        # This is the best element of x0hat + Krylov space in the energy norm.
        best = step.x0hat + krylov @ np.linalg.lstsq(krylov.T @ A @ krylov, krylov.T @ right, rcond=1e-14)[0]
        assert step.got == pytest.approx(expected(step, best), abs=1e-9)


def test_dds_is_the_posterior_mean_of_a_unit_gaussian_prior():
    """The step goes from almost pure noise, where x0hat is the prior mean, to an end without noise."""
    noise, mean = 0.3, normal(12, seed=8)
    prior = Gaussian(mean, torch.eye(12, dtype=torch.float64), SHAPE)
    y = normal(1, 1, 12)
    solver = DDS(12, gamma=noise**-2)
    x = Sampler(prior.denoiser(EDM(sigma_max=1e8)), BLUR, solver, times=[1e7, 0.0], noise_std=noise)(y, seed=0)
    H = dense(BLUR)
    gain = H.T @ np.linalg.inv(H @ H.T + noise**2 * np.eye(12))
    expected = mean.numpy() + gain @ (y.flatten().numpy() - H @ mean.numpy())
    assert x.flatten().numpy() == pytest.approx(expected, abs=1e-5)


def test_dds_has_inner_products_of_its_own_for_every_image(mixture):
    y = torch.cat([normal(1, 1, 12, seed=1), 100.0 * normal(1, 1, 12, seed=2)])
    for noise in (0.0, 0.1):
        sampler = Sampler(mixture.denoiser(VP()), BLUR, DDS(3), noise_std=noise)
        together = sampler(y, seed=[3, 4])
        for b in range(2):
            assert relative_error(together[b : b + 1], sampler(y[b : b + 1], seed=[3 + b])) < 1e-12


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("solver", [DPS(0.5), DDS(3), REDDiff(), DDIM()], ids=str)
def test_what_needs_no_modes_takes_any_linear_operator(mixture, solver, noise):
    """Their results, and the first state (H^T H + sigma_y^2)^-1 H^T y, are the same without singular values."""
    linear = LinearOperator(BLUR.forward, BLUR.adjoint, SHAPE, iterations=30)
    y = normal(2, 1, 12)
    results = [
        Sampler(mixture.denoiser(VP()), operator, solver, noise_std=noise)(y, seed=0) for operator in (BLUR, linear)
    ]
    assert relative_error(*results) < 1e-8


def test_damped_conjugate_gradients():
    A, b = dense(BLUR), normal(3, 12)
    b[1] = 0.0
    x = damped(lambda v: v @ torch.tensor(A.T), lambda v: v @ torch.tensor(A), b, 7.0, 12)
    assert x.numpy() == pytest.approx(np.linalg.solve(np.eye(12) + 7.0 * A.T @ A, b.numpy().T).T, abs=1e-10)
    assert not x[1].any()


@pytest.mark.parametrize("name", SCHEDULES)
def test_steered(mixture, name):
    operator = AveragePooling(SHAPE, 3)
    for solver in (Steered(eta=0.8), Steered(operator.pinv, eta=0.8)):
        step = Step(mixture, solver, operator, name)
        swapped = step.modes(lambda s, x0, eps, z, ybar: ybar if s else x0)
        fresh = 0.8 * step.fresh
        direction = (step.x - step.mu * swapped) / step.sigma
        expected = step.mu_to * swapped + np.sqrt(step.sigma_to**2 - fresh**2) * direction + fresh * step.z
        assert step.got == pytest.approx(expected, abs=1e-11)
    if name != "flow":  # On a flow DDNM keeps the velocity.
        same = Step(mixture, Steered(operator.pinv, direction="network", eta=0.0), operator, name)
        assert same.got == pytest.approx(Step(mixture, DDNM(eta=0.0), operator, name).got, abs=1e-12)
    last = Step(mixture, Steered(), operator, name, end=1.0 if name == "flow" else 0.0)
    assert last.H @ last.got == pytest.approx(last.y, abs=1e-12)


def test_steered_by_an_enlargement_that_is_no_pseudo_inverse(mixture):
    operator = Bicubic(SHAPE, 2)

    def enlarge(y):
        return y.repeat_interleave(2, dim=-1)

    step = Step(mixture, Steered(enlarge, direction="network", eta=0.0), operator, "vp")
    up = np.repeat(np.eye(6), 2, axis=0)
    swapped = step.x0hat + up @ (step.y - step.H @ step.x0hat)
    assert step.got == pytest.approx(step.mu_to * swapped + step.sigma_to * step.eps, abs=1e-12)


@pytest.mark.parametrize("profile", ["linear", "sqrt", "square", "log", "constant"])
@pytest.mark.parametrize("operator", [BLUR, DEFICIENT], ids=["blur", "deficient"])
def test_red_diff_is_torch_s_adam_on_the_published_gradient(mixture, operator, profile):
    schedule, rate, weight, v, seed = VP(), 0.07, 0.3, 0.8, 5
    times = np.linspace(0.9, 0.0, 13)
    y = operator.forward(normal(1, *SHAPE, seed=5))
    sampler = Sampler(mixture.denoiser(schedule, "velocity"), operator, REDDiff(rate, weight, v, profile), times=times)
    words = [torch.tensor([value]) for value in (seed, 0, 0)]
    mean = torch.nn.Parameter(operator.pinv(y))
    optimiser = torch.optim.Adam([mean], lr=rate, betas=(0.9, 0.99), eps=1e-8)
    for k, t in enumerate(times[:-1]):
        mu, sigma = (torch.tensor([float(f(t))], dtype=torch.float64) for f in (schedule.mean, schedule.std))
        z = reference.normal(torch.empty(1, *SHAPE, dtype=torch.float64), *words, k)
        with torch.no_grad():
            x = mu * mean + sigma * z
            eps = (x - mu * mixture.denoise(x, mu, sigma)) / sigma
            rho = float(sigma / mu)
            w = {"linear": rho, "sqrt": rho**0.5, "square": rho**2, "log": np.log1p(rho), "constant": 1.0}[profile]
            mean.grad = weight * w * (eps - z) / 12 + v * operator.adjoint(operator.forward(mean) - y) / y.numel()
        optimiser.step()
    assert relative_error(sampler(y, seed=seed), mean) < 1e-11


def test_red_diff_comes_to_the_ridge_solution_of_a_gaussian_prior():
    """There E x0hat = m + rho^2 (C + rho^2)^-1 (mean - m), so the expected gradient is linear in m."""
    covariance, rho, weight = torch.diag(torch.linspace(0.3, 2.0, 12, dtype=torch.float64)), 0.5, 0.7
    prior, operator = Gaussian(normal(12, seed=8), covariance, SHAPE), AveragePooling(SHAPE, 3)
    y = normal(1, 1, 4)
    times = np.linspace(rho, 0.999 * rho, 401)  # The times hardly change.
    sampler = Sampler(prior.denoiser(EDM()), operator, REDDiff(0.02, weight, v=1.0), times=times)
    means = sampler(y.repeat(64, 1, 1), seed=0).mean(0).flatten().numpy()
    H, mean = dense(operator), prior.means[0].numpy()
    inverse, data = weight * rho**2 * np.linalg.inv(covariance.numpy() + rho**2 * np.eye(12)), 12 / 4
    expected = np.linalg.solve(inverse + data * H.T @ H, inverse @ mean + data * H.T @ y.flatten().numpy())
    start = operator.pinv(y).flatten().numpy()
    # The rest is noise: rho in the last state, less in Adam's steps, and a mean over 64 divides it by 8.
    assert np.abs(means - expected).max() < 4 * rho / 8 < 0.3 * np.linalg.norm(start - expected)


def linear():
    return LinearOperator(BLUR.forward, BLUR.adjoint, SHAPE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDRM(eta=1.1), r"eta: must lie in \[0, 1\], got 1.1"),
        (lambda: DDRM(eta_b=-1.0), r"eta_b: must lie in \[0, 1\], got -1.0"),
        (lambda: DPS(zeta=-1.0), "zeta: must be a finite number >= 0, got -1.0"),
        (lambda: DPS(eta=2.0), r"eta: must lie in \[0, 1\], got 2.0"),
        (lambda: DiffPIR(lam=0.0), "lam: must be > 0, got 0.0"),
        (lambda: DiffPIR(zeta=1.5), r"zeta: must lie in \[0, 1\], got 1.5"),
        (lambda: DDS(iterations=0), "iterations: must be a positive integer, got 0"),
        (lambda: DDS(gamma=0.0), "gamma: must be > 0, got 0.0"),
        (lambda: DDS(eta=-0.5), r"eta: must lie in \[0, 1\], got -0.5"),
        (lambda: Steered(eta=-0.5), r"eta: must lie in \[0, 1\], got -0.5"),
        (lambda: REDDiff(rate=-1.0), "rate: must be a finite number >= 0, got -1.0"),
        (lambda: REDDiff(profile="cosine"), "profile: must be one of 'linear', 'sqrt', .*, got 'cosine'"),
        (lambda: Steered(direction="old"), "direction: must be 'derived' or 'network', got 'old'"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_more_errors(mixture):
    plan = DDIM().plan(mixture.denoiser(VP()), BLUR, np.array([0.4, 0.2]))
    with pytest.raises(ValueError, match=r"row: step 0 of DDIM\(eta=0.0\) reads u, which no rule writes or keeps"):
        replace(plan, steps=[replace(step, row=(Term("u"),)) for step in plan.steps])
    with pytest.raises(TypeError, match="up: must be a function or None, got str"):
        Steered("bicubic")
    denoiser = mixture.denoiser(VP())
    with pytest.raises(ValueError, match=r"Steered.* handles noiseless measurements only, so it must be 0, got 0.1"):
        Sampler(denoiser, BLUR, Steered(), noise_std=0.1)
    for solver in (Conjugate(), PiGDM(), DDRM(), DDNM(eta=1.0), DiffPIR()):
        with pytest.raises(ValueError, match=r"needs the singular values .* DDS and DPS take noise without them"):
            Sampler(denoiser, linear(), solver, noise_std=0.1)
