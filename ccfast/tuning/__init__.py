"""The search for the solver and the times that suit a network, an operator and a number of steps."""

from .tuner import OBJECTIVES, Tuned, tune

__all__ = ["OBJECTIVES", "Tuned", "tune"]
