"""Public implementations, written from their formulas, take the steps of the solvers that the registry names.

Each loop is written with abar = mu^2 of a variance-preserving schedule, as the public codes are, over the singular
values of a small matrix, some of which are zero, and with the noise that the sampler draws.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ccfast import Denoiser, Sampler, solvers
from ccfast.kernels import reference
from ccfast.operators import Matrix
from ccfast.schedules import VP
from ccfast.solvers.registry import REGISTRY
from ccfast.testing import relative_error

SIZE, SEED, NOISE = 12, 11, 0.1
SINGULAR = np.append(np.geomspace(0.02, 1.0, 8), np.zeros(4))
OPERATOR = Matrix(np.diag(SINGULAR)[:8], (1, SIZE), cutoff=0.0)
ELSEWHERE = {
    "Conjugate()": "test_goldens.py",
    "PiGDM(w=1.0)": "test_goldens.py",
    "REDDiff()": "test_inverse.py::test_red_diff_is_torch_s_adam_on_the_published_gradient",
    "DDPM()": "test_ddpm.py",
    "DDPM(variance='large')": "test_ddpm.py",
    "DPMSolverPP(order=3)": "test_multistep.py::test_rows_of_dpm_solver_pp",
    "DPMSolverPP(order=3, curvature=0.5)": "test_diffusers_runs.py",
    "Heun()": "test_diffusers_runs.py",
    "DEIS(order=1, basis='log_rho')": "test_diffusers_runs.py",
    "UniPC()": "test_multistep.py::test_one_row_of_unipc_is_predictor_and_corrector",
    "UniPC(order=3)": "test_multistep.py::test_one_row_of_unipc_is_predictor_and_corrector",
}
"""The tests that hold the other rows."""


def network(x, t):
    """A network for eps whose Jacobian is not symmetric."""
    return torch.tanh(x + 0.3 * x.roll(1, -1)) + 0.1 * t[:, None, None]


def ancestral(s, eta):
    """DDIM's sigma_t, from abar."""
    return eta * np.sqrt((1 - s.after) / (1 - s.bar) * (1 - s.bar / s.after))


def ddim(s, x0, eps, eta):
    drawn = ancestral(s, eta)
    return np.sqrt(s.after) * x0 + np.sqrt(1 - s.after - drawn**2) * eps + drawn * s.z


def inverse(s):
    """H^+ (y - H x0), computed mode by mode."""
    full = torch.cat([s.y, torch.zeros(1, 1, SIZE - 8, dtype=torch.float64)], dim=2)
    inverted = torch.from_numpy(np.where(SINGULAR > 0, 1 / np.where(SINGULAR > 0, SINGULAR, 1), 0.0))
    return torch.where(torch.from_numpy(SINGULAR > 0), full * inverted - s.x0, 0.0)


def ddnm(s):
    kept, drawn = np.sqrt(1 - s.after) * np.sqrt(1 - 0.85**2), 0.85 * np.sqrt(1 - s.after)
    if not s.noise:
        return np.sqrt(s.after) * (s.x0 + inverse(s)) + kept * s.eps + drawn * s.z
    a, sigma, S = np.sqrt(s.after), np.sqrt(1 - s.after), torch.from_numpy(SINGULAR)
    weak = sigma * S < a * s.noise
    scale = torch.where(weak, S * sigma * np.sqrt(1 - 0.85**2) / a / s.noise, 1.0)
    left = (sigma**2 - (a * s.noise / S.clamp_min(1e-9)) ** 2).clamp_min(0.0).sqrt()
    z = torch.where(weak | (S == 0), drawn, left)
    return a * (s.x0 + scale * inverse(s)) + torch.where(S == 0, kept, 0.0) * s.eps + z * s.z


def ddrm(s):
    """DDRM in the coordinates x/sqrt(abar) of the public code."""
    after, S = np.sqrt((1 - s.after) / s.after), torch.from_numpy(SINGULAR)
    missing = s.x0 + np.sqrt(1 - 0.85**2) * after * s.eps + 0.85 * after * s.z
    full = torch.cat([s.y, torch.zeros(1, 1, SIZE - 8, dtype=torch.float64)], dim=2)
    weak = s.x0 + np.sqrt(1 - 0.85**2) * after * (full - S * s.x0) / max(s.noise, 1e-30) + 0.85 * after * s.z
    variance = (after**2 - (s.noise / S.clamp_min(1e-9)) ** 2).clamp_min(0.0)
    strong = full / S.clamp_min(1e-9) + variance.sqrt() * s.z
    chosen = torch.where(S == 0, missing, torch.where(S * after < s.noise, weak, strong))
    return np.sqrt(s.after) * chosen


def diffpir(s):
    """DiffPIR with lambda 7 and zeta 0.3. Its noise level is for images in [0, 1], and at least 0.001 there."""
    rho = 7.0 * (s.noise / 2) ** 2 / ((1 - s.bar) / s.bar)
    S = torch.from_numpy(SINGULAR)
    x0 = s.x0 + torch.where(S > 0, S**2 / (S**2 + rho).clamp_min(1e-30), 0.0) * inverse(s)
    eps = (s.x - np.sqrt(s.bar) * x0) / np.sqrt(1 - s.bar)
    return np.sqrt(s.after) * x0 + np.sqrt(1 - s.after) * (np.sqrt(0.7) * eps + np.sqrt(0.3) * s.z)


def derivative(s, cotangent):
    """(dx0/dx)^T times a cotangent."""
    x = s.x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((s.estimate(x) * cotangent).sum(), x)
    return gradient


