"""A Denoiser of latents, with the autoencoder that makes images of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..denoiser import Denoiser
from ..operators import Operator
from .autoencoder import Autoencoder
from .decoded import Decoded

__all__ = ["LatentDenoiser", "latent"]


class LatentDenoiser(Denoiser):
    """A Denoiser whose states are latents; ``ccfast.latent`` makes it.

    A ``Sampler`` of it and an operator on images restores images: y = H D(z).

    Attributes:
        autoencoder: the maps between images and latents.
    """

    def __init__(self, denoiser: Denoiser, autoencoder: Autoencoder) -> None:
        self.__dict__.update(vars(denoiser))
        self.network_kwargs = dict(denoiser.network_kwargs)
        self.autoencoder = autoencoder

    def guided(self, *args: Any, **kwargs: Any) -> LatentDenoiser:
        return LatentDenoiser(super().guided(*args, **kwargs), self.autoencoder)

    guided.__doc__ = Denoiser.guided.__doc__

    def encode(self, x: Tensor) -> Tensor:
        """The latents of images (B, C, H, W) in [-1, 1]."""
        return self.autoencoder.encode(x)

    def decode(self, z: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """The images of latents, cropped to ``shape`` of one image, (C, H, W)."""
        return self.autoencoder.decode(z, shape)

    def without_autoencoder(self) -> Denoiser:
        """The Denoiser of the latents, whose samplers know of no images."""
        plain = object.__new__(Denoiser)
        plain.__dict__.update({name: value for name, value in vars(self).items() if name != "autoencoder"})
        return plain

    def through(self, operator: Operator) -> Decoded:
        """y = H D(z) as an operator on latents; a Sampler of it returns latents."""
        return operator if isinstance(operator, Decoded) else Decoded(operator, self.autoencoder)


def latent(
    denoiser: Denoiser,
    vae: Any,
    scaling: float | Sequence[float] | Tensor | None = None,
    shift: float | Sequence[float] | Tensor | None = None,
    *,
    tile: int | None = None,
    checkpointing: bool = False,
    multiple: int = 1,
) -> LatentDenoiser:
    """A Denoiser of latents for operators on images, y = H D(z).

        z = scaling (vae.encode(x) - shift),        x = vae.decode(z/scaling + shift)

        denoiser = ccfast.latent(from_diffusers(pipe.unet, pipe.scheduler), pipe.vae)
        image = ccfast.Sampler(denoiser, operator, steps=8)(y)

    A sampler of it takes measurements of images, and returns images in [-1, 1]; its states, ``x_init`` and what a
    callback sees are latents. It starts from E(H+ y). Solvers: LATINO (the default), ReSample, PSLD, STSL and DPS, and
    those that look at the measurement at the start only.

    Args:
        denoiser: the network and the schedule of its latents.
        vae: has ``encode`` and ``decode``, as those of diffusers. It is called in the dtype of its weights, on the
            device of the network, with images (B, C, H, W) in [-1, 1].
        scaling, shift: numbers, or one for each channel of the latents. None: what the config of ``vae`` says
            (``scaling_factor``, ``shift_factor``, ``latents_mean``, ``latents_std``), or else 1 and 0.
        tile: the side in latents of overlapping tiles, for large images; None for whole images.
        checkpointing: whether derivatives of ``vae`` compute its activations again, to save memory.
        multiple: the number that divides the sides of latents, where the network asks for one: 8 for a U-Net that
            halves them three times, or the patch of a transformer. Images are continued by their last pixels.

    Raises:
        TypeError, ValueError: an argument breaks its rule.
    """
    if not isinstance(denoiser, Denoiser):
        raise TypeError(f"denoiser: must be a ccfast Denoiser, got {type(denoiser).__name__}")
    return LatentDenoiser(denoiser, Autoencoder(vae, scaling, shift, tile, checkpointing, multiple))
