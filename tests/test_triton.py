"""The Triton backend against kernels/reference.py in float64: on the CPU in Triton's interpreter, and on a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import spoiled
import torch
from conftest import OPERATORS, SMOOTH
from interpreter import INTERPRETING
from row_shorthand import both, given, residual, update
from test_native import ROWS, Halved, case, cast, close, draw, golden, mask, poisoned, sampler, varied

import ccfast
from bench import tune_triton
from ccfast.app.benchmark.prepared_cases import GateError
from ccfast.engine import backends
from ccfast.kernels import native, reference
from ccfast.kernels import triton as backend
from ccfast.kernels.row import Row, Weighted
from ccfast.operators import (
    AveragePooling,
    Bicubic,
    Denoising,
    FourierBlur,
    GaussianBlur,
    Grayscale,
    Inpainting,
    SoftMask,
)

pytest.importorskip("triton", reason="triton is not installed")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]

FOLDER = Path(__file__).parent / "goldens"
AWKWARD = [
    ("mask-15x17", lambda: Inpainting(mask(3, 15, 17))),
    ("mask-1x7", lambda: Inpainting(mask(1, 1, 7), shape=(3, 1, 7))),
    ("mask-50x3-per-image", lambda: Inpainting(mask(2, 1, 50, 3), shape=(3, 50, 3))),
    ("mask-10x12-per-image", lambda: Inpainting(mask(2, 3, 10, 12))),
    ("mask-10x12-shared", lambda: Inpainting(mask(1, 10, 12), shape=(3, 10, 12))),
    ("denoising-signal-261", lambda: Denoising((2, 261))),
    ("block-7x9-of-1", lambda: AveragePooling((3, 7, 9), 1)),
    ("block-9x33-of-3", lambda: AveragePooling((3, 9, 33), 3)),
    ("block-5x210-of-5", lambda: AveragePooling((1, 5, 210), 5)),
    ("block-64x8-of-8", lambda: AveragePooling((3, 64, 8), 8)),
    ("block-12x36-of-12", lambda: AveragePooling((1, 12, 36), 12)),
    ("block-16x48-of-16", lambda: AveragePooling((1, 16, 48), 16)),
    ("block-signal-600-of-200", lambda: AveragePooling((2, 600), 200)),
    ("block-signal-of-1200", lambda: AveragePooling((1, 1200), 1200)),
    ("channel-13x33", lambda: Grayscale((3, 13, 33))),
    ("channel-1x7-of-5", lambda: Grayscale((5, 1, 7), [0.1, 0.4, 0.0, -0.2, 1.0])),
    ("channel-50x3", lambda: Grayscale((3, 50, 3))),
    ("channel-4x8-of-9", lambda: Grayscale((9, 4, 8), list(range(-3, 6)))),
    ("other-kind", lambda: Halved((4, 9, 10))),
]
KINDS = ("mask", "block", "channel")
ALL = [*((name, build) for name, build in OPERATORS if build().kind in KINDS), *AWKWARD]
FORMS = {
    "mask-shared": lambda: Inpainting(mask(1, 6, 9), shape=(3, 6, 9)),
    "mask-per-image": lambda: Inpainting(mask(2, 3, 6, 9)),
    "block": lambda: AveragePooling((3, 6, 9), 3),
    "block-signal": lambda: AveragePooling((2, 12), 4),
    "channel": lambda: Grayscale((3, 5, 7)),
    "other-kind": lambda: Halved((4, 5, 6)),
}
"""Every form of P that a kernel has, at a small size."""
SIZES = [("mask", lambda: Inpainting(mask(1, 512, 512), shape=(3, 512, 512))),
         ("mask-per-image", lambda: Inpainting(mask(2, 3, 768, 1024))),
         ("block", lambda: AveragePooling((3, 768, 768), 4)),
         ("block-16", lambda: AveragePooling((3, 768, 768), 16)),
         ("block-3", lambda: AveragePooling((3, 729, 729), 3)),
         ("channel", lambda: Grayscale((3, 767, 769)))]  # fmt: skip
"""Sizes for a GPU, which would take the interpreter more than a minute."""


@pytest.fixture(
    params=[
        pytest.param("cpu", marks=pytest.mark.interpreted),
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(INTERPRETING or not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
            ],
        ),
    ]
)
def device(request):
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(params=[build for _, build in ALL], ids=[name for name, _ in ALL])
def operator(request):
    return request.param()


def one_dtype(operator, shift=0):
    """One dtype for every operator, in turn. The interpreter takes too long for all, which ``test_dtypes`` tries."""
    return DTYPES[(sum(operator.shape) + shift) % 3]


@pytest.fixture
def few_programs(monkeypatch):
    """Make blocks large, since the interpreter's time is proportional to the number of programs."""
    from ccfast.kernels.triton.launches import LAUNCHES, Launch

    for name in LAUNCHES:
        monkeypatch.setitem(LAUNCHES, name, (Launch(32), Launch(32)))


