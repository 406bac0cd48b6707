"""Tables of members: a member with a row here meets every law that is tested."""

from __future__ import annotations

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torchvision_schemas  # noqa: F401  before anything that imports torchvision, as diffusers and deepinv do
from interpreter import pytest_pyfunc_call  # noqa: F401  a hook of pytest
from members import pytest_addoption, select  # noqa: F401  a hook of pytest
from mri import MRI
from tomography import Tomography

from ccfast.operators import (
    AveragePooling,
    BandLimit,
    Bicubic,
    Blur,
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
    separable,
    soft_prefix,
)
from ccfast.solvers.registry import REGISTRY
from ccfast.testing import Gaussian, GaussianMixture

# On a busy machine two threads wait for each other many times longer than they work.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


FIRST = (
    "cuda",
    "triton",
    "capture",
    "noise",
    "operators",
    "isolation",
    "multistep",
    "bench",
    "prior",
    "options",
    "truth",
)
"""The files that take longest, the longest first."""


def pytest_collection_finish():
    """Exempt the objects made before the first test from garbage collection, which would look through them again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config, items):
    """Run the long files first, so that two workers (``make test``), which take file after file, end together."""
    moving = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if moving:
        raise pytest.UsageError(f"the name of a test must be the same in every process, got {moving[0]}; give it ids")
    select(config, items)
    order = {f"test_{name}.py": place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(FIRST)))


def _random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _mask(*shape):
    return _random(*shape) < 0.6


def _weights(*shape):
    return torch.where(_random(*shape) < 0.4, 0.0, 0.1 + 0.9 * _random(*shape, seed=1))


def _matrix(rows, columns, rank):
    return _random(rows, rank, seed=2) @ (_random(rank, columns, seed=3) - 0.5)


def _linear(matrix, shape, measurement_shape, **keywords):
    """The LinearOperator of a matrix's products; its 40 iterations are twice the rank, which suffices in theory."""
    return LinearOperator(
        lambda x: (x.flatten(1) @ matrix.mT.to(x)).reshape(-1, *measurement_shape),
        lambda y: (y.flatten(1) @ matrix.to(y)).reshape(-1, *shape),
        shape,
        iterations=40,
        **keywords,
    )


def _by_transforms(build):
    """An operator whose axes are fast transforms, however small they are."""
    with patch.multiple(separable, TRANSFORM_FROM=1, MATRICES_BELOW=1):
        return build()


def _mixed(shape, cutoff):
    """The rows by a fast transform, the columns, with another border, by a matrix."""
    rows = SeparableBlur(shape[:2], SMOOTH, boundary="reflect", cutoff=cutoff).axes
    return separable.Separable(shape, [*rows, *SeparableBlur((1, shape[2]), SKEW, boundary="mirror").axes])


SMOOTH = [0.05, 0.25, 0.4, 0.25, 0.05]
SKEW = [0.5, 0.3, 0.15, 0.05]


