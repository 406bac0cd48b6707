"""Bundled priors, which are small networks that come with the package. DATA.md says what they were trained on."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import NamedTuple

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


def load_prior(name: str | PathLike[str]) -> Denoiser:
    """A bundled prior, or one of a folder, as a Denoiser, on the CPU (``denoiser.network.to(device)`` moves it).

    Each is a U-Net of 2.3 million parameters for colour photographs in [-1, 1] whose height and width are divisible by
    8. "photo" predicts the noise of VP(0.1, 20), "photo-flow" the velocity of the rectified flow.

    Args:
        name: that of a bundled prior, which is float32; or what ``Denoiser.from_pretrained`` takes: a folder (write
            ``./photo`` for one that has the name of a bundled prior), or owner/name of a repository of the hub.

    Raises:
        ValueError: no bundled prior has this name, and it is neither a folder nor looks like a repository.
    """
    if not isinstance(name, str) or name not in PRIORS:
        if isinstance(name, PathLike) or (isinstance(name, str) and ("/" in name or Path(name).expanduser().exists())):
            return Denoiser.from_pretrained(name)
        raise ValueError(
            f"name: must be one of {', '.join(map(repr, PRIORS))}, got {name!r}, which is no folder with a Denoiser"
        )
    from safetensors.torch import load_file

    from .unet import UNet, channels_last

    prior = PRIORS[name]
    network = UNet(head=prior.head).eval().requires_grad_(False)
    network.load_state_dict({key: value.float() for key, value in load_file(WEIGHTS / f"{name}.safetensors").items()})
    return Denoiser(channels_last(network), prior.schedule(), prior.prediction, name=name)
