"""The native backend against kernels/reference.py in float64, torch's op checks, op counts, and threads."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as NF
from conftest import OPERATORS, SMOOTH
from recorder import Recorder
from row_shorthand import TERMS, both, given, residual, update
from torch.utils._python_dispatch import TorchDispatchMode

import ccfast
from ccfast.engine import backends
from ccfast.engine.graphs.waits import WAITS
from ccfast.engine.network import NetworkRun
from ccfast.kernels import native, reference
from ccfast.kernels.row import Row, Weighted
from ccfast.operators import (
    AveragePooling,
    Bicubic,
    Denoising,
    FourierBlur,
    FourierDownsampling,
    GaussianBlur,
    Grayscale,
    Inpainting,
    SeparableBlur,
)
from ccfast.operators.operator import Operator
from ccfast.solvers import DDNM, DDRM, LML, Conjugate
from ccfast.testing import LIBRARY

pytestmark = pytest.mark.skipif(native.REASON is not None, reason=f"native backend: {native.REASON}")
if native.REASON is None:
    from ccfast.kernels.banded import axes
    from ccfast.kernels.native import ops
    from ccfast.kernels.native.separable import Banded, LowRank, separable_row

GOLDENS = sorted((Path(__file__).parent / "goldens").glob("*.npz"))
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def mask(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.6


class Halved(Operator):
    """An operator of a kind without a kernel, whose P keeps the first half of the channels."""

    kind = "other"

    def __init__(self, shape):
        super().__init__(shape, (shape[0] // 2, *shape[1:]))
        self.singular_values = torch.ones(1, dtype=torch.float64)

    def down(self, x):
        return x[:, : self.shape[0] // 2]

    def lift(self, c):
        return torch.cat([c, torch.zeros_like(c)], 1)

    def encode(self, y):
        return y

    def decode(self, c):
        return c


AWKWARD = [
    ("mask-63x65", lambda: Inpainting(mask(3, 63, 65))),
    ("mask-1x7", lambda: Inpainting(mask(1, 1, 7), shape=(3, 1, 7))),
    ("mask-1000x3", lambda: Inpainting(mask(2, 1, 1000, 3), shape=(3, 1000, 3))),
    ("denoising-signal-4097", lambda: Denoising((2, 4097))),
    ("block-63x65", lambda: AveragePooling((3, 63, 65), 1)),
    ("block-63x66", lambda: AveragePooling((3, 63, 66), 3)),
    ("block-35x2100", lambda: AveragePooling((1, 35, 2100), 5)),
    ("block-1000x8", lambda: AveragePooling((3, 1000, 8), 8)),
    ("block-whole", lambda: AveragePooling((2, 60, 60), 60)),
    ("channel-63x65", lambda: Grayscale((3, 63, 65))),
    ("channel-1x7", lambda: Grayscale((5, 1, 7), [0.1, 0.4, 0.0, -0.2, 1.0])),
    ("channel-1000x3", lambda: Grayscale((3, 1000, 3))),
    ("bicubic-64x128", lambda: Bicubic((3, 64, 128), 4)),
    ("bicubic-1000x24", lambda: Bicubic((1, 1000, 24), 2)),
    ("bicubic-60x63", lambda: Bicubic((2, 60, 63), 3)),
    ("bicubic-signal-1040", lambda: Bicubic((2, 1040), 8)),
    ("gaussian-63x65", lambda: GaussianBlur((3, 63, 65))),
    ("gaussian-1x7", lambda: GaussianBlur((2, 1, 7), std=1.0)),
    ("separable-500x3", lambda: SeparableBlur((3, 500, 3), SMOOTH, cutoff=0.4)),
    ("separable-full-rank", lambda: SeparableBlur((3, 33, 31), [0.1, 0.8, 0.1], boundary="zero")),
    ("separable-full-rank-signal", lambda: SeparableBlur((3, 33), [0.1, 0.8, 0.1], boundary="zero")),
    ("fourier-63x65", lambda: FourierBlur((3, 63, 65), np.outer(SMOOTH, SMOOTH), 0.2)),
    ("fourier-1x7", lambda: FourierBlur((3, 1, 7), [SMOOTH], 0.4)),
    ("fourier-1000x3", lambda: FourierBlur((1, 1000, 3), np.outer(SMOOTH, [0.2, 0.6, 0.2]), 0.2)),
    ("fourier-63x66", lambda: FourierDownsampling((3, 63, 66), np.outer(SMOOTH, SMOOTH), 3)),
    ("other-kind", lambda: Halved((4, 9, 10))),
]
MEMBERS = [*OPERATORS, *AWKWARD]


@cache
def build(builder):
    """Build an operator once a session, since the SVDs of large members take longer than their tests."""
    return builder()


@pytest.fixture(params=[builder for _, builder in MEMBERS], ids=[name for name, _ in MEMBERS])
def operator(request):
    return build(request.param)


@pytest.fixture(autouse=True)
def no_grad():
    """Run without gradients, and restore the number of threads afterwards."""
    threads = torch.get_num_threads()
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


# Local kinds add at most nine products an element in float32, which keeps 1e-6 of the largest value. Separable and
# fourier rows pass two transforms, whose rounding grows with log n, and keep 5e-6.
def tolerance(operator):
    return 5e-6 if operator.kind in ("separable", "fourier") else 1e-6


def close(got, want, tolerance):
    """Half outputs may differ by one unit more, where float32 lies on the other side of a rounding border."""
    assert got.shape == want.shape
    if not want.numel():
        return
    bound = tolerance * want.abs().max().clamp(min=1.0)
    if got.dtype != torch.float32:
        smallest = torch.finfo(got.dtype).smallest_normal
        bound = bound + torch.finfo(got.dtype).eps * 2.0 ** want.abs().clamp(min=smallest).log2().floor()
    error = (got.double() - want).abs()
    assert not got.isnan().any()
    assert (error <= bound).all(), f"off by {(error / want.abs().max()).max():.3g} of the largest value"


def case(operator, dtype, batch=None):
    """The tensors of the nine terms, with random values: F, r and h in the network's dtype, the others in float32."""
    shape = (operator.batch or 2 if batch is None else batch, *operator.shape)
    names = ("x", "F", "r", "h", "ybar", "z")
    return {name: draw(*shape, seed=k).to(dtype if name in "Frh" else torch.float32) for k, name in enumerate(names)}


