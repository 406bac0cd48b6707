"""Compose, compared with the dense product; SoftMask and BandLimit."""

from __future__ import annotations

import math

import pytest
import torch
from test_operators import close, dense, draw, image, measurement

from ccfast.operators import (
    AveragePooling,
    BandLimit,
    Bicubic,
    Compose,
    Denoising,
    FourierBlur,
    FourierDownsampling,
    GaussianBlur,
    Grayscale,
    Hadamard,
    Inpainting,
    LinearOperator,
    Matrix,
    SeparableBlur,
    SoftMask,
    soft_prefix,
)

SHAPE = (3, 8, 8)
LOW = (3, 4, 4)
ONE = [[1.0]]


def mask(*shape, seed=0):
    return draw(shape, seed) > -0.3


def tall(measurement_shape):
    return Matrix(draw((math.prod(measurement_shape), 12)), (1, 3, 4), measurement_shape=measurement_shape)


def kernel(*shape, seed=5):
    return draw(shape, seed).abs() / 9


PRODUCTS = [  # A row is (the class that is made or None, its kind, the operators).
    (Inpainting, "mask", lambda: [Inpainting(mask(*SHAPE)), Inpainting(mask(1, 8, 8, seed=1), SHAPE)]),
    (Inpainting, "mask", lambda: [Inpainting(mask(3, 1, 8, 8), SHAPE), Inpainting(mask(*SHAPE, seed=1))]),
    (Inpainting, "mask", lambda: [Inpainting(mask(1, 8, 8), SHAPE), Inpainting(mask(3, 1, 8, 8, seed=1), SHAPE)]),
    (SoftMask, "mask", lambda: [Inpainting(mask(*SHAPE)), SoftMask(draw((1, 8, 8), 1).abs(), SHAPE)]),
    (SoftMask, "mask", lambda: [SoftMask(draw((2, 9), 1).abs()), SoftMask(draw((1, 9), 2).abs(), (2, 9))]),
    (AveragePooling, "block", lambda: [AveragePooling(SHAPE, 2), AveragePooling(LOW, 2)]),
    (AveragePooling, "block", lambda: [Denoising(SHAPE), AveragePooling(SHAPE, 2), Denoising(LOW)]),
    (None, "separable", lambda: [GaussianBlur(SHAPE, std=0.6), Bicubic(SHAPE, 2)]),
    (None, "separable", lambda: [Bicubic(SHAPE, 2), SeparableBlur(LOW, [0.2, 0.6, 0.2], boundary="zero")]),
    (None, "separable", lambda: [GaussianBlur(SHAPE, std=0.6), AveragePooling(SHAPE, 2)]),
    (None, "separable", lambda: [AveragePooling((2, 24), 2), Bicubic((2, 12), 3), SeparableBlur((2, 4), [0.1, 0.9])]),
    (FourierBlur, "fourier", lambda: [FourierBlur(SHAPE, kernel(3, 3)), FourierBlur(SHAPE, kernel(2, 5, seed=6))]),
    (FourierBlur, "fourier", lambda: [BandLimit((2, 15), 0, 0.3), FourierBlur((2, 15), kernel(3, 4))]),
    (FourierDownsampling, "fourier", lambda: [FourierBlur(SHAPE, kernel(3, 3)), FourierDownsampling(SHAPE, ONE, 2)]),
    (
        FourierDownsampling,
        "fourier",
        lambda: [FourierDownsampling((2, 12, 18), kernel(3, 3), 2), FourierBlur((2, 6, 9), kernel(3, 2, 2))],
    ),
    (
        FourierDownsampling,
        "fourier",
        lambda: [FourierDownsampling((1, 24), kernel(5), 2), FourierDownsampling((1, 12), kernel(3), 3)],
    ),
    (FourierDownsampling, "fourier", lambda: [FourierBlur(SHAPE, kernel(3, 3)), AveragePooling(SHAPE, 4)]),
    (FourierDownsampling, "fourier", lambda: [AveragePooling((1, 12), 3), FourierBlur((1, 4), kernel(2))]),
    (None, "dense", lambda: [Grayscale(SHAPE), AveragePooling((1, 8, 8), 2)]),
    (None, "dense", lambda: [Bicubic(SHAPE, 2), Grayscale(LOW)]),
    (None, "dense", lambda: [Inpainting(mask(1, 8, 8), SHAPE), Grayscale(SHAPE)]),
    (None, "dense", lambda: [Grayscale(SHAPE), Inpainting(mask(3, 1, 8, 8), (1, 8, 8))]),
    (None, "dense", lambda: [GaussianBlur(SHAPE, std=0.6), Grayscale(SHAPE), Bicubic((1, 8, 8), 2)]),
    (None, "dense", lambda: [FourierBlur(SHAPE, kernel(3, 3, 3)), AveragePooling(SHAPE, 2), Grayscale(LOW)]),
    (Matrix, "dense", lambda: [AveragePooling(SHAPE, 2), Matrix(draw((7, 48)), LOW)]),
    (Matrix, "dense", lambda: [tall((2, 4, 4)), Grayscale((2, 4, 4), [1, 2])]),
    (Matrix, "dense", lambda: [Inpainting(mask(2, 3, 4)), Matrix(draw((5, 12)), (2, 3, 4))]),
    (None, "krylov", lambda: [Inpainting(mask(*SHAPE)), AveragePooling(SHAPE, 2)]),
    (None, "krylov", lambda: [Inpainting(mask(*SHAPE)), Grayscale(SHAPE)]),
    (None, "krylov", lambda: [Bicubic(SHAPE, 2), Inpainting(mask(3, 1, 4, 4), LOW)]),
    (None, "krylov", lambda: [AveragePooling((2, 4, 8), 2), Hadamard((2, 2, 4), [0, 3, 5])]),
    (None, "krylov", lambda: [tall((1, 4, 4)), LinearOperator(scaled, scaled, (1, 4, 4))]),
]  # fmt: skip


