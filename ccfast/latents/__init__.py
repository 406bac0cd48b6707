"""Latent models: a Denoiser of latents with its autoencoder, and operators that act on decoded images, y = H D(z)."""

from .autoencoder import Autoencoder, Identity
from .decoded import Decoded, Parts, parts_of
from .latent_denoiser import LatentDenoiser, latent

__all__ = ["Autoencoder", "Decoded", "Identity", "LatentDenoiser", "Parts", "latent", "parts_of"]
