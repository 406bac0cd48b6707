"""Solvers, one a file. Each fills a Plan: a table of coefficients, and nothing else."""

from .base import Solver
from .conjugate import Conjugate
from .ddim import DDIM
from .ddnm import DDNM
from .pigdm import PiGDM

__all__ = ["DDIM", "DDNM", "Conjugate", "PiGDM", "Solver"]