def poisoned(shape, dtype):
    return torch.full(shape, torch.nan, dtype=dtype)


def double(tensors):
    return {name: tensor.double() for name, tensor in tensors.items()}


ROWS = {
    "common": {"x": 0.9, "F": -0.4, "r": 0.7, "h": 1.3, "Ph": -2.1},
    "noisy": {"x": 0.9, "F": -0.4, "r": 0.7, "h": 1.3, "Ph": -2.1, "z": 0.3},
    "one_projection": {"x": 0.9, "F": -0.4, "r": 0.7, "h": 1.3},
    "general": {name: 0.3 * k - 1.0 for k, name in enumerate(TERMS)},
    "projections": {"Px": 0.5, "PF": -1.5},
    "input": {"x": 1.0},
}


def check_residual(operator, tensors, dtype):
    x, F, ybar = tensors["x"], tensors["F"], tensors["ybar"]
    out, want = poisoned(x.shape, dtype), torch.empty(x.shape, dtype=torch.float64)
    residual(native.bind(operator), x, F, ybar, 1.7, -0.6, out)
    residual(reference.bind(operator), x.double(), F.double(), ybar.double(), 1.7, -0.6, want)
    close(out, want, tolerance(operator))


def check_update(operator, tensors, dtype, row):
    shape = tensors["x"].shape
    out, following = poisoned(shape, torch.float32), poisoned(shape, dtype)
    update(native.bind(operator), row, tensors, out, following, 0.8)
    want, want_following = torch.empty(shape, dtype=torch.float64), torch.empty(shape, dtype=torch.float64)
    update(reference.bind(operator), cast(row, torch.float64), double(tensors), want, want_following, 0.8)
    close(out, want, tolerance(operator))
    close(following, want_following, tolerance(operator))


# ---------------------------------------------------------------------------------------- values
@pytest.mark.parametrize("dtype", DTYPES)
def test_residual(operator, dtype):
    check_residual(operator, case(operator, dtype), dtype)


@pytest.mark.elsewhere
@pytest.mark.parametrize("dtype", DTYPES)
def test_update(operator, dtype):
    tensors = case(operator, dtype)
    for row in ROWS.values():
        check_update(operator, tensors, dtype, row)


def varied(operator, tensors):
    """Rows with coefficients of each image or element and, where there are modes, over the modes."""
    shape = tensors["x"].shape
    image, some, whole = draw(shape[0], seed=7), draw(*shape[1:], seed=8), draw(*shape, seed=9)
    narrow = whole[:, :1, ..., :1]
    yield {"x": 0.9, "F": image, "r": -0.2}, None
    yield {"x": image, "PF": image.flip(0), "Ph": 0.4, "F": 0.3, "h": image}, None
    yield {"x": some, "r": narrow, "Pr": whole, "PF": some[:1], "h": 0.5}, None
    yield {name: image if k % 2 else 0.3 * k for k, name in enumerate(TERMS)}, None
    s = operator.singular_values
    modes = {name: torch.where(s > 0, 0.2 + 0.3 * k + s / s.max(), 0.0) for k, name in enumerate("xFrz")}
    yield {"x": 0.9, "F": -0.4, "r": 0.7, "h": 1.3, "Ph": -2.1}, modes
    yield {"x": 0.9, "z": image, "h": some}, {"r": modes["r"], "h": modes["x"]}


