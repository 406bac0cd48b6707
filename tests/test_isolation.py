"""No image of a batch changes another one, whatever it holds, in operators, rows of a backend, and whole runs.

``test_cuda.py`` and ``test_triton.py`` try the rows of the CUDA and Triton backends, where these run.
"""

from __future__ import annotations

import pytest
import spoiled
import torch
from conftest import SOLVERS
from row_shorthand import residual, update
from test_native import ROWS, case, cast, ours, varied

import ccfast
from ccfast.kernels import native, reference
from ccfast.operators import (
    AveragePooling,
    Bicubic,
    FourierBlur,
    FourierDownsampling,
    GaussianBlur,
    LinearOperator,
    Matrix,
    SoftMask,
)
from ccfast.solvers import DDNM, LML, Conjugate
from ccfast.testing import LIBRARY

BOUND = LIBRARY[torch.float32]
BACKENDS = [reference, pytest.param(native, marks=pytest.mark.skipif(native.REASON is not None, reason="not built"))]


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def uniform(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------------------------------- operators and rows
def test_operators(any_operator):
    """Every transform keeps images apart, in batches of as many as the operator has parts for."""
    operator, images = any_operator, any_operator.batch or 3
    x = (uniform(images, *operator.shape, seed=1) - 0.5).float()
    y = operator.forward(x)
    transforms = {"forward": x, "project": x, "down": x, "adjoint": y, "pinv": y, "encode": y, "lift": operator.down(x)}
    for name, value in transforms.items():
        spoiled.check(lambda t, name=name: getattr(operator, name)(t["x"]), {"x": value}, BOUND, in_turn=True)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_rows(operator, backend):
    """A residual and every kind of row keep images apart, to the bit where all arithmetic is ours."""
    bound = 0.0 if backend is native and ours(operator) else BOUND
    tensors, ops = case(operator, torch.bfloat16, operator.batch or 3), backend.bind(operator)

    def filled(run):
        out = torch.full(tensors["x"].shape, torch.nan)
        run(out)
        return out

    spoiled.check(
        lambda t: filled(lambda out: residual(ops, t["x"], t["F"], t["ybar"], 1.7, -0.6, out)), tensors, bound
    )
    rows = [(row, None) for row in ROWS.values()]
    rows += [(cast(row, torch.float32), cast(modes, torch.float32)) for row, modes in varied(operator, tensors)]
    for row, modes in rows:
        spoiled.check(
            lambda t, row=row, modes=modes: filled(lambda out: update(ops, row, t, out, None, 1.0, modes)),
            tensors,
            BOUND if modes else bound,
        )


# ---------------------------------------------------------------------------------------- whole runs
MATRIX = uniform(10, 108, seed=2) - 0.5
SHAPE = (3, 6, 6)
RUNS = {
    "soft-mask": lambda: SoftMask(uniform(*SHAPE)),
    "block": lambda: AveragePooling(SHAPE, 3),
    "banded": lambda: Bicubic((3, 24, 24), 2),
    "low-rank": lambda: GaussianBlur(SHAPE, std=1.0),
    "fourier": lambda: FourierBlur(SHAPE, uniform(3, 3) / 4),
    "fourier-1-channel": lambda: FourierBlur((1, 6, 6), uniform(3, 3) / 4),
    "alias": lambda: FourierDownsampling(SHAPE, uniform(3, 3) / 4, 2),
    "dense": lambda: Matrix(MATRIX, SHAPE),
    "krylov": lambda: LinearOperator(
        lambda x: x.flatten(1) @ MATRIX.mT.to(x), lambda y: (y @ MATRIX.to(y)).reshape(-1, *SHAPE), SHAPE, iterations=12
    ),
}
MORE = (
    Conjugate(centred="rayleigh", order=2, eta=0.5),
    Conjugate(5.0, product="finite_difference"),
    Conjugate(5.0, product="forward"),
    DDNM(eta=0.5),
    LML(0.5, 100.0),
)


def pixelwise(x, t):
    """A network that works on every element alone, with a bounded output."""
    return x / (1.0 + x * x)


@pytest.mark.filterwarnings("ignore")  # Spoilt values and long steps warn.
@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
@pytest.mark.parametrize("solver", [*(e.solver for e in SOLVERS.values()), *MORE], ids=repr)
def test_runs(solver, backend, noise):
    """The result of an image is the same alone, and beside one that is huge or not finite.

    A solver meets one half of the operators without noise and the other half with it.
    """
    ran = 0
    for build in list(RUNS.values())[noise > 0 :: 2]:
        operator = build()
        denoiser = ccfast.Denoiser(pixelwise, ccfast.schedules.VP())
        options = {"noise_std": noise, "backend": backend.name, "check_finite": False}
        try:
            sampler = ccfast.Sampler(denoiser, operator, solver, 3, **options)
        except ValueError:
            assert noise, "without noise every solver takes every operator"
            continue
        y = operator.forward((uniform(2, *operator.shape, seed=3) - 0.5).float())
        allowed = 10 * BOUND  # The bound is for a whole run.
        spoiled.check(lambda t, run=sampler: run(t["y"], seed=[5, 6]), {"y": y}, allowed, in_turn=True)
        ran += 1
        if operator.kind == "krylov":
            # Another number of rows makes another matrix product, whose differences the condition number amplifies.
            continue
        alone = sampler(y[1:], seed=[6])[0]
        beside = sampler(torch.stack([torch.full_like(y[0], torch.nan), y[1]]), seed=[5, 6])[1]
        assert (alone - beside).abs().max() <= allowed * alone.abs().max()
    assert ran or noise
