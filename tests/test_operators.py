"""The laws that every operator meets, direct definitions, the goldens, and the errors."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import KRYLOV_OPERATORS, OPERATORS, few_iterations

from ccfast.operators import (
    AveragePooling,
    Bicubic,
    Denoising,
    FourierBlur,
    FourierDownsampling,
    GaussianBlur,
    Grayscale,
    Inpainting,
    LinearOperator,
    Matrix,
    SeparableBlur,
)
from ccfast.operators.separable import Factor, Separable, correlation_factor

GOLDENS = sorted((Path(__file__).parent / "goldens").glob("*.npz"))


def draw(shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def image(op, seed=0, dtype=torch.float64):
    return draw((op.batch or 2, *op.shape), seed, dtype)


def measurement(op, seed=1, dtype=torch.float64):
    return draw((op.batch or 2, *op.measurement_shape), seed, dtype)


def close(got, want, tolerance):
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    scale = want.abs().max().clamp(min=1.0) if want.numel() else 1.0
    assert (got - want).abs().le(tolerance * scale).all(), f"off by {(got - want).abs().max() / scale:.3g}"


def dense(op, transform, shape):
    """The matrices (B, outputs, inputs) of one of the operator's transforms, B = 1 if all images share its parts."""
    n, batch = math.prod(shape), op.batch or 1
    eye = torch.eye(n, dtype=torch.float64).reshape(n, *shape).repeat_interleave(batch, 0)
    columns = getattr(op.repeat(n), transform)(eye)
    return columns.reshape(n, batch, -1).permute(1, 2, 0)


# ---------------------------------------------------------------------------------------- laws
def test_matrices(any_operator):
    """H^T, H+ and P equal those of the dense H."""
    op = any_operator
    h = dense(op, "forward", op.shape)
    pinv = torch.from_numpy(np.linalg.pinv(h.numpy(), rcond=1e-9))
    close(dense(op, "adjoint", op.measurement_shape), h.mT, 1e-12)
    close(dense(op, "pinv", op.measurement_shape), pinv, 1e-10)
    projection = dense(op, "project", op.shape)
    close(projection, pinv @ h, 1e-10)
    close(projection, projection.mT, 1e-10 if op.kind == "krylov" else 1e-12)


def test_singular_values(operator):
    """The singular values are those of the dense H, with their multiplicity."""
    op = operator
    h = dense(op, "forward", op.shape)
    coordinates = op.down(image(op)).shape[1:]
    values = op.singular_values.expand(op.batch or 1, *coordinates).flatten(1)
    assert op.singular_values.dtype == torch.float64
    for own, want in zip(values, torch.linalg.svdvals(h), strict=True):
        want = want[want > 1e-9]
        close(own[own > 0].sort(descending=True).values, want, 1e-12)
    assert len(torch.broadcast_shapes(op.singular_values.shape, coordinates)) == len(coordinates) + (
        op.batch is not None
    )