def cast(coefficients, dtype):
    return {name: c.to(dtype) if isinstance(c, torch.Tensor) else c for name, c in (coefficients or {}).items()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_with_tensors(operator, dtype, monkeypatch):
    """The backend runs rows with tensors as coefficients itself, without the reference's functions."""
    tensors = case(operator, dtype)
    shape, wide = tensors["x"].shape, double(tensors)
    for row, modes in varied(operator, tensors):
        want, want_following = (torch.empty(shape, dtype=torch.float64) for _ in range(2))
        update(reference.bind(operator), row, wide, want, want_following, 0.8, modes)
        out, following = poisoned(shape, torch.float32), poisoned(shape, dtype)
        with monkeypatch.context() as patch:
            patch.setattr(reference, "update", None)
            bound = native.bind(operator)
            update(bound, cast(row, torch.float32), tensors, out, following, 0.8, cast(modes, torch.float32))
        # A dense V adds rounding of its own.
        close(out, want, max(tolerance(operator), 2e-6))
        close(following, want_following, max(tolerance(operator), 2e-6))


@pytest.mark.parametrize("dtype", DTYPES)
def test_weighted_residual(operator, dtype, monkeypatch):
    tensors = case(operator, dtype)
    x, F = tensors["x"], tensors["F"]
    s = operator.singular_values
    weight = torch.where(s > 0, 0.3 + (s / s.max()).square(), 0.0)
    y = draw(len(x), *operator.measurement_shape, seed=5)
    coordinates, ybar = operator.encode(y), operator.pinv(y)
    want = torch.empty(x.shape, dtype=torch.float64)
    exact = Weighted(weight, coordinates)
    residual(reference.bind(operator), x.double(), F.double(), ybar, 1.7, -0.6, want, weighted=exact)
    out = poisoned(x.shape, dtype)
    monkeypatch.setattr(reference, "residual", None)
    weighted = Weighted(weight.float(), coordinates.float())
    residual(native.bind(operator), x, F, ybar.float(), 1.7, -0.6, out, weighted=weighted)
    close(out, want, 5e-6)


@pytest.mark.parametrize("scale", [0.0, torch.inf, torch.nan])
def test_a_coefficient_of_one_image_that_is_zero_or_not_finite(scale):
    """A scale that is zero or not finite changes no other image, and nothing beyond the terms is read."""
    operator = AveragePooling((3, 8, 12), 4)
    tensors = case(operator, torch.float32)
    row = {"Pr": 0.7, "x": torch.tensor([0.5, scale]), "F": torch.tensor([0.2, scale]), "h": torch.tensor([0.1, scale])}
    out, want = torch.empty(2, 3, 8, 12), torch.empty(2, 3, 8, 12, dtype=torch.float64)
    update(native.bind(operator), row, tensors, out, None, 1.0)
    update(reference.bind(operator), cast(row, torch.float64), double(tensors), want, None, 1.0)
    close(out[:1], want[:1], 1e-6)
    if scale == 0.0:
        close(out, want, 1e-6)
    else:
        assert not out[1].isfinite().any()


def test_what_the_kernels_take(operator):
    """``takes`` returns the reason for which a sampler leaves a row to the reference."""

    def why(row, *dtypes):
        built, _ = given(row, case(operator, torch.float32))
        return native.takes(operator, built, dtypes, 100)

    assert why(ROWS["general"], torch.float32, torch.bfloat16, torch.float16) is None
    assert "the state is torch.float64" in why(ROWS["general"], torch.float64)
    assert "do not read torch.float64" in why(ROWS["general"], torch.float32, torch.float64)
    assert "1 to 24 terms, and the row has 0" in why({}, torch.float32)
    long = Row([(("x", 0), torch.ones(2), None)] * 25)
    assert "1 to 24 terms, and the row has 25" in native.takes(operator, long, (torch.float32,), 100)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides(operator, dtype):
    """Tensors and coefficients are channels-last, half of a wider output's channels, or every second pixel."""
    tensors = case(operator, dtype)
    shape = tensors["F"].shape
    tensors["F"] = torch.cat([tensors["F"], tensors["F"]], 1)[:, : shape[1]]
    tensors["r"] = tensors["r"].repeat_interleave(2, -1)[..., ::2]
    if len(shape) == 4:
        tensors["h"] = tensors["h"].to(memory_format=torch.channels_last)
        tensors["x"] = tensors["x"].transpose(-1, -2).contiguous().transpose(-1, -2)
    check_residual(operator, tensors, dtype)
    check_update(operator, tensors, dtype, ROWS["general"])
    scale = draw(*shape, dtype=torch.float32).transpose(-1, -2).contiguous().transpose(-1, -2)
    check_update(operator, tensors, dtype, {"x": scale, "Pr": scale[:, :1], "h": scale[..., :1], "PF": 0.5})


def test_empty_batch(operator):
    if operator.batch is None:
        tensors = case(operator, torch.float32, batch=0)
        check_residual(operator, tensors, torch.float32)
        check_update(operator, tensors, torch.float32, ROWS["general"])


def test_other_batch_after(operator):
    """Buffers between two kernels follow the batch."""
    if operator.batch is None:
        bound = native.bind(operator)
        for batch in (3, 1):
            tensors = case(operator, torch.float32, batch)
            out, want = torch.empty_like(tensors["x"]), torch.empty(tensors["x"].shape, dtype=torch.float64)
            update(bound, ROWS["general"], tensors, out, None, 1.0)
            update(reference.bind(operator), ROWS["general"], double(tensors), want, None, 1.0)
            close(out, want, tolerance(operator))


def ours(operator):
    """Whether all arithmetic of a row is ours, with no library's product or transform between its kernels."""
    return operator.kind in ("mask", "block", "channel", "other") or (
        operator.kind == "separable" and isinstance(separable_row(operator), Banded)
    )


def same(got, want, operator):
    """Assert equal bits where all arithmetic is ours, and elsewhere the bound, as docs/promises.md says."""
    if ours(operator):
        assert torch.equal(got, want)
    else:
        close(got, want.double(), LIBRARY[torch.float32])


def results(operator, tensors):
    """An update and a residual of the native backend."""
    return both(native.bind(operator), ROWS["general"], tensors)


@pytest.mark.elsewhere
def test_threads_and_batch(operator):
    """The result of an image depends neither on the threads nor on the images around it."""
    copies = 8
    many = case(operator.repeat(copies), torch.float32, copies * (operator.batch or 1))
    together = results(operator.repeat(copies), many)
    for threads in (2, 3, 4):
        torch.set_num_threads(threads)
        same(results(operator.repeat(copies), many), together, operator)
    for k in (0, copies - 1):
        part = slice(k * (operator.batch or 1), (k + 1) * (operator.batch or 1))
        same(results(operator, {name: t[part] for name, t in many.items()}), together[part], operator)


@pytest.mark.elsewhere
def test_halves():
    """Every bfloat16 and float16 becomes torch's float, and floats near every rounding border become torch's halves."""
    for dtype in DTYPES[1:]:
        every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype).reshape(1, 1, -1)
        out = torch.empty(every.shape)
        ops.lincomb(out, None, 1.0, [every], [1.0], [], [])
        torch.testing.assert_close(out, every.float(), rtol=0, atol=0, equal_nan=True)
        bits = every.float().view(torch.int32)
        steps = (-1, 1, 0x0FFF, 0x1000, 0x1001, 0x7FFF, 0x8000)
        around = torch.cat([(bits + step).view(torch.float32) for step in steps], -1)
        back = torch.empty(around.shape, dtype=dtype)
        ops.lincomb(back, None, 1.0, [around], [1.0], [], [])
        torch.testing.assert_close(back, around.to(dtype), rtol=0, atol=0, equal_nan=True)