def on(device, tensors):
    return {name: tensor.to(device, memory_format=torch.preserve_format) for name, tensor in tensors.items()}


def double(tensors):
    return {name: tensor.cpu().double() for name, tensor in tensors.items()}


def check_residual(operator, tensors, dtype):
    x, F, ybar = tensors["x"], tensors["F"], tensors["ybar"]
    out, want = poisoned(x.shape, dtype).to(x.device), torch.empty(x.shape, dtype=torch.float64)
    residual(backend.bind(operator), x, F, ybar, 1.7, -0.6, out)
    residual(reference.bind(operator), *(t.cpu().double() for t in (x, F, ybar)), 1.7, -0.6, want)
    close(out.cpu(), want, 1e-6)  # An element sums at most nine products in float32.


def check_update(operator, tensors, dtype, row):
    shape, device = tensors["x"].shape, tensors["x"].device
    out, following = poisoned(shape, torch.float32).to(device), poisoned(shape, dtype).to(device)
    update(backend.bind(operator), row, tensors, out, following, 0.8)
    want = torch.empty(shape, dtype=torch.float64)
    update(reference.bind(operator), row, double(tensors), want, None, 0.8)
    close(out.cpu(), want, 1e-6)
    assert torch.equal(following, (out * 0.8).to(dtype))  # Both round to nearest even.


# ---------------------------------------------------------------------------------------- values
def check_rows(operator, dtype, device):
    tensors = on(device, case(operator, dtype))
    check_residual(operator, tensors, dtype)
    for row in ("common", "one_projection", "general", "projections"):
        check_update(operator, tensors, dtype, ROWS[row])


def test_rows(operator, device):
    """Every row of terms equals that of the reference, for every shape that the kernels' indices distinguish."""
    check_rows(operator, one_dtype(operator), device)


def test_strides(operator, device):
    """Tensors may be views: channels last, half of a wider output (not aligned), and every second pixel."""
    check_strides(operator, one_dtype(operator, 1), device)


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("build", FORMS.values(), ids=FORMS)
def test_dtypes(build, dtype, device):
    """Every form of P takes every dtype of the network, on which only loads and stores depend, and not the shape."""
    check_rows(build(), dtype, device)
    check_strides(build(), dtype, device)


def check_strides(operator, dtype, device):
    tensors = case(operator, dtype)
    shape = tensors["F"].shape
    tensors["F"] = torch.cat([tensors["F"], tensors["F"]], 1)[:, : shape[1]]
    tensors["r"] = tensors["r"].repeat_interleave(2, -1)[..., ::2]
    tensors["z"] = torch.cat([tensors["z"].flatten()[:1], tensors["z"].flatten()])[1:].view(shape)
    if len(shape) == 4:
        tensors["h"] = tensors["h"].to(memory_format=torch.channels_last)
        tensors["x"] = tensors["x"].transpose(-1, -2).contiguous().transpose(-1, -2)
    tensors = on(device, tensors)
    check_residual(operator, tensors, dtype)
    check_update(operator, tensors, dtype, ROWS["general"])