def _sharp(*shape):
    """A kernel that is neither symmetric nor of rank one, and whose blur is well conditioned."""
    kernel = 0.4 * _random(*shape)
    kernel[..., *(n // 2 for n in shape[-2:])] += 2.0 * kernel.sum() / (kernel.shape[0] if kernel.ndim == 3 else 1)
    return kernel / kernel.sum((-2, -1), keepdim=True)


OPERATORS = [
    ("inpainting", lambda: Inpainting(_mask(3, 6, 9))),
    ("inpainting-1-channel", lambda: Inpainting(_mask(1, 6, 9))),
    ("inpainting-1-channel-of-4", lambda: Inpainting(_mask(1, 6, 9), shape=(4, 6, 9))),
    ("inpainting-per-image", lambda: Inpainting(_mask(3, 2, 6, 9))),
    ("inpainting-per-image-1-channel", lambda: Inpainting(_mask(3, 1, 6, 9), shape=(2, 6, 9))),
    ("inpainting-signal", lambda: Inpainting(_mask(2, 17))),
    ("inpainting-signal-per-image", lambda: Inpainting(_mask(3, 1, 17), shape=(2, 17))),
    ("denoising", lambda: Denoising((3, 5, 7))),
    ("denoising-signal", lambda: Denoising((2, 9))),
    ("average-pooling", lambda: AveragePooling((3, 6, 9), 3)),
    ("average-pooling-4-channels", lambda: AveragePooling((4, 8, 4), 2)),
    ("average-pooling-signal", lambda: AveragePooling((2, 12), 4)),
    ("grayscale", lambda: Grayscale((3, 5, 7))),
    ("grayscale-1-channel", lambda: Grayscale((1, 5, 7), [-0.7])),
    ("grayscale-4-channels", lambda: Grayscale((4, 5, 7), [0.1, 0.4, 0.0, -0.2])),
    ("grayscale-signal", lambda: Grayscale((2, 11), [0.25, 0.75])),
    ("bicubic", lambda: Bicubic((2, 8, 16), 4)),
    ("bicubic-odd-factor", lambda: Bicubic((1, 9, 6), 3)),
    ("bicubic-signal", lambda: Bicubic((2, 24), 2)),
    ("separable-blur-zero", lambda: SeparableBlur((2, 7, 9), SMOOTH, boundary="zero")),
    ("separable-blur-reflect", lambda: SeparableBlur((4, 6, 8), SKEW, boundary="reflect", cutoff=0.2)),
    ("separable-blur-circular", lambda: SeparableBlur((1, 8, 9), SKEW, center=1, boundary="circular", cutoff=0.4)),
    ("separable-blur-long", lambda: SeparableBlur((2, 5, 8), _random(23) ** 3, boundary="reflect")),
    ("separable-blur-long-circular", lambda: SeparableBlur((2, 5, 8), _random(23) ** 3, boundary="circular")),
    ("separable-blur-signal", lambda: SeparableBlur((2, 21), SMOOTH, boundary="reflect", cutoff=0.1)),
    ("separable-blur-mirror", lambda: SeparableBlur((2, 7, 9), SKEW, boundary="mirror", convention="convolution")),
    ("separable-blur-replicate", lambda: SeparableBlur((1, 6, 8), SKEW, boundary="replicate", cutoff=0.2)),
    ("separable-blur-long-replicate", lambda: SeparableBlur((2, 5, 8), _random(23) ** 3, boundary="replicate")),
    ("separable-blur-valid", lambda: SeparableBlur((2, 7, 9), SMOOTH, boundary="valid", cutoff=0.0)),
    ("blur-rank-one", lambda: Blur((2, 6, 8), np.outer(SMOOTH, SKEW), "mirror", convention="convolution")),
    ("blur-circular", lambda: Blur((2, 6, 8), _sharp(4, 3), "circular", convention="convolution")),
    ("gaussian-blur", lambda: GaussianBlur((2, 9, 10))),
    ("gaussian-blur-wide", lambda: GaussianBlur((1, 8, 13), std=1.0, taps=8, boundary="zero")),
    ("gaussian-blur-signal", lambda: GaussianBlur((2, 40))),
    ("cosine-blur", lambda: _by_transforms(lambda: GaussianBlur((2, 9, 10), std=1.5))),
    ("cosine-blur-signal", lambda: _by_transforms(lambda: SeparableBlur((2, 13), [0.2, 0.6, 0.2], cutoff=0.3))),
    ("cosine-bicubic", lambda: _by_transforms(lambda: Bicubic((1, 12, 18), 3))),
    (
        "cosine-compose",
        lambda: _by_transforms(lambda: Compose(GaussianBlur((3, 8, 12), 0.6, 5), AveragePooling((3, 8, 12), 2))),
    ),
    ("cosine-and-matrix", lambda: _by_transforms(lambda: _mixed((2, 7, 8), 0.2))),
    ("circular-axes", lambda: _by_transforms(lambda: SeparableBlur((2, 8, 9), SKEW, 1, "circular", 0.4))),
    ("fourier-blur", lambda: FourierBlur((2, 8, 9), _random(3, 5) / 8)),
    ("fourier-blur-even-kernel", lambda: FourierBlur((3, 7, 6), _random(4, 2) / 4, cutoff=0.3)),
    ("fourier-blur-long", lambda: FourierBlur((1, 5, 6), _random(13, 9) / 50)),
    ("fourier-blur-per-image", lambda: FourierBlur((2, 6, 7), _random(3, 3, 3) / 4, cutoff=0.1)),
    ("fourier-blur-signal", lambda: FourierBlur((2, 15), SKEW, cutoff=0.45)),
    ("fourier-blur-signal-per-image", lambda: FourierBlur((1, 16), _random(2, 5) / 2)),
    ("fourier-downsampling", lambda: FourierDownsampling((2, 8, 12), _random(5, 4) / 10, 2)),
    ("fourier-downsampling-odd", lambda: FourierDownsampling((1, 9, 15), _random(3, 3) / 4, 3, cutoff=0.2)),
    ("fourier-downsampling-cut", lambda: FourierDownsampling((3, 8, 8), np.outer(SMOOTH, SMOOTH), 2, 0.3)),
    ("fourier-downsampling-per-image", lambda: FourierDownsampling((2, 6, 8), _random(3, 3, 3) / 4, 2)),
    ("fourier-downsampling-signal", lambda: FourierDownsampling((2, 20), SKEW, 4)),
    ("soft-mask", lambda: SoftMask(_weights(3, 6, 9))),
    ("soft-mask-per-image", lambda: SoftMask(_weights(3, 1, 6, 9), shape=(2, 6, 9))),
    ("soft-mask-prefix", lambda: SoftMask(soft_prefix(12, 3, 8), shape=(4, 12))),
    ("band-limit", lambda: BandLimit((2, 20), 300.0, 1100.0, rate=4000.0)),
    ("band-limit-low-odd", lambda: BandLimit((1, 21), 0.0, 0.2)),
    ("band-limit-image", lambda: BandLimit((2, 8, 9), 0.0, 0.3)),
    ("matrix", lambda: Matrix(_matrix(7, 60, 7), (3, 4, 5))),
    ("matrix-tall", lambda: Matrix(_matrix(30, 20, 20), (1, 4, 5))),
    ("matrix-rank-deficient", lambda: Matrix(_matrix(24, 40, 15), (2, 4, 5), measurement_shape=(2, 3, 4))),
    ("matrix-per-channel", lambda: Matrix(_matrix(6, 20, 6), (3, 4, 5))),
    ("matrix-signal-cutoff", lambda: Matrix(_matrix(8, 12, 8), (2, 12), cutoff=0.5)),
    ("hadamard", lambda: Hadamard((3, 4, 8), [0, 3, 17, 30, 4, 9, 11])),
    ("hadamard-sequency", lambda: Hadamard((2, 4, 4), list(range(6)), order="sequency")),
    ("hadamard-signal", lambda: Hadamard((2, 16), [5, 1, 15])),
    ("compose-gray-pooling", lambda: Compose(AveragePooling((3, 6, 8), 2), Grayscale((3, 3, 4)))),
    ("compose-gray-mask-per-image", lambda: Compose(Inpainting(_mask(3, 1, 4, 5), (3, 4, 5)), Grayscale((3, 4, 5)))),
    ("compose-gray-blur", lambda: Compose(Grayscale((3, 6, 7)), FourierBlur((1, 6, 7), _random(3, 3, 3) / 4, 0.1))),
    ("compose-separable", lambda: Compose(SeparableBlur((2, 8, 12), SKEW), Bicubic((2, 8, 12), 2), cutoff=0.05)),
    ("compose-fourier", lambda: Compose(FourierBlur((2, 8, 8), _random(3, 3) / 4), AveragePooling((2, 8, 8), 2))),
    ("mri", lambda: MRI(_mask(6, 7))),
]  # fmt: skip
"""Operators with a thin SVD."""

KRYLOV_OPERATORS = [
    ("linear", lambda: _linear(_matrix(10, 48, 10), (3, 4, 4), (10,))),
    ("linear-tall", lambda: _linear(_matrix(20, 12, 12), (1, 3, 4), (4, 5))),
    ("linear-rank-deficient", lambda: _linear(_matrix(15, 24, 9), (2, 12), (3, 5))),
    ("linear-wrapped", lambda: _wrapped(AveragePooling((2, 4, 6), 2))),
    ("chain", lambda: Compose(Inpainting(_mask(3, 4, 6)), AveragePooling((3, 4, 6), 2), iterations=40)),
    ("chain-per-image", lambda: Compose(Inpainting(_mask(3, 1, 6, 6), (2, 6, 6)), Bicubic((2, 6, 6), 3))),
    ("blur-zero", lambda: Blur((2, 5, 6), _sharp(3, 4), "zero", convention="convolution")),
    ("blur-reflect", lambda: Blur((1, 5, 7), _sharp(4, 3), "reflect")),
    ("blur-mirror-long", lambda: Blur((1, 4, 5), _sharp(9, 13), "mirror")),
    ("blur-replicate", lambda: Blur((2, 6, 5), _sharp(5, 3), "replicate")),
    ("blur-valid", lambda: Blur((2, 7, 6), _sharp(3, 2), "valid")),
    ("blur-reflect-per-image", lambda: Blur((2, 5, 6), _sharp(3, 3, 4), "reflect", convention="convolution")),
    ("blur-signal-per-image", lambda: Blur((2, 14), _random(2, 3) + torch.tensor([0.0, 4.0, 0.0]), "replicate")),
    ("tomography", lambda: Tomography((1, 5, 5), angles=4, iterations=40)),
]
"""Operators without an SVD, whose H+ and P by conjugate gradients are exact up to rounding at these sizes."""


SOLVERS = {entry.name: entry for entry in REGISTRY}
"""The solvers, which are the rows of the registry. The table of docs/solvers.md is made from it, too."""


def _wrapped(operator):
    return LinearOperator(operator.forward, operator.adjoint, operator.shape, iterations=10)


def in_threads(work, count):
    """Call ``work`` with 0, ..., count - 1 at the same time, each in its own thread, and raise what a thread raised."""
    together = threading.Barrier(count)

    def begin(k):
        together.wait()
        work(k)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(begin, range(count)))


def few_iterations(operator):
    """Set two conjugate gradient steps, where the operator takes any, for tests that do not depend on their number."""
    if operator.kind == "krylov":
        operator.iterations = 2
    return operator


def _fixture(members):
    return pytest.fixture(params=[builder for _, builder in members], ids=[name for name, _ in members])


@_fixture(OPERATORS)
def operator(request):
    return request.param()


@pytest.fixture(params=SOLVERS.values(), ids=SOLVERS)
def solver_entry(request):
    return request.param


@_fixture(OPERATORS + KRYLOV_OPERATORS)
def any_operator(request):
    return request.param()


@pytest.fixture(scope="session")
def mixture() -> GaussianMixture:
    """A mixture of three correlated Gaussians over signals of one channel and 16 samples."""
    generator = torch.Generator().manual_seed(3)
    means = torch.randn(3, 16, dtype=torch.float64, generator=generator)
    roots = torch.randn(3, 16, 16, dtype=torch.float64, generator=generator) / 6
    return GaussianMixture([0.5, 0.3, 0.2], means, roots @ roots.mT, (1, 16))


@pytest.fixture(scope="session")
def prior() -> Gaussian:
    """An AR(1) process over such signals, whose mean is not zero and whose covariance is full."""
    index = torch.arange(16, dtype=torch.float64)
    return Gaussian(0.3 * torch.sin(index), 0.6 * 0.85 ** (index[:, None] - index).abs(), (1, 16))
