"""Blurs and bicubic downsampling, compared with the tools that users make kernels and measurements with."""

from __future__ import annotations

import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage, signal

from ccfast import Denoiser, Sampler
from ccfast.operators import Bicubic, Blur, FourierBlur, FourierDownsampling, GaussianBlur, SeparableBlur, check_adjoint
from ccfast.operators.blur import fast_length
from ccfast.schedules import VP
from ccfast.solvers import DDS

SIDES = (9, 12)
SHAPE = (1, *SIDES)
RNG = np.random.default_rng(0)
IMAGE = RNG.random(SIDES)
KERNELS = {
    f"{h}x{w}": RNG.random((h, w)) / (0.5 * h * w) for h, w in [(3, 5), (4, 3), (2, 6), (1, 7), (1, 1), (13, 25)]
}
KERNELS = {name: kernel / kernel.sum() for name, kernel in KERNELS.items()}
TAPS = {str(n): RNG.random(n) for n in (1, 2, 5, 8, 31)}
TAPS = {name: taps / taps.sum() for name, taps in TAPS.items()}
X = torch.from_numpy(IMAGE)[None, None]
TIGHT = 1e-12  # Both sides are float64, with values in [0, 1].

# Each row holds our name of a border, then that of numpy.pad and that of scipy.ndimage.
BORDERS = [
    ("zero", "constant", "constant"),
    ("reflect", "symmetric", "reflect"),
    ("mirror", "reflect", "mirror"),
    ("replicate", "edge", "nearest"),
    ("circular", "wrap", "wrap"),
]
CONVENTIONS = {
    "correlation": (ndimage.correlate, ndimage.correlate1d),
    "convolution": (ndimage.convolve, ndimage.convolve1d),
}


def off(got, want):
    got = got[0, 0].numpy()
    assert got.shape == want.shape
    return np.abs(got - want).max()


def padded(image, before, after, mode):
    """The image as numpy.pad continues it, along both axes."""
    return np.pad(image, [(a, b) for a, b in zip(before, after, strict=True)], mode=mode)


# ---------------------------------------------------------------------------------------- conventions and borders
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("size", KERNELS)
def test_fourier_blur_is_scipys(size, convention):
    kernel = KERNELS[size]
    want = CONVENTIONS[convention][0](IMAGE, kernel, mode="wrap")
    assert off(FourierBlur(SHAPE, kernel, 0.0, convention=convention).forward(X), want) < TIGHT
    down = FourierDownsampling(SHAPE, kernel, 3, 0.0, convention=convention)
    assert off(down.forward(X), want[::3, ::3]) < TIGHT


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(("boundary", "numpys", "scipys"), BORDERS)
@pytest.mark.parametrize("taps", TAPS)
def test_separable_blur_is_scipys_and_numpys(taps, boundary, numpys, scipys, convention):
    kernel = TAPS[taps]
    operator = SeparableBlur(SHAPE, kernel, boundary=boundary, cutoff=0.0, convention=convention)
    want = IMAGE
    for axis in (0, 1):
        want = CONVENTIONS[convention][1](want, kernel, axis=axis, mode=scipys)
    got = operator.forward(X)
    assert off(got, want) < TIGHT
    # The same is computed by numpy.pad and a sum over the taps, each at the place that the convention gives it.
    n, middle = len(kernel), len(kernel) // 2
    before = middle if convention == "correlation" else n - 1 - middle
    canvas = padded(IMAGE, (before, before), (n - 1 - before,) * 2, numpys)
    flipped = kernel if convention == "correlation" else kernel[::-1]
    rows = sum(tap * canvas[k : k + SIDES[0]] for k, tap in enumerate(flipped))
    assert off(got, sum(tap * rows[:, k : k + SIDES[1]] for k, tap in enumerate(flipped))) < TIGHT


