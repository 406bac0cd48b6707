"""The CUDA C++ backend against kernels/reference.py in float64, in the emulator, and on a GPU where there is one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from functools import cache

import emulated
import numpy as np
import pytest
import spoiled
import test_native
import torch
from conftest import OPERATORS, SMOOTH
from row_shorthand import TERMS, both, given, residual, update

from ccfast.engine import backends
from ccfast.kernels import banded, cuda, native, reference
from ccfast.kernels.row import Row, Weighted
from ccfast.operators import Bicubic, FourierBlur, FourierDownsampling, GaussianBlur, Inpainting, SeparableBlur
from ccfast.testing import LIBRARY

pytestmark = pytest.mark.skipif(native.REASON is not None, reason=f"no native code: {native.REASON}")
if native.REASON is None:
    from ccfast.kernels.cuda import bands, fourier, operations, ops, separable

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
KINDS = ("fourier", "separable")
SKEW = np.array([0.5, 0.3, 0.15, 0.05])


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def blur(*kernel_shape):
    """Kernels with positive taps, so skewed that a transposition or a wrong sign shows."""
    taps = torch.rand(kernel_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 3
    return taps / taps.sum((-2, -1), keepdim=True)


def fourier_member(height, width, channels=1, factor=1, images=()):
    kernel = blur(*images, 5, 4)
    if factor == 1:
        return FourierBlur((channels, height, width), kernel, 0.2)
    return FourierDownsampling((channels, height, width), kernel, factor, 0.1)


# These use our transforms, with every side as rows and as columns, mixed sides, odd numbers of planes, kernels of each
# image, and factors.
OWN = [
    ("64x64", lambda: fourier_member(64, 64, 3)),
    ("64x128", lambda: fourier_member(64, 128)),
    ("128x64-per-image", lambda: fourier_member(128, 64, 3, images=(2,))),
    ("256x64", lambda: fourier_member(256, 64)),
    ("64x256", lambda: fourier_member(64, 256)),
    ("512x64", lambda: fourier_member(512, 64)),
    ("64x512", lambda: fourier_member(64, 512)),
    ("1024x64", lambda: fourier_member(1024, 64)),
    ("64x1024", lambda: fourier_member(64, 1024)),
    ("2048x64", lambda: fourier_member(2048, 64)),
    ("64x2048", lambda: fourier_member(64, 2048)),
    ("512x512", lambda: fourier_member(512, 512)),
    ("64x64-by-2", lambda: fourier_member(64, 64, 3, 2)),
    ("64x128-by-4-per-image", lambda: fourier_member(64, 128, 3, 4, (2,))),
    ("128x64-by-8", lambda: fourier_member(128, 64, 1, 8)),
    ("256x64-by-4", lambda: fourier_member(256, 64, 1, 4)),
    ("512x64-by-4", lambda: fourier_member(512, 64, 1, 4)),
    ("1024x64-by-8", lambda: fourier_member(1024, 64, 1, 8)),
    ("2048x64-by-4", lambda: fourier_member(2048, 64, 1, 4)),
]
# These use torch's transforms between our passes.
OTHER = [
    ("60x64", lambda: fourier_member(60, 64, 3)),
    ("63x65-per-image", lambda: fourier_member(63, 65, 3, images=(2,))),
    ("32x32", lambda: fourier_member(32, 32)),
    ("1x7", lambda: FourierBlur((3, 1, 7), [SMOOTH], 0.4)),
    ("64x64-by-16", lambda: fourier_member(64, 64, 1, 16)),
    ("2048x64-by-8", lambda: fourier_member(2048, 64, 1, 8)),
    ("63x66-by-3", lambda: fourier_member(63, 66, 3, 3)),
    ("63x66-by-3-per-image", lambda: fourier_member(63, 66, 1, 3, (2,))),
    ("signal-4096", lambda: FourierBlur((2, 4096), SKEW, 0.2)),
    ("signal-128", lambda: FourierBlur((3, 128), SKEW, 0.2)),
    ("signal-64-by-4", lambda: FourierDownsampling((2, 64), SKEW, 4)),
]
BANDED = [
    ("bicubic-64x128", lambda: Bicubic((3, 64, 128), 4)),
    ("bicubic-72x60", lambda: Bicubic((2, 72, 60), 3)),
    ("bicubic-256x40", lambda: Bicubic((1, 256, 40), 2)),
    ("bicubic-256x256-by-8", lambda: Bicubic((1, 256, 256), 8)),
    ("bicubic-signal-1040", lambda: Bicubic((2, 1040), 8)),
    ("full-rank-zero", lambda: SeparableBlur((3, 33, 31), [0.1, 0.8, 0.1], boundary="zero")),
    ("full-rank-reflect", lambda: SeparableBlur((1, 65, 40), [0.1, 0.2, 0.7], boundary="reflect")),
    ("full-rank-circular", lambda: SeparableBlur((2, 41, 64), [0.1, 0.8, 0.1], boundary="circular")),
    ("full-rank-circular-skew", lambda: SeparableBlur((1, 16, 20), [0.05, 0.8, 0.1, 0.05], boundary="circular")),
    ("full-rank-signal", lambda: SeparableBlur((3, 33), [0.1, 0.8, 0.1], boundary="zero")),
]
LOW_RANK = [
    ("gaussian-63x65", lambda: GaussianBlur((3, 63, 65))),
    ("gaussian-1x7", lambda: GaussianBlur((2, 1, 7), std=1.0)),
    ("cut-500x3", lambda: SeparableBlur((3, 500, 3), SMOOTH, cutoff=0.4)),
    ("gaussian-signal", lambda: GaussianBlur((2, 40))),
]


@cache
def build(builder):
    return builder()


MEMBERS = [*OWN, *OTHER, *BANDED, *LOW_RANK, *((n, b) for n, b in OPERATORS if build(b).kind in KINDS)]


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    return emulated.load(tmp_path_factory.mktemp("emulated"))


@pytest.fixture(params=["emulator", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    """The device that the kernels run on; on the CPU the ops are those of the emulator."""
    if request.param == "cuda":
        why = cuda.reason(torch.device("cuda")) or (None if torch.cuda.is_available() else "no NVIDIA GPU")
        if why:
            # The emulator runs the same cases here, and `make gpu-check` runs these on a machine with a GPU.
            pytest.skip(f"the CUDA backend cannot run: {why}")
        return torch.device("cuda")
    for name, op in vars(request.getfixturevalue("library")).items():
        monkeypatch.setattr(ops, name, op)
    return torch.device("cpu")


@pytest.fixture(params=[builder for _, builder in MEMBERS], ids=[name for name, _ in MEMBERS])
def operator(request):
    return build(request.param)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


# The bound is for two transforms, whose rounding grows with log n, or three band matrices, all in float32.
TOLERANCE = 5e-6


def close(got, want):
    test_native.close(got.cpu(), want.cpu(), TOLERANCE)


def case(operator, dtype, device, batch=None):
    """The tensors of the nine terms: F, r and h in the network's dtype, the others in float32."""
    few = 1 if np.prod(operator.shape) > 2**15 else 2
    shape = (operator.batch or few if batch is None else batch, *operator.shape)
    names = ("x", "F", "r", "h", "ybar", "z")
    return {
        name: draw(*shape, seed=k).to(device, dtype if name in "Frh" else torch.float32) for k, name in enumerate(names)
    }


