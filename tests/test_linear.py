"""Operators by H and H^T as functions, or by matrices: conjugate gradients, the adjoint's check and whole runs."""

from __future__ import annotations

import math

import mri
import numpy as np
import pytest
import torch
from conftest import KRYLOV_OPERATORS, OPERATORS
from test_operators import close, dense, draw, image, measurement
from tomography import Tomography
from tomography import main as tomography_main
from torch.utils._python_dispatch import TorchDispatchMode

from ccfast import Sampler
from ccfast.operators import (
    GaussianBlur,
    Hadamard,
    LinearOperator,
    Matrix,
    SoftMask,
    check_adjoint,
)
from ccfast.operators.sums import RUN, sums
from ccfast.schedules import VP, Flow
from ccfast.solvers import DDNM, Conjugate
from ccfast.testing import LIBRARY, TOLERANCE, Gaussian, relative_error

pytestmark = pytest.mark.filterwarnings("ignore:jacobian. 'exact' is stable")

EPS = torch.finfo(torch.float32).eps


def orthonormal(n, seed):
    return torch.linalg.qr(draw((n, n), seed))[0]


def from_values(values, rows=24, columns=20):
    """A matrix with these singular values."""
    u, v = orthonormal(rows, 5)[:, : len(values)], orthonormal(columns, 6)[:, : len(values)]
    return (u * torch.as_tensor(values, dtype=torch.float64)) @ v.mT


def products(matrix, **keywords):
    shape = (1, matrix.shape[1])
    return LinearOperator(
        lambda x: x.flatten(1) @ matrix.to(x).mT, lambda y: (y @ matrix.to(y))[:, None], shape, **keywords
    )


def pinv_of(matrix, y):
    return (y.double() @ torch.linalg.pinv(matrix, rtol=1e-12).mT)[:, None]


