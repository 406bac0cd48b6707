"""Denoisers in folders: ``denoiser.json`` (schedule, prediction, range) beside ``model.safetensors``.

``Denoiser.save_pretrained`` writes such a folder and ``Denoiser.from_pretrained`` reads it, or a folder of diffusers,
or a repository of the Hugging Face hub. Nothing that is read is executed: there are no pickles and no classes by name
but those of the tables of this package and of diffusers.
"""

from .reading import load
from .writing import save

__all__ = ["load", "save"]
