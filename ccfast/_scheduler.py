"""Schedulers of diffusers, read by their public attributes: the path that their networks are trained on.

    kind      schedulers                                       schedule
    "flow"    ``FlowMatch...``, or ``use_flow_sigmas=True``    ``Flow``, t = 1 - sigma
    "edm"     ``sigma_data`` in the config (EDM)               ``EDM``, t = sigma; sigma_data = 1 for Euler with
              or continuous timesteps of v networks (Euler)    continuous timesteps
    "ve"      ``ScoreSdeVeScheduler``                          ``VE``, t = sigma
    "table"   a table of betas, all others                     ``DiscreteVP``, t = n/(N - 1)

Nothing of diffusers is imported, and a scheduler is never changed: whoever sets timesteps does so on a copy.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from .schedules import EDM, VE, Array, DiscreteVP, Flow, Schedule, float64_of

__all__ = [
    "REFUSED",
    "check_scheduler",
    "final_of_scheduler",
    "inverts_sigmas",
    "is_flow_matching",
    "kind_of",
    "schedule_of",
    "table_of",
]

REFUSED = {
    "CosineDPMSolverMultistepScheduler": "its network is told arctan(sigma); give "
    'Denoiser(network, EDM(sigma_min, sigma_max, sigma_data), "edm", time_map=...) with that map and, where '
    'prediction_type is "v_prediction", the negative of the network\'s output',
    "DDIMInverseScheduler": "it runs from data to noise; give DDIMScheduler.from_config(scheduler.config)",
    "DPMSolverMultistepInverseScheduler": "it runs from data to noise; give "
    "DPMSolverMultistepScheduler.from_config(scheduler.config)",
    "IPNDMScheduler": "what it calls betas are the variances sigma^2 of its path, not a table of betas; give "
    "Denoiser(network, DiscreteVP(betas)) with the betas of the training",
    "KarrasVeScheduler": "it does not say what its network is trained with; give Denoiser(network, EDM(...), ...)",
    "SCMScheduler": "its network predicts on the path cos(t) x0 + sin(t) n (TrigFlow), which is none of "
    "ccfast.schedules; wrap the network in a function that returns the denoised image for x0 + sigma n, and give "
    'Denoiser(function, EDM(), "sample", time_map=float)',
}
"""Schedulers whose networks are not known from their attributes, and what to do instead."""

OTHERS = (
    "Amused",
    "BlockRefinement",
    "DDPMWuerstchen",
    "DiscreteDDIM",
    "EntropyBound",
    "FlowMap",
    "Helios",
    "LTXEulerAncestralRF",
    "MiniMaxH3",
    "Piflow",
    "RFD4Proteina",
    "VQDiffusion",
)
"""Beginnings of the names of schedulers with discrete tokens, several stages or paths of their own."""


def check_scheduler(scheduler: Any) -> None:
    """Raise unless a scheduler has a config, and a path that is known.

    Raises:
        TypeError: It is no scheduler of diffusers.
        ValueError: It is one of ``REFUSED`` or ``OTHERS``, or has attributes that contradict each other.
    """
    if not hasattr(getattr(scheduler, "config", None), "get"):
        raise TypeError(
            "scheduler: must be a scheduler of diffusers, with config and set_timesteps, got "
            f"{type(scheduler).__name__}"
        )
    for name in _names(scheduler):
        if name in REFUSED:
            raise ValueError(f"scheduler: {name} is not supported, since {REFUSED[name]}")
        if name.startswith(OTHERS):
            raise ValueError(
                f"scheduler: {name} is not supported, since its path is none of ccfast.schedules; give a scheduler of "
                "Gaussian diffusion, such as DDIMScheduler, or of flow matching"
            )
    config, karras = scheduler.config, ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
    if config.get("interpolation_type") == "log_linear" and not any(config.get(name) for name in karras):
        raise ValueError(
            "scheduler: interpolation_type must be 'linear', got 'log_linear', which gives the network timesteps of "
            "other noise than it sees; use_exponential_sigmas=True has sigmas of equal ratios"
        )


def kind_of(scheduler: Any) -> str:
    """ "flow", "edm", "ve" or "table", as in the table above; ValueError where it is none of them."""
    check_scheduler(scheduler)
    config = scheduler.config
    if is_flow_matching(scheduler):
        return "flow"
    if config.get("sigma_data") is not None or _is_continuous(scheduler):
        return "edm"
    if any(name.startswith("ScoreSdeVe") for name in _names(scheduler)):
        return "ve"
    if getattr(scheduler, "betas", None) is not None:
        return "table"
    raise ValueError(
        "scheduler: must have a table of betas, flow-matching sigmas or EDM's sigma_data, got "
        f"{type(scheduler).__name__}; give Denoiser(network, schedule, prediction) with one of ccfast.schedules"
    )


def schedule_of(scheduler: Any) -> Schedule:
    """The path of a scheduler."""
    kind, config = kind_of(scheduler), scheduler.config
    if kind == "flow":
        return Flow()
    if kind == "table":
        return DiscreteVP(table_of(scheduler), final=final_of_scheduler(scheduler))
    if _is_continuous(scheduler):
        low, high = (float(DiscreteVP(table_of(scheduler)).rho(t)) for t in (0.0, 1.0))
        low, high = config.get("sigma_min") or low, config.get("sigma_max") or high
        return EDM(low, high, sigma_data=1.0)
    low, high = float(config.get("sigma_min", 0.002)), float(config.get("sigma_max", 80.0))
    return VE(low, high) if kind == "ve" else EDM(low, high, sigma_data=float(config["sigma_data"]))


def table_of(scheduler: Any) -> Array:
    """The betas whose products are the scheduler's ``alphas_cumprod``, float64.

    These and not its ``betas``, since it computes with them: they are rounded to single precision, and end at 2^-24
    where a zero terminal SNR would divide by zero. The few products before that which are smaller still are raised
    above it, so that the noise grows.
    """
    betas, products = float64_of("scheduler.betas", scheduler.betas), getattr(scheduler, "alphas_cumprod", None)
    if products is None:
        return betas
    products = float64_of("scheduler.alphas_cumprod", products)
    if products[-1] > 0:
        before = np.arange(len(products))[::-1]
        products = np.maximum(products, products[-1] * (1.0 + 1e-3 * before))
    return (1.0 - products / np.append(1.0, products[:-1])).clip(0.0, 1.0)


def is_flow_matching(scheduler: Any) -> bool:
    """Whether a diffusers scheduler has the path x = (1 - sigma) x0 + sigma noise."""
    return any("FlowMatch" in name for name in _names(scheduler)) or bool(scheduler.config.get("use_flow_sigmas"))


def inverts_sigmas(scheduler: Any) -> bool:
    """Whether its sigmas are those of the data, 1 - sigma, as Mochi has it (``invert_sigmas``)."""
    return bool(scheduler.config.get("invert_sigmas"))


def final_of_scheduler(scheduler: Any) -> str:
    """Where a diffusers scheduler with a table of betas ends: "zero" or "first", as ``DiscreteVP(final=...)`` has it.

    It is what the scheduler's config says, by ``final_sigmas_type`` ("zero" or "sigma_min") or ``set_alpha_to_one``.
    Where it says neither, a copy of the scheduler is asked for its last sigma. One without sigmas (DDPM) ends clean.
    """
    config = scheduler.config
    if "LCMScheduler" in _names(scheduler):  # Its last step returns x0hat, whatever the config says.
        return "zero"
    for key, words in (
        ("final_sigmas_type", {"zero": "zero", "sigma_min": "first"}),
        ("set_alpha_to_one", {True: "zero", False: "first"}),
    ):
        if config.get(key) in words:
            return words[config.get(key)]
    if getattr(scheduler, "sigmas", None) is None or not callable(getattr(scheduler, "set_timesteps", None)):
        return "zero"
    asked = copy.deepcopy(scheduler)
    asked.set_timesteps(2)
    return "first" if float(asked.sigmas[-1]) > 0 else "zero"


def _is_continuous(scheduler: Any) -> bool:
    """Whether the network is EDM's with sigma_data = 1, as Stable Video Diffusion has it."""
    config = scheduler.config
    return config.get("timestep_type") == "continuous" and config.get("prediction_type") == "v_prediction"


def _names(scheduler: Any) -> list[str]:
    """The names of the scheduler's class and of the classes that it inherits from."""
    return [kind.__name__ for kind in type(scheduler).__mro__]
