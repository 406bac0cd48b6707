"""A backend like those of a GPU: it reads every coefficient from the device table, and no float of the row."""

from __future__ import annotations

from functools import partial

from ccfast.kernels import reference
from ccfast.kernels.row import Ops

name = "tabled"
device_table = True


def reason(device):
    return None


def takes(operator, row, dtypes, elements):
    return "its kernels have no tensors among the coefficients" if row.modes or row.scaled else None


def bind(operator):
    return Ops(reference.denoised, partial(residual, operator), partial(update, operator), reference.normal)


def residual(operator, x, output, ybar, p, q, out, weight=None, coordinates=None, table=None):
    assert weight is None
    assert table is not None
    assert table.data_ptr() % 16 == 0
    out.copy_(ybar - operator.project(table[0] * x + table[1] * output))


def update(operator, row, tensors, out, after, c_in, table=None):
    assert not row.modes
    assert not row.scaled
    assert table is not None
    assert table.data_ptr() % 16 == 0
    n = len(tensors)
    assert table.numel() == 2 * n + 1
    total = sum(table[k] * tensors[k] for k in range(n))
    if row.projected:
        total = total + operator.project(sum(table[n + k] * tensors[k] for k in range(n)))
    out.copy_(total)
    if after is not None:
        after.copy_(table[2 * n] * out)
