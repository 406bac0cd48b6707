"""Conjugate integrators: the solver with all its options, and the one for lam != 0."""

from ._modes import STABILITY_LIMIT
from .conjugate import Conjugate
from .shifted import ShiftedConjugate

__all__ = ["STABILITY_LIMIT", "Conjugate", "ShiftedConjugate"]
