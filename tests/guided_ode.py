"""The ODE that the conjugate sampler discretises, for a Gaussian prior, solved by brute force in float64 numpy.

It is written from the definition, the score of the prior plus the likelihood term of PiGDM, and uses none of the
package's rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ccfast.schedules import Flow, Schedule
from ccfast.testing import Gaussian

STEPS = 500
"""The number of Runge-Kutta steps. Their error is far below that of every sampler that is compared with them."""


def in_rho(schedule, start, end, steps) -> np.ndarray:
    """A grid that is uniform in ln rho (Flow: in t)."""
    if isinstance(schedule, Flow):
        return np.linspace(start, end, steps + 1)
    times = schedule.time(np.geomspace(*schedule.rho((start, end)), steps + 1))
    times[0], times[-1] = start, end
    return times


def solve(
    prior: Gaussian,
    projector: np.ndarray,
    ybar: np.ndarray,
    schedule: Schedule,
    x: np.ndarray,
    span: tuple[float, float],
    weight: float | Callable[[float], np.ndarray],
    jacobian: bool = True,
) -> np.ndarray:
    """The state (D,) at the end of ``span``, by the method of Runge and Kutta of order 4 in ln rho (Flow: in t).

    Args:
        prior: a mixture with one component.
        projector: P, (D, D).
        ybar: H+ y, (D,).
        schedule: the schedule that the times in ``span`` belong to.
        x: the state at the start of ``span``, (D,).
        span: the times at the start and the end.
        weight: the guidance w, or for noisy measurements the matrix V Gamma V^T of a given rho, which stands in for it.
        jacobian: whether the residual is multiplied by the transposed Jacobian of the denoiser.
    """
    start, end = span
    mean, (variances, basis) = prior.means[0].numpy(), np.linalg.eigh(prior.covariances[0].numpy())

    def weighted(rho, r):
        return weight(rho) @ r if callable(weight) else weight * r

    def denoise(x, mu, sigma):
        gain = basis * (mu * variances / (mu**2 * variances + sigma**2)) @ basis.T
        return mean + gain @ (x - mu * mean), gain

    def flow_velocity(t, x):
        mu, sigma = t, 1 - t
        x1, gain = denoise(x, mu, sigma)
        r = weighted(sigma / mu, ybar - projector @ x1)
        pull = gain.T @ r if jacobian else r
        return (x1 - x) / sigma + t * (1 - t) * pull

    def diffusion_velocity(u, z):  # The unknown is z = x/mu as a function of u = ln rho.
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
    state, h = x / scale_in, (b - a) / STEPS
    for k in range(STEPS):
        s = a + k * h
        k1 = velocity(s, state)
        k2 = velocity(s + h / 2, state + h / 2 * k1)
        k3 = velocity(s + h / 2, state + h / 2 * k2)
        k4 = velocity(s + h, state + h * k3)
        state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return state * scale_out
