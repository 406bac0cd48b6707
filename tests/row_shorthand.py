"""Rows of kernels in the shorthand of tests: "Ph" is the projected register h, "F1" the output of the step before."""

from __future__ import annotations

import re

import torch

from ccfast.engine.spectrum import Spectrum
from ccfast.kernels.row import Row

__all__ = ["TERMS", "both", "columns", "given", "key", "residual", "spectra", "update"]

TERMS = ("x", "F", "r", "h", "Px", "PF", "Ph", "ybar", "z")
"""The terms of common rows, which look back at nothing."""


def key(name):
    """The key ((register, age), projected) of a name such as "x", "Ph", "F2" or "Pybar"."""
    projected, register, age = re.fullmatch(r"(P?)(ybar|[xFrhzu])(\d?)", name).groups()
    return (register, int(age or 0)), bool(projected)


def given(coefficients, tensors, modes=None):
    """The first two arguments of an ``update``: (row, tensors).

    Args:
        coefficients: the coefficient of every term: a number, or a tensor over the images or elements.
        tensors: the tensor of every register.
        modes: the coefficients over the modes, by register.
    """
    terms = [(*key(name), c) for name, c in coefficients.items()]
    terms = [(place, c, 1.0 if projected else None) for place, projected, c in terms]
    row = Row(terms + [(key(name)[0], 1.0, m) for name, m in (modes or {}).items()])
    return row, [tensors[register + (str(age) if age else "")] for register, age in row.registers]


def columns(plan):
    """The coefficients of a plan over its steps, by term; terms that are zero in every step are left out."""
    keys = [(f"P{t.register}{t.age or ''}" if t.modes is not None else f"{t.register}{t.age or ''}", t)
            for step in plan.steps for t in step.row if t.is_number]  # fmt: skip
    return {name: plan.numbers(t.register, t.age, t.modes is not None) for name, t in keys}


def spectra(plan):
    """The first step's coefficients over the singular values, by register, and its weight as "weight"."""
    step = plan.steps[0]
    values = {str(t.key): t.modes.values for t in step.row if isinstance(t.modes, Spectrum)}
    return values | ({"weight": step.weight.values} if isinstance(step.weight, Spectrum) else {})


def residual(ops, x, output, ybar, p, q, out, *, weighted=None, table=None):
    """H+ y - P (p x + q F) by the operations of a backend."""
    ops.residual([ybar, x, output], p, q, out, weighted, table)


def update(ops, coefficients, tensors, out, after, c_in, modes=None, table=None):
    """Write the row of these terms to ``out`` and ``after``, by the operations of a backend."""
    ops.update(*given(coefficients, tensors, modes), out, after, c_in, table)


def both(ops, coefficients, tensors):
    """An update and a residual of the same tensors, side by side in the channels."""
    out, r = torch.empty_like(tensors["x"]), torch.empty_like(tensors["x"])
    update(ops, coefficients, tensors, out, None, 1.0)
    residual(ops, tensors["x"], tensors["F"], tensors["ybar"], 1.7, -0.6, r)
    return torch.cat([out, r], 1)
