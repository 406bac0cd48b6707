"""Commands on many image files: where each result goes, and how files are degraded and restored one after the other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from tqdm import tqdm

from ..denoiser import Denoiser
from ..operators import Operator
from ..priors.padding import crop, pad_to_multiple
from ..sampler import Sampler
from .degradations import Degradation
from .images import check_output, load_image, save_image, to_picture, write_picture

__all__ = ["Job", "Restorer", "degrade", "plan_jobs", "run_jobs"]

_SIZE_KEY = "ccfast:size"
"""The PNG text in which a measurement keeps "HxW", the size of its image before that was padded for sub-sampling."""
_NOISE_STREAM = 0x6E6F697365
"""The distance between the seeds of noise and of a random mask, so that the two share no random numbers."""


class Job(NamedTuple):
    """One input file and the files that are made from it."""

    source: Path
    targets: tuple[Path, ...]


def plan_jobs(inputs: Sequence[str], output: str, *, force: bool, samples: int = 1) -> list[Job]:
    """The files to write, all of them checked before any work is done.

    One input is written to ``output`` itself. Where ``output`` is a folder, or there are several inputs, each is
    written to ``output/NAME.png``. With several samples, -0, -1, ... is added to the name.

    Raises:
        ValueError: two results would share a file, a result would replace an input, the suffix is unknown, or
            ``output`` must be a folder and is not.
        FileExistsError: a result exists, and ``force`` is False.
        FileNotFoundError: the folder of ``output`` does not exist.
    """
    folder = Path(output)
    if len(inputs) > 1 or folder.is_dir() or output.endswith(("/", os.sep)):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"output: must be a folder for {len(inputs)} inputs, got the file {output!r}")
        targets = [folder / f"{Path(source).stem}.png" for source in inputs]
    else:
        if not folder.parent.is_dir():
            raise FileNotFoundError(f"output: its folder must exist, got {output!r}")
        targets = [folder]
    jobs = [Job(Path(s), _numbered(t, samples)) for s, t in zip(inputs, targets, strict=True)]
    sources = {_identity(job.source) for job in jobs if job.source.exists()}
    owners: dict[Path, Path] = {}
    for job in jobs:
        for target in job.targets:
            if target in owners:
                raise ValueError(
                    f"output: must differ for every input, got {target} for {owners[target]}, {job.source}"
                )
            owners[target] = job.source
            if target.exists() and _identity(target) in sources:
                raise ValueError(f"output: must not replace an input, got {target}")
            check_output(target, overwrite=force)
    return jobs


def _identity(path: Path) -> tuple[int, int]:
    """The device and inode of a file, which are equal for two paths to one file, through links too."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _numbered(target: Path, samples: int) -> tuple[Path, ...]:
    """The files of all samples of one result."""
    if samples == 1:
        return (target,)
    return tuple(target.with_name(f"{target.stem}-{index}{target.suffix}") for index in range(samples))


def run_jobs(jobs: Sequence[Job], work: Callable[[Job], None]) -> int:
    """Do every job, whatever becomes of the others, and name on stderr each that fails.

    Returns:
        The number of failed jobs.
    """
    failed = 0
    for job in jobs:
        try:
            work(job)
        except (ValueError, OSError, RuntimeError, MemoryError, FloatingPointError) as error:
            # PyTorch raises RuntimeError when memory runs out. Others are mistakes in ccfast and keep their traceback.
            failed += 1
            tqdm.write(f"ccfast: error: {job.source}: {str(error) or type(error).__name__}", file=sys.stderr)
        else:
            tqdm.write("\n".join(map(str, job.targets)), file=sys.stdout)
    return failed


def degrade(
    job: Job, degradation: Degradation, *, noise_std: float, seed: int, force: bool, drop_alpha: bool = False
) -> None:
    """Write the measurement of one image as PNG: y = H x + noise, rounded to 8 bits."""
    image = load_image(job.source, alpha="drop" if drop_alpha else "refuse")
    padded, size = pad_to_multiple(image, degradation.factor)
    operator = degradation.build((3, padded.shape[1], padded.shape[2]), seed)
    measurement = operator.forward(padded[None])[0]
    if noise_std > 0:
        generator = torch.Generator().manual_seed(seed + _NOISE_STREAM)
        measurement = measurement + noise_std * torch.randn(
            measurement.shape, generator=generator, dtype=measurement.dtype
        )
    record = PngInfo()
    record.add_text(_SIZE_KEY, f"{size[0]}x{size[1]}")
    _make_folder(job)
    write_picture(to_picture(measurement), job.targets[0], overwrite=force, pnginfo=record)


