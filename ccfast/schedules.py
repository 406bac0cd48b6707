"""Noise schedules: the path x_t = mu(t) x0 + sigma(t) eps, in float64.

A schedule knows its mean and standard deviation, the ratio rho = sigma/mu, the clock B = ln(1 + rho^2) (for a
variance-preserving path the integral of beta, equal to -ln alphabar), their derivatives and the inverse t(rho). It
also owns the quantity that a conjugate step freezes: the noise eps, or the velocity for the flow.

A path may begin as pure noise (mu = 0, rho infinite) and end clean (sigma = 0, rho = 0). Both ends are times like any
other; only what needs a finite ratio there refuses them.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["EDM", "VE", "VP", "DiscreteVP", "Flow", "Schedule", "count_of", "float64_of", "number_of"]

Array = NDArray[np.float64]

ROUNDING = 1e-6
"""What a time may lie outside of a range, relative to the range's largest number: rounding of single precision."""


def float64_of(name: str, values: Any) -> Array:
    """Real numbers as a float64 array of their own, from whatever holds them.

    Lists, NumPy arrays of any real type and torch tensors of any real type, on any device, with or without gradient.

    Args:
        name: of the argument, for the message.
        values: the numbers.

    Raises:
        TypeError: they are not real numbers (text, None, complex numbers, lists of unequal lengths).
    """
    if hasattr(values, "detach"):  # It is a torch tensor; lists of them follow below.
        values = values.detach().cpu()
        values = values.tolist() if values.is_complex() else values.double().numpy()
    try:
        if isinstance(values, list | tuple):
            values = [float(v.detach()) if hasattr(v, "detach") and v.numel() == 1 else v for v in values]
        given = np.asarray(values)
        if given.dtype.kind not in "iuf" and not (given.ndim and all(isinstance(v, Real) for v in given.flat)):
            raise TypeError(f"the type {given.dtype}")
        return np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        shown = repr(values)
        raise TypeError(
            f"{name}: must be real numbers, got {shown if len(shown) < 80 else shown[:77] + '...'} ({error})"
        ) from None


def number_of(name: str, value: Any) -> float:
    """One real number, from a number, or an array or tensor of one element; TypeError otherwise, with the name."""
    number = float64_of(name, value)
    if number.size != 1:
        raise TypeError(f"{name}: must be one number, got {number.size} of them, shape {number.shape}")
    return float(number.reshape(()))


