"""EDM (Karras et al., arXiv 2206.00364), whose preconditioned networks return the denoised image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..denoiser import Denoiser
from ..schedules import EDM

__all__ = ["from_edm"]


def from_edm(
    network: Callable[..., Tensor],
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    name: str | None = None,
    network_kwargs: Mapping[str, Any] | None = None,
) -> Denoiser:
    """A network D(x, sigma) that returns E[x0 | x] for x = x0 + sigma n, as a Denoiser whose time is sigma.

    That is what the public EDM pickles are (``net(x, sigma, class_labels)``), and the model argument of k-diffusion's
    samplers (``model(x, sigma, **extra_args)``).

    Args:
        network: is called with x (B, C, H, W), of data in [-1, 1], and sigma (B,). A raw network F without EDM's
            preconditioning is ``Denoiser(F, EDM(), "edm")`` instead.
        sigma_min, sigma_max: the range of sigma in the training. None takes the network's own attributes, or 0.002 and
            80 where these are missing, zero or infinite, as in the public pickles.
        name: the name of the denoiser, by which presets are found.
        network_kwargs: further arguments of the network, class labels for instance.
    """
    given = {"sigma_min": sigma_min, "sigma_max": sigma_max}
    values = {}
    for key, default in (("sigma_min", 0.002), ("sigma_max", 80.0)):
        own = getattr(network, key, None)
        value = own if given[key] is None else given[key]
        values[key] = default if value is None or not 0 < float(value) < float("inf") else float(value)
    data = float(getattr(network, "sigma_data", 0.5))
    schedule = EDM(**values, sigma_data=data)
    return Denoiser(network, schedule, "sample", time_map=float, name=name, network_kwargs=network_kwargs)
