"""Solvers, one a file. Each fills a Plan: a table of coefficients, and nothing else."""

from .bdia import BDIA
from .conjugate import Conjugate
from .consistency import Consistency
from .ddim import DDIM
from .ddnm import DDNM
from .ddpm import DDPM
from .ddrm import DDRM
from .dds import DDS
from .deis import DEIS
from .diffpir import DiffPIR
from .dpir import DPIR
from .dpm_solver_pp import DPMSolverPP
from .dps import DPS
from .heavy_ball import HeavyBall
from .heun import Heun
from .latino import LATINO
from .lml import LML
from .pigdm import PiGDM
from .psld import PSLD
from .red_diff import REDDiff
from .resample import ReSample
from .solver import Solver
from .steered import Steered
from .stsl import STSL
from .unipc import UniPC

__all__ = [
    "BDIA",
    "DDIM",
    "DDNM",
    "DDPM",
    "DDRM",
    "DDS",
    "DEIS",
    "DPIR",
    "DPS",
    "LATINO",
    "LML",
    "PSLD",
    "STSL",
    "Conjugate",
    "Consistency",
    "DPMSolverPP",
    "DiffPIR",
    "HeavyBall",
    "Heun",
    "PiGDM",
    "REDDiff",
    "ReSample",
    "Solver",
    "Steered",
    "UniPC",
]