def scaled(x):
    return 3 * x


@pytest.mark.parametrize(("member", "kind", "build"), PRODUCTS)
def test_products(member, kind, build):
    """H, H^T, H+ and P are those of the dense product, and the shapes those of the chain."""
    operators = build()
    op = Compose(*operators, iterations=200)
    assert op.kind == kind
    assert member is None or type(op) is member
    batch = op.batch or 1
    h = torch.eye(math.prod(op.shape), dtype=torch.float64).expand(batch, -1, -1)
    for operator in operators:
        h = dense(operator, "forward", operator.shape) @ h
    assert op.measurement_shape == operators[-1].measurement_shape
    close(dense(op, "forward", op.shape), h, 1e-12)
    close(dense(op, "adjoint", op.measurement_shape), h.mT, 1e-12)
    x, y = image(op), measurement(op)
    pinv = torch.linalg.pinv(h, rtol=1e-11)
    condition = (torch.linalg.svdvals(h).max() * torch.linalg.svdvals(pinv).max()).item()
    scale = torch.linalg.svdvals(pinv).max()
    close(op.pinv(y).flatten(1)[..., None] / scale, pinv @ y.flatten(1)[..., None] / scale, 1e-13 * condition)
    close(op.project(x).flatten(1)[..., None], pinv @ h @ x.flatten(1)[..., None], 1e-13 * condition)


def test_order_is_that_of_application():
    pool, gray = AveragePooling((3, 8, 8), 2), Grayscale((3, 4, 4))
    x = draw((2, 3, 8, 8))
    close(Compose(pool, gray).forward(x), gray.forward(pool.forward(x)), 1e-13)
    with pytest.raises(ValueError, match=r"the first applied first, .* got Grayscale.* before AveragePooling"):
        Compose(gray, pool)


def test_one_operator_is_itself():
    op = Bicubic(SHAPE, 2)
    assert Compose(op) is op


def test_open_channels():
    """A mask for any number of channels takes its neighbours' number, and stays open where they are open, too."""
    open_mask = Inpainting(mask(1, 8, 8))
    assert Compose(open_mask, Grayscale(SHAPE)).shape == SHAPE
    assert Compose(Bicubic((2, 16, 16), 2), open_mask).measurement_shape == (2, 8, 8)
    both = Compose(open_mask, Inpainting(mask(1, 8, 8, seed=1)))
    assert both.any_channels
    assert open_mask.any_channels
    assert both.forward(torch.ones(2, 5, 8, 8)).shape == (2, 5, 8, 8)


def test_cutoff():
    blur = GaussianBlur((1, 32), std=1.5)
    twice = Compose(blur, blur)
    assert twice.singular_values.min() < 0.03
    assert Compose(blur, blur, cutoff=0.03).singular_values.min() >= 0.03
    circular = FourierBlur((1, 32), [0.2, 0.6, 0.2])
    s = Compose(circular, circular, cutoff=0.2).singular_values
    assert s[s > 0].min() >= 0.2