@pytest.mark.parametrize("center", [0, 1, 4])
def test_center_and_convention(center):
    """(Hx)_i = sum_k kernel[k] x[i - k + center], where SciPy moves the centre by its argument ``origin``."""
    kernel = TAPS["5"]
    operator = SeparableBlur((1, 12), kernel, center, "circular", 0.0, convention="convolution")
    want = [sum(kernel[k] * IMAGE[0, (i - k + center) % 12] for k in range(5)) for i in range(12)]
    np.testing.assert_allclose(operator.forward(X[:, :, 0])[0, 0].numpy(), want, atol=TIGHT)
    np.testing.assert_allclose(want, ndimage.convolve1d(IMAGE[0], kernel, mode="wrap", origin=center - 2), atol=TIGHT)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_valid_is_the_part_without_border(convention):
    """The image reaches beyond the border, as in the modes "valid" of scipy.signal and, for signals, numpy.convolve."""
    kernel = TAPS["5"]
    operator = SeparableBlur(SHAPE, kernel, boundary="valid", cutoff=0.0, convention=convention)
    assert operator.measurement_shape == (1, SIDES[0] - 4, SIDES[1] - 4)
    both = signal.convolve2d if convention == "convolution" else signal.correlate2d
    assert off(operator.forward(X), both(IMAGE, np.outer(kernel, kernel), mode="valid")) < TIGHT
    line = SeparableBlur((1, 12), kernel, boundary="valid", cutoff=0.0, convention="convolution")
    assert np.abs(line.forward(X[:, :, 0])[0, 0].numpy() - np.convolve(IMAGE[0], kernel, "valid")).max() < TIGHT


@pytest.mark.parametrize("std", [0.7, 2.0])
@pytest.mark.parametrize(("boundary", "numpys", "scipys"), BORDERS)
def test_gaussian_blur_is_scipys(std, boundary, numpys, scipys):
    radius = int(4 * std + 0.5)
    want = ndimage.gaussian_filter(IMAGE, std, mode=scipys, truncate=4.0)
    for convention in CONVENTIONS:  # Its taps are symmetric and odd in number.
        operator = GaussianBlur(SHAPE, std, 2 * radius + 1, boundary, cutoff=0.0, convention=convention)
        assert off(operator.forward(X), want) < TIGHT


def test_even_gaussians_follow_the_convention():
    one, other = (GaussianBlur((1, 12), 1.5, 6, "circular", 0.0, convention=c) for c in CONVENTIONS)
    line = X[:, :, 0]
    assert (one.forward(line) - other.forward(line)).abs().max() > 0.01
    torch.testing.assert_close(one.forward(line.flip(2)).flip(2), other.forward(line), rtol=0, atol=TIGHT)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # Torch warns about it.
def test_torchs_even_kernels_lie_one_pixel_further():
    """conv2d(padding="same") pads k // 2 after an even kernel and one less before it; FourierBlur does the opposite."""
    kernel = torch.from_numpy(TAPS["8"])
    same = torch.nn.functional.conv1d(X[:, :, 0], kernel[None, None], padding="same")
    operator = SeparableBlur((1, 12), kernel, center=3, boundary="zero", cutoff=0.0)
    torch.testing.assert_close(operator.forward(X[:, :, 0]), same, rtol=0, atol=TIGHT)