def double(tensors):
    return {name: tensor.cpu().double() for name, tensor in tensors.items()}


def poisoned(like, dtype):
    return torch.full(like.shape, torch.nan, dtype=dtype, device=like.device)


ROWS = {
    "common": {"x": 0.9, "F": -0.4, "r": 0.7, "h": 1.3, "Ph": -2.1},
    "general": {name: 0.3 * k - 1.0 for k, name in enumerate(TERMS)},
    "projections": {"Px": 0.5, "PF": -1.5},
    "elementwise": {"x": 0.9, "F": -0.4, "z": 0.3},
}


def check_residual(operator, tensors, dtype, table=None):
    x, F, ybar = tensors["x"], tensors["F"], tensors["ybar"]
    out, want = poisoned(x, dtype), torch.empty(x.shape, dtype=torch.float64)
    residual(cuda.bind(operator), x, F, ybar, 1.7, -0.6, out, table=table)
    residual(reference.bind(operator), x.cpu().double(), F.cpu().double(), ybar.cpu().double(), 1.7, -0.6, want)
    close(out, want)


def check_update(operator, tensors, dtype, row, table=None, numbers=None):
    """The result must be that of ``row`` and c_in = 0.8; ``numbers`` are given to the backend beside the table."""
    out, following = poisoned(tensors["x"], torch.float32), poisoned(tensors["x"], dtype)
    update(cuda.bind(operator), numbers or row, tensors, out, following, 0.8 if table is None else 7.0, table=table)
    want, want_following = (torch.empty(out.shape, dtype=torch.float64) for _ in range(2))
    update(reference.bind(operator), row, double(tensors), want, want_following, 0.8)
    close(out, want)
    close(following, want_following)