def test_separable_forms():
    """Bicubic is banded, but a blur that drops modes or is badly conditioned is not."""
    assert isinstance(separable_row(Bicubic((1, 64, 128), 4)), Banded)
    assert isinstance(separable_row(GaussianBlur((1, 64, 64))), LowRank)
    assert isinstance(separable_row(SeparableBlur((1, 64, 64), SMOOTH, cutoff=0.0)), LowRank)


# ---------------------------------------------------------------------------------------- linear combination
@pytest.mark.parametrize("count", range(1, 9))
def test_lincomb(count):
    """out = sum a_k c_k T_k for every kind of c_k: none, one for every sample, or one for every element."""
    shape = (3, 2, 17, 19)
    terms = [draw(*shape, seed=k, dtype=DTYPES[k % 3]) for k in range(count)]
    numbers = [0.5 - 0.3 * k for k in range(count)]
    scales = [draw(*(shape if k % 2 else shape[:1]), seed=90 + k, dtype=torch.float32) for k in range(count - 1)]
    scaled = list(range(1, count))
    out, following = poisoned(shape, torch.float32), poisoned(shape, torch.bfloat16)
    ops.lincomb(out, following, -0.5, terms, numbers, scales, scaled)
    want = numbers[0] * terms[0].double()
    for scale, k in zip(scales, scaled, strict=True):
        factor = scale.double()
        want += numbers[k] * (factor if factor.ndim > 1 else factor[:, None, None, None]) * terms[k].double()
    close(out, want, 1e-6)
    close(following, -0.5 * want, 1e-6)


