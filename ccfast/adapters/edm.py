"""EDM (Karras et al., arXiv 2206.00364): preconditioned networks that return the denoised image."""

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
    """A network D(x, sigma), E[x0 | x] for x = x0 + sigma n, as a Denoiser with times sigma.

    That is what the public EDM pickles are (``net(x, sigma, class_labels)``), and the model argument of k-diffusion's
    samplers (``model(x, sigma, **extra_args)``).

    Args:
        network: called with x (B, C, H, W) in [-1, 1] and sigma (B,). A raw F with EDM's preconditioning outside is
            ``Denoiser(F, EDM(), "edm")`` instead.
        sigma_min, sigma_max: range of the training. None: the network's own attributes, else 0.002 and 80. Infinite
            or zero ones, which the public pickles have, are replaced by these too.
        network_kwargs: class labels and the like.
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
