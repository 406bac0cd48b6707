"""Solvers, one a file. Each fills a Plan: a table of coefficients, and nothing else."""

from .base import Solver
from .bdia import BDIA
from .conjugate import Conjugate
from .ddim import DDIM
from .ddnm import DDNM
from .deis import DEIS
from .dpm_solver_pp import DPMSolverPP
from .lml import LML
from .pigdm import PiGDM
from .unipc import UniPC

__all__ = ["BDIA", "DDIM", "DDNM", "DEIS", "LML", "Conjugate", "DPMSolverPP", "PiGDM", "Solver", "UniPC"]
