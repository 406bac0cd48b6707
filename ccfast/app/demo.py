"""The demonstration: held-out photographs, four degradations, restored in a few network evaluations."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..metrics import psnr, ssim
from ..priors import heldout
from ..sampler import Sampler
from .degradations import parse_operator
from .gallery import Panel, Row

__all__ = ["TASKS", "Result", "restore_tasks"]

TASKS = (
    ("50 % random inpainting", "inpaint:0.5", "astronaut"),
    ("average pooling x4", "pool:4", "coffee"),
    ("bicubic x4", "bicubic:4", "chelsea"),
    ("Gaussian blur, std 3", "blur:3.0", "astronaut"),
)
"""The title, the word of the degradation and the photograph of each task. The photographs come inside the scikit-image
wheel, so that nothing is downloaded, and no bundled prior has seen them."""
ERROR_GAIN = 4
"""The factor by which errors are multiplied before they are drawn."""
SIZES = range(32, 297, 8)
"""Sides of the squares in pixels: the network takes multiples of 8, and the smallest photograph is 300 pixels high."""


class Result(NamedTuple):
    """One restoration.

    Images are (3, H, W) in [-1, 1]; the measurement has the shape that the operator gives it. ``psnr`` and ``ssim`` are
    those of H+ y and of the restored image. ``residual`` is the root mean square of H x - y, where x is the sampler's
    result before it is clamped.
    """

    task: str
    photograph: str
    truth: Tensor
    measurement: Tensor
    pinv: Tensor
    restored: Tensor
    psnr: tuple[float, float]
    ssim: tuple[float, float]
    residual: float
    seconds: float
    network_evaluations: int

    def row(self) -> Row:
        """This result as a row of a gallery."""
        height, width = self.measurement.shape[-2:]
        return Row(
            f"{self.task}: {self.photograph}",
            f"{self.network_evaluations} network evaluations, {self.seconds:.2f} s",
            (
                Panel(self.truth, "truth"),
                Panel(self.measurement, f"measurement, {width} x {height}"),
                Panel(self.pinv, f"H+ y: {self.psnr[0]:.2f} dB, SSIM {self.ssim[0]:.3f}"),
                Panel(self.restored, f"restored: {self.psnr[1]:.2f} dB, SSIM {self.ssim[1]:.3f}"),
                Panel(error_map(self.restored, self.truth), f"|error| x {ERROR_GAIN}; Hx - y: rms {self.residual:.1e}"),
            ),
        )


def error_map(restored: Tensor, truth: Tensor) -> Tensor:
    """The absolute error of each colour times ``ERROR_GAIN``, as an image: black is no error, white the limit."""
    return (ERROR_GAIN * (restored - truth).abs() - 1.0).clamp(max=1.0)


def restore_tasks(
    denoiser: Denoiser, *, steps: int, seed: int, size: int, device: torch.device | str = "cpu"
) -> Iterator[Result]:
    """Degrade and restore the photograph of each task, one after the other, with the goal "faithful".

    ``seconds`` of a result is the wall time of one call of the sampler. Scores are taken of images clamped to [-1, 1].
    The network of ``denoiser`` must be on ``device`` already.

    Raises:
        ImportError: scikit-image is not installed, and the photographs come with it.
        ValueError: ``size`` is not one of ``SIZES``.
    """
    if size not in SIZES:
        raise ValueError(f"size: must be a multiple of {SIZES.step} from {SIZES[0]} to {SIZES[-1]}, got {size}")
    for task, word, name in TASKS:
        truth = heldout.square(name, size)
        operator = parse_operator(word, tuple(truth.shape), seed)
        measurement = operator.forward(truth[None])
        sampler = Sampler(denoiser, operator, steps=steps, goal="faithful")
        started = time.perf_counter()
        restored = sampler(measurement.to(device), seed=seed).cpu()
        seconds = time.perf_counter() - started
        residual = float((operator.forward(restored) - measurement).square().mean().sqrt())
        images = torch.cat([operator.pinv(measurement), restored]).clamp(-1.0, 1.0)
        truths = truth.expand_as(images)
        psnr_pinv, psnr_restored = psnr(images, truths).tolist()
        ssim_pinv, ssim_restored = ssim(images, truths).tolist()
        yield Result(
            task,
            name,
            truth,
            measurement[0],
            images[0],
            images[1],
            (psnr_pinv, psnr_restored),
            (ssim_pinv, ssim_restored),
            residual,
            seconds,
            sampler.stats()["network_evaluations"],
        )
