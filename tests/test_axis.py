"""Axes by fast transforms: the same singular value decomposition as that of the matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from ccfast.operators import AveragePooling, Bicubic, Compose, GaussianBlur, SeparableBlur, separable
from ccfast.testing import relative_error


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TRANSFORMED = [
    ("gaussian", "cosine", lambda: GaussianBlur((1, 12, 9))),
    ("gaussian-narrow", "cosine", lambda: GaussianBlur((1, 8, 13), std=1.0)),
    ("long", "cosine", lambda: SeparableBlur((2, 7), [*range(1, 12), *range(10, 0, -1)], normalize=True, cutoff=0.1)),
    ("smaller-than-taps", "cosine", lambda: SeparableBlur((1, 1, 2), [0.25, 0.5, 0.25])),
    ("bicubic-2", "cosine", lambda: Bicubic((1, 12, 18), 2)),
    ("bicubic-3", "cosine", lambda: Bicubic((1, 9, 15), 3)),
    ("bicubic-4", "cosine", lambda: Bicubic((1, 16, 8), 4)),
    ("blur-bicubic", "cosine", lambda: Compose(SeparableBlur((1, 8, 12), [0.2, 0.6, 0.2]), Bicubic((1, 8, 12), 2))),
    ("bicubic-pooling", "cosine", lambda: Compose(Bicubic((1, 16, 12), 2), AveragePooling((1, 8, 6), 2))),
    ("circular", "circular", lambda: SeparableBlur((1, 8, 9), [0.5, 0.3, 0.15, 0.05], 1, "circular", 0.4)),
    ("skew", "factor", lambda: SeparableBlur((1, 8, 9), [0.5, 0.3, 0.2])),
    ("off-centre", "factor", lambda: SeparableBlur((1, 8, 9), [0.25, 0.5, 0.25], center=0)),
    ("mirror", "factor", lambda: SeparableBlur((1, 8, 9), [0.25, 0.5, 0.25], boundary="mirror")),
    ("circular-pooling", "factor", lambda: Compose(GaussianBlur((1, 8, 9), 0.5, 3, "circular"), Bicubic((1, 8, 9), 1))),
]


@pytest.mark.parametrize("matrices", [False, True])
@pytest.mark.parametrize(("form", "build"), [row[1:] for row in TRANSFORMED], ids=[row[0] for row in TRANSFORMED])
def test_an_axis_by_a_transform_is_its_svd(form, build, matrices, monkeypatch):
    """What does not depend on the choice of a basis equals the SVD of a matrix, by transforms and by their matrices."""
    dense = build()
    monkeypatch.setattr(separable, "TRANSFORM_FROM", 1)
    monkeypatch.setattr(separable, "MATRICES_BELOW", 1 << 30 if matrices else 1)
    fast = build()
    assert {type(axis).__name__.removesuffix("Axis").lower() for axis in fast.axes} == {form}
    assert fast.transformed == (form != "factor" and not matrices)
    x, y = draw(2, *fast.shape), draw(2, *fast.measurement_shape, seed=1)
    for name, value in [("forward", x), ("adjoint", y), ("pinv", y), ("project", x)]:
        got, want = getattr(fast, name)(value), getattr(dense, name)(value)
        assert relative_error(got, want) < 1e-11, name  # pinv multiplies rounding by up to 1/0.03^2
    assert_close(fast.singular_values.flatten().sort()[0], dense.singular_values.flatten().sort()[0])
    single = [relative_error(operator.project(x.float()), dense.project(x)) for operator in (fast, dense)]
    assert single[0] < max(2 * single[1], 5e-7)


def test_a_large_axis_needs_no_svd(monkeypatch):
    """Nothing of the square of the side is made, nor an SVD, with a border and kernel that have a transform."""
    monkeypatch.setattr(np.linalg, "svd", None)
    for operator in (GaussianBlur((1, 4096)), Bicubic((1, 4096), 4), GaussianBlur((1, 4096), boundary="circular")):
        x = draw(1, 1, 4096)
        once = operator.project(x)
        assert_close(operator.project(once), once)
        assert max(t.numel() for t in operator._cache.values()) <= 4 * 4096