def count_of(name: str, value: Any, least: int = 1) -> int:
    """An integer of at least ``least``, from a Python or NumPy integer; ValueError otherwise, with the name."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: must be an integer >= {least}, got {value!r}")
    return int(value)


class Schedule(ABC):
    """A Gaussian path. All methods take times as a float or an array and return float64 of the same shape.

    Attributes:
        frozen: "epsilon" or "velocity", what a conjugate step holds constant.
        unit_variance: whether mu^2 + sigma^2 = 1.
        default_start, default_end: times of the first and last state when the caller names none.
        time_range: smallest and largest time.
        least_noisy: the time of the least noise that networks on this path are trained with; None where that is not
            known. Grids evaluate the network there at the latest before they end clean.
        least_noisy_rule: what a network may be evaluated at, in words, where ``least_noisy`` is a rule; None where it
            is a custom.
    """

    frozen: ClassVar[str] = "epsilon"
    unit_variance: ClassVar[bool] = False
    default_start: float
    default_end: float
    time_range: tuple[float, float]
    least_noisy: float | None = None
    least_noisy_rule: str | None = None

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
        """sigma(t)/mu(t), infinite where mu = 0."""
        with np.errstate(over="ignore"):
            return np.sqrt(np.expm1(self.clock(t)))

    def log_snr(self, t: ArrayLike) -> Array:
        """ln(mu^2/sigma^2), infinite where sigma = 0 and minus infinity where mu = 0."""
        with np.errstate(divide="ignore"):
            return -2.0 * np.log(self.rho(t))

    def default_time_map(self, t: float) -> float:
        """Schedule time to network time, where a Denoiser is given no ``time_map``."""
        return t

    def check_times(self, times: Sequence[float] | Array) -> Array:
        """The times as a float64 array of their own, or an error.

        There must be at least two of them, finite, inside ``time_range``, with strictly falling noise (rho). Only the
        last may be free of noise, or noisier by less than ``least_noisy`` where that is a rule, since the network is
        never evaluated there. Times that leave a range by the rounding of single precision are set to its end.

        Args:
            times: a list, an array, or a tensor of any real type.

        Raises:
            TypeError: the times are not real numbers.
            ValueError: a rule is broken; the message says which, and shows the numbers that break it.
        """
        grid = float64_of("times", times)
        if grid.ndim != 1 or len(grid) < 2:
            raise ValueError(f"times: must be a sequence of at least two numbers, got shape {grid.shape}")
        grid = self.within_range(grid)
        self._check_network_times(grid[:-1])
        with np.errstate(divide="ignore"):
            rho = np.divide(self.std(grid), self.mean(grid))
        rises = np.flatnonzero(~(np.diff(rho) < 0))
        if len(rises):
            k = int(rises[0])
            backwards = np.all(np.diff(rho) > 0)
            raise ValueError(
                f"times: the noise must fall strictly from each time to the next, got {grid[k]:.10g} and then "
                f"{grid[k + 1]:.10g} at places {k} and {k + 1}" + "; reverse the order of the times" * bool(backwards)
            )
        return grid

    def within_range(self, times: ArrayLike) -> Array:
        """The times in float64, with what rounding has taken out of ``time_range`` set to its end, or ValueError."""
        grid, (low, high) = np.asarray(times, dtype=np.float64), self.time_range
        rounded = (grid >= low - ROUNDING * abs(low)) & (grid <= high + ROUNDING * abs(high))
        grid = np.where(rounded, grid.clip(low, high), grid)
        outside = ~((grid >= low) & (grid <= high))
        if outside.any():
            raise ValueError(self._outside(grid[outside][0]))
        return grid

    def _outside(self, time: float) -> str:
        """What to say of a time beyond the range."""
        low, high = self.time_range
        words = f"times: {type(self).__name__} takes times in [{low:g}, {high:g}], got {time:g}"
        if self.unit_variance and 1 < time < np.inf:
            words += "; the index n of a training timestep, of N, is the time n/(N - 1)"
        return words

    def _check_network_times(self, times: Array) -> None:
        """Raise ValueError unless the network may be evaluated at all of these times; sets rounding right in place."""
        if np.any(self.std(times) <= 0):
            k = int(np.flatnonzero(self.std(times) <= 0)[0])
            raise ValueError(f"times: only the last time may be free of noise, got {times[k]:g} at place {k}")
        if self.least_noisy_rule is None or self.least_noisy is None:
            return
        limit = self.least_noisy
        times[np.abs(times - limit) <= ROUNDING * (abs(limit) or 1e-3)] = limit
        beyond = np.flatnonzero(self.std(times) < self.std(limit))
        if len(beyond):
            k = int(beyond[0])
            raise ValueError(
                f"times: the network is evaluated at {self.least_noisy_rule} only, got {times[k]:g} at place {k}; only "
                "the last time, at which it is not evaluated, may have less noise"
            )

    def __repr__(self) -> str:
        values = ", ".join(f"{key}={value!r}" for key, value in vars(self).items() if key in self._shown)
        return f"{type(self).__name__}({values})"

    _shown: ClassVar[tuple[str, ...]] = ()


class _UnitVariance(Schedule):
    """mu = exp(-B/2), sigma = sqrt(1 - exp(-B)) for a clock B."""

    unit_variance = True
    default_start, default_end, time_range = 0.4, 1e-3, (0.0, 1.0)
    least_noisy = 1e-3

    def mean(self, t: ArrayLike) -> Array:
        return np.exp(-0.5 * self.clock(t))

    def std(self, t: ArrayLike) -> Array:
        return np.sqrt(-np.expm1(-self.clock(t)))

    def mean_derivative(self, t: ArrayLike) -> Array:
        return -0.5 * self.clock_derivative(t) * self.mean(t)

    def std_derivative(self, t: ArrayLike) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.divide(-self.mean(t) * self.mean_derivative(t), self.std(t))


class VP(_UnitVariance):
    """Variance-preserving diffusion with linear beta (Song et al., arXiv 2011.13456); t in [0, 1], 1 is noise.

        B(t) = beta_min t + (beta_max - beta_min) t^2 / 2

    The network time defaults to 999 t.

    Args:
        beta_min: beta at t = 0, at least 0.
        beta_max: beta at t = 1, larger than beta_min.
    """

    _shown = ("beta_min", "beta_max")

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        beta_min, beta_max = number_of("beta_min", beta_min), number_of("beta_max", beta_max)
        if not 0 <= beta_min < beta_max < np.inf:
            raise ValueError(f"VP: must have 0 <= beta_min < beta_max, got {beta_min} and {beta_max}")
        self.beta_min, self.beta_max = beta_min, beta_max

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

    t in [0, 1], 1 is noise; the index is n = (N - 1) t, and alphabar_n = prod_{m <= n} (1 - beta_m) at whole indices.
    ln alphabar is linear between them. The network time defaults to the rounded index.

    The table may begin at zero noise (beta_0 = 0) and end at pure noise (beta_{N-1} = 1, the zero terminal
    signal-to-noise ratio of arXiv 2305.08891, where rho is infinite at t = 1). In the last interval of such a table
    the mean sqrt(alphabar) is linear, since its logarithm is not finite at the end. A network that predicts v or the
    sample may start at t = 1 then; one that predicts eps does not determine x0 there.

    Args:
        betas: N >= 2 numbers in [0, 1], in the order of the training timesteps; only the last may be 1. A list, an
            array or a tensor.
        final: where the path ends. "zero": one index below the first, t = -1/(N - 1), where alphabar = 1 and
            sigma = 0, as the samplers of DDPM and guided-diffusion do, and those of diffusers with
            ``set_alpha_to_one=True`` or ``final_sigmas_type="zero"``. "first": at index 0, with the noise
            sqrt(beta_0) left in the image, as with ``set_alpha_to_one=False`` or ``final_sigmas_type="sigma_min"``.
            Either is ``time_range[0]`` and the default end of a sampler. The network is never evaluated below index 0.

    Attributes:
        count: N.
        betas: the table, float64, and ``final``, as they were given.

    Raises:
        TypeError: betas are not real numbers.
        ValueError: betas or final break a rule. The message shows the value at fault, and says so where the table
            looks like alphas or cumulated alphas.
    """

    least_noisy_rule = "index 0 and above, t >= 0,"

    def __init__(self, betas: ArrayLike, final: str = "zero") -> None:
        table = _table_of_betas(betas)
        if final not in ("zero", "first"):
            raise ValueError(f"final: must be 'zero' or 'first', got {final!r}")
        self.count, self.betas, self.final = len(table), table, final
        self.betas.setflags(write=False)
        with np.errstate(divide="ignore"):
            clock = -np.cumsum(np.log1p(-table))
        self._index = np.arange(len(table), dtype=np.float64)
        first_noisy = int(np.flatnonzero(clock > 0)[0])
        if first_noisy:  # The table itself ends clean: of its clean indices the last one is kept as that end.
            clock, self._index = clock[first_noisy - 1 :], self._index[first_noisy - 1 :]
        elif final == "zero":
            clock, self._index = np.append(0.0, clock), np.append(-1.0, self._index)
        self._clock = clock
        last = self.count - 1
        low = float(self._index[0]) / last
        self.time_range = (min(low, 0.0), 1.0)
        self.default_end = low
        self.least_noisy = first_noisy / last

    def _position(self, t: ArrayLike) -> Array:
        """The fractional index, exact at the end of the path, where rounding would leave noise."""
        t = np.asarray(t, dtype=np.float64)
        return np.where(t <= self.time_range[0], self._index[0], (self.count - 1) * t)

    def _in_last(self, n: Array) -> Array:
        """Whether an index lies in an interval that ends at mu = 0, where the mean is linear."""
        return (n > self._index[-2]) if np.isinf(self._clock[-1]) else np.zeros(n.shape, dtype=bool)

    def clock(self, t: ArrayLike) -> Array:
        n = self._position(t)
        if not np.isinf(self._clock[-1]):
            return np.interp(n, self._index, self._clock)
        with np.errstate(divide="ignore"):
            tail = self._clock[-2] - 2.0 * np.log((self._index[-1] - n).clip(0.0, 1.0))
        return np.where(self._in_last(n), tail, np.interp(n, self._index[:-1], self._clock[:-1]))

    def clock_derivative(self, t: ArrayLike) -> Array:
        n = self._position(t)
        finite = self._clock[:-1] if np.isinf(self._clock[-1]) else self._clock
        below = np.clip(np.searchsorted(self._index, n, side="right") - 1, 0, max(len(finite) - 2, 0))
        slope = (finite[np.minimum(below + 1, len(finite) - 1)] - finite[below]) * (self.count - 1)
        with np.errstate(divide="ignore"):
            tail = 2.0 * (self.count - 1) / (self._index[-1] - n).clip(0.0)
        return np.where(self._in_last(n), tail, slope)

    def mean_derivative(self, t: ArrayLike) -> Array:
        n, slope = self._position(t), -0.5 * self.clock_derivative(t)
        tail = -(self.count - 1) * np.exp(-0.5 * self._clock[-2])
        with np.errstate(invalid="ignore"):
            return np.where(self._in_last(n), tail, slope * self.mean(t))

    def time(self, rho: ArrayLike) -> Array:
        clock = np.log1p(np.square(np.asarray(rho, dtype=np.float64)))
        if not np.isinf(self._clock[-1]):
            return np.interp(clock, self._clock, self._index) / (self.count - 1)
        n = np.interp(clock, self._clock[:-1], self._index[:-1])
        beyond = self._index[-2] - np.expm1(-0.5 * np.maximum(clock - self._clock[-2], 0.0))
        return np.where(clock > self._clock[-2], beyond, n) / (self.count - 1)

    def default_time_map(self, t: float) -> float:
        return max(float(np.rint((self.count - 1) * t)), 0.0)

    def __repr__(self) -> str:
        return f"DiscreteVP({self.count} betas{', final=' + repr(self.final) if self.final != 'zero' else ''})"