@pytest.mark.elsewhere
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_laws(any_operator, dtype, tolerance):
    op = any_operator
    x, y = image(op, 0, dtype), measurement(op, 1, dtype)
    hx, p = op.forward(x), op.project(x)
    assert hx.shape == y.shape
    assert op.image_shape(y) == x.shape
    close(op(x), hx, 0)
    left, right = (hx * y).double().sum(), (x * op.adjoint(y)).double().sum()
    assert abs(left - right) < 10 * tolerance * hx.double().norm() * y.double().norm()
    s = torch.linalg.svdvals(dense(op, "forward", op.shape))
    condition = (s.max() / s[s > 1e-9].min()).item()
    # Conjugate gradients compute P from H, not from orthonormal factors, so its error grows with the condition.
    projection = tolerance * (5 * condition if op.kind == "krylov" else 1)
    close(op.project(p), p, projection)
    close(op.lift(op.down(x)), p, projection)
    close(op.forward(p), hx, 5 * tolerance + projection)
    close(op.forward(op.pinv(hx)), hx, 5 * condition * tolerance)
    close(op.lift(op.encode(y)), op.pinv(y), 5 * condition * tolerance)
    close(op.encode(hx), op.down(x), 5 * condition * tolerance)
    close(op.pinv(hx), p, 5 * condition * tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_laws_of_coordinates(operator, dtype, tolerance):
    op = operator
    x = image(op, 0, dtype)
    hx, c = op.forward(x), op.down(x)
    condition = (op.singular_values.max() / op.singular_values[op.singular_values > 0].min()).item()
    close(op.down(op.lift(c)), c, 2 * tolerance)
    close(op.decode(op.scale(c, 1)), hx, 5 * tolerance)
    close(op.encode(op.decode(op.scale(c, 1))), c, 5 * condition * tolerance)


def test_coordinates(operator):
    """``lift`` and ``decode`` are isometries on the modes inside the range and ignore those outside of it."""
    op = operator
    c = draw(op.down(image(op)).shape)
    inside = c * (op.singular_values > 0)
    norm = inside.flatten(1).norm(dim=1)
    close(op.lift(c), op.lift(inside), 1e-14)
    close(op.decode(op.scale(c, 1)), op.decode(op.scale(inside, 1)), 1e-14)
    close(op.lift(inside).flatten(1).norm(dim=1), norm, 1e-12)
    close(op.decode(inside).flatten(1).norm(dim=1), norm, 1e-12)
    if op.kind != "channel" and op.kind != "block":  # There all modes are inside.
        close(op.decode(c), op.decode(inside), 1e-14)
    left = (op.decode(inside) * measurement(op)).sum()
    right = (op.scale(inside, 1) * op.encode(measurement(op))).sum()
    assert abs(left - right) < 1e-10 * (1 + abs(left))


@pytest.mark.elsewhere
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half(any_operator, dtype):
    """The result for half inputs is that of float32, rounded once to the dtype of the input."""
    op = any_operator
    x, y = image(op, 0, dtype), measurement(op, 1, dtype)
    for name, value in [(n, x) for n in ("forward", "project", "down")] + [
        (n, y) for n in ("adjoint", "pinv", "encode")
    ]:
        got, want = getattr(op, name)(value), getattr(op, name)(value.float())
        assert got.dtype == dtype
        close(got, want.to(dtype), 0)
    assert op.lift(op.down(x)).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_coordinates(operator, dtype):
    c = operator.down(image(operator, 0, dtype))
    assert operator.decode(c).dtype == dtype


@pytest.mark.elsewhere
def test_strides_and_purity(any_operator):
    """Any strides give the same values, and neither inputs nor outputs of H, H^T, H+, P share memory."""
    op = any_operator
    x, y = image(op), measurement(op)
    for name, value in [("forward", x), ("project", x), ("down", x), ("adjoint", y), ("pinv", y), ("encode", y)]:
        strided = torch.empty((*value.shape[:-1], 2 * value.shape[-1]), dtype=value.dtype)[..., ::2].copy_(value)
        swapped = value.transpose(1, -1).contiguous().transpose(1, -1)
        want, before = getattr(op, name)(value), value.clone()
        close(getattr(op, name)(strided), want, 1e-14)
        close(getattr(op, name)(swapped), want, 1e-14)
        assert torch.equal(value, before)
        if name not in ("down", "encode"):
            assert want.untyped_storage().data_ptr() != value.untyped_storage().data_ptr()


def test_empty_batch(any_operator):
    op = any_operator
    x, y = torch.empty((0, *op.shape)), torch.empty((0, *op.measurement_shape))
    if op.batch is not None:
        with pytest.raises(ValueError, match=f"holds parts for {op.batch} images, got 0"):
            op.forward(x)
        return
    assert op.forward(x).shape == y.shape
    assert op.project(x).shape == x.shape
    assert op.adjoint(y).shape == x.shape
    assert op.pinv(y).shape == x.shape
    c = op.down(x)
    assert op.encode(y).shape == c.shape
    assert op.lift(c).shape == x.shape
    if op.kind != "krylov":
        assert op.decode(c).shape == y.shape


@pytest.mark.elsewhere
def test_repeat(any_operator):
    op = any_operator
    if op.batch is None:
        assert op.repeat(3) is op
        return
    x, y = image(op), measurement(op)
    cached = op.forward(x)
    many = op.repeat(3)
    assert many.batch == 3 * op.batch
    assert op.batch == x.shape[0]
    close(many.forward(x.repeat(3, 1, *[1] * (x.ndim - 2))), cached.repeat(3, *[1] * (cached.ndim - 1)), 1e-14)
    close(many.pinv(torch.cat([y, y, y])), torch.cat([op.pinv(y)] * 3), 1e-13)
    with pytest.raises(ValueError, match=f"holds parts for {op.batch} images, got {op.batch + 1}"):
        op.forward(torch.zeros(op.batch + 1, *op.shape))
    with pytest.raises(ValueError, match="n must be a positive integer, got 0"):
        op.repeat(0)


def test_shapes_are_checked(any_operator):
    op, b = any_operator, any_operator.batch or 2
    image_maps, measurement_maps = (op.forward, op.project), (op.pinv, op.adjoint)
    for method in image_maps + measurement_maps:
        own = op.shape if method in image_maps else op.measurement_shape
        with pytest.raises(ValueError, match=rf"{type(op).__name__} takes shape \(B, .*got \({b}, "):
            method(torch.zeros((b, *own[:-1], own[-1] + 1)))
        with pytest.raises(ValueError, match="takes shape"):
            method(torch.zeros(own))
        with pytest.raises(TypeError, match=r"takes a floating point tensor, got torch\.int64"):
            method(torch.zeros((b, *own), dtype=torch.int64))
    assert type(op).__name__ in repr(op)
    assert op.kind in repr(op)


def test_inference_mode_and_autograd():
    """Constants made under inference_mode do not spoil a later backward, and P is differentiable."""
    for _, build in OPERATORS:
        with torch.inference_mode():
            op = build()
            op.project(image(op))
        x = image(op).requires_grad_()
        (grad,) = torch.autograd.grad(op.project(x).square().sum() / 2, x)
        close(grad, op.project(x.detach()), 1e-12)


def code_of(op):
    """The properties of an operator that decide which lines of it run, whatever its sizes and numbers."""
    return type(op), op.kind, op.batch is None, len(op.shape), getattr(op, "boundary", None)


ONE_OF_EACH = {code_of(build()): (name, build) for name, build in reversed(OPERATORS + KRYLOV_OPERATORS)}.values()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Torch's compiler warns.
@pytest.mark.parametrize("build", [build for _, build in ONE_OF_EACH], ids=[name for name, _ in ONE_OF_EACH])
def test_one_graph_under_torch_compile(build):
    """Every transform compiles to one graph, without a run before it that makes the constants."""
    torch.compiler.reset()
    op = few_iterations(build())

    def everything(x, y):
        return op.forward(x), op.adjoint(y), op.pinv(y), op.project(x)

    x, y = image(op, dtype=torch.float32), measurement(op, dtype=torch.float32)
    got = torch.compile(everything, backend="eager", fullgraph=True)(x, y)
    for one, other in zip(got, everything(x, y), strict=True):
        close(one, other, 1e-6)


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_default_dtype_is_not_used(default):
    def outputs():
        for _, build in OPERATORS + KRYLOV_OPERATORS:
            op = build()
            x, y = image(op, 0, torch.float32), measurement(op, 1, torch.float32)
            if op.kind != "krylov":
                yield op.singular_values
            yield from [op.forward(x), op.adjoint(y), op.pinv(y), op.project(x), op.down(x)]

    want = list(outputs())
    saved = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        got = list(outputs())
    finally:
        torch.set_default_dtype(saved)
    for a, b in zip(got, want, strict=True):
        close(a, b, 0)


def test_matmul_precision_is_not_used():
    op = GaussianBlur((1, 64, 64))
    x = image(op, 0, torch.float32)
    want = op.project(x)
    torch.set_float32_matmul_precision("medium")
    try:
        close(op.project(x), want, 1e-6)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


# ---------------------------------------------------------------------------------------- direct definitions
def source(i, n, boundary):
    """The pixel that index i stands for, None for zero, found by walking as in the definition."""
    if boundary == "zero":
        return i if 0 <= i < n else None
    while not 0 <= i < n:
        i = (i + n if i < 0 else i - n) if boundary == "circular" else (-1 - i if i < 0 else 2 * n - 1 - i)
    return i


def correlate(x, kernel, center, boundary, axis, stride=1, start=0):
    """y_i = sum_k kernel[k] x[start + stride i + k - center] along one axis."""
    x = np.moveaxis(x, axis, -1)
    n = x.shape[-1]
    y = np.zeros((*x.shape[:-1], n // stride))
    for i, k in itertools.product(range(n // stride), range(len(kernel))):
        j = source(start + stride * i + k - center, n, boundary)
        if j is not None:
            y[..., i] += kernel[k] * x[..., j]
    return np.moveaxis(y, -1, axis)


def correlate_circular(x, kernel):
    y = np.zeros_like(x)
    h, w = x.shape[-2:]
    for i, j, a, b in itertools.product(range(h), range(w), range(kernel.shape[0]), range(kernel.shape[1])):
        y[..., i, j] += kernel[a, b] * x[..., (i + a - kernel.shape[0] // 2) % h, (j + b - kernel.shape[1] // 2) % w]
    return y


@pytest.mark.parametrize("boundary", ["zero", "reflect", "circular"])
@pytest.mark.parametrize(("taps", "center"), [(1, None), (4, None), (5, 0), (5, 4), (31, None), (40, 3)])
def test_separable_blur_definition(boundary, taps, center):
    kernel = draw((taps,), 3).numpy()
    x = draw((2, 2, 7, 10))
    at = taps // 2 if center is None else center
    want = correlate(correlate(x.numpy(), kernel, at, boundary, -1), kernel, at, boundary, -2)
    op = SeparableBlur((2, 7, 10), kernel, center, boundary, cutoff=0.0)
    close(op.forward(x), torch.from_numpy(want), 1e-12)
    signal = x.flatten(2)[..., :10].contiguous()
    want = correlate(signal.numpy(), kernel, at, boundary, -1)
    close(SeparableBlur((2, 10), kernel, center, boundary, cutoff=0.0).forward(signal), torch.from_numpy(want), 1e-12)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_bicubic_definition(factor):
    def weight(x):
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    # The middle of block i is at pixel factor i + (factor - 1) / 2, half a pixel before a tap where factor is even.
    half = 0.5 if factor % 2 == 0 else 0.0
    taps = np.array([weight((i - 2 * factor + half) / factor) for i in range(4 * factor)])
    taps /= taps.sum()
    x = draw((2, 2, 3 * factor, 5 * factor))
    want = x.numpy()
    for axis in (-1, -2):
        want = correlate(want, taps, 2 * factor, "reflect", axis, stride=factor, start=factor // 2)
    close(Bicubic((2, 3 * factor, 5 * factor), factor).forward(x), torch.from_numpy(want), 1e-12)


@pytest.mark.parametrize("size", [(3, 3), (2, 5), (11, 4)])
def test_fourier_definition(size):
    kernel = draw(size, 3)
    x = draw((2, 2, 6, 9))
    want = correlate_circular(x.numpy(), kernel.numpy())
    close(FourierBlur((2, 6, 9), kernel, cutoff=0.0).forward(x), torch.from_numpy(want), 1e-12)
    down = FourierDownsampling((2, 6, 9), kernel, 3, cutoff=0.0)
    close(down.forward(x), torch.from_numpy(want[..., ::3, ::3].copy()), 1e-12)


def test_fourier_signal_definition():
    kernel = draw((2, 6), 3)
    x = draw((2, 3, 10))
    want = torch.stack(
        [torch.from_numpy(correlate(x[b].numpy(), kernel[b].numpy(), 3, "circular", -1)) for b in range(2)]
    )
    close(FourierBlur((3, 10), kernel, cutoff=0.0).forward(x), want, 1e-12)
    close(FourierDownsampling((3, 10), kernel, 2, cutoff=0.0).forward(x), want[..., ::2], 1e-12)


def test_fourier_blur_is_separable_blur():
    kernel = torch.tensor([0.1, 0.5, 0.3, 0.1], dtype=torch.float64)
    shape = (2, 9, 12)
    a = FourierBlur(shape, torch.outer(kernel, kernel), cutoff=0.0)
    b = SeparableBlur(shape, kernel, boundary="circular", cutoff=0.0)
    for name in ("forward", "adjoint", "pinv", "project"):
        close(getattr(a, name)(image(a)), getattr(b, name)(image(b)), 1e-10)


def test_per_image_kernels():
    kernels = draw((3, 3, 4), 3) / 4
    x = draw((3, 2, 6, 8))
    for build in (lambda k: FourierBlur((2, 6, 8), k), lambda k: FourierDownsampling((2, 6, 8), k, 2)):
        for name, value in [("forward", x), ("project", x), ("down", x)]:
            want = torch.cat([getattr(build(k), name)(v[None]) for k, v in zip(kernels, value, strict=True)])
            close(getattr(build(kernels), name)(value), want, 1e-12)


def test_truncated_modes_are_zero():
    """Noise outside the kept modes does not reach H+ y or P x, though the untruncated H would pass it on."""
    # k_hat is cos^2(pi f / n), which is 0.0381 at f = 7 n / 16 and 0 at n / 2.
    n, kernel = 16, [0.25, 0.5, 0.25]
    t = torch.arange(n, dtype=torch.float64)
    cut, kept = (torch.cos(2 * math.pi * f * t / n).expand(1, 1, n) for f in (7, 5))
    for op in (FourierBlur((1, n), kernel, 0.1), SeparableBlur((1, n), kernel, boundary="circular", cutoff=0.1)):
        for name in ("forward", "adjoint", "pinv", "project", "down", "encode"):
            assert getattr(op, name)(cut).abs().max() < 1e-13
        close(op.project(kept), kept, 1e-13)
        close(op.pinv(kept), kept / math.cos(math.pi * 5 / n) ** 2, 1e-12)
    pair = FourierDownsampling((1, n), kernel, 2, 0.1)
    close(pair.project(cut), 0 * cut, 1e-13)


def test_grayscale_and_pooling_definition():
    x = draw((2, 3, 4, 6))
    close(Grayscale((3, 4, 6)).forward(x), (0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2])[:, None], 1e-14)
    want = torch.stack([x[..., i::2, j::2] for i in range(2) for j in range(2)]).mean(0)
    op = AveragePooling((3, 4, 6), 2)
    close(op.forward(x), want, 1e-14)
    assert op.singular_values.unique().tolist() == [0.5]
    assert AveragePooling((3, 8), 4).singular_values.unique().tolist() == [0.5]


def test_inpainting_masks():
    mask = (draw((1, 4, 5)) > 0).int()
    op = Inpainting(mask)
    for channels in (1, 3, 4):
        x = draw((2, channels, 4, 5))
        close(op.forward(x), x * mask, 0)
        assert op.image_shape(x) == x.shape
    for other in (mask.bool(), mask.float(), mask.numpy(), mask.tolist()):
        close(Inpainting(other).singular_values, mask.double(), 0)
    mask.zero_()
    assert op.singular_values.any(), "the operator holds a mask of its own"
    assert Inpainting(torch.ones(2, 1, 4, 5)).batch == 2
    assert Inpainting(torch.ones(1, 3, 4, 5)).batch == 1
    assert Inpainting(torch.ones(2, 1, 5), shape=(3, 5)).batch == 2
    assert Inpainting(torch.ones(2, 1, 5)).shape == (2, 1, 5)
    assert Denoising((3, 4, 5)).kind == "mask"


def test_one_svd_for_a_square_image():
    correlation_factor.cache_clear()
    GaussianBlur((3, 20, 20), std=1.5, taps=9)
    GaussianBlur((1, 20, 20), std=1.5, taps=9)
    assert correlation_factor.cache_info().misses == 1


def test_dense_projection_only_where_it_is_cheaper():
    shape = (1, 32, 32)
    assert SeparableBlur(shape, [0.2, 1.0, 0.2]).dense_projection
    assert not GaussianBlur(shape).dense_projection
    assert not Bicubic(shape, 4).dense_projection


def test_backwards_views_and_lists():
    kernel = np.array([0.5, 0.3, 0.15, 0.05])
    x = draw((1, 1, 8))
    a, b = SeparableBlur((1, 8), kernel[::-1]), SeparableBlur((1, 8), kernel[::-1].tolist())
    close(a.forward(x), b.forward(x), 0)


# ---------------------------------------------------------------------------------------- goldens
@pytest.mark.parametrize("path", GOLDENS, ids=[path.stem for path in GOLDENS])
def test_goldens(path):
    data = np.load(path)
    case = json.loads(str(data["case"]))
    n = case["size"]
    t = torch.arange(-30, 30, dtype=torch.float64)
    gauss = torch.exp(-(t**2) / 18)
    op = {
        "bicubic4": lambda: Bicubic((3, n, n), 4),
        "box4": lambda: AveragePooling((3, n, n), 4),
        "color": lambda: Grayscale((3, n, n), [0.3333, 0.3334, 0.3333]),
        "mask": lambda: Inpainting(data["mask"]),
        "gauss": lambda: SeparableBlur((3, n, n), gauss / gauss.sum(), center=30, boundary="zero", cutoff=0.03),
    }[case["operator"]]()
    x = torch.from_numpy(data["x_true"])
    y = torch.from_numpy(data["y"]).reshape(x.shape[0], *op.measurement_shape)
    for got, want in [(op.forward(x).flatten(1), "hx"), (op.pinv(y), "pinv_y"), (op.project(x), "proj_x")]:
        want = torch.from_numpy(data[want]).double()
        assert got.shape == want.shape
        assert (got - want).norm() <= 1e-5 * want.norm()


def test_all_goldens_are_there():
    assert len(GOLDENS) == 6


# ---------------------------------------------------------------------------------------- errors
NAN = float("nan")
SHAPE = (3, 8, 12)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Denoising((8,)), ValueError, r"Denoising: shape must be \(C, H, W\) or \(C, L\).*got \(8,\)"),
        (lambda: AveragePooling((3, 0, 4), 2), ValueError, r"shape must be .*positive integers, got \(3, 0, 4\)"),
        (lambda: Grayscale((3, 4.0, 4)), ValueError, r"shape must be"),
        (
            lambda: Inpainting(torch.full((1, 4, 4), 0.5)),
            ValueError,
            "mask must hold 0 and 1 only, got values from 0.5",
        ),
        (lambda: Inpainting(torch.full((1, 4, 4), NAN)), ValueError, "mask must be finite"),
        (lambda: Inpainting(torch.zeros(1, 4, 4)), ValueError, "mask must have an observed pixel"),
        (
            lambda: Inpainting(torch.ones(2, 1, 2, 2) * torch.tensor([1, 0]).reshape(2, 1, 1, 1)),
            ValueError,
            r"got none for images \[1\]",
        ),
        (lambda: Inpainting(torch.ones(4)), ValueError, r"mask must be \(C, H, W\).*got \(4,\)"),
        (
            lambda: Inpainting(torch.ones(2, 8, 12), shape=SHAPE),
            ValueError,
            r"mask must be shape \(3, 8, 12\).*got \(2, 8, 12\)",
        ),
        (lambda: Inpainting(torch.ones(8, 12), shape=SHAPE), ValueError, r"mask must be shape .*got \(8, 12\)"),
        (lambda: Inpainting(torch.ones(1, 8, 13), shape=SHAPE), ValueError, r"got \(1, 8, 13\)"),
        (lambda: Inpainting("mask"), TypeError, "mask must be an array of numbers, got str"),
        (lambda: Inpainting(torch.ones(0, 3, 4, 4)), ValueError, r"mask must not be empty, got shape \(0, 3, 4, 4\)"),
        (
            lambda: AveragePooling(SHAPE, 3),
            ValueError,
            r"sides of shape must be divisible by factor 3, got \(3, 8, 12\)",
        ),
        (lambda: AveragePooling(SHAPE, 0), ValueError, "factor must be a positive integer, got 0"),
        (lambda: AveragePooling(SHAPE, 2.0), ValueError, "factor must be a positive integer, got 2.0"),
        (lambda: Bicubic(SHAPE, 3), ValueError, "Bicubic: the sides of shape must be divisible by factor 3"),
        (lambda: FourierDownsampling(SHAPE, torch.ones(1, 1), 8), ValueError, "divisible by factor 8"),
        (
            lambda: Grayscale((4, 8, 8)),
            ValueError,
            r"weights None \(Rec. 601\) needs shape with 3 channels, got \(4, 8, 8\)",
        ),
        (lambda: Grayscale(SHAPE, [1.0, 2.0]), ValueError, r"one number for each of 3 channels, got shape \(2,\)"),
        (lambda: Grayscale(SHAPE, [0, 0, 0]), ValueError, "weights must not all be zero"),
        (lambda: Grayscale(SHAPE, [1, NAN, 0]), ValueError, "weights must be finite"),
        (
            lambda: Grayscale(SHAPE, [1j, 0, 0]),
            TypeError,
            "weights must be an array of real numbers, got torch.complex128",
        ),
        (lambda: SeparableBlur(SHAPE, [[1.0]]), ValueError, r"kernel must be 1-D and not empty, got shape \(1, 1\)"),
        (lambda: SeparableBlur(SHAPE, []), ValueError, r"kernel must be 1-D and not empty, got shape \(0,\)"),
        (lambda: SeparableBlur(SHAPE, [[1.0], [1.0, 2.0]]), TypeError, "kernel must be an array of numbers, got list"),
        (
            lambda: SeparableBlur(SHAPE, [1.0, 1.0], center=2),
            ValueError,
            "center must be an index into the 2 taps of kernel, got 2",
        ),
        (lambda: SeparableBlur(SHAPE, [1.0, 1.0], center=0.5), TypeError, "center must be an integer or None, got 0.5"),
        (
            lambda: SeparableBlur(SHAPE, [1.0], boundary="wrap"),
            ValueError,
            "boundary must be one of zero, reflect, mirror, replicate, circular, valid, got 'wrap'",
        ),
        (lambda: SeparableBlur(SHAPE, [1.0], cutoff=-1), ValueError, "cutoff must be a finite number >= 0, got -1"),
        (
            lambda: SeparableBlur(SHAPE, [1.0], cutoff=2),
            ValueError,
            "cutoff must leave a singular value, got 2.0 with a largest one of 1",
        ),
        (lambda: SeparableBlur(SHAPE, [0.0], cutoff=0), ValueError, "kernel must have a tap that is not zero"),
        (
            lambda: Separable(SHAPE, [Factor(*[torch.ones(2, 2)] * 3)]),
            ValueError,
            r"factors must be for sides \(8, 12\), got \(2,\)",
        ),
        (lambda: GaussianBlur(SHAPE, std=0), ValueError, "std must be a finite number > 0, got 0"),
        (lambda: GaussianBlur(SHAPE, taps=0), ValueError, "taps must be a positive integer, got 0"),
        (lambda: GaussianBlur(SHAPE, cutoff=NAN), ValueError, "GaussianBlur: cutoff must be a finite number"),
        (lambda: FourierBlur(SHAPE, torch.ones(3)), ValueError, r"kernel must have 2 dimensions .*got shape \(3,\)"),
        (
            lambda: FourierBlur((3, 8), torch.ones(2, 3, 3)),
            ValueError,
            r"kernel must have 1 dimensions .*got shape \(2, 3, 3\)",
        ),
        (lambda: FourierBlur(SHAPE, torch.ones(0, 3)), ValueError, "kernel must have 2 dimensions"),
        (
            lambda: FourierBlur(SHAPE, torch.ones(3, 3), cutoff=10),
            ValueError,
            r"cutoff must leave a frequency, got 10.0 with a largest \|k_hat\| of 9",
        ),
        (
            lambda: FourierBlur(SHAPE, torch.zeros(3, 3), cutoff=0),
            ValueError,
            "kernel must have a tap that is not zero",
        ),
        (
            lambda: FourierDownsampling(SHAPE, torch.ones(3, 3), 2, cutoff=-1),
            ValueError,
            "FourierDownsampling: cutoff must be",
        ),
    ],
)
def test_errors(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_error_names_any_number_of_channels():
    with pytest.raises(ValueError, match=r"x: Inpainting takes shape \(B, C, 4, 5\), got \(2, 3, 4, 6\)"):
        Inpainting(torch.ones(1, 4, 5)).forward(torch.zeros(2, 3, 4, 6))


def test_repr_says_what_matters():
    known = {
        "AveragePooling((3, 6, 9) -> (3, 2, 3), kind='block', singular values 0.333)": AveragePooling((3, 6, 9), 3),
        "Inpainting((1, 2, 2) -> (1, 2, 2), kind='mask', 75.0% observed)": Inpainting([[[1, 1], [1, 0]]]),
        "Inpainting((1, 1, 2) -> (1, 1, 2), kind='mask', 75.0% observed, for 2 images)": Inpainting(
            [[[[1, 1]]], [[[1, 0]]]]
        ),
        "Matrix((1, 1, 2) -> (2,), kind='dense', singular values 1 to 3)": Matrix([[1.0, 0.0], [0.0, 3.0]], (1, 1, 2)),
    }
    for text, operator in known.items():
        assert repr(operator) == text
    linear = LinearOperator(lambda x: x, lambda y: y, (1, 2, 2))
    assert repr(linear) == "LinearOperator((1, 2, 2) -> (1, 2, 2), kind='krylov')"
