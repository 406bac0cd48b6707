"""The ODE that the conjugate sampler discretises, for a Gaussian prior, solved by brute force in float64 numpy.

Written from the definition (score of the prior plus the PiGDM likelihood term), independently of the package's rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ccfast.schedules import Flow, Schedule
from ccfast.testing import Gaussian


def solve(
    prior: Gaussian,
    projector: np.ndarray,
    ybar: np.ndarray,
    schedule: Schedule,
    x: np.ndarray,
    start: float,
    end: float,
    w: float,
    jacobian: bool = True,
    steps: int = 2000,
    weight: Callable[[float], np.ndarray] | None = None,
) -> np.ndarray:
    """x (D,) at ``end``; runge-kutta of order 4 in ln rho (Flow: in t).

    ``weight`` is the matrix V Gamma V^T that stands in for w at a given rho, for noisy measurements.
    """
    mean, covariance = prior.means[0].numpy(), prior.covariances[0].numpy()
    eye = np.eye(len(mean))

    def weighted(rho, r):
        return w * r if weight is None else weight(rho) @ r

    def denoise(x, mu, sigma):
        gain = mu * covariance @ np.linalg.inv(mu**2 * covariance + sigma**2 * eye)
        return mean + gain @ (x - mu * mean), gain

    def flow_velocity(t, x):
        mu, sigma = t, 1 - t
        x1, gain = denoise(x, mu, sigma)
        r = weighted(sigma / mu, ybar - projector @ x1)
        pull = gain.T @ r if jacobian else r
        return (x1 - x) / sigma + t * (1 - t) * pull

    def diffusion_velocity(u, z):  # z = x/mu against u = ln rho
        rho = np.exp(u)
        t = float(schedule.time(rho))
        mu, sigma = float(schedule.mean(t)), float(schedule.std(t))
        x0, gain = denoise(mu * z, mu, sigma)
        r = weighted(rho, ybar - projector @ x0)
        pull = mu * gain.T @ r if jacobian else r
        return rho * ((z - x0) / rho - rho / (1 + rho**2) * pull)

    if isinstance(schedule, Flow):
        velocity, a, b, scale_in, scale_out = flow_velocity, start, end, 1.0, 1.0
    else:
        velocity = diffusion_velocity
        a, b = (float(np.log(schedule.rho(t))) for t in (start, end))
        scale_in, scale_out = float(schedule.mean(start)), float(schedule.mean(end))
    state, h = x / scale_in, (b - a) / steps
    for k in range(steps):
        s = a + k * h
        k1 = velocity(s, state)
        k2 = velocity(s + h / 2, state + h / 2 * k1)
        k3 = velocity(s + h / 2, state + h / 2 * k2)
        k4 = velocity(s + h, state + h * k3)
        state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return state * scale_out
