"""ccfast: image restoration with pretrained diffusion and flow models in about five network evaluations.

Denoiser (network, schedule, parametrisation) and Operator (the degradation) go into a Sampler; its Solver writes the
plan. See the README for the four words, and ``ccfast.show_config()`` for what can run here.
"""

from . import operators, presets, schedules, solvers, times
from .config import show_config
from .denoiser import Denoiser
from .priors import load_prior
from .sampler import Sampler

__version__ = "0.1.0"

__all__ = [
    "Denoiser",
    "Sampler",
    "load_prior",
    "operators",
    "presets",
    "schedules",
    "show_config",
    "solvers",
    "times",
]
