"""From an image file to the file of its measurement."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..priors.padding import pad_to_multiple
from .degradations import Degradation
from .images import as_samples, as_tensor
from .jobs import Job
from .picture_files import encode, write_bytes
from .restore_files import SIZE_KEY, Settings, make_folder, read_source

__all__ = ["degrade"]

NOISE_STREAM = 0x6E6F697365
"""The distance between the seeds of noise and of a random mask, so that the two share no random numbers."""


def degrade(job: Job, degradation: Degradation, settings: Settings) -> None:
    """Write the measurement of one image as PNG: y = H x + noise, rounded to the bits of the image's file."""
    picture = read_source(job.source, settings, degradation)
    image = as_tensor(picture.pixels)
    padded, size = pad_to_multiple(image.expand(3, -1, -1), degradation.factor)
    operator = degradation.build((3, padded.shape[1], padded.shape[2]), settings.seed)
    measurement = operator.forward(padded[None])[0]
    if picture.pixels.shape[2] == 1:  # What is grey stays grey; a mask may hide colours of their own.
        measurement = measurement[:1]
    if settings.noise is not None and settings.noise.share > 0:
        generator = torch.Generator().manual_seed(settings.seed + NOISE_STREAM)
        drawn = torch.randn(measurement.shape, generator=generator, dtype=measurement.dtype)
        measurement = measurement + settings.noise.std * drawn
    texts = picture.texts | {SIZE_KEY: f"{size[0]}x{size[1]}"}
    alpha = picture.alpha if degradation.factor == 1 else None
    samples = as_samples(measurement, picture.pixels.dtype)
    result = replace(picture, pixels=samples, alpha=alpha, texts=texts)
    make_folder(job)
    write_bytes(job.targets[0], encode(result, ".png"), settings.force)