# ---------------------------------------------------------------------------------------- noise
def test_philox_words():
    """The words are the known answers of Random123 and those of the reference."""
    assert ops.philox([0] * 4, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    rng = np.random.default_rng(0)
    for _ in range(100):
        counter, key = rng.integers(0, 1 << 32, 4).tolist(), int(rng.integers(0, 1 << 63)) * 2 + 1
        bits = reference.seed_words([key], torch.device("cpu"))[0]
        words = reference.philox([torch.tensor(c) for c in counter], bits)
        assert ops.philox(counter, key) == [int(word) for word in words]


@pytest.mark.elsewhere
@pytest.mark.parametrize("shape", [(3, 3, 63, 65), (2, 1, 1, 7), (1, 2, 4099), (4, 1, 1, 1)])
def test_normal(shape):
    batch = shape[0]
    seeds = reference.seed_words([2**64 - 1 - 12345 * k for k in range(batch)], torch.device("cpu"))
    samples, draws = torch.arange(batch), torch.arange(batch) * 2**30
    out, want = poisoned(shape, torch.float32), torch.empty(shape)
    native.normal(out, seeds, samples, draws, 3)
    reference.normal(want, seeds, samples, draws, 3)
    # R (at most 5.8), sine and cosine may each differ by one unit in the last place.
    torch.testing.assert_close(out, want, rtol=0, atol=1e-6)


@pytest.mark.elsewhere
def test_normal_threads():
    zeros, results = torch.zeros(2, dtype=torch.int64), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(native.normal(torch.empty(2, 3, 128, 128), zeros, torch.arange(2), zeros, 1))
    assert torch.equal(*results)


# ---------------------------------------------------------------------------------------- torch's view of the ops
def small_calls():
    """A small call of every op, as (op, arguments)."""
    x = draw(2, 3, 8, 8, dtype=torch.float32)
    half, out = x.to(torch.bfloat16), torch.zeros_like(x)
    row = (out, torch.zeros_like(half), 0.5, [x, half], [1.0, 2.0])
    bicubic = separable_row(Bicubic((3, 8, 8), 2))
    if not isinstance(bicubic, Banded):
        bicubic = Banded([native.separable.parts(axis) for axis in axes(Bicubic((1, 32, 32), 2), circular=False)])
    z = torch.zeros(4, 8, 8, dtype=torch.complex64)  # They pack two images of three channels.
    words = torch.arange(2)
    scratch = torch.zeros(2, 3, *bicubic.low)
    big = [draw(2, 3, 2 * bicubic.low[0], 2 * bicubic.low[1], dtype=torch.float32)]
    big_out = torch.zeros_like(big[0])
    projected, scales = [0.0, 3.0], ([torch.ones(2), torch.ones(3, 1, 8)], [1, 0])
    return [
        (ops.lincomb, (*row, *scales)),
        (ops.mask, (*row, projected, *scales, torch.ones(1, 8, 8))),
        (ops.block, (*row, projected, *scales, 2, 4)),
        (ops.channel, (*row, projected, *scales, torch.ones(3))),
        (ops.separable, (big_out, None, 1.0, big, [1.0], [1.0], [], [], bicubic.rows, bicubic.columns, scratch)),
        (ops.fourier_pack, (z, [x, half], projected, *scales, 2)),
        (ops.fourier_multiply, (z, z.clone(), torch.ones(1, 8, 8), 2)),
        (ops.fourier_alias, (z, z.clone(), torch.ones(1, 8, 8, dtype=torch.complex64), 2, 4, 4)),
        (ops.fourier_unpack, (*row, *scales, z, 2)),
        (ops.normal, (out, words, words, words, 0)),
    ]


def test_opcheck():
    """Every op passes torch's checks of its schema, fake and functionalization on small inputs."""
    calls = small_calls()
    assert {op for op, _ in calls} == {
        getattr(ops, n) for n in ops.__all__ if n not in ("Scratch", "build_info", "philox", "writes_only")
    }
    for op, args in calls:
        torch.library.opcheck(op, args)


def test_ops_refuse_gradients():
    """An op refuses tensors that require grad, whichever they are, unless grad mode is off."""
    for op, args in small_calls():
        op(*args)
        places = [(k, None) for k, a in enumerate(args) if isinstance(a, torch.Tensor)]
        places += [(k, j) for k, a in enumerate(args) if isinstance(a, list) for j in range(len(a))]
        for k, j in places:
            tensor = args[k] if j is None else args[k][j]
            if not isinstance(tensor, torch.Tensor) or not (tensor.is_floating_point() or tensor.is_complex()):
                continue
            leaf = tensor.clone().requires_grad_()
            changed = list(args)
            changed[k] = leaf if j is None else [*args[k][:j], leaf, *args[k][j + 1 :]]
            op(*changed)
            with torch.enable_grad(), pytest.raises(RuntimeError, match=r"an input requires grad; pass x\.detach"):
                op(*changed)


def test_gradient_raises():
    op = Inpainting(mask(1, 8, 8))
    x, out = draw(1, 1, 8, 8, dtype=torch.float32), torch.empty(1, 1, 8, 8)
    with torch.enable_grad():
        for call in (
            lambda t: residual(native.bind(op), x, t, x, 1.0, 1.0, out),
            lambda t: update(native.bind(op), {"x": 1.0, "Ph": 2.0}, {"x": x, "h": t}, out, None, 1.0),
            lambda t: native.denoised(x, t, 1.0, 1.0),
        ):
            call(x)
            with pytest.raises(RuntimeError, match="requires grad"):
                call(x.clone().requires_grad_())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"out": torch.empty(1, 3, 8, 9)}, "out: must be of the terms' shape"),
        ({"out": torch.empty(1, 3, 8, 8, dtype=torch.float64)}, "out: must be float32"),
        ({"out": torch.empty(1, 3, 8, 8).mT}, "out: must be contiguous"),
        ({"terms": []}, "terms: must be 1 to 24"),
        ({"terms": [torch.empty(1, 3, 8, 8)] * 2}, "direct: must be one number for each term"),
        ({"scales": ([torch.ones(2)], [0])}, r"scales: must be .* to fit \(1, 3, 8, 8\), got \(2\)"),
        ({"scales": ([torch.ones(3, 8, 4)], [0])}, r"scales: must be .*, got \(3, 8, 4\)"),
        ({"scales": ([torch.ones(1)], [1])}, "scaled: must be places of terms, got 1"),
        ({"scales": ([torch.ones(1)] * 2, [0, 0])}, "scaled: must differ, got 0 twice"),
        ({"scales": ([torch.ones(1)], [])}, "scaled: must be one place for each of scales, got 0"),
        ({"scales": ([torch.ones(1).double()], [0])}, "scales: must be float32 on the CPU"),
        ({"mask": torch.ones(1, 8, 9)}, "mask: must fit out"),
        ({"mask": torch.ones(2, 3, 8, 8)}, "mask: must fit out"),
        ({"mask": torch.ones(2, 8, 8)}, "mask: must fit out"),
    ],
)
def test_errors(change, match):
    args = {
        "out": torch.empty(1, 3, 8, 8),
        "terms": [torch.empty(1, 3, 8, 8)],
        "scales": ([], []),
        "mask": torch.ones(1, 8, 8),
    } | change
    with pytest.raises(RuntimeError, match=match):
        ops.mask(args["out"], None, 1.0, args["terms"], [1.0], [1.0], *args["scales"], args["mask"])