# ---------------------------------------------------------------------------------------- values
def test_values(operator, device):
    """A member is tried in one dtype, as the emulator takes long; test_rows tries small members in all dtypes."""
    dtype = DTYPES[sum(operator.shape) % 3]
    tensors = case(operator, dtype, device)
    check_residual(operator, tensors, dtype)
    check_update(operator, tensors, dtype, ROWS["general"])


SMALL = {
    "own": lambda: fourier_member(64, 64, 3),
    "own-by-2": lambda: fourier_member(64, 64, 3, 2),
    "other": lambda: fourier_member(12, 10, 3),
    "other-by-3": lambda: fourier_member(9, 12, 3, 3),
    "banded": lambda: Bicubic((3, 64, 32), 2),
    "low-rank": lambda: GaussianBlur((3, 9, 10)),
}
small = pytest.mark.parametrize("member", SMALL.values(), ids=SMALL)


@small
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows(member, dtype, device):
    operator = build(member)
    tensors = case(operator, dtype, device)
    check_residual(operator, tensors, dtype)
    for row in ROWS.values():
        check_update(operator, tensors, dtype, row)


@small
def test_strides(member, device):
    """The tensors are channels-last, half of a wider output's channels, transposed, or every second pixel."""
    operator, dtype = build(member), torch.bfloat16
    tensors = case(operator, dtype, device)
    shape = tensors["F"].shape
    tensors["F"] = torch.cat([tensors["F"], tensors["F"]], 1)[:, : shape[1]]
    tensors["r"] = tensors["r"].repeat_interleave(2, -1)[..., ::2]
    tensors["h"] = tensors["h"].to(memory_format=torch.channels_last)
    tensors["x"] = tensors["x"].transpose(-1, -2).contiguous().transpose(-1, -2)
    check_residual(operator, tensors, dtype)
    check_update(operator, tensors, dtype, ROWS["general"])


@small
def test_table(member, device):
    """The coefficients and c_in come from the table, not from the numbers that are given beside it."""
    operator = build(member)
    tensors = case(operator, torch.float32, device)
    row = ROWS["common"]
    numbers = [*(row.get(name, 0.0) for name in ("x", "F", "r", "h")), 0.0, 0.0, 0.0, row["Ph"], 0.8]
    table = torch.tensor(numbers, device=device)
    check_update(operator, tensors, torch.float32, row, table, dict.fromkeys(row, 5.0))


@small
def test_batches(member, device):
    """Buffers between two kernels follow the batch, and an empty batch is no work."""
    operator = build(member)
    bound = cuda.bind(operator)
    for batch in (3, 0, 1):
        tensors = case(operator, torch.float32, device, batch)
        out, want = torch.empty_like(tensors["x"]), torch.empty(tensors["x"].shape, dtype=torch.float64)
        update(bound, ROWS["general"], tensors, out, None, 1.0)
        update(reference.bind(operator), ROWS["general"], double(tensors), want, None, 1.0)
        close(out, want)


@pytest.mark.parametrize(
    "member",
    [*SMALL.values(), lambda: fourier_member(64, 64), lambda: fourier_member(12, 10), OWN[2][1], OTHER[1][1]],
    ids=[*SMALL, "own-1-channel", "other-1-channel", "own-per-image", "other-per-image"],
)
def test_no_image_changes_another(member, device):
    """No image that is huge or not finite changes another; an odd number of channels leaves a plane without a pair."""
    operator = build(member)
    bound = cuda.bind(operator)

    library = LIBRARY[torch.float32] if operator.kind == "fourier" or member is SMALL["low-rank"] else 0.0
    tensors = case(operator, torch.bfloat16, device, operator.batch or 3)
    spoiled.check(lambda t: both(bound, ROWS["general"], t).cpu(), tensors, library)