# ---------------------------------------------------------------------------------------- conjugate gradients
@pytest.mark.elsewhere
@pytest.mark.parametrize("condition", [1e1, 1e2, 1e3, 1e4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ill_conditioned(dtype, condition):
    """The error of H+ y is at most ten times condition times rounding, and many more iterations leave it there."""
    matrix = from_values(np.geomspace(1, 1 / condition, 12))
    x = draw((3, 1, 20), 7)
    y = (x.flatten(1) @ matrix.mT).to(dtype)
    want = pinv_of(matrix, y)
    bound = 10 * condition * torch.finfo(dtype).eps
    errors = [relative_error(products(matrix, iterations=n).pinv(y), want) for n in (300, 600)]
    assert max(errors) < bound, f"{errors} against {bound:.2g}"


def test_few_different_singular_values_take_as_many_iterations():
    matrix = from_values([2.0] * 5 + [1.0] * 4 + [0.3] * 3)
    y = draw((2, 24))
    want = pinv_of(matrix, y)
    assert relative_error(products(matrix, iterations=3).pinv(y), want) < 1e-12
    assert relative_error(products(matrix, iterations=2).pinv(y), want) > 1e-3


@pytest.mark.parametrize("iterations", [30, 500])
def test_measurement_outside_of_the_range(iterations):
    """H+ drops the part of y outside the range, here a thousand times larger, however many iterations it runs."""
    matrix = from_values(np.linspace(1, 0.2, 9))
    x = draw((2, 1, 20), 7)
    inside = x.flatten(1) @ matrix.mT
    other = draw((2, 24), 8)
    other -= other @ (torch.linalg.pinv(matrix).mT @ matrix.mT)
    y = inside + 1e3 * other
    op = products(matrix, iterations=iterations)
    assert relative_error(op.pinv(y), pinv_of(matrix, inside)) < 1e-11
    assert relative_error(op.pinv(y.float()), pinv_of(matrix, inside)) < 1e3 * 50 * EPS
    assert relative_error(op.project(x.float()), pinv_of(matrix, inside)) < 50 * EPS


def five_samples(operator, dtype):
    """Measurements of five images: a random, a huge, a tiny, a zero and an easy one."""
    y = operator.forward(image(operator, 1, dtype)).repeat(3, 1, 1, 1)[:5]
    y[1] *= 2.0**20
    y[2] *= 2.0**-20
    y[3] = 0
    y[4] = operator.forward(torch.ones(1, *operator.shape, dtype=dtype))[0]
    return y


@pytest.mark.elsewhere
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_sample_does_not_depend_on_its_batch(dtype):
    """Its result has the same bits in any batch where H and H^T multiply pixels by numbers.

    Matrix products in H may differ in the last bits from one batch to another. Two solutions that have converged then
    differ by that times the condition of H, as in ``test_ill_conditioned``.
    """
    mask, blur = SoftMask(torch.linspace(0.1, 1, 64).reshape(1, 8, 8), (2, 8, 8)), GaussianBlur((2, 8, 8), std=1.0)
    s = blur.singular_values
    condition = float(s.max() / s[s > 0].min())
    for operator, bound in ((mask, 0.0), (blur, condition * LIBRARY[dtype])):
        solve = LinearOperator(operator.forward, operator.adjoint, operator.shape, iterations=160).pinv
        y = five_samples(operator, dtype)
        together = solve(y)
        assert together.isfinite().all()
        assert not together[3].any()
        alone = torch.cat([solve(part) for part in y.split(1)])
        scale = torch.tensor([1.0, 2.0**-20, 2.0**20, 1.0, 1.0], dtype=dtype)[:, None, None, None]
        close(alone * scale, together * scale, bound)
        close(together[1] * scale[1], solve(y[1:2] * scale[1])[0], bound)


@pytest.mark.elsewhere
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_sums_do_not_depend_on_batch_and_threads(dtype):
    """The sums are over less than a run, several runs and a rest, and so many elements that torch uses all threads."""
    threads = torch.get_num_threads()
    try:
        for count in (100, RUN + 1, 2 * RUN - 1, 2 * RUN, 5 * RUN + 7):
            x = draw((3, count), dtype=dtype)
            want = sums(x)
            torch.testing.assert_close(want.double(), x.double().sum(1), rtol=0, atol=count * torch.finfo(dtype).eps)
            for number in (1, 2, 3):
                torch.set_num_threads(number)
                assert torch.equal(sums(x), want)
                assert torch.equal(torch.cat([sums(part) for part in x.split(1)]), want)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.elsewhere
def test_scale_of_the_operator_does_not_matter():
    matrix = from_values(np.geomspace(1, 0.1, 9))
    y = draw((2, 24)).float()
    want = products(matrix).pinv(y)
    for scale in (2.0**-20, 2.0**20):
        close(products(matrix * scale).pinv(y) * scale, want, 0)


def test_tolerance_stops_every_sample_by_itself():
    """At a residual of one percent the first sample, along the largest singular vector, stops; the other goes on."""
    values = np.geomspace(1, 1e-3, 12)
    matrix = from_values(values)
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    y = torch.stack([u[:, 0], u[:, :12].sum(1)])
    loose = products(matrix, iterations=200, tolerance=0.01).pinv(y)
    close(loose[0, 0], vt[0] / s[0], 1e-12)
    residual = (loose[1, 0] @ matrix.mT - y[1]).norm() / y[1].norm()
    assert residual > 1e-6
    assert relative_error(loose[1:], pinv_of(matrix, y[1:])) > 0.1
    assert relative_error(products(matrix, iterations=200).pinv(y[1:]), pinv_of(matrix, y[1:])) < 1e-10


class NoSync(TorchDispatchMode):
    """A dispatch mode that fails on operations that make the host wait for a device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name()
        assert not any(word in name for word in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero")), name
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "build"), KRYLOV_OPERATORS, ids=[name for name, _ in KRYLOV_OPERATORS])
def test_no_host_sync_and_gradients(name, build):
    op = build()
    x, y = image(op), measurement(op)
    op.project(x)
    with NoSync():
        op.project(x)
        op.pinv(y)
    x.requires_grad_()
    y.requires_grad_()
    (grad,) = torch.autograd.grad(op.project(x).square().sum() / 2, x)
    close(grad, op.project(x.detach()), 1e-9)
    z = image(op, 3)
    (grad,) = torch.autograd.grad((op.pinv(y) * z).sum(), y)
    close(grad.flatten(1)[..., None], dense(op, "pinv", op.measurement_shape).mT @ z.flatten(1)[..., None], 1e-9)


def test_inference_mode():
    op = products(from_values([1.0, 0.5]))
    with torch.inference_mode():
        want = op.project(image(op))
    close(op.project(image(op)), want.clone(), 0)


# ---------------------------------------------------------------------------------------- LinearOperator, check_adjoint
def test_measurement_shape_is_found():
    assert products(from_values([1.0])).measurement_shape == (24,)
    op = LinearOperator(lambda x: x, lambda y: y, (2, 3, 4), dtype=torch.float64)
    assert op.measurement_shape == (2, 3, 4)
    close(op.pinv(image(op)), image(op), 1e-15)


def test_no_singular_values():
    op = products(from_values([1.0]))
    for use in (
        lambda: op.singular_values,
        lambda: op.decode(torch.zeros(1, 1, 20)),
        lambda: op.scale(torch.zeros(1, 1, 20), 1),
    ):
        with pytest.raises(
            AttributeError, match=r"LinearOperator.* has no singular values; .*noise_std=0; DDS.*Matrix"
        ):
            use()


def test_adjoints_of_all_operators():
    for _, build in OPERATORS + KRYLOV_OPERATORS:
        op = build()
        if op.batch is None:
            check_adjoint(op.forward, op.adjoint, op.shape)
            check_adjoint(op.forward, op.adjoint, op.shape, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda y: 1.001 * y,
        lambda y: y.flip(-1),
        lambda y: y.roll(1, -1),
        lambda y: y + 0.01,
        lambda y: y * torch.nan,
    ],
)
def test_wrong_adjoint(wrong, dtype):
    def forward(x):
        return x

    message = r"adjoint: must satisfy <H x, y> = <x, H\^T y> within .*got -?[\d.e+-]+ and (-?[\d.e+-]+|nan)$"
    with pytest.raises(ValueError, match=message):
        check_adjoint(forward, wrong, (3, 16, 16), dtype=dtype)
    with pytest.raises(ValueError, match=message):
        LinearOperator(forward, wrong, (3, 16, 16), dtype=dtype)
    LinearOperator(forward, wrong, (3, 16, 16), dtype=dtype, check=False)


def test_wrong_adjoint_says_both_inner_products():
    x = torch.randn((4, 1, 50), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.raises(ValueError, match="got") as caught:
        check_adjoint(lambda x: x, lambda y: 3 * y, (1, 50), dtype=torch.float64)
    left, right = (float(word) for word in str(caught.value).split("got ")[1].split(" and "))
    assert math.isclose(3 * left, right, rel_tol=1e-6)
    assert abs(left) < x.flatten(1).norm(dim=1).max() ** 2 * 2


def test_adjoint_tolerance():
    check_adjoint(lambda x: x, lambda y: 1.001 * y, (1, 50), tolerance=0.01)


def identity(x):
    return x


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: LinearOperator(1, identity, (1, 4)), TypeError, "LinearOperator: forward must be a function, got int"),
        (lambda: LinearOperator(identity, None, (1, 4)), TypeError, "adjoint must be a function, got NoneType"),
        (lambda: LinearOperator(identity, identity, (4,)), ValueError, r"shape must be .*got \(4,\)"),
        (
            lambda: LinearOperator(identity, identity, (1, 4), iterations=0),
            ValueError,
            "iterations must be a positive integer, got 0",
        ),
        (
            lambda: LinearOperator(identity, identity, (1, 4), tolerance=1),
            ValueError,
            r"tolerance must be in \[0, 1\), got 1",
        ),
        (
            lambda: LinearOperator(identity, identity, (1, 4), (5,)),
            ValueError,
            r"forward: must return shape \(4, 5\), got \(4, 1, 4\)",
        ),
        (
            lambda: LinearOperator(lambda x: x[0], identity, (1, 4)),
            ValueError,
            r"forward: must return shape \(4, 4\), got \(1, 4\)",
        ),
        (
            lambda: LinearOperator(identity, lambda y: y[..., 1:], (1, 4)),
            ValueError,
            r"adjoint: must return shape \(4, 1, 4\), got \(4, 1, 3\)",
        ),
        (
            lambda: LinearOperator(lambda x: x.double(), identity, (1, 4)),
            TypeError,
            r"forward: must return torch.float32 on cpu, as it was given, got torch.float64 on cpu",
        ),
        (
            lambda: LinearOperator(lambda x: x.numpy(), identity, (1, 4)),
            TypeError,
            "forward: must return a tensor, got ndarray",
        ),
        (
            lambda: Matrix(torch.ones(2, 5), (3, 2, 2)),
            ValueError,
            r"Matrix: H must be \(m, 12\) for the whole image of shape \(3, 2, 2\) or \(m, 4\) .*got shape \(2, 5\)",
        ),
        (lambda: Matrix(torch.ones(0, 12), (3, 2, 2)), ValueError, r"got shape \(0, 12\)"),
        (lambda: Matrix(torch.ones(12), (3, 2, 2)), ValueError, r"got shape \(12,\)"),
        (lambda: Matrix(torch.zeros(2, 12), (3, 2, 2)), ValueError, "cutoff must leave a singular value"),
        (lambda: Matrix(torch.ones(2, 12), (3, 2, 2), cutoff=9), ValueError, "Matrix: cutoff must leave a singular"),
        (lambda: Matrix(torch.ones(2, 12) * torch.nan, (3, 2, 2)), ValueError, "Matrix: H must be finite"),
        (
            lambda: Matrix(torch.ones(2, 12), (3, 2, 2), measurement_shape=(3,)),
            ValueError,
            r"measurement_shape must hold 2 numbers, got \(3,\)",
        ),
        (lambda: Hadamard((1, 3, 4), [0]), ValueError, r"shape must have a power of two .*got \(1, 3, 4\) with 12"),
        (lambda: Hadamard((1, 8), [0, 8]), ValueError, r"indices must be a list of integers in \[0, 8\), got \[0, 8\]"),
        (lambda: Hadamard((1, 8), [0.5]), ValueError, r"got \[0.5\]"),
        (lambda: Hadamard((1, 8), []), ValueError, r"got \[\]"),
        (lambda: Hadamard((1, 8), [1, 1]), ValueError, r"indices must all be different, got \[1, 1\]"),
        (lambda: Hadamard((1, 8), [1], order="dyadic"), ValueError, "order must be one of natural, sequency, got 'dy"),
        (lambda: Tomography((1, 4, 5), 3), ValueError, r"Tomography: shape must be \(C, side, side\), got \(1, 4, 5\)"),
        (lambda: mri.MRI(torch.full((4, 4), 0.5)), ValueError, "MRI: mask must be"),
    ],
)
def test_errors(build, error, message):
    with pytest.raises(error, match=message):
        build()


# ---------------------------------------------------------------------------------------- dense members
def test_matrix_definition():
    h = draw((5, 24))
    x = draw((2, 2, 3, 4), 1)
    close(Matrix(h, (2, 3, 4)).forward(x), x.flatten(1) @ h.mT, 1e-13)
    close(Matrix(h[:, :12], (2, 3, 4)).forward(x), x.flatten(2) @ h[:, :12].mT, 1e-13)
    assert Matrix(h[:, :12], (2, 3, 4)).measurement_shape == (2, 5)
    assert Matrix(h[:, :12].tolist(), (1, 3, 4)).measurement_shape == (5,)
    assert Matrix(h[:4], (2, 3, 4), measurement_shape=(2, 2)).forward(x).shape == (2, 2, 2)


def test_matrix_cutoff():
    matrix = from_values([1.0, 0.5, 0.1])
    op = Matrix(matrix, (1, 20), cutoff=0.2)
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    close(op.singular_values, torch.tensor([[1.0, 0.5]], dtype=torch.float64), 1e-12)
    x = draw((2, 1, 20))
    close(op.forward(x)[:, None], x @ vt[:2].mT @ (u[:, :2] * s[:2]).mT, 1e-12)


def test_matmul_precision_is_not_used():
    op = Matrix(draw((128, 256)), (1, 16, 16))
    x = image(op, 0, torch.float32)
    want = op.project(x)
    torch.set_float32_matmul_precision("medium")
    try:
        close(op.project(x), want, 1e-6)
        close(op.down(x), op.down(x.double()).float(), 1e-5)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(("shape", "n"), [((2, 4, 8), 32), ((1, 2, 2), 4), ((3, 16), 16), ((1, 1, 1), 1)])
def test_hadamard_definition(shape, n):
    from scipy.linalg import hadamard

    w = torch.from_numpy(hadamard(n)).double() / n**0.5
    x = draw((2, *shape))
    close(Hadamard(shape, range(n)).forward(x), x.flatten(2) @ w.mT, 1e-13)
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(0))[: n // 2 + 1]
    close(Hadamard(shape, rows).forward(x), x.flatten(2) @ w[rows].mT, 1e-13)


def test_hadamard_sequency():
    """Row k has k sign changes."""
    op = Hadamard((1, 32), range(32), order="sequency")
    rows = op.adjoint(torch.eye(32, dtype=torch.float64)[:, None])[:, 0].sign()
    assert ((rows[:, 1:] != rows[:, :-1]).sum(1) == torch.arange(32)).all()


# ---------------------------------------------------------------------------------------- examples
def test_mri():
    op = mri.MRI(mri.cartesian_mask(16, 12, acceleration=2, centre=2))
    rows = op.singular_values[0].any(1)
    assert rows.sum() == 8
    assert rows[[0, 1]].all() or rows[[0, 15]].all()
    x = draw((2, 2, 16, 12))
    want = np.fft.fft2((x[:, 0] + 1j * x[:, 1]).numpy(), norm="ortho") * op.singular_values[0].numpy()
    close(op.forward(x), torch.from_numpy(np.stack([want.real, want.imag], 1)), 1e-13)
    before, after = mri.main(side=16)
    assert after > before + 3


def test_tomography():
    """Every projection has the image's mass and centre of mass, and that at angle 0 is the sum of each column."""
    op = Tomography((2, 9, 9), angles=6)
    x = draw((2, 2, 9, 9)).abs()
    y = op.forward(x) * math.sqrt(9 * 6)
    close(y.sum(3), x.sum((2, 3))[:, :, None].expand(-1, -1, 6), 1e-13)
    columns = torch.nn.functional.pad(x.sum(2), (3, 3))
    close(y[:, :, 0], columns, 1e-13)
    axis, bins = torch.arange(9.0, dtype=torch.float64) - 4, torch.arange(15.0, dtype=torch.float64) - 7
    theta = torch.arange(6, dtype=torch.float64) * math.pi / 6
    place = (x.sum(2) @ axis)[..., None] * theta.cos() + (x.sum(3) @ axis)[..., None] * theta.sin()
    close(y @ bins, place, 1e-12)
    assert torch.linalg.svdvals(dense(op, "forward", op.shape)).max() < 1.1
    before, after = tomography_main(side=16)
    assert after > before + 3


# ---------------------------------------------------------------------------------------- whole runs
NEW = ("soft-mask", "band-limit", "matrix", "hadamard", "compose", "mri", "linear", "chain", "tomography")
MEMBERS = [(name, build) for name, build in OPERATORS + KRYLOV_OPERATORS if name.startswith(NEW)]


@pytest.mark.parametrize(("name", "build"), MEMBERS, ids=[name for name, _ in MEMBERS])
@pytest.mark.parametrize(
    ("solver", "schedule"), [(Conjugate(w=4.0), VP()), (DDNM(), Flow())], ids=["conjugate", "ddnm"]
)
def test_whole_runs(name, build, solver, schedule):
    """A run equals the one with H as a dense Matrix in float64, and up to rounding in float32."""
    op = build()
    n = math.prod(op.shape)
    index = torch.arange(n, dtype=torch.float64)
    prior = Gaussian(0.3 * torch.sin(index), 0.6 * 0.85 ** (index[:, None] - index).abs(), op.shape)
    x = prior.sample(op.batch or 2, torch.Generator().manual_seed(0))
    y = op.forward(x)
    denoiser = prior.denoiser(schedule)
    sampler = Sampler(denoiser, op, solver, steps=4)
    got = sampler(y, seed=0)
    if op.batch is None:
        matrix = Matrix(dense(op, "forward", op.shape)[0], op.shape, measurement_shape=op.measurement_shape)
        close(got, Sampler(denoiser, matrix, solver, steps=4)(y, seed=0), 1e-8)
    assert relative_error(sampler(y.float(), seed=0), got) < 10 * TOLERANCE[torch.float32]
    consistent = Sampler(denoiser, op, solver, steps=4, hard_consistency=True)(y, seed=0)
    close(op.forward(consistent), y, 1e-9)
    assert sampler.sample(y, 2, seed=0, together=2).shape == (2, *x.shape)