# ---------------------------------------------------------------------------------------- two dimensions
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(("boundary", "numpys", "scipys"), BORDERS)
@pytest.mark.parametrize("size", KERNELS)
def test_blur_is_scipys_and_numpys(size, boundary, numpys, scipys, convention):
    kernel = KERNELS[size]
    operator = Blur(SHAPE, kernel, boundary, 0.0, convention=convention)
    got = operator.forward(X)
    assert off(got, CONVENTIONS[convention][0](IMAGE, kernel, mode=scipys)) < TIGHT
    correlated = kernel if convention == "correlation" else kernel[::-1, ::-1]
    before = [n // 2 if convention == "correlation" else n - 1 - n // 2 for n in kernel.shape]
    canvas = padded(IMAGE, before, [n - 1 - b for n, b in zip(kernel.shape, before, strict=True)], numpys)
    assert off(got, signal.correlate2d(canvas, correlated, mode="valid")) < TIGHT
    check_adjoint(operator.forward, operator.adjoint, SHAPE, dtype=torch.float64)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_blur_of_a_canvas_is_scipys_valid(convention):
    """The scene beyond the border of the measurement is a part of the image, and nothing is assumed about it."""
    kernel = KERNELS["4x3"]
    operator = Blur(SHAPE, kernel, "valid", convention=convention)
    both = signal.convolve2d if convention == "convolution" else signal.correlate2d
    assert operator.measurement_shape == (1, SIDES[0] - 3, SIDES[1] - 2)
    assert off(operator.forward(X), both(IMAGE, kernel, mode="valid")) < TIGHT
    check_adjoint(operator.forward, operator.adjoint, SHAPE, dtype=torch.float64)


def test_blur_takes_the_form_with_singular_values_where_there_is_one():
    column, row = TAPS["5"], TAPS["8"]
    outer = np.outer(column, row)
    general = KERNELS["4x3"]
    kinds = {
        ("circular", "general"): (general, "fourier"),
        ("circular", "outer"): (outer, "fourier"),
        ("reflect", "outer"): (outer, "separable"),
        ("valid", "outer"): (outer, "separable"),
        ("mirror", "outer in float32"): (outer.astype(np.float32), "separable"),
        ("mirror", "outer in a tensor of float32"): (torch.from_numpy(outer).float(), "separable"),
        ("zero", "a column"): (column[:, None], "separable"),
        ("zero", "a row"): (row[None], "separable"),
        ("reflect", "box of bytes"): (np.full((3, 5), 255, np.uint8), "separable"),
        ("reflect", "outer, negative"): (-outer, "separable"),
        ("reflect", "outer, without a sum"): (np.outer(column, [1.0, 0.0, -1.0]), "separable"),
        ("reflect", "general"): (general, "krylov"),
        ("reflect", "outer in float16"): (outer.astype(np.float16), "krylov"),
        ("valid", "general"): (general, "krylov"),
    }
    x = torch.rand(2, 1, 12, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    modes = dict(zip([b[0] for b in BORDERS], [b[2] for b in BORDERS], strict=True))
    for (boundary, name), (kernel, kind) in kinds.items():
        operator = Blur((1, 12, 14), kernel, boundary, 0.0, normalize=False)
        assert operator.kind == kind, name
        if boundary != "valid":
            kernel = np.asarray(kernel, np.float64)
            want = ndimage.correlate(x[0, 0].numpy(), kernel, mode=modes[boundary])
            # A kernel in float32 is an outer product only up to the rounding of its own numbers.
            assert np.abs(operator.forward(x)[0, 0].numpy() - want).max() < 1e-6 * np.abs(kernel).sum(), name


def test_blur_with_a_kernel_for_each_image():
    kernels = np.stack([KERNELS["3x5"], RNG.random((3, 5)) / 7.5, RNG.random((3, 5)) / 7.5])
    x = torch.rand(3, 1, *SIDES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    operator = Blur(SHAPE, kernels, "mirror", normalize=False)
    assert operator.batch == 3
    for k in range(3):
        want = ndimage.correlate(x[k, 0].numpy(), kernels[k], mode="mirror")
        assert np.abs(operator.forward(x)[k, 0].numpy() - want).max() < TIGHT
    with pytest.raises(ValueError, match="holds parts for 3 images, got 2"):
        operator.forward(x[:2])


def test_blur_of_signals():
    line = X[:, :, 0]
    want = ndimage.convolve1d(IMAGE[0], TAPS["8"], mode="nearest")
    got = Blur((1, 12), TAPS["8"], "replicate", 0.0, convention="convolution").forward(line)
    np.testing.assert_allclose(got[0, 0].numpy(), want, atol=TIGHT)


@pytest.mark.parametrize("boundary", ["replicate", "valid"])
def test_a_blurred_photograph_is_restored(boundary):
    """A sampler runs on a kernel and border without singular values, and its result agrees with the measurement."""
    generator = torch.Generator().manual_seed(3)
    kernel = np.zeros((3, 4))
    kernel[0, 0], kernel[1, 1], kernel[2, 3] = 0.2, 0.7, 0.1
    operator = Blur((3, 12, 14), kernel, boundary)
    y = operator.forward(torch.rand(2, 3, 12, 14, generator=generator) * 2 - 1)
    denoiser = Denoiser(lambda x, t: 0.5 * x, VP())
    got = Sampler(denoiser, operator, steps=5, hard_consistency=True)(y, seed=0)
    assert got.shape == (2, 3, 12, 14)
    assert (operator.forward(got) - y).abs().max() < 1e-3  # 50 steps of conjugate gradients run in float32.
    assert Sampler(denoiser, operator, DDS(), noise_std=0.05)(y, seed=0).isfinite().all()


def test_fast_lengths_are_the_least_without_large_primes():
    def smooth(m):
        for prime in (2, 3, 5):
            while m % prime == 0:
                m //= prime
        return m == 1

    for n in range(1, 700):
        assert fast_length(n) == next(m for m in range(n, 2 * n + 1) if smooth(m))


# ---------------------------------------------------------------------------------------- bicubic
FACTORS = (2, 3, 4, 5, 7, 8)


def imresize(image, factor):
    """MATLAB's imresize(image, 1/factor, "bicubic"), written from its description, which counts pixels from one."""
    for axis in (0, 1):
        n = image.shape[axis]
        rows = []
        for u in range(1, n // factor + 1):
            middle = u * factor + 0.5 * (1 - factor)
            left = math.floor(middle - 2 * factor)
            places = np.arange(left, left + 4 * factor + 2)
            t = np.abs((middle - places) / factor)
            weights = np.where(t <= 1, 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2) * (t < 2)
            both = [*range(n), *range(n - 1, -1, -1)]
            row = np.zeros(n)
            for place, weight in zip(places, weights / weights.sum(), strict=True):
                row[both[(place - 1) % (2 * n)]] += weight
            rows.append(row)
        image = np.moveaxis(np.tensordot(np.stack(rows), image, (1, axis)), 0, axis)
    return image


def with_torch(x, factor):
    size = [n // factor for n in x.shape[2:]]
    return torch.nn.functional.interpolate(x, size=size, mode="bicubic", antialias=True)


@pytest.mark.parametrize("factor", FACTORS)
def test_bicubic_is_matlabs_at_the_borders_too(factor):
    image = np.random.default_rng(1).random((5 * factor, 6 * factor))
    got = Bicubic((1, *image.shape), factor).forward(torch.from_numpy(image)[None, None])
    assert off(got, imresize(image, factor)) < TIGHT


@pytest.mark.parametrize("factor", FACTORS)
def test_bicubic_is_torchs_and_pillows_inside(factor):
    pillow = pytest.importorskip("PIL.Image")
    image = np.random.default_rng(2).random((7 * factor, 9 * factor), dtype=np.float32)
    x = torch.from_numpy(image)[None, None]
    got = Bicubic((1, *image.shape), factor).forward(x)
    resized = np.asarray(pillow.fromarray(image).resize((9, 7), pillow.Resampling.BICUBIC))
    for want in (with_torch(x, factor), torch.from_numpy(resized.copy())[None, None]):
        difference = (got - want).abs()[0, 0]
        assert difference[2:-2, 2:-2].max() < 1e-6  # Both are float32.
        assert 1e-4 < difference.max() < 0.15


@pytest.mark.parametrize("factor", FACTORS)
def test_how_far_bicubic_is_from_torchs_at_the_borders(factor):
    """For images in [0, 1] the largest difference is the sum of the positive weights of the difference."""
    n = 8 * factor
    lines = torch.eye(n, dtype=torch.float64)[:, None]
    ours = Bicubic((1, n), factor).forward(lines)[:, 0].T
    theirs = torch.nn.functional.interpolate(
        lines[..., None].expand(-1, -1, -1, n), size=(8, n), mode="bicubic", antialias=True
    )[:, 0, :, 0].T
    difference = torch.einsum("ai,bj->abij", ours, ours) - torch.einsum("ai,bj->abij", theirs, theirs)
    worst = difference.clamp(min=0).sum((2, 3))
    assert worst[2:-2, 2:-2].max() < TIGHT
    assert 0.1 < worst.max() < 0.15


def test_bicubic_by_one_is_the_image():
    torch.testing.assert_close(Bicubic(SHAPE, 1).forward(X), X, rtol=0, atol=TIGHT)


# ---------------------------------------------------------------------------------------- sums of kernels
def box(n, dtype=np.float64):
    return np.full((n, n), 1, dtype)


BLURS = {
    "FourierBlur": lambda kernel, **options: FourierBlur((1, 12, 12), kernel, 0.0, **options),
    "FourierDownsampling": lambda kernel, **options: FourierDownsampling((1, 12, 12), kernel, 2, 0.0, **options),
    "Blur": lambda kernel, **options: Blur((1, 12, 12), kernel, "mirror", 0.0, **options),
    "SeparableBlur": lambda kernel, **options: SeparableBlur((1, 12, 12), np.diagonal(kernel), cutoff=0.0, **options),
}


@pytest.mark.parametrize("blur", BLURS)
def test_a_kernel_that_does_not_sum_to_one(blur):
    """The kernel is kept, and one warning at the caller's line says so; where ``normalize`` is given there is none."""
    build = BLURS[blur]
    with pytest.warns(
        UserWarning, match=rf"^{blur}: kernel sums to \d+, not to 1, .*normalize=True.*normalize=False"
    ) as w:
        kept = build(255 * box(3))
    assert [warning.filename for warning in w] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        meant, divided = build(255 * box(3), normalize=False), build(255 * box(3), normalize=True)
        right = build(box(3) / (3 if blur == "SeparableBlur" else 9))
    x = torch.rand(1, 1, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(kept.forward(x), meant.forward(x))
    torch.testing.assert_close(divided.forward(x), right.forward(x), rtol=0, atol=TIGHT)
    torch.testing.assert_close(divided.forward(torch.ones_like(x)).unique().mean().item(), 1.0, rtol=0, atol=TIGHT)


@pytest.mark.parametrize("blur", BLURS)
@pytest.mark.parametrize(
    "kernel",
    [
        box(3, np.uint8),
        box(3, bool),
        box(3, np.float32) * 77,
        (255 * box(3)).astype(np.uint8),
        (40000 * box(3)).astype(np.uint16),
        torch.ones(3, 3, dtype=torch.int64),
        torch.ones(3, 3, dtype=torch.bfloat16),
        torch.ones(3, 3, requires_grad=True),
        [[1, 1, 1]] * 3,
        box(6)[::-2, ::2],
    ],
    ids=["uint8", "bool", "float32", "bytes", "uint16", "int64", "bfloat16", "requires-grad", "lists", "view"],
)
def test_kernels_of_any_kind_are_normalised(blur, kernel):
    if isinstance(kernel, list | torch.Tensor):
        build = {**BLURS, "SeparableBlur": lambda k, **o: SeparableBlur((1, 12, 12), k[0], cutoff=0.0, **o)}[blur]
    else:
        build = BLURS[blur]
    want = BLURS[blur](box(3) / (3 if blur == "SeparableBlur" else 9))
    got = build(kernel, normalize=True)
    x = torch.rand(1, 1, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(got.forward(x), want.forward(x), rtol=0, atol=TIGHT)


def test_a_kernel_for_each_image_is_normalised_on_its_own():
    kernels = np.stack([box(3), 2 * box(3), -box(3)])
    ones = torch.ones(3, 1, 12, 12, dtype=torch.float64)
    got = FourierBlur((1, 12, 12), kernels, normalize=True).forward(ones)
    torch.testing.assert_close(got, ones, rtol=0, atol=TIGHT)
    kernels[0] /= 9
    with pytest.warns(UserWarning, match=r"kernel sums to 18 for images \[1, 2\]"):
        FourierBlur((1, 12, 12), kernels)


def test_three_digits_are_enough():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SeparableBlur((1, 12, 12), [0.333, 0.333, 0.333])
        FourierBlur((1, 12, 12), np.float32(box(5)) / 25)


def test_a_filter_for_edges():
    laplacian = [[0, 1, 0], [1, -4, 1], [0, 1, 0]]
    with pytest.warns(UserWarning, match="kernel sums to 0, not to 1, .*; normalize=False says that this is meant"):
        FourierBlur((1, 12, 12), laplacian)
    with pytest.raises(ValueError, match="normalize=True needs a kernel with a sum other than zero"):
        FourierBlur((1, 12, 12), laplacian, normalize=True)
    edges = FourierBlur((1, 12, 12), laplacian, normalize=False)
    assert edges.project(torch.ones(1, 1, 12, 12)).abs().max() < 1e-6


def test_blurs_pickle():
    for operator in (
        FourierBlur(SHAPE, KERNELS["4x3"], convention="convolution"),
        GaussianBlur(SHAPE, boundary="mirror"),
    ):
        again = pickle.loads(pickle.dumps(operator))
        assert torch.equal(again.forward(X), operator.forward(X))


NAN = float("nan")


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: FourierBlur(SHAPE, [[0.5, NAN]]), ValueError, "FourierBlur: kernel must be finite"),
        (lambda: SeparableBlur(SHAPE, [0.5, math.inf]), ValueError, "SeparableBlur: kernel must be finite"),
        (
            lambda: FourierBlur(SHAPE, np.zeros((3, 3))),
            ValueError,
            "kernel must have a tap that is not zero, got zeros",
        ),
        (
            lambda: FourierBlur(SHAPE, np.stack([box(3), 0 * box(3)]), normalize=False),
            ValueError,
            r"zeros only for images \[1\]",
        ),
        (lambda: FourierBlur(SHAPE, [["a"]]), TypeError, "kernel must be an array of numbers"),
        (lambda: FourierBlur(SHAPE, [[1j]]), TypeError, "kernel must be an array of real numbers"),
        (lambda: FourierBlur(SHAPE, None), TypeError, "kernel must be an array of numbers, got NoneType"),
        (lambda: FourierBlur(SHAPE, [[1.0]], normalize="yes"), ValueError, "normalize must be True, False or None"),
        (lambda: FourierBlur(SHAPE, [[1.0]], convention="conv"), ValueError, "must be one of correlation, convolution"),
        (lambda: GaussianBlur(SHAPE, convention=True), ValueError, "convention must be .*, got True"),
        (
            lambda: FourierBlur(SHAPE, [[1.0]], boundary="reflect"),
            ValueError,
            r"boundary must be 'circular', got 'reflect'; Blur\(shape, kernel, boundary='reflect'\)",
        ),
        (lambda: FourierDownsampling(SHAPE, [[1.0]], 3, boundary="zero"), ValueError, "boundary must be 'circular'"),
        (
            lambda: FourierBlur(SHAPE, np.ones((12, 9, 3), np.uint8)),
            ValueError,
            r"the bytes of a colour picture, shape \(12, 9, 3\); take one of its channels, kernel\[\.\.\., 0\]",
        ),
        (
            lambda: FourierBlur(SHAPE, torch.ones(12, 9, 4, dtype=torch.uint8)),
            ValueError,
            "the bytes of a colour picture",
        ),
        (lambda: FourierBlur(SHAPE, [0.5, 0.5]), ValueError, r"write SeparableBlur\(shape, kernel\)"),
        (lambda: SeparableBlur(SHAPE, box(3) / 9), ValueError, r"write Blur\(shape, kernel, boundary=...\)"),
        (lambda: SeparableBlur(SHAPE, box(3)[:, :1] / 3), ValueError, r"write kernel.ravel\(\) for a row or a column"),
        (
            lambda: SeparableBlur(SHAPE, [1.0], boundary="wrap"),
            ValueError,
            "boundary must be one of zero, reflect, mirror, .*, got 'wrap'; here this is called 'circular'",
        ),
        (lambda: GaussianBlur(SHAPE, boundary="BORDER_REFLECT_101"), ValueError, "'mirror', which does not repeat"),
        (lambda: GaussianBlur(SHAPE, boundary="symmetric"), ValueError, "'reflect', which repeats the edge"),
        (lambda: GaussianBlur(SHAPE, boundary="nearest"), ValueError, "here this is called 'replicate'"),
        (
            lambda: Blur(SHAPE, box(3) / 9, "wrap"),
            ValueError,
            "Blur: boundary must be .*; here this is called 'circular'",
        ),
        (
            lambda: Blur(SHAPE, np.eye(10) / 10, "valid"),
            ValueError,
            "not longer than the canvas, got .10, 10. taps for",
        ),
        (lambda: Blur(SHAPE, [[1.0, NAN]], "zero"), ValueError, "Blur: kernel must be finite"),
        (lambda: Blur(SHAPE, [0.5, 0.5], "zero"), ValueError, r"write SeparableBlur\(shape, kernel\)"),
        (lambda: Blur(SHAPE, box(3) / 9, iterations=0), ValueError, "iterations must be a positive integer, got 0"),
        (lambda: Blur(SHAPE, np.eye(3) / 3, tolerance=2), ValueError, r"tolerance must be in \[0, 1\), got 2"),
        (lambda: Blur(SHAPE, np.eye(3) / 3, convention="psf"), ValueError, "convention must be one of"),
        (lambda: GaussianBlur(SHAPE, boundary=4), ValueError, "boundary must be one of .*, got 4"),
        (
            lambda: GaussianBlur(SHAPE, taps=11, boundary="valid"),
            ValueError,
            r"'valid' needs a kernel that is not longer than the canvas, got \(11,\) taps for \(9,\)",
        ),
    ],
)
def test_errors_of_blurs(build, error, message):
    with pytest.raises(error, match=message):
        build()
