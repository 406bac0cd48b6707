"""Degradations H, one file each, given by their thin singular value decomposition (see base.py)."""

from .average_pooling import AveragePooling
from .base import Operator
from .bicubic import Bicubic
from .denoising import Denoising
from .fourier import FourierBlur
from .fourier_downsampling import FourierDownsampling
from .gaussian_blur import GaussianBlur
from .grayscale import Grayscale
from .inpainting import Inpainting
from .separable import SeparableBlur

__all__ = [
    "AveragePooling",
    "Bicubic",
    "Denoising",
    "FourierBlur",
    "FourierDownsampling",
    "GaussianBlur",
    "Grayscale",
    "Inpainting",
    "Operator",
    "SeparableBlur",
]
