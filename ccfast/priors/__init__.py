"""Bundled priors: small networks that come with the package. See DATA.md for what they were trained on."""

from __future__ import annotations

from pathlib import Path

import torch

from ..denoiser import Denoiser
from ..schedules import VP

__all__ = ["PRIORS", "load_prior"]

WEIGHTS = Path(__file__).parent / "weights"
PRIORS = {"photo": VP}
"""Name of a prior -> its schedule."""


def load_prior(name: str) -> Denoiser:
    """A bundled prior as a Denoiser, in float32 on the CPU (move ``denoiser.network`` to another device as needed).

    "photo": a U-Net for colour photographs in [-1, 1], any height and width divisible by 8, VP epsilon.

    Raises:
        ValueError: no prior has this name.
    """
    if name not in PRIORS:
        raise ValueError(f"name: must be one of {', '.join(map(repr, PRIORS))}, got {name!r}")
    from safetensors.torch import load_file

    from .unet import UNet

    network = UNet(head="vp").eval().requires_grad_(False)
    network.load_state_dict({key: value.float() for key, value in load_file(WEIGHTS / f"{name}.safetensors").items()})
    for parameter in network.parameters():
        if parameter.ndim == 4:  # convolutions are faster with channels last, on the CPU too
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return Denoiser(network, PRIORS[name](), "epsilon", name=name)
