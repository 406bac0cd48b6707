"""Degradations H, one file each, given by their thin singular value decomposition (operator.py explains it)."""

from .average_pooling import AveragePooling
from .band_limit import BandLimit
from .bicubic import Bicubic
from .blur import Blur
from .check_adjoint import check_adjoint
from .compose import Compose
from .denoising import Denoising
from .fourier import FourierBlur
from .fourier_downsampling import FourierDownsampling
from .gaussian_blur import GaussianBlur
from .grayscale import Grayscale
from .hadamard import Hadamard
from .inpainting import Inpainting
from .linear_operator import LinearOperator
from .matrix import Matrix
from .operator import Operator
from .separable import SeparableBlur
from .soft_mask import SoftMask, soft_prefix

__all__ = [
    "AveragePooling",
    "BandLimit",
    "Bicubic",
    "Blur",
    "Compose",
    "Denoising",
    "FourierBlur",
    "FourierDownsampling",
    "GaussianBlur",
    "Grayscale",
    "Hadamard",
    "Inpainting",
    "LinearOperator",
    "Matrix",
    "Operator",
    "SeparableBlur",
    "SoftMask",
    "check_adjoint",
    "soft_prefix",
]