def test_output_is_no_term():
    """No output may be a term, except in a linear combination of contiguous float32 tensors, which is elementwise."""
    x, y = torch.ones(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.5)
    ops.lincomb(x, None, 1.0, [y, x], [1.0, 3.0], None, None)
    assert torch.equal(x, torch.full_like(x, 3.5))
    half = y.bfloat16()
    for call in (
        lambda: ops.mask(x, None, 1.0, [x], [1.0], [1.0], None, None, torch.ones(1, 4, 4)),
        lambda: ops.lincomb(x, None, 1.0, [x.mT], [1.0], None, None),
        lambda: ops.lincomb(half, None, 1.0, [half], [1.0], None, None),
    ):
        with pytest.raises(RuntimeError, match=r"out: must not overlap terms\[0\]"):
            call()


def freed(tensor):
    tensor.untyped_storage().resize_(0)
    return tensor


def identity(taps=1, start=0):
    """An axis of four rows whose H is the identity; ``taps`` and ``start`` change the rows of H."""
    ones, rows = torch.ones(4, 1), torch.arange(4)
    return [ones.expand(4, taps).contiguous(), rows + start, ones, rows, torch.eye(4)]


def wrong_calls():
    """Calls with buffers that do not fit, as (message, op, arguments)."""
    x, out, memory = torch.ones(1, 1, 4, 4), torch.empty(1, 1, 4, 4), torch.zeros(64)
    row, projected, words = ([x], [1.0]), [1.0], torch.zeros(1, dtype=torch.int64)
    row_out, none, mask = (out, None, 1.0), (None, None), torch.ones(1, 4, 4)
    z = torch.zeros(1, 4, 4, dtype=torch.complex64)
    part, beside = memory[:16].view(1, 1, 4, 4), memory[8:24].view(1, 1, 4, 4)
    last = memory[31:32].view(1, 1, 1, 1).expand(1, 1, 4, 4)
    within = memory[16:32].view(1, 1, 4, 4)
    return [
        ("terms.0.: must lie inside its storage", ops.lincomb, (*row_out, [freed(x.clone())], [1.0], *none)),
        ("out: must lie inside its storage", ops.lincomb, (freed(out.clone()), None, 1.0, *row, *none)),
        ("mask: must lie inside its", ops.mask, (*row_out, *row, projected, *none, freed(mask.clone()))),
        ("scales: must lie inside its", ops.lincomb, (*row_out, *row, [freed(torch.ones(1))], [0])),
        ("out: must not overlap terms.0.", ops.lincomb, (beside, None, 1.0, [part], [1.0], *none)),
        ("out: must not overlap terms.0.", ops.lincomb, (within, None, 1.0, [last], [1.0], *none)),
        ("out: must not overlap scales.0.", ops.lincomb, (within, None, 1.0, *row, [memory[20:21]], [0])),
        ("next: must not overlap out", ops.lincomb, (out, out, 1.0, *row, *none)),
        ("next: must not overlap terms.0.", ops.mask, (out, part, 1.0, [beside], [1.0], projected, *none, mask)),
        ("out: must not overlap mask", ops.mask, (part, None, 1.0, *row, projected, *none, beside[0])),
        ("out: must not overlap spectrum", ops.fourier_multiply, (z, z, mask, 1)),
        ("multiplier: must be .1 or groups", ops.fourier_multiply, (z, z.clone(), torch.ones(1, 2, 8), 1)),
        ("spectrum: must be of shape .1, 4, 4", ops.fourier_pack, (z.view(1, 2, 8), *row, *none, 1)),
        ("direction: must be of shape .1.", ops.channel, (*row_out, *row, projected, *none, torch.ones(1, 1))),
        ("groups: must be a multiple of 2 images", ops.fourier_pack, (z, [x.repeat(2, 1, 1, 1)], [1.0], *none, 1)),
        ("rows: row 0 leaves the matrix, from 9223372036854775803 on", ops.separable,
         (*row_out, *row, projected, *none, identity(4, 2**63 - 2 - 3), identity(), out.clone())),
        ("columns: must have 1 to 4 taps", ops.separable,
         (*row_out, *row, projected, *none, identity(), identity(0), out.clone())),
        ("scratch: must not overlap terms.0.", ops.separable,
         (*row_out, *row, projected, *none, identity(), identity(), x)),
        ("step: must be in .0, 2.32., got 4294967296", ops.normal, (out, words, words, words, 2**32)),
        ("samples: must be in .0, 2.32., got -1", ops.normal, (out, words, words - 1, words, 0)),
        ("terms.0.: must be on cpu as out, got meta", ops.lincomb, (*row_out, [x.to("meta")], [1.0], *none)),
    ]  # fmt: skip


@pytest.mark.parametrize("place", range(len(wrong_calls()) if native.REASON is None else 0))
def test_buffers_that_do_not_fit(place):
    message, op, arguments = wrong_calls()[place]
    with pytest.raises(RuntimeError, match=message):
        op(*arguments)


def test_buffers_that_lie_between_each_other_fit():
    """An output may lie in a gap of a tensor that is read, and both may be parts of one tensor."""
    memory = torch.arange(2.0 * 3 * 2 * 4).view(2, 3, 2, 4)
    first, want = memory[:1, 0:1], memory[:1, ::2].sum(1, keepdim=True)
    ops.lincomb(memory[:1, 1:2], None, 1.0, [first, memory[:1, 2:3]], [1.0, 1.0], None, None)
    assert torch.equal(memory[:1, 1:2], want)
    ends = torch.zeros(3, 1, 2, 4)
    ops.lincomb(ends[1:2], None, 1.0, [ends[::2][:1]], [1.0], [ends[::2, 0, 0, 0][:1]], [0])