TENSORS = SMALL | {
    "own-per-image": OWN[2][1],
    "own-by-4-per-image": OWN[13][1],
    "other-per-image": OTHER[1][1],
    "other-by-3-per-image": OTHER[7][1],
    "signal": lambda: FourierBlur((3, 24), SKEW, 0.2),
    "signal-by-4": OTHER[10][1],
    "low-rank-67x80": lambda: GaussianBlur((3, 67, 80), std=1.0),
    "low-rank-signal": lambda: GaussianBlur((2, 40)),
    "bicubic-8-columns": lambda: Bicubic((1, 512, 8), 4),
}


@pytest.mark.parametrize("member", TENSORS.values(), ids=TENSORS)
def test_rows_with_tensors(member, device, monkeypatch):
    """Kernels read coefficients of images and elements, and those that are functions of the singular values."""
    operator = build(member)
    dtype = DTYPES[sum(operator.shape) % 3]
    tensors, own, bound = case(operator, dtype, device), reference.bind(operator), cuda.bind(operator)
    shape, wide = tensors["x"].shape, double(tensors)
    for row, modes in test_native.varied(operator, {name: t.cpu() for name, t in tensors.items()}):
        out, following = poisoned(tensors["x"], torch.float32), poisoned(tensors["x"], dtype)
        single, over = (test_native.cast(test_native.cast(c, torch.float32), device) for c in (row, modes))
        built, registers = given(single, tensors, over)
        built.spectral = True
        with monkeypatch.context() as patch:
            for name in ("down", "lift", "project"):
                patch.setattr(type(operator), name, None)
            bound.update(built, registers, out, following, 0.8, None)
        want = torch.empty(shape, dtype=torch.float64)
        update(own, row, wide, want, None, 0.8, modes)
        close(out, want)
        close(following, 0.8 * want)


@pytest.mark.parametrize("member", TENSORS.values(), ids=TENSORS)
def test_weighted_residual(member, device, monkeypatch):
    operator = build(member)
    dtype = DTYPES[sum(operator.shape) % 3]
    tensors = case(operator, dtype, device)
    arguments = tensors["x"], tensors["F"], tensors["ybar"]
    s = operator.singular_values
    weight = torch.where(s > 0, 0.3 + (s / s.max()).square(), 0.0)
    coordinates = operator.encode(draw(len(arguments[0]), *operator.measurement_shape, seed=5))
    out, want = poisoned(arguments[0], dtype), torch.empty(arguments[0].shape, dtype=torch.float64)
    weighted = Weighted(weight, coordinates)
    residual(reference.bind(operator), *(t.cpu().double() for t in arguments), 1.7, -0.6, want, weighted=weighted)
    bound = cuda.bind(operator)
    with monkeypatch.context() as patch:
        for name in ("down", "lift", "project"):
            patch.setattr(type(operator), name, None)
        weighted = Weighted(weight.float().to(device), coordinates.float().to(device), spectral=True)
        for _ in range(2):  # The second call has the spectra of the coordinates already.
            residual(bound, *arguments, 1.7, -0.6, out, weighted=weighted)
    close(out, want)


def test_an_image_that_is_too_high_for_a_block(device, monkeypatch):
    """Its operator projects between our kernels, and takes coefficients over the modes by its own transforms."""
    monkeypatch.setattr(separable, "LARGEST", 10)
    operator = GaussianBlur((3, 9, 10))
    assert isinstance(separable.separable_row(operator), separable.Projected)
    tensors = case(operator, torch.bfloat16, device)
    check_residual(operator, tensors, torch.bfloat16)
    check_update(operator, tensors, torch.bfloat16, ROWS["general"])
    modes = {"F": torch.where(operator.singular_values > 0.5, 1.0, 0.3)}
    out, want = poisoned(tensors["x"], torch.float32), torch.empty(tensors["x"].shape, dtype=torch.float64)
    update(cuda.bind(operator), {"x": 0.5}, tensors, out, None, 1.0, test_native.cast(modes, torch.float32))
    update(reference.bind(operator), {"x": 0.5}, double(tensors), want, None, 1.0, modes)
    close(out, want)