def pigdm(s):
    r2, S = 1 - s.bar, torch.from_numpy(SINGULAR)
    g = derivative(s, torch.where(S > 0, r2 * S**2 / (r2 * S**2 + s.noise**2).clamp_min(1e-30), 0.0) * inverse(s))
    return ddim(s, s.x0, s.eps, 1.0) + np.sqrt(s.after) * np.sqrt(s.bar) * g


def dps(s):
    x = s.x.clone().requires_grad_()
    norm = torch.linalg.vector_norm(s.y - OPERATOR.forward(s.estimate(x)))
    (gradient,) = torch.autograd.grad(norm, x)
    return ddim(s, s.x0, s.eps, 1.0) - gradient


def dds(s):
    """DDS with gamma 1: five conjugate gradient steps from x0, then the noise of DDNM."""
    S = torch.from_numpy(SINGULAR)
    full = torch.cat([s.y, torch.zeros(1, 1, SIZE - 8, dtype=torch.float64)], dim=2)
    identity, right = (1.0, s.x0) if s.noise else (0.0, 0.0)
    u, residual = s.x0, right + S * full - (identity + S**2) * s.x0
    direction, square = residual, residual.square().sum()
    for _ in range(5):
        along = (identity + S**2) * direction
        length = square / (direction * along).sum()
        u, residual = u + length * direction, residual - length * along
        direction, square = residual + residual.square().sum() / square * direction, residual.square().sum()
    return np.sqrt(s.after) * u + np.sqrt(1 - s.after) * (np.sqrt(1 - 0.85**2) * s.eps + 0.85 * s.z)


def dpir(s):
    """The data step of the next noise level, but for the last denoised image, which is the result."""
    if s.k == s.count - 1:
        return np.sqrt(s.after) * s.x0
    S, alpha = torch.from_numpy(SINGULAR), 0.23 * s.noise**2 * s.after / (1 - s.after)
    full = torch.cat([s.y, torch.zeros(1, 1, SIZE - 8, dtype=torch.float64)], dim=2)
    if alpha:
        return np.sqrt(s.after) * (S * full + alpha * s.x0) / (S**2 + alpha)
    return np.sqrt(s.after) * (s.x0 + inverse(s))


def dpm_solver(s, sde=False):
    """DPM-Solver++ of order 2, midpoint; the first step, and below 15 steps the last, have order 1."""
    lam = [0.5 * np.log(bar / (1 - bar)) for bar in (*s.earlier, s.bar, s.after)]
    h = lam[-1] - lam[-2]
    alpha, sigma, ratio = np.sqrt(s.after), np.sqrt(1 - s.after), np.sqrt((1 - s.after) / (1 - s.bar))
    slope = 0.0
    if s.k and not (s.k == s.count - 1 and s.count < 15):
        slope = (s.x0 - s.found[-1]) * h / (lam[-2] - lam[-3])
    if sde:
        double = 1 - np.exp(-2 * h)
        return ratio * np.exp(-h) * s.x + alpha * double * (s.x0 + 0.5 * slope) + sigma * np.sqrt(double) * s.z
    return ratio * s.x - alpha * (np.exp(-h) - 1) * (s.x0 + 0.5 * slope)


LOOPS = {
    "PiGDM()": (pigdm, (0.0, NOISE)),
    "DPS()": (dps, (0.0, NOISE)),
    "DDNM()": (ddnm, (0.0, NOISE)),
    "DDRM()": (ddrm, (0.0, NOISE)),
    "DiffPIR()": (diffpir, (0.0, NOISE)),
    "DPIR()": (dpir, (0.0, NOISE)),
    "DDS()": (dds, (0.0, NOISE)),
    "DDIM()": (lambda s: ddim(s, s.x0, s.eps, 0.0), (0.0,)),
    "DDIM(eta=1.0)": (lambda s: ddim(s, s.x0, s.eps, 1.0), (0.0,)),
    "DPMSolverPP()": (dpm_solver, (0.0,)),
    "DPMSolverPP(sde=True)": (lambda s: dpm_solver(s, sde=True), (0.0,)),
}


def test_every_match_is_held():
    assert {e.name for e in REGISTRY if e.matches != "-"} == {*LOOPS, *ELSEWHERE}


@pytest.mark.parametrize("count", [3, 6, 20])
@pytest.mark.parametrize("name", LOOPS)
def test_every_step_is_that_of_the_public_loop(name, count):
    step, noises = LOOPS[name]
    solver = eval(name, vars(solvers))
    times = np.linspace(0.9, 0.02, count + 1)
    bars = VP().mean(times) ** 2
    y = torch.randn(1, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = y.reshape(1, *OPERATOR.measurement_shape)
    for noise in noises:
        x = torch.randn(1, 1, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        denoiser = Denoiser(network, VP(), time_map=float)
        got = Sampler(denoiser, OPERATOR, solver, times=times, noise_std=noise)(y, x_init=x, seed=SEED)
        found: list[torch.Tensor] = []
        for k in range(count):
            bar, t = bars[k], torch.tensor([times[k]], dtype=torch.float64)

            def estimate(x, bar=bar, t=t):
                return (x - np.sqrt(1 - bar) * network(x, t)) / np.sqrt(bar)

            words = [torch.tensor([v]) for v in (SEED, 0, 0)]
            s = SimpleNamespace(k=k, count=count, bar=bar, after=bars[k + 1], earlier=bars[:k], x=x, noise=noise)
            s.y, s.found, s.estimate = y.reshape(1, 1, 8), found, estimate
            s.x0, s.eps = estimate(x), network(x, t)
            s.z = reference.normal(torch.empty_like(x), *words, k + 1)
            x = step(s)
            found.append(s.x0)
        assert relative_error(got, x) < 1e-8, noise  # Small singular values amplify rounding.