class Restorer:
    """Restores measurement files on the device of the network; called with one ``Job`` at a time.

    The sampler is planned again only when the size of the image changes. Sample k of a file has the seed ``seed + k``,
    while a random mask always has ``seed``.

    Args:
        denoiser: the prior, for images of any size.
        degradation: what the measurements went through.
        steps: the number of network evaluations.
        seed: the seed of all random numbers.
        force: whether files that exist are replaced.
        noise_std: the standard deviation of the noise in the measurements, on [-1, 1].
        drop_alpha: whether images that are not opaque are taken without their transparency.
        progress: is called after every step.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        degradation: Degradation,
        *,
        steps: int,
        seed: int,
        force: bool,
        noise_std: float = 0.0,
        drop_alpha: bool = False,
        progress: Callable[[], object] | None = None,
    ) -> None:
        self.denoiser, self.degradation = denoiser, degradation
        self.steps, self.seed, self.force, self.noise_std = steps, seed, force, noise_std
        self.drop_alpha = drop_alpha
        # Without progress the sampler gets no callback, so that it may replay a CUDA graph.
        self._callback = None if progress is None else _after_each_step(progress)
        self._sampler: Sampler | None = None
        self._operator: Operator | None = None

    def __call__(self, job: Job) -> None:
        """Write one sample to each target of the job, or none at all where one could not be computed."""
        measurement = load_image(job.source, alpha="drop" if self.drop_alpha else "refuse")
        if self.degradation.channels == 1:
            measurement = _single_channel(measurement, job.source)
        sampler = self._sampler_for(measurement)
        results = [
            sampler(measurement[None].to(sampler.device), seed=self.seed + index, callback=self._callback)[0]
            for index in range(len(job.targets))
        ]
        hw = _recorded_size(job.source, self.degradation.factor, measurement)
        _make_folder(job)
        for result, target in zip(results, job.targets, strict=True):
            save_image(crop(result, hw), target, overwrite=self.force)

    def _sampler_for(self, measurement: Tensor) -> Sampler:
        shape = self.degradation.image_shape(tuple(measurement.shape))
        if self._sampler is None or self._operator is None or self._operator.shape != shape:
            self._operator = self.degradation.build(shape, self.seed)
            self._sampler = Sampler(self.denoiser, self._operator, steps=self.steps, noise_std=self.noise_std)
        return self._sampler


def _after_each_step(progress: Callable[[], object]) -> Callable[[int, Tensor], None]:
    def callback(step: int, x0hat: Tensor) -> None:
        progress()  # Its result is dropped, since a callback that returns True stops the sampler.

    return callback


def _make_folder(job: Job) -> None:
    """Make the folder of the targets, which is done late so that a job that fails leaves no empty folder."""
    job.targets[0].parent.mkdir(parents=True, exist_ok=True)


def _single_channel(image: Tensor, path: Path) -> Tensor:
    """The one channel (1, H, W) of a greyscale file that was read as RGB."""
    if not (image == image[:1]).all():
        raise ValueError(f"path: must be a greyscale image for this operator, got {str(path)!r} with colours")
    return image[:1]


def _recorded_size(path: Path, factor: int, measurement: Tensor) -> tuple[int, int]:
    """The size (H, W) that the restored image is cropped to: the one that ``degrade`` recorded, or the whole size."""
    full = factor * measurement.shape[-2], factor * measurement.shape[-1]
    with Image.open(path) as image:
        height, _, width = str(image.info.get(_SIZE_KEY, "")).partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        return full
    recorded = int(height), int(width)
    fits = all(0 <= whole - side < factor for whole, side in zip(full, recorded, strict=True))
    return recorded if fits else full  # A file that was edited after ``degrade`` may have another size by now.
