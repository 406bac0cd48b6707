"""Tables of members: one row makes a member meet every law that is tested."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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

# on a machine that is doing something else two threads wait for each other, many times longer than they work
torch.set_num_threads(1)


def _random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _mask(*shape):
    return _random(*shape) < 0.6


SMOOTH = [0.05, 0.25, 0.4, 0.25, 0.05]
SKEW = [0.5, 0.3, 0.15, 0.05]

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
    ("gaussian-blur", lambda: GaussianBlur((2, 9, 10))),
    ("gaussian-blur-wide", lambda: GaussianBlur((1, 8, 13), std=1.0, taps=8, boundary="zero")),
    ("gaussian-blur-signal", lambda: GaussianBlur((2, 40))),
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
]  # fmt: skip


@pytest.fixture(params=[builder for _, builder in OPERATORS], ids=[name for name, _ in OPERATORS])
def operator(request):
    return request.param()