@pytest.mark.parametrize("build", [build for _, build in ALL[::4]], ids=[name for name, _ in ALL[::4]])
def test_large_launch(build, device, monkeypatch):
    """The launches for large batches are right, here on small ones."""
    from ccfast.kernels.triton import launches

    monkeypatch.setattr(launches, "SMALL", 0)
    operator = build()
    tensors = on(device, case(operator, torch.bfloat16))
    check_residual(operator, tensors, torch.bfloat16)
    check_update(operator, tensors, torch.bfloat16, ROWS["general"])


def check_tensors(operator, tensors, dtype, monkeypatch):
    """Rows and residuals with tensors as coefficients, by the backend itself and not by the reference's functions."""
    shape, device, bound = tensors["x"].shape, tensors["x"].device, backend.bind(operator)
    own = reference.bind(operator)
    with monkeypatch.context() as patch:
        patch.setattr(reference, "update", None)
        for row, modes in varied(operator, {name: t.cpu() for name, t in tensors.items()}):
            out, following = poisoned(shape, torch.float32).to(device), poisoned(shape, dtype).to(device)
            single = [cast(cast(c, torch.float32), device) for c in (row, modes)]
            update(bound, single[0], tensors, out, following, 0.8, single[1])
            want = torch.empty(shape, dtype=torch.float64)
            update(own, row, double(tensors), want, None, 0.8, modes)
            close(out.cpu(), want, 2e-6)  # Fields and scales add up to 16 products.
            close(following.cpu(), 0.8 * want, 2e-6)
    s = operator.singular_values
    weight = torch.where(s > 0, 0.3 + (s / s.max()).square(), 0.0)
    coordinates = operator.encode(draw(len(tensors["x"]), *operator.measurement_shape, seed=5))
    out, want = poisoned(shape, dtype).to(device), torch.empty(shape, dtype=torch.float64)
    given = tensors["x"], tensors["F"], tensors["ybar"]
    residual(own, *(t.cpu().double() for t in given), 1.7, -0.6, want, weighted=Weighted(weight, coordinates))
    weighted = Weighted(weight.float().to(device), coordinates.float().to(device))
    residual(bound, *given, 1.7, -0.6, out, weighted=weighted)
    close(out.cpu(), want, 2e-6)


TENSORS = FORMS | {
    "mask-10x12-shared": lambda: Inpainting(mask(1, 10, 12), shape=(3, 10, 12)),
    "soft-mask": lambda: SoftMask(0.1 + 0.9 * draw(1, 6, 8).abs().clamp(max=1.0), shape=(3, 6, 8)),
    "soft-mask-per-image": lambda: SoftMask(mask(2, 3, 6, 9) * 0.5 + 0.25),
    "signal": lambda: Denoising((2, 24)),
    "channel-9": lambda: Grayscale((9, 4, 8), list(range(-3, 6))),
    "block-16": lambda: AveragePooling((1, 16, 48), 16),
}


@pytest.mark.usefixtures("few_programs")
@pytest.mark.parametrize("build", TENSORS.values(), ids=TENSORS)
def test_rows_with_tensors(build, device, monkeypatch):
    operator = build()
    dtype = one_dtype(operator)
    check_tensors(operator, on(device, case(operator, dtype)), dtype, monkeypatch)


