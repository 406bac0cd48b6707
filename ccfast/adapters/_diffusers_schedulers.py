"""What a diffusers scheduler says of its network: the prediction, the clipping of x0hat, and the network's times."""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import numpy as np

from .._clip import Clip, DynamicThreshold, EstimateOnly
from .._scheduler import inverts_sigmas, kind_of, schedule_of
from ..schedules import Array, DiscreteVP, Schedule, float64_of

__all__ = ["NetworkTimes", "Trained", "clip_of", "trained_with"]

NEAR = 1e-3
"""How near, in indices, a time must be to a training timestep to be taken for it: sigmas of schedulers are rounded."""

PREDICTIONS = {
    "epsilon": "epsilon",
    "sample": "sample",
    "original_sample": "sample",
    "v_prediction": "v_prediction",
}

DOES_NOT_CLIP = ("TCDScheduler", "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
"""Schedulers that have ``clip_sample`` or ``thresholding`` in their config and never read them."""


KEEPS_NOISE = ("DDIMScheduler", "DDIMParallelScheduler", "RePaintScheduler")
"""Schedulers whose steps clip x0hat and keep the eps of the network."""


class Trained(NamedTuple):
    """What a network was trained with.

    Attributes:
        schedule: The path.
        prediction: What its output is, times ``sign``, as ``Denoiser`` has it.
        sign: 1 or -1.
        times: Schedule time to the timestep that the scheduler gives.
        clip: The clipping of x0hat.
        boundary: The factor by which timesteps are multiplied in the boundary condition of a latent consistency model.
    """

    schedule: Schedule
    prediction: str
    sign: float
    times: NetworkTimes
    clip: Clip
    boundary: float | None = None


class NetworkTimes:
    """Schedule time to network time, as a scheduler counts it, times ``scale``.

    A timestep of the table is that timestep. Between two of them the schedulers disagree: most have the index linear in
    ln sigma, Euler without Karras sigmas in sigma, and the one or the other is rounded to the nearest or next lower
    whole number, or not at all. ``of`` asks a copy of the scheduler which it is.

    Args:
        kind: "table", "flow", "edm" or "ve", as in ``ccfast._scheduler``, or "consistency".
        schedule: The path.
        count: N, the number of training timesteps.
        grid: What the index is linear in, "log" or "sigma".
        rounding: "nearest", "down" or "none".
        inverted: Whether flow-matching times are those of the data, N t.
        scale: The factor between the scheduler's timesteps and the time that the network is given.
        backwards: Whether the network is given ``scale`` (N - timestep).
    """

    def __init__(
        self,
        kind: str,
        schedule: Schedule,
        count: int,
        grid: str = "log",
        rounding: str = "nearest",
        inverted: bool = False,
        scale: float = 1.0,
        backwards: bool = False,
    ) -> None:
        self.kind, self.schedule, self.count, self.grid, self.rounding = kind, schedule, count, grid, rounding
        self.inverted, self.scale, self.backwards = inverted, scale, backwards
        self._sigmas = schedule.rho(np.arange(count) / (count - 1)) if kind == "table" else np.zeros(0)

    @classmethod
    def of(cls, scheduler: Any, kind: str, schedule: Schedule) -> NetworkTimes:
        """The times of a scheduler, whose rounding is that of the timesteps of a copy."""
        count = int(scheduler.config.get("num_train_timesteps", 1000))
        count = schedule.count if isinstance(schedule, DiscreteVP) else count
        inverted = inverts_sigmas(scheduler)
        if kind not in ("table", "flow") or any("FlowMatch" in base.__name__ for base in type(scheduler).__mro__):
            return cls(kind, schedule, count, rounding="none", inverted=inverted)
        options = [("log", "nearest"), ("log", "down"), ("log", "none"), ("sigma", "none")]
        made = [cls(kind, schedule, count, grid, rounding, inverted) for grid, rounding in options]
        t, timesteps = _asked(scheduler, kind, schedule)
        if not len(t) or (
            np.all(timesteps == np.rint(timesteps)) and np.all(np.abs(t * (count - 1) - timesteps) < NEAR)
        ):
            return made[0]
        errors = [float(np.abs([times(v) for v in t] - timesteps).mean()) for times in made]
        return made[int(np.argmin(errors))]

    def __call__(self, t: float) -> float:
        if self.kind == "edm":
            return self.scale * math.log(t) / 4.0
        if self.kind == "consistency":
            return self.scale * 250.0 * math.log(t)
        if self.kind == "ve":
            return self.scale * t
        step = (self.count - 1) * t
        if self.kind == "flow":
            step = self.count * (t if self.inverted else 1.0 - t)
        whole = float(np.rint(step))
        step = whole if abs(step - whole) < NEAR else self._between(step, t)
        step = max(step, 0.0)
        return self.scale * (self.count - step if self.backwards else step)

    def _between(self, step: float, t: float) -> float:
        """The timestep of a time that is none of the table."""
        if self.kind == "table":
            sigma, sigmas = float(self.schedule.rho(t)), self._sigmas
            if np.isfinite(sigmas[-1]) or sigma <= sigmas[-2]:
                known = np.isfinite(sigmas)
                if self.grid == "log":
                    known &= sigmas > 0
                grid = np.log if self.grid == "log" else np.asarray
                step = float(np.interp(grid(sigma), grid(sigmas[known]), np.flatnonzero(known)))
        if self.rounding == "none":
            return step
        return float(np.rint(step)) if self.rounding == "nearest" else float(np.floor(step + NEAR))

    def scaled(self, scale: float, backwards: bool = False) -> NetworkTimes:
        """The same times in the units of a network."""
        return type(self)(
            self.kind, self.schedule, self.count, self.grid, self.rounding, self.inverted, scale, backwards
        )


def trained_with(scheduler: Any) -> Trained:
    """What the network of a scheduler was trained with.

    Raises:
        TypeError, ValueError: The scheduler is not supported, or its prediction type is none of its path.
    """
    kind, names = kind_of(scheduler), [base.__name__ for base in type(scheduler).__mro__]
    schedule = schedule_of(scheduler)
    if "CMStochasticIterativeScheduler" in names:
        times = NetworkTimes("consistency", schedule, 1000)
        return Trained(schedule, "consistency", 1.0, times, (-1.0, 1.0) if scheduler.config.clip_denoised else None)
    prediction, sign = _prediction(scheduler, kind)
    boundary = float(scheduler.config.get("timestep_scaling", 10.0)) if "LCMScheduler" in names else None
    times = NetworkTimes.of(scheduler, kind, schedule)
    return Trained(schedule, prediction, sign, times, clip_of(scheduler), boundary)


def _prediction(scheduler: Any, kind: str) -> tuple[str, float]:
    """The prediction in the words of ``Denoiser``, and the sign of the output."""
    config = scheduler.config
    name = config.get("prediction_type", "epsilon")
    if kind == "ve":
        return "score", 1.0
    if kind == "edm":
        # Their v is c_out's other sign.
        signs = {"epsilon": 1.0, "v_prediction": -1.0}
        if name not in signs:
            raise ValueError(f"scheduler: prediction_type of EDM must be epsilon or v_prediction, got {name!r}")
        return "edm", signs[name]
    if kind == "flow":
        if not config.get("use_flow_sigmas"):
            return "velocity", 1.0 if inverts_sigmas(scheduler) else -1.0
        if name == "flow_prediction":
            return "velocity", -1.0
        if name in ("epsilon", "sample"):
            return name, 1.0
        raise ValueError(
            "scheduler: prediction_type must be one of flow_prediction, epsilon, sample with use_flow_sigmas=True, got "
            f"{name!r}; on the path (1 - s) x0 + s n a network that predicts the velocity has 'flow_prediction'"
        )
    if name == "flow_prediction":
        raise ValueError(
            "scheduler: prediction_type 'flow_prediction' needs use_flow_sigmas=True, since the network is trained on "
            f"x = (1 - s) x0 + s n, got use_flow_sigmas={config.get('use_flow_sigmas')!r}"
        )
    if name not in PREDICTIONS:
        raise ValueError(
            f"scheduler: prediction_type must be one of epsilon, sample, v_prediction, got {name!r}; give "
            "Denoiser(network, schedule, prediction) with what the network predicts"
        )
    return PREDICTIONS[name], 1.0


def clip_of(scheduler: Any) -> Clip:
    """What a scheduler does with x0hat, by ``thresholding`` or ``clip_sample``.

    ``thresholding`` has ``dynamic_thresholding_ratio`` and ``sample_max_value``, which is 1 by default, so that it
    clips to [-1, 1]; ``clip_sample`` has ``clip_sample_range``.
    """
    config, names = scheduler.config, [base.__name__ for base in type(scheduler).__mro__]
    if any(name in DOES_NOT_CLIP for name in names):
        return None
    limits: tuple[float, float] | DynamicThreshold | None = None
    if config.get("thresholding"):
        rule = DynamicThreshold(
            float(config.get("dynamic_thresholding_ratio", 0.995)), float(config.get("sample_max_value", 1.0))
        )
        limits = (-1.0, 1.0) if rule.sample_max_value == 1.0 else rule
    elif config.get("clip_sample"):
        limit = float(config.get("clip_sample_range", 1.0))
        limits = -limit, limit
    return EstimateOnly(limits) if limits is not None and any(name in KEEPS_NOISE for name in names) else limits


def _asked(scheduler: Any, kind: str, schedule: Schedule) -> tuple[Array, Array]:
    """Times of the schedule and timesteps of a copy of the scheduler, for two numbers of steps."""
    if getattr(scheduler, "sigmas", None) is None or not callable(getattr(scheduler, "set_timesteps", None)):
        return np.zeros(0), np.zeros(0)
    t, timesteps = [], []
    count = schedule.count if isinstance(schedule, DiscreteVP) else 7
    for steps in {min(5, count), min(7, count)}:
        asked = copy.deepcopy(scheduler)
        asked.set_timesteps(steps)
        given = float64_of("scheduler.timesteps", asked.timesteps)
        values = float64_of("scheduler.sigmas", asked.sigmas)[: len(given)]
        if hasattr(asked, "sigmas_interpol"):  # Between the steps of KDPM2 there are evaluations at other sigmas.
            given, values = given[::2], values[::2]
        noisy = values > 0
        found = 1.0 - values[noisy] if kind == "flow" else schedule.time(values[noisy])
        t.append(found)
        timesteps.append(given[noisy])
    return np.concatenate(t), np.concatenate(timesteps)
