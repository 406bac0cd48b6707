"""How many kernels a step launches on a GPU outside of the network, counted on the CPU."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from conftest import SMOOTH
from launch_counter import per_step

import ccfast
from ccfast.kernels import native
from ccfast.kernels.cuda import fourier
from ccfast.operators import (
    AveragePooling,
    Bicubic,
    Denoising,
    FourierBlur,
    FourierDownsampling,
    GaussianBlur,
    Grayscale,
    Inpainting,
    SoftMask,
)
from ccfast.solvers import DDIM, DDNM, DDRM, Conjugate, DiffPIR, PiGDM, Steered

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = pytest.mark.skipif(native.REASON is not None, reason=f"no native code: {native.REASON}")

SHAPE = (3, 16, 16)
OPERATORS = {
    "mask": lambda: Inpainting(torch.arange(256).reshape(1, 16, 16) % 3 > 0, SHAPE),
    "soft mask": lambda: SoftMask(torch.arange(1, 257).reshape(1, 16, 16) / 256, SHAPE),
    "denoising": lambda: Denoising(SHAPE),
    "block": lambda: AveragePooling(SHAPE, 4),
    "channel": lambda: Grayscale(SHAPE),
}
LOCAL = (*OPERATORS,)
OPERATORS |= {
    "banded": lambda: Bicubic((3, 32, 32), 2),
    "low rank": lambda: GaussianBlur(SHAPE),
    "fourier": lambda: FourierBlur(SHAPE, np.outer(SMOOTH, SMOOTH), 0.05),
    "alias": lambda: FourierDownsampling(SHAPE, np.outer(SMOOTH, SMOOTH), 2),
}
NEITHER = tuple(name for name in OPERATORS if name not in LOCAL)


@cache
def made(name):
    return OPERATORS[name]()


def count(name, solver, noise_std):
    """The launches and the bytes an element of a step."""
    operator = made(name)
    denoiser = ccfast.Denoiser(lambda x, t: 0.5 * x, ccfast.schedules.VP())

    def make(steps):
        options = {"steps": steps, "start": 0.6, "end": 0.01, "noise_std": noise_std, "check_finite": False}
        return ccfast.Sampler(denoiser, operator, solver, backend="cuda", **options)

    return per_step(make, torch.zeros(2, *operator.measurement_shape), 2 * int(np.prod(operator.shape)))


@pytest.mark.parametrize("noise_std", [0.0, 0.1], ids=["noiseless", "noisy"])
@pytest.mark.parametrize("name", LOCAL)
def test_a_step_of_a_local_operator_is_two_launches(name, noise_std):
    """The residual and the row, in float32: they read ybar, x and F, then x, F, r and h, and write r, x' and its copy.

    A mask takes a byte more, and coefficients of every element 4 bytes more for each of the two terms that they belong
    to, or of one image for all.
    """
    for solver in (Conjugate(1.0), Conjugate(1.0, jacobian="one_projection"), Conjugate(jacobian="none"), PiGDM(1.0)):
        found = count(name, solver, noise_std)
        assert found.launches == 2, found.names
        assert found.bytes <= (48 if name == "soft mask" else 41.5), found.names


@pytest.mark.parametrize("noise_std", [0.0, 0.1], ids=["noiseless", "noisy"])
@pytest.mark.parametrize("name", LOCAL)
def test_fresh_noise_is_one_launch(name, noise_std):
    for solver in (DDNM(), DDRM(), DiffPIR(), Conjugate("bayes", jacobian="auto", refresh=1.0), PiGDM()):
        found = count(name, solver, noise_std)
        assert found.launches == 3, found.names
        assert found.bytes <= (60 if name == "soft mask" else 49.5), found.names
    if not noise_std:
        assert count(name, Steered(), 0.0).launches == 3
    assert count(name, DDIM(), noise_std).launches == 1


@pytest.mark.parametrize("noise_std", [0.0, 0.1], ids=["noiseless", "noisy"])
@pytest.mark.parametrize("name", NEITHER)
def test_a_projection_is_three_launches(name, noise_std, monkeypatch):
    """A row that is projected, or that has coefficients over the modes, is three launches whatever the noise."""
    monkeypatch.setattr(fourier, "SIDES", fourier.SIDES | {16})  # Nothing is transformed, so that small sides serve.
    for solver in (Conjugate(1.0), Conjugate(1.0, order=2), DDRM()):
        found = count(name, solver, noise_std)
        history = 1 if solver == Conjugate(1.0, order=2) else 0  # The output of the network is copied.
        fresh = 1 if isinstance(solver, DDRM) else 0
        assert found.launches - history - fresh <= 6, found.names
    for solver in (PiGDM(1.0), DDNM(eta=0.0), Conjugate(1.0, jacobian="none")):
        assert count(name, solver, noise_std).launches <= 7, solver
        assert not any(launched.startswith("torch") for launched in count(name, solver, noise_std).names)


def test_the_counter_sees_what_torch_launches(monkeypatch):
    """An op of torch inside a step counts, and nothing of the network does."""
    from ccfast.engine import program

    clean = count("block", Conjugate(1.0), 0.0)
    monkeypatch.setattr(program.Buffers, "advance", slowed(program.Buffers.advance))
    slow = count("block", Conjugate(1.0), 0.0)
    assert slow.launches == clean.launches + 1
    assert slow.names["torch mul.Tensor"] == 1
    assert slow.bytes == pytest.approx(clean.bytes + 8, abs=0.1)


def slowed(advance):
    def call(buffers, registers):
        buffers.state * 2.0
        advance(buffers, registers)

    return call
