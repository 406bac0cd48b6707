"""The number of Python calls that the package makes between ``sampler(y)`` and the kernels in a run of five steps."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import ccfast
from ccfast import kernels
from ccfast.engine.backends import can_run
from ccfast.operators import Bicubic, Inpainting
from ccfast.schedules import VP
from ccfast.solvers import Conjugate

FOLDERS = tuple(str(Path(module.__file__).resolve().parent) for module in (ccfast, kernels))
SHAPE = (3, 64, 64)

pytestmark = pytest.mark.skipif(not can_run("native"), reason="counts the frames that lead to the native kernels")


def frames(function):
    """The calls of functions that are defined in the package, recorded while ``function`` runs."""
    counted = []

    def profile(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(FOLDERS):
            counted.append(f"{Path(frame.f_code.co_filename).name}: {frame.f_code.co_qualname}")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
    return counted


@pytest.mark.parametrize(
    ("build", "noise_std", "most"),
    [
        (lambda: Inpainting(torch.arange(64 * 64).reshape(1, 64, 64) % 2 == 0, SHAPE), 0.0, 80),
        (lambda: Bicubic(SHAPE, 4), 0.1, 160),
    ],
    ids=["noiseless mask", "bicubic with noise"],
)
@pytest.mark.filterwarnings("ignore:jacobian. 'exact' is stable")
def test_few_frames_lie_between_a_call_and_its_kernels(build, noise_std, most):
    operator = build()
    denoiser = ccfast.Denoiser(lambda x, t: 0.9 * x, VP())
    sampler = ccfast.Sampler(denoiser, operator, Conjugate(), steps=5, noise_std=noise_std, backend="native")
    y = operator.forward(torch.rand(1, *SHAPE))
    for _ in range(2):  # These runs make all that is made once.
        sampler(y, seed=0)
    counted = frames(lambda: sampler(y, seed=0))
    assert len(counted) > 30, "the profile sees nothing"
    assert len(counted) <= most, "\n".join(counted)
