"""Bundled priors, which are small networks that come with the package. DATA.md says what they were trained on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from ..denoiser import Denoiser
from ..schedules import VP, Flow, Schedule

__all__ = ["PRIORS", "load_prior"]

WEIGHTS = Path(__file__).parent / "weights"


class Prior(NamedTuple):
    """The schedule of a prior, what its network predicts, and the ``head`` of ``unet.UNet`` that does so."""

    schedule: type[Schedule]
    prediction: str
    head: str


PRIORS = {"photo": Prior(VP, "epsilon", "vp"), "photo-flow": Prior(Flow, "velocity", "flow")}


def load_prior(name: str) -> Denoiser:
    """A bundled prior as a Denoiser, in float32 on the CPU (``denoiser.network.to(device)`` moves it).

    Each is a U-Net of 2.3 million parameters for colour photographs in [-1, 1] whose height and width are divisible by
    8. "photo" predicts the noise of VP(0.1, 20), "photo-flow" the velocity of the rectified flow.

    Raises:
        ValueError: no prior has this name.
    """
    if name not in PRIORS:
        raise ValueError(f"name: must be one of {', '.join(map(repr, PRIORS))}, got {name!r}")
    from safetensors.torch import load_file

    from .unet import UNet

    prior = PRIORS[name]
    network = UNet(head=prior.head).eval().requires_grad_(False)
    network.load_state_dict({key: value.float() for key, value in load_file(WEIGHTS / f"{name}.safetensors").items()})
    for parameter in network.parameters():
        if parameter.ndim == 4:  # Convolutions are faster with channels last, on the CPU too.
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return Denoiser(network, prior.schedule(), prior.prediction, name=name)