def test_repeat_keeps_the_parts():
    for op in (
        Compose(Inpainting(mask(2, 1, 8, 8), SHAPE), Grayscale(SHAPE)),
        Compose(Inpainting(mask(2, 1, 8, 8), SHAPE), AveragePooling(SHAPE, 2)),
    ):
        assert op.batch == 2
        x = image(op)
        close(op.repeat(2).forward(torch.cat([x, x])), torch.cat([op.forward(x)] * 2), 1e-14)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Compose(), ValueError, "Compose: operators must be at least one, got none"),
        (lambda: Compose(Denoising(SHAPE), 3), TypeError, "operators must be ccfast Operators, got int"),
        (lambda: Compose(Denoising(SHAPE), Denoising(LOW)), ValueError, "must each take what the one before gives"),
        (lambda: Compose(Denoising(SHAPE), cutoff=-1), ValueError, "Compose: cutoff must be"),
        (
            lambda: Compose(Inpainting(mask(2, *SHAPE)), Inpainting(mask(3, *SHAPE))),
            ValueError,
            r"parts for one number of images, got \[2, 3\]",
        ),
        (
            lambda: Compose(BandLimit((1, 16), 0, 0.1), BandLimit((1, 16), 0.2, 0.3)),
            ValueError,
            "cutoff must leave a frequency",
        ),
        (lambda: SoftMask([[0.5, -0.1]]), ValueError, "SoftMask: weights must not be negative, got values from -0.1"),
        (lambda: SoftMask([[0.0, 0.0]]), ValueError, "weights must have a positive value for every image, got none"),
        (lambda: SoftMask([[0.0, math.inf]]), ValueError, "weights must be finite"),
        (lambda: SoftMask([0.5, 0.1]), ValueError, r"weights must be \(C, H, W\)"),
        (lambda: SoftMask([[0.5, 0.1]], (1, 3)), ValueError, r"weights must be shape \(1, 3\)"),
        (lambda: soft_prefix(10, 5, 4), ValueError, "0 <= frozen <= end <= length and end > 0, got 5, 4, 10"),
        (lambda: soft_prefix(10, 0, 0), ValueError, "got 0, 0, 10"),
        (lambda: soft_prefix(10, 2, 11), ValueError, "got 2, 11, 10"),
        (lambda: BandLimit((1, 16), 0.3, 0.2), ValueError, "must have 0 <= low <= high and rate > 0, got 0.3, 0.2"),
        (lambda: BandLimit((1, 16), 0, math.nan), ValueError, "got 0.0, nan and 1.0"),
        (lambda: BandLimit((1, 16), 0, 1, rate=0), ValueError, "got 0.0, 1.0 and 0.0"),
        (
            lambda: BandLimit((1, 16), 0.07, 0.1),
            ValueError,
            r"must enclose a frequency of the signal \(a multiple of 0.0625 up to 0.5 in the last",
        ),
    ],
)
def test_errors(build, error, message):
    with pytest.raises(error, match=message):
        build()


# ---------------------------------------------------------------------------------------- SoftMask, BandLimit
def test_soft_mask_definition():
    weights = torch.tensor([[1.0, 0.5, 0.0, 2.0]], dtype=torch.float64)
    op = SoftMask(weights, (2, 4))
    x = draw((3, 2, 4))
    close(op.forward(x), x * weights, 0)
    close(op.pinv(op.forward(x)), x * (weights > 0), 1e-15)
    close(op.project(x), x * (weights > 0), 0)
    close(op.singular_values, weights, 0)
    ones = Inpainting([[1, 0, 1, 1]])
    for name in ("forward", "adjoint", "pinv", "project", "encode", "down"):
        close(getattr(SoftMask([[1, 0, 1, 1]]), name)(x), getattr(ones, name)(x), 0)


def test_soft_prefix():
    """It is 1 while frozen, 0 from the end on, and between them x (e^x - 1)/(e - 1) for x = 4/5, 3/5, 2/5, 1/5."""
    ramp = [4 / 5, 3 / 5, 2 / 5, 1 / 5]
    want = [1.0, 1.0, *(c * (math.exp(c) - 1) / (math.e - 1) for c in ramp), 0.0, 0.0, 0.0, 0.0]
    close(soft_prefix(10, 2, 6), torch.tensor([want], dtype=torch.float64), 1e-14)
    close(soft_prefix(4, 2, 2), torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64), 0)
    assert (soft_prefix(5, 0, 5)[0].diff() < 0).all()


def test_band_limit_definition():
    """The bounds in Hz include their bins, H is a projection, and sines in the band stay while others vanish."""
    n, rate = 50, 1000.0
    op = BandLimit((1, n), 60, 200, rate)
    x = draw((2, 1, n))
    spectrum = torch.fft.rfft(x)
    f = torch.fft.rfftfreq(n, dtype=torch.float64) * rate
    close(op.forward(x), torch.fft.irfft(spectrum * ((f > 59) & (f < 201)), n), 1e-13)
    assert op.singular_values.unique().tolist() == [0.0, 1.0]
    t = torch.arange(n, dtype=torch.float64) / rate
    for frequency, inside in ((60, 1), (200, 1), (140, 1), (40, 0), (220, 0), (500, 0), (0, 0)):
        wave = torch.cos(2 * math.pi * frequency * t + 0.3)[None, None]
        close(op.forward(wave), inside * wave, 1e-12)
        close(op.pinv(wave), inside * wave, 1e-12)
    whole = BandLimit((1, n), 0, math.inf)
    close(whole.forward(x), x, 1e-13)


def test_band_limit_of_images_is_radial():
    op = BandLimit((1, 16, 12), 0, 0.25)
    fy, fx = torch.fft.fftfreq(16, dtype=torch.float64), torch.fft.fftfreq(12, dtype=torch.float64)
    close(op.singular_values[0], ((fy[:, None] ** 2 + fx**2).sqrt() <= 0.25).double(), 0)
