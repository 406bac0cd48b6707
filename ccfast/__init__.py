"""ccfast: image restoration with pretrained diffusion and flow models in about five network evaluations.

Denoiser (network, schedule, parametrisation) and Operator (the degradation) go into a Sampler; its Solver writes the
plan. See the README for the four words, and ``ccfast.show_config()`` for what can run here.

Everything public is an attribute of this module, and a part is imported when its name is used for the first time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import (
        adapters,
        errors,
        metrics,
        operators,
        pipelines,
        presets,
        priors,
        schedules,
        solvers,
        testing,
        times,
        tuning,
    )
    from .config import show_config
    from .denoiser import Denoiser
    from .generator import Generator
    from .latents import latent
    from .priors import load_prior
    from .sampler import Sampler
    from .tuning import tune

__version__ = "0.1.0"

__all__ = [
    "Denoiser",
    "Generator",
    "Sampler",
    "adapters",
    "errors",
    "latent",
    "load_prior",
    "metrics",
    "operators",
    "pipelines",
    "presets",
    "priors",
    "schedules",
    "show_config",
    "solvers",
    "testing",
    "times",
    "tune",
    "tuning",
]

_HOMES = {
    "Denoiser": "denoiser",
    "Generator": "generator",
    "Sampler": "sampler",
    "latent": "latents.latent_denoiser",
    "load_prior": "priors",
    "show_config": "config",
    "tune": "tuning.tuner",
}
"""Name -> the module that defines it. Every other public name is a module itself."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f".{_HOMES.get(name, name)}", __name__)
    value = getattr(module, name) if name in _HOMES else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
