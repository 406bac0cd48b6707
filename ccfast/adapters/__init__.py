"""Networks and operators of other packages, none of which is imported before it is used.

from_diffusers(unet, scheduler)              diffusers: a network and the scheduler that it was trained with
from_edm(network, sigma_min, sigma_max)      EDM (Karras et al.) and k-diffusion: network(x, sigma) returns x0hat
from_deepinv(model)                          deepinv: model(x, sigma) on images in [0, 1]
deepinv_operator(physics, shape)             deepinv: its linear physics as an operator, on images in [-1, 1]
to_deepinv(denoiser)  to_azula(denoiser)     a Denoiser as those packages want it
denoise_at(denoiser)                         (x, sigma) to x0hat on x = x0 + sigma n, as k-diffusion wants it
guided_diffusion.load(path, name)            public guided-diffusion checkpoints (ADM)
rectified_flow.load(path)                    public rectified-flow checkpoints (NCSN++)
"""

from . import guided_diffusion, rectified_flow
from .azula import to_azula
from .deepinv import DeepinvReconstructor, deepinv_operator, from_deepinv, to_deepinv
from .diffusers import from_diffusers
from .edm import from_edm
from .k_diffusion import denoise_at

__all__ = [
    "DeepinvReconstructor",
    "deepinv_operator",
    "denoise_at",
    "from_deepinv",
    "from_diffusers",
    "from_edm",
    "guided_diffusion",
    "rectified_flow",
    "to_azula",
    "to_deepinv",
]
