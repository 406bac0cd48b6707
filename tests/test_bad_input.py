"""Every wrong input raises an exception that says name, rule and value."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from ccfast import Denoiser, Sampler
from ccfast._arguments import Door
from ccfast._values import Looks
from ccfast.operators import (
    AveragePooling,
    BandLimit,
    Bicubic,
    Blur,
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
)
from ccfast.schedules import VP
from ccfast.solvers import Conjugate

SHAPE = (3, 8, 8)
OPERATOR = AveragePooling(SHAPE, 2)


def identity(x, t):
    return 0.9 * x


def sampler(network=identity, **options):
    return Sampler(Denoiser(network, VP(), name="net"), OPERATOR, **options)


def y(batch=2, **options):
    return torch.zeros(batch, 3, 4, 4, **options)


class WithParameters(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, x, t):
        return self.scale * x


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"denoiser": identity}, TypeError, "denoiser: must be a ccfast Denoiser, got function"),
        ({"operator": "blur"}, TypeError, "operator: must be a ccfast Operator, got str"),
        ({"solver": Conjugate}, TypeError, "solver: must be one of ccfast.solvers"),
        ({"steps": 0}, ValueError, "steps: must be an integer >= 1, got 0"),
        ({"steps": 2.5}, ValueError, "steps: must be an integer >= 1, got 2.5"),
        ({"start": 1.5}, ValueError, r"times: VP takes times in \[0, 1\], got 1.5"),
        ({"start": 0.1, "end": 0.4}, ValueError, "times: the noise must fall strictly"),
        ({"times": [0.4, 0.3, 0.35]}, ValueError, "times: the noise must fall strictly"),
        ({"times": [0.4]}, ValueError, "times: must be a sequence of at least two"),
        ({"times": [0.3, 0.3, 0.1]}, ValueError, "strictly .*, got 0.3 and then 0.3 at places 0 and 1"),
        ({"times": [999, 500, 0]}, ValueError, "got 999; the index n of a training timestep"),
        ({"times": "0.4, 0.1"}, TypeError, "times: must be real numbers, got '0.4, 0.1'"),
        ({"times": [0.4, 0.1j]}, TypeError, "times: must be real numbers, got"),
        ({"start": float("nan")}, ValueError, "got nan"),
        ({"start": "0.4"}, TypeError, "start: must be real numbers, got '0.4'"),
        ({"end": [0.1, 0.2]}, TypeError, "end: must be one number, got 2 of them"),
        ({"noise_std": -0.1}, ValueError, "noise_std: must be a finite number >= 0, got -0.1"),
        ({"backend": "cuda-fast"}, ValueError, "backend: must be 'auto' or one of .*, got 'cuda-fast'"),
        ({"graph": True}, ValueError, "graph: True needs a CUDA device, got device 'cpu'"),
        ({"graph": "yes"}, ValueError, "graph: must be 'auto', True or False, got 'yes'"),
        ({"autocast": torch.float64}, ValueError, "autocast: must be None, torch.bfloat16 or torch.float16"),
    ],
)
def test_making_a_sampler(options, error, message):
    arguments = {"denoiser": Denoiser(identity, VP()), "operator": OPERATOR} | options
    with pytest.raises(error, match=message):
        Sampler(**arguments)


def test_device_must_be_the_networks():
    with pytest.raises(ValueError, match="device: the network's parameters are on cpu, got device='meta'"):
        sampler(WithParameters(), device="meta")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s([1.0]), TypeError, "y: must be a torch.Tensor, got list"),
        (lambda s: s(y()[0]), ValueError, r"y: AveragePooling takes shape \(B, 3, 4, 4\), got \(3, 4, 4\)"),
        (lambda s: s(torch.zeros(2, 3, 8, 8)), ValueError, r"y: AveragePooling takes shape \(B, 3, 4, 4\)"),
        (lambda s: s(y(dtype=torch.float16)), TypeError, "y: must have dtype torch.float32 or torch.float64"),
        (lambda s: s(y(dtype=torch.int64)), TypeError, "y: must have dtype .*, got torch.int64"),
        (lambda s: s(y(device="meta")), ValueError, "y: must be on the sampler's device cpu, got meta"),
        (lambda s: s(y().fill_(torch.nan)), ValueError, "y: must be finite, got 96 NaN or infinite values of 96"),
        (lambda s: s(y().index_fill(0, torch.tensor([1]), torch.inf)), ValueError, "y: must be finite, got 48"),
        (lambda s: s(y().requires_grad_()), ValueError, r"y: requires grad, .* pass y.detach\(\)"),
        (lambda s: s(y(), seed=[1]), ValueError, "seed: must be an int or one for each of the 2 images, got 1"),
        (lambda s: s(y(), seed=[1, 2, 3]), ValueError, "seed: .* got 3"),
        (lambda s: s(y(), seed=-1), ValueError, r"seed: must be in \[0, 2\^64\), got -1"),
        (lambda s: s(y(), x_init=torch.zeros(2, 3, 4, 4)), ValueError, r"x_init: must have shape \(2, 3, 8, 8\)"),
        (lambda s: s(y(), x_init=torch.zeros(2, *SHAPE).double()), TypeError, "x_init: must have dtype torch.float32"),
        (lambda s: s(y(), x_init=torch.full((2, *SHAPE), torch.nan)), ValueError, "x_init: must be finite"),
        (lambda s: s.sample(y(), 0), ValueError, "n: must be an integer >= 1, got 0"),
        (lambda s: s.warmup(0), ValueError, "batch: must be at least 1, got 0"),
        (lambda s: s.memory_estimate(0), ValueError, "batch: must be at least 1, got 0"),
    ],
)
def test_calling_a_sampler(call, error, message):
    with pytest.raises(error, match=message):
        call(sampler())


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (lambda x, t: x[:, :2], ValueError, r"network net: must return shape \(2, 3, 8, 8\) .*, got \(2, 2, 8, 8\)"),
        (lambda x, t: x[..., :4], ValueError, "network net: must return shape"),
        (lambda x, t: {"image": x}, TypeError, "network net: must return a tensor, got dict"),
        (lambda x, t: (x, x), TypeError, "network net: must return a tensor, got tuple; .* picks it"),
        (lambda x, t: x.detach() * 0.9, ValueError, "network net: its output must be differentiable .* detached"),
        (lambda x, t: torch.zeros_like(x).requires_grad_(), ValueError, "network net: its output must be diff"),
        (
            lambda x, t: x / 0,
            FloatingPointError,
            r"result: images \[0, 1\] of 2 hold values that are not finite; .* network net gives finite outputs",
        ),
        (lambda x, t: x * torch.nan, FloatingPointError, "not finite"),
    ],
)
def test_networks_that_do_not_work(network, error, message):
    with pytest.raises(error, match=message):
        sampler(network)(y(), seed=0)


def test_a_network_that_is_detached_inside_no_grad():
    @torch.no_grad()
    def network(x, t):
        return 0.9 * x

    with pytest.raises(ValueError, match="detached"):
        sampler(network)(y(), seed=0)
    assert torch.isfinite(sampler(network, solver=Conjugate(jacobian="none"))(y(), seed=0)).all()


def test_masks_for_every_image_fix_the_batch():
    s = Sampler(Denoiser(identity, VP()), Inpainting(torch.ones(2, 1, 8, 8), SHAPE))
    with pytest.raises(ValueError, match=r"y: .*2 images"):
        s(torch.zeros(3, *SHAPE))
    with pytest.raises(ValueError, match="batch: the operator holds parts for 2 images, got 1"):
        s.warmup()


def test_a_mask_without_channels_cannot_size_a_batch():
    s = Sampler(Denoiser(identity, VP()), Inpainting(torch.ones(1, 8, 8)))
    assert s(torch.zeros(2, 3, 8, 8), seed=0).shape == (2, 3, 8, 8)
    for method in (s.warmup, s.memory_estimate):
        with pytest.raises(ValueError, match=r"shape: .* give Inpainting\(mask, shape=\(C, H, W\)\)"):
            method(1)


def test_nothing_is_checked_on_request():
    bad = y()
    bad[0, 0, 0, 0] = torch.nan
    assert torch.isnan(sampler(check_finite=False)(bad, seed=0)).any()


# ------------------------------------------------------------------------------------------------ shapes of operators
ONE = [[1.0]]
BY_SHAPE = {
    "AveragePooling": lambda shape: AveragePooling(shape, 2),
    "BandLimit": lambda shape: BandLimit(shape, 0.0, 0.3),
    "Bicubic": lambda shape: Bicubic(shape, 2),
    "Blur": lambda shape: Blur(shape, ONE),
    "Denoising": lambda shape: Denoising(shape),
    "FourierBlur": lambda shape: FourierBlur(shape, ONE),
    "FourierDownsampling": lambda shape: FourierDownsampling(shape, ONE, 2),
    "GaussianBlur": lambda shape: GaussianBlur(shape),
    "Grayscale": lambda shape: Grayscale(shape),
    "Hadamard": lambda shape: Hadamard(shape, [0]),
    "Inpainting": lambda shape: Inpainting(torch.ones(1, 256, 256), shape),
    "LinearOperator": lambda shape: LinearOperator(lambda x: x, lambda y: y, shape),
    "Matrix": lambda shape: Matrix(torch.eye(4), shape),
    "SeparableBlur": lambda shape: SeparableBlur(shape, [1.0]),
    "SoftMask": lambda shape: SoftMask(torch.ones(1, 256, 256), shape),
}
SHAPES = [
    ((256, 256), r"looks like an image without channels; write shape=\(3, 256, 256\) for colour, \(1, 256, 256\) for"),
    ([480, 640], r"write shape=\(3, 480, 640\) for colour"),
    (torch.Size([720, 1280]), r"write shape=\(3, 720, 1280\) for colour"),
    ((256, 256, 3), r"got \(256, 256, 3\), which looks like \(H, W, C\); write shape=\(3, 256, 256\)"),
    ((480, 640, 1), r"write shape=\(1, 480, 640\)"),
    ((2, 3, 256, 256), r"got \(2, 3, 256, 256\); write shape=\(3, 256, 256\), of one image, without the batch"),
    ((256,), r"shape must be \(C, H, W\) or \(C, L\) with positive integers, got \(256,\)"),
    (256, "shape must be .* got 256"),
    ("3x8x8", "shape must be .* got '3x8x8'"),
    (None, "shape must be .* got None"),
    ((3, 8, -8), r"got \(3, 8, -8\)"),
    ((3, 8, 8.0), r"got \(3, 8, 8.0\)"),
    ((3, True, 8), r"got \(3, True, 8\)"),
]


@pytest.mark.parametrize(("shape", "message"), SHAPES, ids=[str(shape) for shape, _ in SHAPES])
@pytest.mark.parametrize("name", BY_SHAPE)
def test_shapes_that_are_none(name, shape, message):
    if shape is None and name in ("Inpainting", "SoftMask"):
        assert BY_SHAPE[name](None).any_channels
        return
    with pytest.raises(ValueError, match=rf"^{name}: .*{message}"):
        BY_SHAPE[name](shape)


@pytest.mark.parametrize("shape", [(32, 50), (64, 128), (12, 1000), (1, 64), (3, 16, 4), (16, 8, 4), (4, 64, 64)])
def test_shapes_that_could_be_meant(shape):
    """Shapes with many channels or few pixels are taken as given: action chunks, recordings, narrow images, latents."""
    assert Denoising(shape).shape == shape
    assert Denoising(np.array(shape)).shape == shape
    assert all(type(n) is int for n in Denoising(np.array(shape)).shape)


# ------------------------------------------------------------------------------------------------ masks
PICTURE = np.zeros((32, 48), bool)
PICTURE[::2] = True


def pillow(array):
    return pytest.importorskip("PIL.Image").fromarray(array)


@pytest.mark.parametrize("member", [Inpainting, SoftMask])
@pytest.mark.parametrize(
    ("mask", "shape", "message"),
    [
        (lambda: PICTURE, None, r"got \(32, 48\); write {0}\[None\] for an image \(H, W\), or shape=\(32, 48\) to say"),
        (lambda: torch.from_numpy(PICTURE), None, r"write {0}\[None\]"),
        (lambda: PICTURE.tolist(), None, r"write {0}\[None\]"),
        (lambda: pillow(PICTURE), None, r"write {0}\[None\]"),
        (lambda: PICTURE, (3, 32, 48), r"got \(32, 48\); write {0}\[None\] for an image \(H, W\)$"),
        (lambda: np.stack([PICTURE] * 3, -1), None, r"got \(32, 48, 3\); its channels come last"),
        (lambda: PICTURE[..., None], None, r"got \(32, 48, 1\); its channels come last"),
        (lambda: PICTURE[..., None], (3, 32, 48), r"got \(32, 48, 1\); its channels come last"),
        (lambda: np.stack([PICTURE] * 2)[..., None], None, r"got \(2, 32, 48, 1\); its channels come last"),
        (
            lambda: np.stack([PICTURE] * 5),
            (3, 32, 48),
            r"got \(5, 32, 48\); write {0}\[:, None\] for one of each image",
        ),
    ],
)
def test_masks_of_another_layout(member, mask, shape, message):
    with pytest.raises(ValueError, match=message.format(member.argument)):
        member(mask(), shape)


def test_masks_of_a_picture():
    """A mask of bytes 0 and 255 is refused, and the error shows the comparison to write; one of 0 and 1 is accepted."""
    with pytest.raises(ValueError, match=r"hold 0 and 1 only, got values from 0.0 to 255.0; write mask > 127"):
        Inpainting(255 * PICTURE[None].astype(np.uint8))
    x = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    for dtype in (bool, np.uint8, np.int64, np.float16, np.float64):
        assert torch.equal(Inpainting(PICTURE[None].astype(dtype)).forward(x), x * torch.from_numpy(PICTURE))
    assert torch.equal(Inpainting(np.asarray(pillow(PICTURE))[None]).forward(x), x * torch.from_numpy(PICTURE))
    each = np.stack([PICTURE, ~PICTURE])[:, None]
    assert torch.equal(Inpainting(each).forward(x), x * torch.from_numpy(each))


# ------------------------------------------------------------------------------------------------ what operators take
@pytest.mark.parametrize(
    ("operator", "x", "error", "message"),
    [
        (
            lambda: Bicubic((32, 32), 4),
            (2, 3, 32, 32),
            ValueError,
            r"for signals \(C, L\), and one for images is made with",
        ),
        (lambda: Inpainting(torch.ones(4, 6)), (2, 3, 4, 6), ValueError, r"write mask\[None\] for images \(C, H, W\)"),
        (
            lambda: Inpainting(torch.ones(5, 8, 8)),
            (5, 3, 8, 8),
            ValueError,
            r"write mask\[:, None\] for one of each image",
        ),
        (lambda: Bicubic(SHAPE, 4), (3, 8, 8), ValueError, r"got \(3, 8, 8\); write x\[None\] for one image"),
        (lambda: Bicubic(SHAPE, 4), (2, 8, 8, 3), ValueError, r"its channels come last, write x.permute\(0, 3, 1, 2\)"),
        (lambda: Bicubic(SHAPE, 4), (2, 3, 8, 9), ValueError, r"takes shape \(B, 3, 8, 8\), got \(2, 3, 8, 9\)$"),
    ],
)
def test_images_of_another_layout(operator, x, error, message):
    with pytest.raises(error, match=message):
        operator().forward(torch.zeros(x))


@pytest.mark.parametrize("x", [np.zeros((1, *SHAPE)), [[[[0.0]]]], None])
def test_images_that_are_no_tensors(x):
    with pytest.raises(TypeError, match=f"x: AveragePooling takes a torch.Tensor, got {type(x).__name__}"):
        OPERATOR.forward(x)


@pytest.mark.parametrize("factor", [0, -2, True, 2.0, "2", None, np.bool_(True)])
@pytest.mark.parametrize("member", [AveragePooling, Bicubic])
def test_factors_that_are_none(member, factor):
    with pytest.raises(ValueError, match=f"{member.__name__}: factor must be a positive integer, got "):
        member(SHAPE, factor)


def test_factors_of_numpy():
    assert type(Bicubic(SHAPE, np.int64(2)).factor) is int
    assert AveragePooling(SHAPE, np.uint8(2)).measurement_shape == (3, 4, 4)


# ------------------------------------------------------------------------------------ looks at values
def bad(value, image=1):
    given = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) - 0.5
    given[image, 0, 0, 0] = value
    return given


def breaks_on_nan(x, t):
    if not torch.isfinite(x).all():
        raise LookupError("of the network's own")
    return 0.9 * x


LOOKS = {
    "nothing": (identity, lambda s: s(bad(0.0), seed=0)),
    "y is NaN": (identity, lambda s: s(bad(torch.nan), seed=0)),
    "y is infinite": (identity, lambda s: s.sample(bad(-torch.inf), 2, seed=0)),
    "y is NaN, and the network fails": (breaks_on_nan, lambda s: s(bad(torch.nan), seed=0)),
    "the network fails": (lambda x, t: breaks_on_nan(x * torch.nan, t), lambda s: s(bad(0.0), seed=0)),
    "a state is infinite": (identity, lambda s: s(bad(0.0), x_init=torch.full((2, *SHAPE), torch.inf))),
    "y is far": (identity, lambda s: s(bad(100.0), seed=0)),
    "the result is far": (lambda x, t: -90.0 * x, lambda s: s(bad(0.0), seed=0)),
    "the result is NaN": (lambda x, t: x * torch.nan, lambda s: s(bad(0.0), seed=0)),
    "levels of noise": (identity, lambda s: s(bad(torch.nan), noise_std=[0.0, 0.1], seed=0)),
    "another shape": (identity, lambda s: s(torch.full((2, 3, 4, 5), torch.nan), seed=0)),
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("nan", ["raise", "return"])
@pytest.mark.parametrize("name", LOOKS)
def test_a_device_that_is_not_waited_for_reports_the_same(name, nan, monkeypatch):
    network, call = LOOKS[name]

    def reported(at_once):
        s = sampler(network, solver=Conjugate(jacobian="none"), nan=nan)
        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as said:
            patch.setattr(Door, "looks", lambda door, callback=False: Looks(at_once))
            try:
                found = call(s).nan_to_num().tolist()
            except Exception as error:
                found = type(error), str(error)
        return found, [(w.category, str(w.message), w.filename, w.lineno) for w in said]

    at_once = reported(True)
    assert reported(False) == at_once
    assert all(filename == __file__ for _, _, filename, _ in at_once[1])


WAITS = ("tolist", "item", "__float__", "__bool__", "__int__")


@pytest.mark.parametrize(("check_finite", "waits"), [(True, 1), (False, 0)])
def test_a_call_waits_once(check_finite, waits, monkeypatch):
    s, waited = sampler(check_finite=check_finite), []
    monkeypatch.setattr(Door, "looks", lambda door, callback=False: Looks(at_once=False))
    s(bad(0.0), seed=0)  # The first measurement of an operator is looked at more closely.
    for name in WAITS:
        before = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda *given, name=name, before=before: waited.append(name) or before(*given)
        )
    s(bad(0.0), x_init=torch.zeros(2, *SHAPE), seed=0)
    assert waited == ["tolist"] * waits