@pytest.mark.parametrize(
    "member", [SMALL["own"], SMALL["own-by-2"], SMALL["low-rank"]], ids=["own", "by-2", "low-rank"]
)
def test_factors_that_no_kernel_takes(member, device):
    """Factors that differ between modes of equal singular values, or more of them than a launch takes."""
    operator = build(member)
    tensors = case(operator, torch.float32, device)
    s = operator.singular_values
    any_factor = torch.where(s > 0, 0.5 + draw(*s.shape, seed=4).abs(), 0.0)
    registers = ("x", "F", "r", "h", "z", "ybar")
    for modes in ({"F": any_factor, "x": any_factor.square()}, dict.fromkeys(registers, any_factor)):
        out, want = torch.empty_like(tensors["x"]), torch.empty(tensors["x"].shape, dtype=torch.float64)
        row = {"x": 0.5, "Ph": 0.3}
        update(cuda.bind(operator), row, tensors, out, None, 1.0, test_native.cast(modes, torch.float32))
        update(reference.bind(operator), row, double(tensors), want, None, 1.0, modes)
        close(out, want)


@pytest.mark.parametrize("member", [SMALL["own"], SMALL["own-by-2"], OWN[2][1]], ids=["blur", "by-2", "per-image"])
def test_chunks(member, device, monkeypatch):
    """The scratch holds two pairs of planes here, so that a chunk may end in the middle of an image."""
    monkeypatch.setattr(fourier, "scratch_bytes", lambda _: 2 * 8 * 64 * 128)
    operator = build(member)
    check_update(operator, case(operator, torch.float32, device, operator.batch or 3), torch.float32, ROWS["general"])


def test_what_the_kernels_take():
    operator, image = build(SMALL["own"]), torch.ones(2)
    tensors = case(operator, torch.float32, torch.device("cpu"))

    def why(coefficients, *dtypes, modes=None):
        return cuda.takes(operator, given(coefficients, tensors, modes)[0], dtypes, 100)

    assert why(ROWS["general"], torch.float32, torch.bfloat16) is None
    assert "the state is torch.float64" in why(ROWS["general"], torch.float64)
    assert why({"x": 1.0, "h": image}, torch.float32, modes={"F": torch.ones(3)}) is None
    many = Row([((name, age), 1.0, None) for name in "xFrhz" for age in range(4)])
    assert "1 to 16 terms, and the row has 20" in cuda.takes(operator, many, (torch.float32,), 100)


def test_idempotent(device):
    """P P x = P x to rounding at the largest image of three planes that the emulator does in seconds."""
    operator = fourier_member(256, 128, 3)
    x = draw(1, *operator.shape, dtype=torch.float32).to(device)
    once, twice = torch.empty_like(x), torch.empty_like(x)
    bound = cuda.bind(operator)
    update(bound, {"Px": 1.0}, {"x": x}, once, None, 1.0)
    update(bound, {"Px": 1.0}, {"x": once}, twice, None, 1.0)
    close(twice, once.cpu().double())


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width", "factor"), [(2048, 64, 1), (64, 2048, 1), (1024, 256, 4)])
def test_large(height, width, factor, device):
    """The rounding of the longest transforms must be as small as that of float32 itself, in rows and in columns."""
    operator = fourier_member(height, width, 1, factor)
    x = draw(1, *operator.shape, dtype=torch.float32).to(device)
    out, want = torch.empty_like(x), operator.project(x.cpu().double())
    update(cuda.bind(operator), {"Px": 1.0}, {"x": x}, out, None, 1.0)
    assert (out.cpu().double() - want).norm() <= 5e-7 * want.norm()


# ---------------------------------------------------------------------------------------- which kernel is for what
def test_forms():
    """Our transforms take powers of two and factors that fit a block, bands what is narrow and well conditioned."""
    for name, builder in OWN:
        assert fourier.Fourier(build(builder)).own, name
    for name, builder in OTHER:
        assert not fourier.Fourier(build(builder)).own, name
    for name, builder in BANDED:
        assert isinstance(separable.separable_row(build(builder)), separable.Banded), name
    for name, builder in LOW_RANK:
        assert isinstance(separable.separable_row(build(builder)), separable.Products), name


