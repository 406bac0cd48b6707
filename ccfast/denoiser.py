"""The Denoiser: a pretrained network, its noise schedule, and what its output means.

Whatever a network predicts, its output F enters the samplers in two linear forms,

    x0hat = p x + q F,        eps = e x + f F = (x - mu x0hat)/sigma,

with coefficients that depend on time only (written so that nothing cancels at small noise):

    prediction      F                            p             q            e                  f
    "epsilon"       eps                          1/mu          -sigma/mu    0                  1
    "sample"        x0                           0             1            1/sigma            -mu/sigma
    "v_prediction"  mu eps - sigma x0            mu/n          -sigma/n     sigma/n            mu/n
    "velocity"      x0 - eps  (data - noise)     1/m           sigma/m      1/m                -mu/m
    "score"         -eps/sigma                   1/mu          sigma^2/mu   0                  -sigma
    "edm"           (x0 - c_skip x)/c_out        c_skip        c_out        (1 - c_skip)/sigma -c_out/sigma
    "consistency"   the same, with the skips of consistency models, which return x itself at sigma_min

n = mu^2 + sigma^2 (1 on VP), m = mu + sigma (1 on Flow). A ``Boundary`` takes c_skip x + c_out x0hat in place of x0hat.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ._clip import Clip, check_clip, limited
from ._guidance import UNCONDITIONAL, Guided
from .schedules import EDM, Array, Schedule, float64_of

__all__ = ["PREDICTIONS", "Boundary", "Denoiser"]

PREDICTIONS = ("epsilon", "sample", "v_prediction", "velocity", "edm", "score", "consistency")


class Coefficients(NamedTuple):
    """Arrays over times: x0hat = p x + q F and eps = e x + f F, with F = network(c_in x)."""

    c_in: Array
    p: Array
    q: Array
    e: Array
    f: Array


@dataclass(frozen=True)
class Boundary:
    """The boundary condition of latent consistency models (Luo et al., arXiv 2310.04378), by which x0hat is x at t = 0:

        c_skip x + c_out x0hat,   c_skip = d^2/(s^2 + d^2),   c_out = s/sqrt(s^2 + d^2),   s = scaling * network time

    Args:
        scaling: of the network time; 10 for timesteps 0 to 999.
        sigma_data: d.
    """

    scaling: float = 10.0
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        for name in ("scaling", "sigma_data"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name}: must be a finite number > 0, got {getattr(self, name)!r}")

    def __call__(self, network_times: Array) -> tuple[Array, Array]:
        """c_skip and c_out."""
        scaled = self.scaling * network_times
        return self.sigma_data**2 / (scaled**2 + self.sigma_data**2), scaled / np.hypot(scaled, self.sigma_data)


class Denoiser:
    """A pretrained network as the samplers see it.

    Args:
        network: called as ``network(x, t, **network_kwargs)``; x is (B, C, H, W) or (B, C, L), t is (B,) with the
            network time. Returns a tensor like x; with 2C channels the second half (learned variance) is dropped.
            A torch.nn.Module is run on the device and in the dtype of its parameters, which are frozen meanwhile;
            any other callable runs in the dtype of the state.
        schedule: the path that the network was trained on, from ``ccfast.schedules``.
        prediction: "epsilon", "sample", "v_prediction", "velocity", "edm", "score" or "consistency"; see the table
            above.
        time_map: schedule time (float) to network time (float). None: the default of the schedule (VP and Flow
            999 t, DiscreteVP the rounded index, VE sigma, EDM ln(sigma)/4).
        name: shown in messages; presets are looked up by it.
        network_kwargs: handed to every call of the network, for class labels and the like.
        clip: the clipping of x0hat that belongs to the network: None, (low, high), "dynamic" or a ``DynamicThreshold``
            of ``ccfast.engine.clipping``. Calls of the Denoiser and samplers with ``clip="auto"`` apply it.
        boundary: the ``Boundary`` of a latent consistency model, or None.

    Raises:
        TypeError: network or time_map cannot be called, or schedule or boundary is of another type.
        ValueError: unknown prediction, or "edm" or "consistency" with a schedule that has no sigma_data.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        schedule: Schedule,
        prediction: str = "epsilon",
        time_map: Callable[[float], float] | None = None,
        name: str | None = None,
        network_kwargs: Mapping[str, Any] | None = None,
        clip: Clip = None,
        boundary: Boundary | None = None,
    ) -> None:
        if not callable(network):
            raise TypeError(f"network: must be callable as network(x, t), got {type(network).__name__}")
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule: must be one of ccfast.schedules, got {schedule!r}")
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction: must be one of {', '.join(PREDICTIONS)}, got {prediction!r}")
        if prediction in ("edm", "consistency") and not isinstance(schedule, EDM):
            raise ValueError(f"prediction: {prediction!r} needs the EDM schedule (for sigma_data), got {schedule!r}")
        if boundary is not None and not isinstance(boundary, Boundary):
            raise TypeError(f"boundary: must be a ccfast.denoiser.Boundary or None, got {type(boundary).__name__}")
        if time_map is not None and not callable(time_map):
            raise TypeError(f"time_map: must be callable, got {type(time_map).__name__}")
        self.network = network
        self._schedule, self._prediction = schedule, prediction
        self._time_map = schedule.default_time_map if time_map is None else time_map
        self.name = name
        self.network_kwargs = dict(network_kwargs or {})
        self._clip: Clip = check_clip(clip)
        self._boundary = boundary

    @property
    def schedule(self) -> Schedule:
        """The path. Plans are made of it, so that another one takes another Denoiser."""
        return self._schedule

    @property
    def prediction(self) -> str:
        """What the network predicts; fixed, as the schedule is."""
        return self._prediction

    @property
    def time_map(self) -> Callable[[float], float]:
        """Schedule time to network time; fixed, as the schedule is."""
        return self._time_map

    @property
    def clip(self) -> Clip:
        """The clipping of x0hat that belongs to the network; fixed, as the schedule is."""
        return self._clip

    @property
    def boundary(self) -> Boundary | None:
        """The boundary condition of a latent consistency model; fixed, as the schedule is."""
        return self._boundary

    def coefficients(self, t: Array) -> Coefficients:
        """p, q, e, f and c_in at times t, float64.

        Where sigma = 0 the noise is not determined by x0hat, and e and f of a "sample" network are infinite there.

        Raises:
            ValueError: a time is out of the schedule's range; or the network predicts eps or the score and mu = 0 at
                one of the times, where x = eps says nothing of x0.
        """
        t = self.schedule.within_range(t)
        mu, sigma = self.schedule.mean(t), self.schedule.std(t)
        plain = self._coefficients(t, mu, sigma)
        if self.boundary is None:
            return plain
        c_skip, c_out = self.boundary(self.network_times(t))
        p, q = c_skip + c_out * plain.p, c_out * plain.q
        with np.errstate(divide="ignore"):
            return Coefficients(plain.c_in, p, q, (1.0 - mu * p) / sigma, -mu * q / sigma)

    def _coefficients(self, t: Array, mu: Array, sigma: Array) -> Coefficients:
        """The coefficients without a boundary condition."""
        one, zero = np.ones_like(mu), np.zeros_like(mu)
        if self.prediction in ("epsilon", "score"):
            if np.any(mu <= 0):
                at = t[mu <= 0][0]
                raise ValueError(
                    f"prediction: {self.prediction!r} does not determine the sample where mu = 0, got t = {at:g}, "
                    "pure noise; start with less noise, or take a network that predicts v, the velocity or the sample"
                )
            if self.prediction == "score":
                return Coefficients(one, 1 / mu, sigma * sigma / mu, zero, -sigma)
            return Coefficients(one, 1 / mu, -sigma / mu, zero, one)
        if self.prediction == "sample":
            with np.errstate(divide="ignore"):
                return Coefficients(one, zero, one, 1 / sigma, -mu / sigma)
        if self.prediction == "v_prediction":
            n = mu * mu + sigma * sigma
            return Coefficients(one, mu / n, -sigma / n, sigma / n, mu / n)
        if self.prediction == "velocity":
            m = mu + sigma
            return Coefficients(one, 1 / m, sigma / m, 1 / m, -mu / m)
        assert isinstance(self.schedule, EDM)
        data = self.schedule.sigma_data
        norm = np.hypot(sigma, data)
        if self.prediction == "consistency":
            above = sigma - self.schedule.sigma_min
            p, q = data**2 / (above**2 + data**2), above * data / norm
            return Coefficients(1 / norm, p, q, above**2 / (above**2 + data**2) / sigma, -q / sigma)
        return Coefficients(1 / norm, (data / norm) ** 2, sigma * data / norm, sigma / norm**2, -data / norm)

    def network_times(self, t: Array) -> Array:
        """The time map, applied to each time, (n,) to (n,).

        Raises:
            TypeError: the map returned something that is not a real number.
            ValueError: it returned a number that is not finite.
        """
        mapped = float64_of("time_map", [self.time_map(float(value)) for value in t])
        if mapped.shape != np.shape(t):
            raise TypeError(f"time_map: must return one number for each time, got shape {mapped.shape}")
        if not np.all(np.isfinite(mapped)):
            raise ValueError(f"time_map: must return finite numbers, got {mapped.tolist()} for {t.tolist()}")
        return mapped

    def predict(self, x: Tensor, t: Tensor) -> Tensor:
        """The network's output on an already scaled input, without learned-variance channels.

        Raises:
            TypeError: the network returned no tensor.
            ValueError: its shape is neither that of x nor twice as many channels.
        """
        output = self.network(x, t, **self.network_kwargs)
        return self.trim(output, x)

    def trim(self, output: object, x: Tensor, whole: bool = False) -> Tensor:
        """Check what a network returned for x, and drop learned variance, or with ``whole`` ask for it and keep it."""
        if not isinstance(output, Tensor):
            output = self._only_tensor(output)
        if not output.is_floating_point():
            raise TypeError(f"network {self!r}: must return real floating-point numbers, got {output.dtype}")
        if output.shape == x.shape and not whole:
            return output
        if output.ndim == x.ndim and output.shape == (x.shape[0], 2 * x.shape[1], *x.shape[2:]):
            return output if whole else output[:, : x.shape[1]]
        if whole:
            raise ValueError(
                f"network {self!r}: must return twice the channels of {tuple(x.shape)}, with a learned variance, got "
                f"{tuple(output.shape)}; DDPM('small') and DDPM('large') need none"
            )
        raise ValueError(
            f"network {self!r}: must return shape {tuple(x.shape)} (or twice the channels), got {tuple(output.shape)}"
        )

    def _only_tensor(self, output: object) -> Tensor:
        """The tensor of an output that leaves no choice: a sequence of one, an entry or an attribute named "sample"."""
        if isinstance(output, Mapping):
            inner = output.get("sample")
        elif isinstance(output, tuple | list) and not hasattr(output, "sample"):
            inner = output[0] if len(output) == 1 else None
        else:
            inner = getattr(output, "sample", None)
        if isinstance(inner, Tensor):
            return inner
        raise TypeError(
            f"network {self!r}: must return a tensor, got {type(output).__name__}; give the Denoiser a function that "
            "picks it, such as lambda x, t: network(x, t)[0]"
        )

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """x0hat of a batch at one schedule time, clipped where the Denoiser has a clip, for use outside a sampler."""
        c = self.coefficients(np.array([t], dtype=np.float64))
        exact = torch.promote_types(x.dtype, torch.float32)  # Half precision does not hold whole times above 256.
        time = torch.full((x.shape[0],), self.network_times(np.array([t]))[0], dtype=exact, device=x.device)
        return limited(float(c.p[0]) * x + float(c.q[0]) * self.predict(float(c.c_in[0]) * x, time), self.clip)

    def guided(
        self,
        scale: float,
        unconditional: Mapping[str, Any],
        rescale: float = 0.0,
        interval: tuple[float, float] | None = None,
        together: bool = True,
    ) -> Denoiser:
        """The Denoiser with classifier-free guidance, F = F_u + scale (F_c - F_u) (arXiv 2207.12598).

        F_c is evaluated with ``network_kwargs`` and the ``condition`` of a call, F_u with ``unconditional`` in place of
        the arguments that it names. Derivatives are those of F. A call may give ``condition={"unconditional": ...}``.

            guided = denoiser.guided(5.0, {"encoder_hidden_states": empty})
            Sampler(guided, operator)(y, condition={"encoder_hidden_states": text})

        Args:
            scale: The scale; 1 is the network with its condition, 0 that without.
            unconditional: Keyword arguments of the evaluation without a condition. Tensors have one row, or one for
                each image.
            rescale: The fraction in [0, 1] by which F gets the standard deviation of F_c in every image (2305.08891).
            interval: The schedule times between which guidance acts (2404.07724); outside F is F_c. None: always.
            together: Whether both evaluations are one of twice as many images, or two.

        Raises:
            TypeError, ValueError: An argument breaks its rule.
        """
        if not isinstance(unconditional, Mapping) or not all(isinstance(name, str) for name in unconditional):
            raise TypeError(
                f"unconditional: must be a mapping from names of arguments to values, got {unconditional!r}"
            )
        if not isinstance(scale, int | float) or not np.isfinite(scale):
            raise ValueError(f"scale: must be a finite number, got {scale!r}")
        if not isinstance(rescale, int | float) or not 0.0 <= rescale <= 1.0:
            raise ValueError(f"rescale: must lie in [0, 1], got {rescale!r}")
        if not isinstance(together, bool):
            raise ValueError(f"together: must be True or False, got {together!r}")
        span = None
        if interval is not None:
            times = self.network_times(self.schedule.within_range(np.sort(float64_of("interval", interval))))
            if len(times) != 2:
                raise ValueError(f"interval: must be two schedule times, got {interval!r}")
            span = float(times.min()), float(times.max())
        network = Guided(self.network, self._both, float(scale), float(rescale), span, together)
        kwargs = {**self.network_kwargs, UNCONDITIONAL: dict(unconditional)}
        meaning = self.schedule, self.prediction, self.time_map, self.name
        return Denoiser(network, *meaning, kwargs, self.clip, self.boundary)

    def _both(self, output: object, x: Tensor) -> Tensor:
        """A network's output for x as a tensor, with the channels of a learned variance where it has them."""
        if not isinstance(output, Tensor):
            output = self._only_tensor(output)
        if output.ndim == x.ndim and output.shape == (x.shape[0], 2 * x.shape[1], *x.shape[2:]):
            return output
        return self.trim(output, x)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``denoiser.json`` and ``model.safetensors``, which ``from_pretrained`` reads, to a folder.

        The first holds the schedule, prediction, time map, clip, ranges and name, the second the weights and the
        tensors of ``network_kwargs``. Of the network the class is kept: a bundled prior, ADM or NCSN++ is made again
        from its arguments, and another one is given to ``from_pretrained`` again, as is a ``time_map`` of one's own.
        Files of these names are replaced, and no others.

        Raises:
            TypeError: The network is no torch.nn.Module, or the Denoiser is one of ``ccfast.latent``.
            ValueError: The network is guided, or the schedule or an argument of the network cannot be written.
        """
        import_module(".pretrained", __package__).save(self, folder)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        network: nn.Module | Callable[[], nn.Module] | None = None,
        *,
        time_map: Callable[[float], float] | None = None,
        name: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        revision: str | None = None,
        **options: Any,
    ) -> Denoiser:
        """A Denoiser from a folder or a repository of the Hugging Face hub; its network is frozen and in eval mode.

        Nothing in it is executed, and pickles are not read. It holds ``denoiser.json`` and ``model.safetensors``, or
        is a folder of diffusers: a pipeline's, or a model's with the scheduler that it was trained with. Presets that
        ``ccfast.tune`` saved as ``presets.json`` there are loaded.

        Args:
            path: The folder; or, where there is none of that name, owner/name of a repository of the hub, for which
                huggingface_hub is asked.
            network: A module that gets the weights, or a function that makes one. None: a network of this package, or
                of diffusers.
            time_map: The time map, where the file does not hold it, or another one.
            name: Another name, with which the presets of the folder are not found.
            device, dtype: Those of the weights; None is the dtype that the file has.
            revision: The branch, tag or commit of the repository.
            options: For folders of diffusers more arguments of ``from_diffusers``, and ``scheduler``.

        Raises:
            FileNotFoundError: There is no such folder, or it lacks a file.
            ValueError: A file is damaged, newer than this package, or has unknown keys; or weights do not fit.
            OSError, ImportError: The hub does not give the repository, or a package is missing.
        """
        load = import_module(".pretrained", __package__).load  # It knows what stands above this module.
        chosen = {"time_map": time_map, "name": name, "device": device, "dtype": dtype, "revision": revision}
        return load(path, network, **chosen, **options)

    def __repr__(self) -> str:
        return self.name or f"Denoiser({type(self.network).__name__}, {self.schedule!r}, {self.prediction!r})"
