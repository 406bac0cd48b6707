"""A backend that, like those of a GPU, reads every number from the device table and no float of the row."""

from __future__ import annotations

from functools import partial

from ccfast.kernels import reference
from ccfast.kernels.row import Ops, outside

name = "tabled"
device_table = True


def reason(device):
    return None


def takes(operator, row, dtypes, elements):
    return outside(row, dtypes, 24, tensors=False)


def bind(operator):
    return Ops(reference.denoised, partial(residual, operator), partial(update, operator), reference.normal)


def residual(operator, tensors, p, q, out, weighted=None, table=None):
    ybar, x, output = tensors
    assert table is not None
    assert table.data_ptr() % 16 == 0
    out.copy_(ybar - operator.project(table[0] * x + table[1] * output))


def update(operator, row, tensors, out, after, c_in, table=None):
    assert table is not None
    assert table.data_ptr() % 16 == 0
    n = len(tensors)
    assert table.numel() == 2 * n + 1
    total = sum(table[k] * tensors[k] for k in range(n) if row.layout[0] >> k & 1)
    inner = [table[n + k] * tensors[k] for k in range(n) if row.layout[1] >> k & 1]
    if inner:
        total = total + operator.project(sum(inner))
    out.copy_(total)
    if after is not None:
        after.copy_(table[2 * n] * out)