def _table_of_betas(betas: ArrayLike) -> Array:
    """The table in float64, or an error that shows the value at fault."""
    table = float64_of("betas", betas)
    if table.ndim != 1 or len(table) < 2:
        raise ValueError(f"DiscreteVP: betas must be at least two numbers in [0, 1], got shape {table.shape}")
    wrong = np.flatnonzero(~((table >= 0) & (table <= 1)))
    if len(wrong):
        k = int(wrong[0])
        raise ValueError(f"DiscreteVP: betas must be at least two numbers in [0, 1], got {table[k]:g} at index {k}")
    pure = np.flatnonzero(table[:-1] == 1)
    if len(pure):
        raise ValueError(
            f"DiscreteVP: betas must be below 1 but for the last, since nothing is left of the image after a beta of "
            f"1, got 1 at index {pure[0]} of {len(table)}"
        )
    if not table.any():
        raise ValueError("DiscreteVP: betas must have one that is not 0, got only zeros, a path without noise")
    if np.all(np.diff(table) <= 0) and table[0] > table[-1]:
        if table[0] > 0.5:
            raise ValueError(
                f"DiscreteVP: betas must grow with the noise, got numbers that fall from {table[0]:g} to "
                f"{table[-1]:g}, which look like alphas, 1 - beta, or like cumulated alphas; from the former betas are "
                "1 - alphas, from the latter 1 - alphabar / np.append(1, alphabar[:-1])"
            )
        warnings.warn(
            f"betas: fall from {table[0]:g} to {table[-1]:g}, whereas tables of trained networks grow with the noise; "
            "if the table is in the order of sampling, reverse it",
            UserWarning,
            stacklevel=3,
        )
    return table