def test_tensors_that_do_not_fit(device):
    operator = Grayscale((3, 6, 8))
    tensors, out = on(device, case(operator, torch.float32)), torch.empty(2, 3, 6, 8, device=device)
    for wrong in (torch.ones(3), torch.ones(6, 8), torch.ones(2, 3, 6, 4)):
        with pytest.raises(ValueError, match=r"scales: must be .* to fit \(2, 3, 6, 8\), got"):
            update(backend.bind(operator), {"x": wrong.to(device)}, tensors, out, None, 1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("build", [build for _, build in SIZES], ids=[name for name, _ in SIZES])
def test_sizes(build, dtype):
    operator = build()
    tensors = on("cuda", case(operator, dtype))
    check_residual(operator, tensors, dtype)
    for row in ROWS.values():
        check_update(operator, tensors, dtype, row)


@pytest.mark.usefixtures("few_programs")
@pytest.mark.parametrize("build", FORMS.values(), ids=FORMS)
def test_no_image_changes_another(build, device):
    """An image that is huge or not finite changes no bit of another one, since all arithmetic is ours.

    The blocks are large, so that one program has elements of several images.
    """
    operator = build()
    bound = backend.bind(operator)

    tensors = on(device, case(operator, torch.bfloat16, operator.batch or 2))
    spoiled.check(lambda t: both(bound, ROWS["general"], t).cpu(), tensors, 0.0)


def test_empty_batch(operator, device):
    if operator.batch is None:
        tensors = on(device, case(operator, torch.float32, batch=0))
        check_residual(operator, tensors, torch.float32)
        check_update(operator, tensors, torch.float32, ROWS["general"])
        words = torch.empty(0, dtype=torch.int64, device=device)
        assert backend.bind(operator).normal(tensors["x"], words, words, words, 0) is tensors["x"]


def test_other_batch_after(device):
    """The buffer between two kernels follows the batch."""
    bound = backend.bind(Halved((4, 9, 10)))
    for batch in (3, 1):
        tensors = on(device, case(Halved((4, 9, 10)), torch.float32, batch))
        out, want = torch.empty_like(tensors["x"]), torch.empty(tensors["x"].shape, dtype=torch.float64)
        update(bound, ROWS["general"], tensors, out, None, 1.0)
        update(reference.bind(Halved((4, 9, 10))), ROWS["general"], double(tensors), want, None, 1.0)
        close(out.cpu(), want, 1e-6)


@pytest.mark.parametrize("build", [build for _, build in ALL[::3]], ids=[name for name, _ in ALL[::3]])
def test_coefficients_are_read_from_the_table(build, device):
    """The kernels read the table and not the floats of the row, so that one captured graph serves every schedule."""
    operator = build()
    tensors = on(device, case(operator, torch.float32))
    bound, shape = backend.bind(operator), tensors["x"].shape
    like = {"dtype": torch.float32, "device": device}
    x, F, ybar = tensors["x"], tensors["F"], tensors["ybar"]
    got, want = (poisoned(shape, torch.float32).to(device) for _ in range(2))
    residual(bound, x, F, ybar, 1.7, -0.6, want)
    residual(bound, x, F, ybar, 9.0, 9.0, got, table=torch.tensor([1.7, -0.6], **like))
    assert torch.equal(got, want)
    row = {"Px": 0.3, "h": -1.0, "x": 0.5, "Ph": 2.0, "ybar": 0.1}
    # The table holds the coefficients of x, h, ybar, then those of Px, Ph, Pybar, and c_in.
    table = torch.tensor([0.5, -1.0, 0.1, 0.3, 2.0, 0.0, 0.8], **like)
    outs = [[poisoned(shape, torch.float32).to(device) for _ in range(2)] for _ in range(2)]
    update(bound, row, tensors, *outs[0], 0.8)
    update(bound, dict.fromkeys(row, 9.0), tensors, *outs[1], 9.0, table=table)
    assert torch.equal(outs[0][0], outs[1][0])
    assert torch.equal(outs[0][1], outs[1][1])


@pytest.mark.parametrize("count", range(1, 9))
def test_number_of_terms(count, device):
    names = ("x", "F", "r", "h", "ybar", "z", "x1", "F1")[:count]
    tensors = {name: draw(2, 3, 5, 7, seed=k, dtype=DTYPES[k % 3]) for k, name in enumerate(names)}
    tensors["x"] = tensors["x"].float()
    row = {name: 0.5 - 0.3 * k for k, name in enumerate(names)}
    check_update(Grayscale((3, 5, 7)), on(device, tensors), torch.float16, row)
    check_update(Grayscale((3, 5, 7)), on(device, tensors), torch.float16, row | {"P" + name: -0.7 for name in names})


@pytest.mark.usefixtures("few_programs")
@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")
def test_halves(device):
    """Every bfloat16 and float16 becomes torch's float, and floats near every rounding border become torch's halves."""
    bound = backend.bind(Denoising((1, 2**16)))
    for dtype in DTYPES[1:]:
        every = torch.arange(-(2**15), 2**15, device=device).to(torch.int16).view(dtype).reshape(1, 1, -1)
        bits = every.float().view(torch.int32)
        back, wide = poisoned(every.shape, dtype).to(device), poisoned(every.shape, torch.float32).to(device)
        update(bound, {"F": 1.0}, {"F": every}, wide, None, 1.0)
        torch.testing.assert_close(wide, every.float(), rtol=0, atol=0, equal_nan=True)
        for step in (-1, 1, 0x0FFF, 0x1000, 0x1001, 0x7FFF, 0x8000):
            around = (bits + step).view(torch.float32)
            update(bound, {"x": 1.0}, {"x": around}, wide, back, 1.0)
            torch.testing.assert_close(back, around.to(dtype), rtol=0, atol=0, equal_nan=True)


# ---------------------------------------------------------------------------------------- what is left to reference
def test_what_the_kernels_take():
    operator = Grayscale((3, 5, 7))
    tensors = case(operator, torch.float32)

    def why(coefficients, *dtypes, elements=100, modes=None):
        return backend.takes(operator, given(coefficients, tensors, modes)[0], dtypes, elements)

    image = torch.ones(2)
    assert why(ROWS["general"], torch.float32, torch.bfloat16) is None
    assert "the state is torch.float64" in why(ROWS["general"], torch.float64)
    assert "do not read torch.float64" in why(ROWS["general"], torch.float32, torch.float64)
    assert why({"x": 1.0, "h": image}, torch.float32, modes={"F": torch.ones(3)}) is None
    assert "elements, and there are 2147483648" in why({"x": 1.0}, torch.float32, elements=2**31)
    many = Row([((name, age), 1.0, None) for name in "xFrhz" for age in range(4)])
    assert "1 to 16 terms, and the row has 20" in backend.takes(operator, many, (torch.float32,), 100)


def test_what_a_kernel_would_write_past_is_refused(device):
    operator, tensors = Grayscale((3, 6, 8)), on(device, case(Grayscale((3, 6, 8)), torch.float32))
    bound, out = backend.bind(operator), torch.empty_like(tensors["x"])
    with pytest.raises(ValueError, match="out: must be contiguous, got shape"):
        update(bound, ROWS["general"], tensors, out.mT.contiguous().mT, None, 1.0)
    with pytest.raises(ValueError, match="after: must be contiguous, got shape"):
        update(bound, ROWS["general"], tensors, out, out.mT.contiguous().mT, 1.0)
    with pytest.raises(ValueError, match=r"terms: must have the shape \(2, 3, 6, 8\) of out, got \(1, 3, 6, 8\)"):
        update(bound, {"x": 1.0}, {"x": tensors["x"][:1]}, out, None, 1.0)


def test_gradient_raises(device):
    x = draw(1, 1, 8, 8, dtype=torch.float32).to(device)
    out, bound = torch.empty_like(x), backend.bind(Inpainting(mask(1, 8, 8)))
    with torch.enable_grad():
        for call in (
            lambda t: residual(bound, x, t, x, 1.0, 1.0, out),
            lambda t: update(bound, {"x": 1.0, "Ph": 2.0}, {"x": x, "h": t}, out, None, 1.0),
        ):
            call(x)
            with pytest.raises(RuntimeError, match=r"triton backend: .* requires grad"):
                call(x.clone().requires_grad_())


# ---------------------------------------------------------------------------------------- noise
def test_philox_words(device):
    """The words are the known answers of Random123 and those of the reference."""
    from philox_words import philox_words

    rng = np.random.default_rng(0)
    counters = np.vstack([[[0] * 4, [2**32 - 1] * 4], rng.integers(0, 2**32, (126, 4))])
    keys = np.concatenate([[0, -1], rng.integers(-(2**63), 2**63 - 1, 126)])
    counter, key = torch.from_numpy(counters.T.copy()), torch.from_numpy(keys)
    out = torch.zeros(4, 128, dtype=torch.int64, device=device)
    philox_words[(1,)](out, counter.to(device), key.to(device), 128)
    assert torch.equal(out.cpu(), torch.stack(reference.philox(list(counter), key)))
    assert out[:, 0].tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert out[:, 1].tolist() == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize("shape", [(3, 3, 7, 9), (2, 1, 1, 7), (1, 2, 523), (4, 1, 1, 1), (2, 3, 16, 12)])
def test_normal(shape, device):
    batch = shape[0]
    seeds = reference.seed_words([2**64 - 1 - 12345 * k for k in range(batch)], torch.device("cpu"))
    keys = (seeds, torch.arange(batch), torch.arange(batch) * 2**30)
    out, want = poisoned(shape, torch.float32).to(device), torch.empty(shape)
    backend.bind(Denoising((1, 1))).normal(out, *(key.to(device) for key in keys), 3)
    reference.normal(want, *keys, 3)
    # R (at most 5.8), sine and cosine may each differ by one unit in the last place.
    torch.testing.assert_close(out.cpu(), want, rtol=0, atol=1e-6)
    if native.REASON is None:
        # Without fused multiply-add the bits are the same.
        assert torch.equal(out.cpu(), native.normal(torch.empty(shape), *keys, 3))


def test_normal_of_other_outputs(device):
    """Other dtypes and strides are refused, since the engine asks the reference for them."""
    keys = [torch.zeros(2, dtype=torch.int64, device=device)] * 3
    for out in (torch.empty(2, 3, 5, dtype=torch.float64, device=device), torch.empty(2, 5, 3, device=device).mT):
        with pytest.raises(ValueError, match=r"out: must be contiguous and float32, got torch\.float"):
            backend.bind(Denoising((3, 5))).normal(out, *keys, 1)


# ---------------------------------------------------------------------------------------- whole runs
RUNS = {
    "mask": lambda: Inpainting(mask(1, 16, 16), shape=(3, 16, 16)),
    "block": lambda: AveragePooling((3, 16, 16), 4),
    "channel": lambda: Grayscale((3, 16, 16)),
    "banded": lambda: Bicubic((3, 16, 16), 4),
    "low-rank": lambda: GaussianBlur((3, 16, 16)),
    "fourier": lambda: FourierBlur((3, 16, 16), np.outer(SMOOTH, SMOOTH), 0.2),
}


@pytest.mark.usefixtures("few_programs")
@pytest.mark.parametrize(
    "solver", [ccfast.solvers.Conjugate(w=5.0), ccfast.solvers.DDNM(eta=0.5)], ids=["conjugate", "ddnm"]
)
@pytest.mark.parametrize("build", RUNS.values(), ids=RUNS)
def test_sampler_agrees(build, solver, device):
    """A run is the same on both backends, noise included."""
    operator = build()
    y = operator.forward(0.5 * draw(2, *operator.shape, dtype=torch.float32)).to(device)
    got, want = (sampler(operator, name, solver, device=device)(y, seed=3) for name in ("triton", "reference"))
    assert ((got - want).norm() / want.norm()).item() < 1e-5


@pytest.mark.usefixtures("few_programs")
def test_half_precision_network(device):
    """The update writes the next input of a half-precision network, and the residual has its dtype, too."""
    network = torch.nn.Conv2d(3, 3, 3, padding=1, dtype=torch.bfloat16)
    torch.nn.init.constant_(network.weight, 0.02)
    torch.nn.init.zeros_(network.bias)
    denoiser = ccfast.Denoiser(Timeless(network).to(device), ccfast.schedules.EDM(), "edm")
    operator = RUNS["block"]()
    y = operator.forward(0.5 * draw(2, *operator.shape, dtype=torch.float32)).to(device)
    solver = ccfast.solvers.Conjugate(w=2.0)
    got, want = (
        ccfast.Sampler(denoiser, operator, solver, steps=3, start=2.0, end=0.1, backend=name)(y, seed=3)
        for name in ("triton", "reference")
    )
    # Where a sum is rounded to the other neighbour in bfloat16, the network passes the difference on.
    assert ((got - want).norm() / want.norm()).item() < 2**-9


class Timeless(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, t):
        return self.network(x)


@pytest.mark.usefixtures("few_programs")
@pytest.mark.parametrize("name", ["mask", "box4", "color"])
def test_goldens(name, device):
    check_golden(FOLDER / f"cpgdm_{name}.npz", device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("name", ["cpgdm_bicubic4", "cpgdm_gauss", "pgdm_bicubic4"])
def test_goldens_of_another_kind(name):
    """Many steps on large images agree with the goldens; the interpreter would take minutes."""
    check_golden(FOLDER / f"{name}.npz", "cuda")


def check_golden(path, device):
    data, operator, solver, times = golden(path)
    y = torch.tensor(data["y"]).float().reshape(2, *operator.measurement_shape).to(device)
    x = sampler(operator, "triton", solver, times=times, device=device)(y, x_init=torch.tensor(data["x_init"]).to(y))
    error = np.linalg.norm(x.cpu().double().numpy() - data["x_final"]) / np.linalg.norm(data["x_final"])
    assert error < 1e-5


# ---------------------------------------------------------------------------------------- the tuner
def test_tuner_gates_every_launch(device):
    """The tuner's gate passes all of its cases on small images, and stops a wrong result."""
    for tuned in tune_triton.cases(2, 16, device):
        for warps in (2, 8):
            with tune_triton.launches_of(tuned.kernel, warps):
                tune_triton.check(tuned)
        with pytest.raises(GateError, match=rf"{tuned.kernel} .*: relative error"):
            tune_triton.check(tuned._replace(truth=1.001 * tuned.truth))


def test_tuner_chooses_what_costs_least_over_all_cases():
    times = {"2x2": {1: 3.0, 2: 2.0, 4: 1.0}, "8x8": {1: 10.0, 2: 20.0, 4: 60.0}}
    assert tune_triton.choose(times) == 1  # The cost of 1 is 3 * 1, of 2 it is 2 * 2, of 4 it is 1 * 6.


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing where there is no GPU")
def test_tuner_needs_a_gpu(capsys):
    assert tune_triton.main([]) == 2
    assert "device: must be a CUDA device with triton, got none" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------- choice of the backend
def test_auto_does_not_interpret(device):
    assert backends.can_run("triton", device)
    if device.type == "cpu":
        assert backends.resolve("auto", device).name in ("native", "reference")


@pytest.mark.skipif(INTERPRETING, reason="about the other tests' process")
def test_needs_a_gpu():
    assert not backends.can_run("triton", "cpu")
    with pytest.raises(ValueError, match=r"'triton' cannot run on cpu: needs a CUDA device \(or TRITON_INTERPRET=1\)"):
        sampler(RUNS["mask"](), "triton")


def test_import_is_lazy():
    code = "import sys, ccfast; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