def test_roots():
    """The roots are powers of exp(-2 pi i / n), in the order of fft.cuh."""
    assert [fourier.roots(n).numel() for n in sorted(fourier.SIDES)] == [24, 88, 152, 216, 728, 1240]
    want = [np.exp(-2j * np.pi * 2**q * m / 64) for q in range(3) for m in range(8)]
    want += [np.exp(-2j * np.pi * m / 128) for m in range(64)]
    # Both are float64, and differ by a few units in the last place of numbers of size 1.
    torch.testing.assert_close(fourier.roots(128), torch.tensor(np.array(want)), rtol=0, atol=1e-15)


@pytest.mark.parametrize("boundary", ["zero", "reflect", "circular"])
def test_bands(boundary):
    """A band matrix gives the matrix back, and its tiles hold what they say."""
    u, s, v = SeparableBlur((1, 37), [0.1, 0.2, 0.7], boundary=boundary).factors[0]
    matrix = (u * s) @ v.mT
    matrix = torch.where(matrix.abs() > 1e-12, matrix, 0.0)
    band = banded.band(matrix, circular=True)
    assert band.taps.shape[1] == 3
    back = torch.zeros_like(matrix)
    columns = (band.start[:, None] + torch.arange(band.taps.shape[1])) % band.columns
    assert torch.equal(back.scatter_add(1, columns, band.taps), matrix)
    for tile in bands.TILES:
        base, extent = bands.tiled(band, tile)
        for row, start in enumerate(band.start.tolist()):
            assert (start - int(base[row // tile])) % band.columns + band.taps.shape[1] <= extent
        assert int(base.max()) + extent < 2 * band.columns + band.taps.shape[1]


# ---------------------------------------------------------------------------------------- errors
def test_grad(device):
    operator = build(SMALL["own"])
    x = torch.zeros(1, *operator.shape, device=device, requires_grad=True)
    with torch.enable_grad(), pytest.raises(RuntimeError, match=r"cuda backend: .* pass x.detach\(\)"):
        update(cuda.bind(operator), {"x": 1.0}, {"x": x}, torch.empty_like(x), None, 1.0)


def test_errors(device):
    """The errors of every op say the name, the rule and what was given."""
    x, out = torch.zeros(1, 1, 64, 32, device=device), torch.empty(1, 1, 64, 32, device=device)
    z = torch.zeros(1, 64, 32, dtype=torch.complex64, device=device)
    m, table, stream = torch.zeros(1, 64, 32, device=device), torch.zeros(3, device=device), ops.stream(device)
    row = (out, None, [x], table, False, None, None)
    none, last = (None, None), (1.0, None, 1, stream)
    narrow = z[..., :16].contiguous()
    fails = [
        (
            r"powers of two from 64 to 2048, got \(1, 1, 64, 32\)",
            ops.fourier,
            (*row, *none, 1.0, None, m, m, m, z, 1, 1, stream),
        ),
        (
            r"table: must be of shape \(3\), got \(2\)",
            ops.finish,
            (out, None, [x], table[:2], False, *none, None, stream),
        ),
        (r"out: must not overlap terms\[0\]", ops.finish, (x, *row[1:], None, stream)),
        (r"out: must be contiguous", ops.finish, (out.mT.contiguous().mT, *row[1:], None, stream)),
        (r"terms: must be 1 to 16 tensors, got 0", ops.finish, (out, None, [], table, False, *none, None, stream)),
        (r"must be three \(ybar, x, F\), got 1", ops.finish, (out, None, [x], table, True, *none, None, stream)),
        (r"terms\[0\]: must be float32, bfl", ops.finish, (out, None, [x.double()], table, False, *none, None, stream)),
        (
            r"groups: must be a multiple of 1 images that divides 1 planes, got 2",
            ops.fourier_pack,
            (z, *row[2:], None, 2, stream),
        ),
        (
            r"spectrum: must be of shape \(1, 64, 32\), got \(1, 64, 16\)",
            ops.fourier_pack,
            (narrow, *row[2:], None, 1, stream),
        ),
        (
            r"constant: must be \(1 or groups, H, W\) with 1 groups of planes \(64, 32\), got \(64, 32\)",
            ops.fourier_multiply,
            (z, m[0], 1, None, *last),
        ),
        (
            r"must divide the sides of \(1, 64, 32\), got 3, 32",
            ops.fourier_alias,
            (z, z, 1, None, 1.0, None, 1, 3, 32, stream),
        ),
        (r"must be nine tensors and six numbers, got 0 and 0", ops.separable, (*row, [], [], [], [], m, stream)),
        (r"rows: must be two tensors, got 0", ops.products, (*row, *none, 1.0, None, [], [], m, stream)),
        (r"scaled: must be places of terms, got 1", ops.finish, (*row[:5], [m[0, 0, :1]], [1], None, stream)),
        (r"scales: must be \(B,\), .* to fit \(1, 1, 64, 32\)", ops.finish, (*row[:5], [m[0, 0]], [0], None, stream)),
        (
            r"sets: must be from 0 to 7, got 8",
            ops.fourier,
            (*row, [8], None, 1.0, None, m, m, m, z, 1, 1, stream),
        ),
        (r"factors: must be those of the last of 1 sets, got 2", ops.fourier_multiply, (z, m, 1, [m, m], *last)),
        (r"more: must come with factors", ops.fourier_multiply, (z, m, 1, None, 1.0, z.clone(), 1, stream)),
    ]
    for message, op, arguments in fails:
        with pytest.raises(RuntimeError, match=message):
            op(*arguments)


def test_schemas(device):
    """Every op writes the arguments that its schema says."""
    x = [draw(1, 3, 64, 64, seed=k, dtype=torch.float32).to(device) for k in range(2)]
    out, following = torch.empty_like(x[0]), torch.empty_like(x[0], dtype=torch.bfloat16)
    table, stream = torch.arange(5.0, device=device), ops.stream(device)
    row = (out, following, x, table, False, None, None)
    made = (build(SMALL["own"]), Bicubic((3, 64, 64), 4), GaussianBlur((3, 64, 64)))
    runs = [operations._KERNELS[o.kind](o) for o in made]
    calls = []

    def keep(op):
        return lambda *arguments: calls.append((op, arguments))

    with pytest.MonkeyPatch.context() as patch:
        for name in ("fourier", "separable", "products"):
            patch.setattr(ops, name, keep(getattr(ops, name)))
        for one in runs:
            one(*row[:5], None, None, stream)
    z = torch.zeros(2, 64, 64, dtype=torch.complex64, device=device)
    calls += [
        (ops.combine, (torch.empty_like(out), *row[2:], stream)),
        (ops.finish, (*row, x[0].clone(), stream)),
        (ops.fourier_pack, (z, *row[2:], None, 1, stream)),
        (ops.fourier_multiply, (z, z.real.clone()[:1], 1, None, 1.0, None, 1, stream)),
        (ops.fourier_alias, (z, z.clone()[:1], 1, None, 1.0, None, 1, 32, 32, stream)),
        (ops.fourier_unpack, (*row, False, z, 1, stream)),
    ]
    assert {op.name() for op, _ in calls} == {getattr(ops, name).name() for name in emulated.OPS}
    for op, arguments in calls:
        torch.library.opcheck(op, arguments, test_utils=("test_schema",))


# ---------------------------------------------------------------------------------------- choice of the backend
def test_backend():
    """The backend is the first in the order, and says why it does not run here."""
    assert next(iter(backends.BACKENDS)) == "cuda"
    with pytest.raises(ValueError, match=r"'cuda' cannot run on cpu: (it runs on CUDA devices only|installed without)"):
        backends.can_run("cuda", "cpu", raise_error=True)
    assert not backends.can_run("cuda", "cpu")


def test_other_kinds(monkeypatch):
    """Other kinds go to Triton's kernels, or without triton to the reference's, of which the sampler is told."""
    monkeypatch.setattr(cuda.triton, "reason", lambda device: "triton is not installed")
    operator = Inpainting(torch.ones(1, 4, 4))
    x, out = draw(1, 1, 4, 4), torch.empty(1, 1, 4, 4, dtype=torch.float64)
    bound = cuda.bind(operator)
    update(bound, {"x": 2.0}, {"x": x}, out, None, 1.0, table=torch.zeros(3))
    assert torch.equal(out, 2 * x)
    residual(bound, x, x, x, 1.0, 0.0, out, table=torch.zeros(2))
    assert torch.equal(out, torch.zeros_like(x))
    row, _ = given({"x": 2.0}, {"x": x})
    assert cuda.takes(operator, row, (torch.float32,), 16) == "triton is not installed"


# ---------------------------------------------------------------------------------------- what the compiler made of it
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024}
REGISTERS = 65536  # A multiprocessor has so many, and gives them to warps in units of 256.

SHOW = """
import importlib.util, json, sys, torch
spec = importlib.util.spec_from_file_location("_C", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(json.dumps(module.kernels()))
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The kernel rows of this installation, or where it has none and nvcc is here, of one that is built for them."""
    from ccfast import _C

    if _C.kernels():
        return _C.kernels()
    if shutil.which("nvcc") is None and "CUDA_HOME" not in os.environ:
        # The report is nvcc's. Without nvcc the library has no CUDA code, and the emulator still tests the values.
        pytest.skip("nvcc is not installed")
    folder, root = tmp_path_factory.mktemp("build"), emulated.ROOT
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CCFAST_")}
    command = [sys.executable, "setup.py", "build_ext", f"--build-lib={folder}/lib", f"--build-temp={folder}/temp"]
    subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)
    (module,) = (folder / "lib").rglob("_C*.so")
    done = subprocess.run([sys.executable, "-c", SHOW, module], check=True, capture_output=True, text=True)
    return [tuple(row) for row in json.loads(done.stdout)]


def test_compiled(compiled):
    """No kernel spills or has a stack, and its blocks fit the registers and shared memory of both architectures."""
    assert {row[2] for row in compiled} >= {80, 90}
    names = Counter(row[0] for row in compiled if row[2] == 90)
    assert names == {
        **{"rows_forward": 6, "rows_inverse": 6, "columns_multiply": 6, "columns_alias": 17, "banded": 9},
        **{"columns_factors": 6, "columns_alias_factors": 17, "product": 2, "rows_between": 3},
        **{"lincomb_combine": 2, "lincomb_finish": 2, "fourier_alias_planes": 1, "fourier_multiply_planes": 1},
        **{"fourier_pack_planes": 2, "fourier_unpack_planes": 2},
    }
    for name, variant, arch, threads, registers, spills, stack, shared, _ in compiled:
        what = f"{name}<{variant}> sm_{arch}: {registers} registers x {threads} threads, {shared} bytes shared"
        assert (spills, stack) == (0, 0), what
        resident = 512 if name.endswith("factors") else 768 if name in ("columns_alias", "product") else 1024
        # Registers must allow so many threads.
        assert -(-32 * registers // 256) * 256 * resident // 32 <= REGISTERS, what
        assert shared <= SHARED_LIMIT.get(arch, 99 * 1024), what
        if name in ("lincomb_combine", "lincomb_finish") and variant == "0":
            assert registers <= 32, what  # A multiprocessor then holds 2048 threads.


def test_compiled_is_shown(monkeypatch):
    """``ccfast config --kernels`` shows the rows of the library."""
    from ccfast import _C

    row = ("banded", "8, field_to_row", 90, 256, 40, 0, 0, 98304, 1)
    monkeypatch.setattr(_C, "kernels", lambda: [row, ("banded", "8, field_to_row", 80, 256, 40, 0, 0, 98304, 1)])
    (resource,) = cuda.resources(90)
    assert (resource.backend, resource.kernel, resource.variant, resource.blocks) == ("cuda", *row[:2], 6)


def test_import_leaves_cuda_alone():
    """Importing loads no driver and no runtime of CUDA beyond what torch has loaded."""
    script = """
import torch
loaded = lambda: {line.split()[-1] for line in open("/proc/self/maps") if "cuda" in line and ".so" in line}
before = loaded()
import ccfast
assert loaded() == before, loaded() - before
assert not torch.cuda.is_initialized()
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=emulated.ROOT)