def test_nothing_is_computed_of_nothing():
    """No op divides by a width, height, number of channels or batch of 0."""
    for shape in ((1, 1, 4, 0), (1, 1, 0, 4), (1, 0, 4, 4), (0, 1, 4, 4), (1, 2, 0)):
        x, out = torch.ones(shape), torch.empty(shape)
        sides = (1, 2) if len(shape) == 3 else (2, 2)
        row, none = (out, None, 1.0, [x], [1.0]), (None, None)
        ops.lincomb(*row, *none)
        ops.block(*row, [1.0], *none, *sides)
        ops.mask(*row, [1.0], *none, torch.ones(shape[1:]))
        ops.channel(*row, [1.0], *none, torch.ones(shape[1]))


def test_a_forward_derivative_is_refused():
    x, out = torch.ones(1, 1, 4), torch.empty(1, 1, 4)
    with torch.enable_grad(), torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        with pytest.raises(RuntimeError, match="ops of ccfast cannot be differentiated"):
            ops.lincomb(out, None, 1.0, [dual], [1.0], None, None)


# ---------------------------------------------------------------------------------------- whole runs
KERNEL = torch.tensor([[0, 0.1, 0.05], [0.2, 0.3, -0.1], [0.05, 0.1, 0]])


def network(x, t):
    """The network of the goldens (tests/goldens/README.md)."""
    k = KERNEL.to(x.dtype).expand(x.shape[1], 1, 3, 3)
    conv = NF.conv2d(NF.pad(x, (1, 1, 1, 1), mode="circular"), k, groups=x.shape[1])
    return (0.2 + 0.7 * t[:, None, None, None] / 999) * x + 0.15 * torch.tanh(conv)


def sampler(operator, backend, solver=None, **options):
    clock = ccfast.times.floor_timesteps(1000)
    denoiser = ccfast.Denoiser(network, ccfast.schedules.VP(), time_map=clock)
    return ccfast.Sampler(denoiser, operator, solver, backend=backend, **options)


def golden(path):
    data = np.load(path)
    c = json.loads(str(data["case"]))
    shape = (3, c["size"], c["size"])
    taps = np.exp(-(np.arange(-30, 30) ** 2) / 18)
    operator = {
        "bicubic4": lambda: Bicubic(shape, 4),
        "box4": lambda: AveragePooling(shape, 4),
        "color": lambda: Grayscale(shape, (0.3333, 0.3334, 0.3333)),
        "mask": lambda: Inpainting(data["mask"]),
        "gauss": lambda: SeparableBlur(shape, taps / taps.sum(), center=30, boundary="zero"),
    }[c["operator"]]()
    conjugate = c["algo"] == "cpgdm"
    solver = ccfast.solvers.Conjugate(w=c["w"], lam=c["lam"]) if conjugate else ccfast.solvers.PiGDM(w=c["w"])
    return data, operator, solver, 1 - np.linspace(c["t_start"], c["t_end"], c["steps"] + 1)


@pytest.mark.elsewhere
@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_goldens(path):
    data, operator, solver, times = golden(path)
    s = sampler(operator, "native", solver, times=times)
    y = torch.tensor(data["y"]).float().reshape(2, *operator.measurement_shape)
    x = s(y, x_init=torch.tensor(data["x_init"]).float())
    error = np.linalg.norm(x.double().numpy() - data["x_final"]) / np.linalg.norm(data["x_final"])
    assert error < 1e-5


RUNS = {
    "mask": lambda: Inpainting(mask(1, 32, 32), shape=(3, 32, 32)),
    "block": lambda: AveragePooling((3, 32, 32), 4),
    "channel": lambda: Grayscale((3, 32, 32)),
    "banded": lambda: Bicubic((3, 64, 64), 4),
    "low-rank": lambda: GaussianBlur((3, 32, 32)),
    "fourier": lambda: FourierBlur((3, 32, 32), np.outer(SMOOTH, SMOOTH), 0.2),
    "alias": lambda: FourierDownsampling((3, 32, 32), np.outer(SMOOTH, SMOOTH), 2),
}
SOLVERS = [
    ccfast.solvers.Conjugate(w=5.0),
    ccfast.solvers.Conjugate(w=5.0, lam=-0.2),
    ccfast.solvers.Conjugate(w=5.0, jacobian="one_projection"),
    ccfast.solvers.PiGDM(),
    ccfast.solvers.DDNM(eta=0.5),
]


@pytest.mark.elsewhere
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("build", RUNS.values(), ids=RUNS)
def test_sampler_agrees(build, solver):
    """A run is the same on both backends, noise included."""
    operator = build()
    y = operator.forward(0.5 * draw(2, *operator.shape, dtype=torch.float32))
    got, want = (sampler(operator, backend, solver)(y, seed=3) for backend in ("native", "reference"))
    assert ((got - want).norm() / want.norm()).item() < 1e-5


ODD_RUNS = {
    "mask": lambda: Inpainting(mask(1, 63, 65), shape=(3, 63, 65)),
    "block": lambda: AveragePooling((3, 63, 66), 3),
    "channel": lambda: Grayscale((3, 63, 65)),
    "banded": lambda: Bicubic((3, 64, 60), 4),
    "low-rank": lambda: GaussianBlur((3, 63, 65)),
    "fourier": lambda: FourierBlur((3, 63, 65), np.outer(SMOOTH, SMOOTH), 0.2),
}


