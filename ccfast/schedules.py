"""Noise schedules: the path x_t = mu(t) x0 + sigma(t) eps, in float64.

A schedule knows its mean and standard deviation, the ratio rho = sigma/mu, the clock B = ln(1 + rho^2) (for a
variance-preserving path the integral of beta, equal to -ln alphabar), their derivatives and the inverse t(rho). It
also owns the quantity that a conjugate step freezes: the noise eps, or the velocity for the flow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["EDM", "VE", "VP", "DiscreteVP", "Flow", "Schedule"]

Array = NDArray[np.float64]


class Schedule(ABC):
    """A Gaussian path. All methods take times as a float or an array and return float64 of the same shape.

    Attributes:
        frozen: "epsilon" or "velocity", what a conjugate step holds constant.
        unit_variance: whether mu^2 + sigma^2 = 1.
        default_start, default_end: times of the first and last state when the caller names none.
        time_range: smallest and largest time.
    """

    frozen: ClassVar[str] = "epsilon"
    unit_variance: ClassVar[bool] = False
    default_start: float
    default_end: float
    time_range: tuple[float, float]

    @abstractmethod
    def mean(self, t: ArrayLike) -> Array:
        """mu(t)."""

    @abstractmethod
    def std(self, t: ArrayLike) -> Array:
        """sigma(t)."""

    @abstractmethod
    def mean_derivative(self, t: ArrayLike) -> Array:
        """d mu/dt."""

    @abstractmethod
    def std_derivative(self, t: ArrayLike) -> Array:
        """d sigma/dt."""

    @abstractmethod
    def clock(self, t: ArrayLike) -> Array:
        """B(t) = ln(1 + rho(t)^2)."""

    @abstractmethod
    def clock_derivative(self, t: ArrayLike) -> Array:
        """dB/dt; beta(t) for VP."""

    @abstractmethod
    def time(self, rho: ArrayLike) -> Array:
        """The time at which sigma/mu = rho, the inverse of ``rho``."""

    def rho(self, t: ArrayLike) -> Array:
        """sigma(t)/mu(t)."""
        return np.sqrt(np.expm1(self.clock(t)))

    def log_snr(self, t: ArrayLike) -> Array:
        """ln(mu^2/sigma^2)."""
        return -2.0 * np.log(self.rho(t))

    def default_time_map(self, t: float) -> float:
        """Schedule time to network time, where a Denoiser is given no ``time_map``."""
        return t

    def check_times(self, times: Sequence[float] | Array) -> Array:
        """The times as float64, or ValueError.

        Rules: at least two, finite, inside ``time_range``, with strictly falling noise (rho); only the last may be
        free of noise, since the network is never evaluated there.
        """
        grid = np.asarray(times, dtype=np.float64)
        name = type(self).__name__
        if grid.ndim != 1 or len(grid) < 2:
            raise ValueError(f"times: must be a sequence of at least two numbers, got shape {grid.shape}")
        low, high = self.time_range
        outside = ~((grid >= low) & (grid <= high))
        if outside.any():
            raise ValueError(f"times: {name} takes times in [{low:g}, {high:g}], got {grid[outside][0]:g}")
        if np.any(self.std(grid[:-1]) <= 0):
            raise ValueError(f"times: only the last time may be free of noise, got {grid.tolist()}")
        with np.errstate(divide="ignore"):
            rho = np.divide(self.std(grid), self.mean(grid))
        if np.any(np.diff(rho) >= 0):
            raise ValueError(f"times: the noise must fall strictly from each time to the next, got {grid.tolist()}")
        return grid

    def __repr__(self) -> str:
        values = ", ".join(f"{key}={value!r}" for key, value in vars(self).items() if key in self._shown)
        return f"{type(self).__name__}({values})"

    _shown: ClassVar[tuple[str, ...]] = ()


class _UnitVariance(Schedule):
    """mu = exp(-B/2), sigma = sqrt(1 - exp(-B)) for a clock B."""

    unit_variance = True
    default_start, default_end, time_range = 0.4, 1e-3, (0.0, 1.0)

    def mean(self, t: ArrayLike) -> Array:
        return np.exp(-0.5 * self.clock(t))

    def std(self, t: ArrayLike) -> Array:
        return np.sqrt(-np.expm1(-self.clock(t)))

    def mean_derivative(self, t: ArrayLike) -> Array:
        return -0.5 * self.clock_derivative(t) * self.mean(t)

    def std_derivative(self, t: ArrayLike) -> Array:
        return 0.5 * self.clock_derivative(t) * self.mean(t) ** 2 / self.std(t)


class VP(_UnitVariance):
    """Variance-preserving diffusion with linear beta (Song et al., arXiv 2011.13456); t in [0, 1], 1 is noise.

        B(t) = beta_min t + (beta_max - beta_min) t^2 / 2

    The network time defaults to 999 t.
    """

    _shown = ("beta_min", "beta_max")

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        if not 0 <= beta_min < beta_max < np.inf:
            raise ValueError(f"VP: must have 0 <= beta_min < beta_max, got {beta_min} and {beta_max}")
        self.beta_min, self.beta_max = float(beta_min), float(beta_max)

    def clock(self, t: ArrayLike) -> Array:
        t = np.asarray(t, dtype=np.float64)
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t * t

    def clock_derivative(self, t: ArrayLike) -> Array:
        return self.beta_min + (self.beta_max - self.beta_min) * np.asarray(t, dtype=np.float64)

    def time(self, rho: ArrayLike) -> Array:
        clock = np.log1p(np.square(np.asarray(rho, dtype=np.float64)))
        slope = self.beta_max - self.beta_min
        return np.divide(2.0 * clock, self.beta_min + np.sqrt(self.beta_min**2 + 2.0 * slope * clock))

    def default_time_map(self, t: float) -> float:
        return 999.0 * t


class DiscreteVP(_UnitVariance):
    """Variance-preserving diffusion from a table of betas (DDPM, arXiv 2006.11239).

    t in [0, 1], 1 is noise; index n = (N - 1) t, and ln alphabar = sum ln(1 - beta) is linear between whole indices.
    The network time defaults to the rounded index.

    Args:
        betas: N >= 2 numbers in (0, 1).
    """

    def __init__(self, betas: ArrayLike) -> None:
        table = np.asarray(betas, dtype=np.float64)
        if table.ndim != 1 or len(table) < 2 or not np.all((table > 0) & (table < 1)):
            raise ValueError(f"DiscreteVP: betas must be at least two numbers in (0, 1), got shape {table.shape}")
        self._clock = -np.cumsum(np.log1p(-table))
        self._index = np.arange(len(table), dtype=np.float64)

    def clock(self, t: ArrayLike) -> Array:
        return np.interp((len(self._index) - 1) * np.asarray(t, dtype=np.float64), self._index, self._clock)

    def clock_derivative(self, t: ArrayLike) -> Array:
        last = len(self._index) - 1
        below = np.clip(np.floor(last * np.asarray(t, dtype=np.float64)), 0, last - 1).astype(np.int64)
        return last * (self._clock[below + 1] - self._clock[below])

    def time(self, rho: ArrayLike) -> Array:
        clock = np.log1p(np.square(np.asarray(rho, dtype=np.float64)))
        return np.interp(clock, self._clock, self._index) / (len(self._index) - 1)

    def default_time_map(self, t: float) -> float:
        return float(np.rint((len(self._index) - 1) * t))

    def __repr__(self) -> str:
        return f"DiscreteVP({len(self._index)} betas)"


class VE(Schedule):
    """Variance-exploding diffusion (arXiv 2011.13456): mu = 1 and the time is sigma itself.

    Times lie in [0, sigma_max]; those at which the network is evaluated must be at least sigma_min. The network time
    defaults to sigma.
    """

    _shown: ClassVar[tuple[str, ...]] = ("sigma_min", "sigma_max")

    def __init__(self, sigma_min: float, sigma_max: float) -> None:
        if not 0 < sigma_min < sigma_max < np.inf:
            raise ValueError(
                f"{type(self).__name__}: must have 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}"
            )
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)
        self.time_range = (0.0, self.sigma_max)
        default = VP()
        start, end = default.rho((default.default_start, default.default_end)).clip(sigma_min, sigma_max)
        self.default_start, self.default_end = float(start), float(end)

    def mean(self, t: ArrayLike) -> Array:
        return np.ones_like(np.asarray(t, dtype=np.float64))

    def std(self, t: ArrayLike) -> Array:
        return np.asarray(t, dtype=np.float64) + 0.0

    def mean_derivative(self, t: ArrayLike) -> Array:
        return np.zeros_like(np.asarray(t, dtype=np.float64))

    def std_derivative(self, t: ArrayLike) -> Array:
        return np.ones_like(np.asarray(t, dtype=np.float64))

    def clock(self, t: ArrayLike) -> Array:
        return np.log1p(np.square(np.asarray(t, dtype=np.float64)))

    def clock_derivative(self, t: ArrayLike) -> Array:
        t = np.asarray(t, dtype=np.float64)
        return 2.0 * t / (1.0 + t * t)

    def rho(self, t: ArrayLike) -> Array:
        return self.std(t)

    def time(self, rho: ArrayLike) -> Array:
        return np.asarray(rho, dtype=np.float64) + 0.0

    def check_times(self, times: Sequence[float] | Array) -> Array:
        grid = super().check_times(times)
        if np.any(grid[:-1] < self.sigma_min):
            raise ValueError(
                f"times: the network is evaluated at sigma >= sigma_min = {self.sigma_min:g} only, got {grid.tolist()}"
            )
        return grid


class EDM(VE):
    """The path of VE with the preconditioning of Karras et al. (arXiv 2206.00364).

    A raw network F ("edm" prediction) enters as  x0hat = c_skip x + c_out F(c_in x, ln(sigma)/4)  with
    c_skip = s_d^2/(sigma^2 + s_d^2),  c_out = sigma s_d/sqrt(sigma^2 + s_d^2),  c_in = 1/sqrt(sigma^2 + s_d^2).
    """

    _shown = ("sigma_min", "sigma_max", "sigma_data")

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, sigma_data: float = 0.5) -> None:
        super().__init__(sigma_min, sigma_max)
        if not 0 < sigma_data < np.inf:
            raise ValueError(f"EDM: sigma_data must be positive, got {sigma_data}")
        self.sigma_data = float(sigma_data)

    def default_time_map(self, t: float) -> float:
        return float(np.log(t) / 4.0)


class Flow(Schedule):
    """Rectified flow (arXiv 2209.03003): x_t = t x1 + (1 - t) x0, t = 0 is noise and t = 1 data.

    The velocity x1 - x0 is frozen by a conjugate step. The network time defaults to 999 t.
    """

    frozen = "velocity"
    default_start, default_end, time_range = 0.6, 1.0, (0.0, 1.0)

    def mean(self, t: ArrayLike) -> Array:
        return np.asarray(t, dtype=np.float64) + 0.0

    def std(self, t: ArrayLike) -> Array:
        return 1.0 - np.asarray(t, dtype=np.float64)

    def mean_derivative(self, t: ArrayLike) -> Array:
        return np.ones_like(np.asarray(t, dtype=np.float64))

    def std_derivative(self, t: ArrayLike) -> Array:
        return -np.ones_like(np.asarray(t, dtype=np.float64))

    def clock(self, t: ArrayLike) -> Array:
        return np.log1p(np.square(self.rho(t)))

    def clock_derivative(self, t: ArrayLike) -> Array:
        mu, sigma = self.mean(t), self.std(t)
        return -2.0 * sigma / (mu * (mu * mu + sigma * sigma))

    def rho(self, t: ArrayLike) -> Array:
        with np.errstate(divide="ignore"):
            return np.divide(self.std(t), self.mean(t))

    def time(self, rho: ArrayLike) -> Array:
        return 1.0 / (1.0 + np.asarray(rho, dtype=np.float64))

    def default_time_map(self, t: float) -> float:
        return 999.0 * t
