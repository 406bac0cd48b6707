"""Conjugate integrators: the solver with all its options, and the one for lam != 0."""

from .conjugate import Conjugate
from .shifted import ShiftedConjugate

__all__ = ["Conjugate", "ShiftedConjugate"]