class VE(Schedule):
    """Variance-exploding diffusion (arXiv 2011.13456): mu = 1 and the time is sigma itself.

    Times lie in [0, sigma_max]; those at which the network is evaluated must be at least sigma_min. The network time
    defaults to sigma.

    Args:
        sigma_min: the least noise of the training, > 0.
        sigma_max: the most, finite.
    """

    _shown: ClassVar[tuple[str, ...]] = ("sigma_min", "sigma_max")

    def __init__(self, sigma_min: float, sigma_max: float) -> None:
        sigma_min, sigma_max = number_of("sigma_min", sigma_min), number_of("sigma_max", sigma_max)
        if not 0 < sigma_min < sigma_max < np.inf:
            raise ValueError(
                f"{type(self).__name__}: must have 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}"
            )
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.time_range = (0.0, self.sigma_max)
        self.least_noisy, self.least_noisy_rule = self.sigma_min, f"sigma >= sigma_min = {self.sigma_min:g}"
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


class EDM(VE):
    """The path of VE with the preconditioning of Karras et al. (arXiv 2206.00364).

    A raw network F ("edm" prediction) enters as  x0hat = c_skip x + c_out F(c_in x, ln(sigma)/4)  with
    c_skip = s_d^2/(sigma^2 + s_d^2),  c_out = sigma s_d/sqrt(sigma^2 + s_d^2),  c_in = 1/sqrt(sigma^2 + s_d^2).
    """

    _shown = ("sigma_min", "sigma_max", "sigma_data")

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, sigma_data: float = 0.5) -> None:
        super().__init__(sigma_min, sigma_max)
        sigma_data = number_of("sigma_data", sigma_data)
        if not 0 < sigma_data < np.inf:
            raise ValueError(f"EDM: sigma_data must be positive, got {sigma_data}")
        self.sigma_data = sigma_data

    def default_time_map(self, t: float) -> float:
        return float(np.log(t) / 4.0)


class Flow(Schedule):
    """Rectified flow (arXiv 2209.03003): x_t = t x1 + (1 - t) x0, t = 0 is noise and t = 1 data.

    The velocity x1 - x0 is frozen by a conjugate step. The network time defaults to 999 t.
    """

    frozen = "velocity"
    default_start, default_end, time_range = 0.6, 1.0, (0.0, 1.0)
    least_noisy = 0.999

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
