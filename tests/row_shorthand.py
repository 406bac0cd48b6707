"""Rows of kernels in the shorthand of tests: "Ph" is the projected register h, "F1" the output of the step before."""

from __future__ import annotations

import re

from ccfast.kernels.row import Row

__all__ = ["TERMS", "given", "key", "update"]

TERMS = ("x", "F", "r", "h", "Px", "PF", "Ph", "ybar", "z")
"""The terms of common rows, which look back at nothing."""


def key(name):
    """((register, age), projected) of "x", "Ph", "F2" or "Pybar"."""
    projected, register, age = re.fullmatch(r"(P?)(ybar|[xFrhzu])(\d?)", name).groups()
    return (register, int(age or 0)), bool(projected)


def given(coefficients, tensors, fields=None):
    """(row, tensors): the first two arguments of an ``update``.

    Args:
        coefficients: number, or tensor of every image or element, by term.
        tensors: by register.
        fields: coefficients over the modes, by register.
    """
    terms = [(*key(name), c) for name, c in coefficients.items()]
    terms = [(place, c, 1.0 if projected else None) for place, projected, c in terms]
    row = Row(terms + [(key(name)[0], 1.0, f) for name, f in (fields or {}).items()])
    return row, [tensors[register + (str(age) if age else "")] for register, age in row.registers]


def update(ops, coefficients, tensors, out, after, c_in, fields=None, table=None):
    """The row of these terms, by the operations of a backend."""
    ops.update(*given(coefficients, tensors, fields), out, after, c_in, table)
