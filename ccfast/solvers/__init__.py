"""Solvers, one a file. Each fills a Plan: a table of coefficients, and nothing else."""

from .base import Solver
from .bdia import BDIA
from .conjugate import Conjugate
from .ddim import DDIM
from .ddnm import DDNM
from .lml import LML
from .pigdm import PiGDM

__all__ = ["BDIA", "DDIM", "DDNM", "LML", "Conjugate", "PiGDM", "Solver"]