def pixelwise(x, t):
    """A network of single sums, products and quotients, whose rounding IEEE fixes on every processor."""
    return x / (1.0 + x * x)


@pytest.mark.elsewhere
@pytest.mark.parametrize("solver", [*SOLVERS, Conjugate(5.0, order=2), LML(0.5, 1e3)], ids=repr)
@pytest.mark.parametrize("build", ODD_RUNS.values(), ids=ODD_RUNS)
def test_a_run_does_not_depend_on_threads_and_batch(build, solver):
    """A run has the same bits where neither operator nor network calls a library, as docs/promises.md says."""
    operator, images = build(), 4
    denoiser = ccfast.Denoiser(pixelwise, ccfast.schedules.VP())
    s = ccfast.Sampler(denoiser, operator, solver, backend="native")
    y = operator.forward(0.5 * draw(images, *operator.shape, dtype=torch.float32))
    together = s(y, seed=[5, 6, 7, 8])
    others = [s(y[k : k + 1], seed=[5 + k])[0] for k in range(images)]
    torch.set_num_threads(3)
    others = [*s(y, seed=[5, 6, 7, 8]), *others, *s.sample(y[:2], 2, seed=[5, 6], together=2)[0]]
    for got, want in zip(others, [*together, *together, *together[:2]], strict=True):
        if ours(operator):
            assert torch.equal(got, want)
        else:
            close(got, want.double(), 10 * LIBRARY[torch.float32])


@pytest.mark.parametrize("solver", [LML(0.5, 1e3), Conjugate(5.0, order=2), DDNM(eta=0.5), DDRM()], ids=repr)
@pytest.mark.parametrize("build", RUNS.values(), ids=RUNS)
def test_runs_with_tensors_agree(build, solver):
    """No row with coefficients of each image or over the modes, which noise brings, is left to the reference."""
    operator, noise = build(), 0.0 if isinstance(solver, LML) else 0.1
    y = operator.forward(0.5 * draw(2, *operator.shape, dtype=torch.float32))
    want = sampler(operator, "reference", solver, noise_std=noise)(y, seed=3)
    native_sampler = sampler(operator, "native", solver, noise_std=noise)
    assert all(words.startswith("native") and "reference" not in words for words in native_sampler.plan.kernels)
    got = native_sampler(y, seed=3)
    assert ((got - want).norm() / want.norm()).item() < 1e-5


@pytest.mark.parametrize("build", RUNS.values(), ids=RUNS)
def test_rows_with_tensors_do_not_wait(build, monkeypatch):
    """The loop reads no number from a tensor, which the lint checks."""
    operator = build()
    s = sampler(operator, "native", Conjugate(5.0, order=2), noise_std=0.1)
    y = operator.forward(0.5 * draw(2, *operator.shape, dtype=torch.float32))
    s(y, seed=0)
    inside, run = [], s._program.run

    def recorded(*args):
        with Recorder() as recorder:
            steps = run(*args)
        inside.append(recorder.operations)
        return steps

    monkeypatch.setattr(s._program, "run", recorded)
    s(y, seed=0)
    (recorder,) = inside
    assert recorder
    assert not WAITS & set(recorder)


class Counter(TorchDispatchMode):
    """A dispatch mode that counts the ops that are not views while counting is on."""

    def __init__(self):
        super().__init__()
        self.on, self.names = True, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.on and not func.is_view:
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("jacobian", ["exact", "one_projection"])
@pytest.mark.parametrize("name", RUNS)
def test_op_count(name, jacobian, monkeypatch):
    """A step takes one op for each pass, outside the network and autograd.grad; what a run does once is not counted."""
    operator, counter = RUNS[name](), Counter()

    def uncounted(function):
        def call(*args, **kwargs):
            counter.on = False
            try:
                return function(*args, **kwargs)
            finally:
                counter.on = True

        return call

    monkeypatch.setattr(torch.autograd, "grad", uncounted(torch.autograd.grad))
    y = operator.forward(0.5 * draw(2, *operator.shape, dtype=torch.float32))
    counts = {}
    for steps in (2, 7):
        s = sampler(operator, "native", ccfast.solvers.Conjugate(w=5.0, jacobian=jacobian), steps=steps)
        s(y, seed=0)
        with monkeypatch.context() as patch:
            patch.setattr(NetworkRun, "__call__", uncounted(NetworkRun.__call__))
            counter.names.clear()
            with counter:
                s(y, seed=0)
        counts[steps] = len(counter.names)
    per_step = (counts[7] - counts[2]) / 5
    assert per_step <= (4 if operator.kind in ("mask", "block", "channel") else 12)


# ---------------------------------------------------------------------------------------- choice of the backend
def test_auto_is_native():
    assert sampler(RUNS["mask"](), "auto").backend == "native"
    assert "backend native: yes" in ccfast.show_config()
    info = ops.build_info()
    assert info["torch_target"] == "2.10"
    assert info["isa_active"] in info["isa_clones"]
    assert bool(info["cuda_archs"]) == hasattr(torch.ops.ccfast, "cuda_fourier")


def test_not_built(monkeypatch):
    monkeypatch.setattr(native, "REASON", "installed without native code")
    assert sampler(RUNS["mask"](), "auto").backend == "reference"
    assert "backend native: no, installed without native code" in ccfast.show_config()
    with pytest.raises(ValueError, match="cannot run on cpu: installed without native code"):
        backends.can_run("native", raise_error=True)
