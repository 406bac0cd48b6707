"""From a measurement file to restored files, with everything else that the file holds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..denoiser import Denoiser
from .degradations import Degradation, fitting_mask
from .images import as_samples, as_tensor, check_opaque
from .jobs import Job, tell
from .jpeg_rounding import rounding_of
from .levels import Level
from .manifest import Manifest
from .mask_files import DEFAULT, MaskOptions, mask_of
from .memory_need import tile_side
from .noise_estimate import ROUNDING, estimate_noise
from .picture_files import SUFFIXES, encode, write_bytes
from .pictures import Header, Picture, UnsupportedError, read_header, read_picture
from .recipes import Recipe, SamplerOptions, recipe_of
from .tiles import Box, join_tiles, plan_tiles

__all__ = ["SIZE_KEY", "Restorer", "Settings", "make_folder", "read_source"]

SIZE_KEY = "ccfast:size"
"""The PNG text in which a measurement keeps "HxW", the size of its image before that was padded for sub-sampling."""


@dataclass(frozen=True)
class Settings:
    """How files are read, restored and written.

    Attributes:
        seed: of all random numbers; sample k has ``seed + k``, while a random mask always has ``seed``.
        force: whether files that exist are replaced.
        alpha: "refuse", "keep" or "drop" what is not opaque.
        to_rgb: whether other colour spaces are converted.
        masks: how masks are read.
        noise: the level of the noise; None: what the degradation takes by itself.
        mean: the number of samples whose mean is one result.
        limit: the bytes that the process may take; None: what it needs.
        sampler: the options of the samplers.
    """

    seed: int = 0
    force: bool = False
    alpha: str = "refuse"
    to_rgb: bool = False
    masks: MaskOptions = DEFAULT
    noise: Level | None = None
    mean: int = 1
    limit: int | None = None
    sampler: SamplerOptions = field(default_factory=SamplerOptions)


def read_source(path: Path, settings: Settings, degradation: Degradation) -> Picture:
    """The picture of a file as the settings want it, in colour or grey."""
    picture = read_picture(path, convert=settings.to_rgb)
    if degradation.own_alpha or settings.alpha == "drop":
        return picture if degradation.own_alpha else replace(picture, alpha=None)
    if settings.alpha == "refuse":
        check_opaque(picture, path)
    return picture


class Restorer:
    """Restores measurement files on the device of the network; called with one ``Job`` at a time.

    Args:
        denoiser: the prior, for images of any size.
        degradation: what the measurements went through.
        settings: how.
        progress: is called after every network evaluation.
        manifest: where results are written down before they are written, if at all.
        note: is called with every note on a file.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        degradation: Degradation,
        settings: Settings,
        *,
        progress: Callable[[], object] | None = None,
        manifest: Manifest | None = None,
        note: Callable[[str], object] = tell,
    ) -> None:
        self.degradation, self.settings, self.manifest, self.note = degradation, settings, manifest, note
        # Without progress the sampler gets no callback, so that it may replay a CUDA graph.
        callback = None if progress is None else _after_each_step(progress)
        self.recipe: Recipe = recipe_of(denoiser, degradation, settings.sampler, callback)

    def encoded(self, job: Job) -> list[bytes]:
        """The files of a job, one for each target, which ``write`` writes."""
        settings, source = self.settings, job.source
        picture = read_source(source, settings, self.degradation)
        degradation = self._fitted(picture, source)
        measurement = _measured(picture, degradation, source)
        noise = self._noise(picture, degradation, source)
        factor, hw = degradation.factor, _recorded_size(picture, degradation.factor)
        keeps = self._kept(picture, degradation, noise)
        results = []
        for index, target in enumerate(job.targets):
            samples = self._restored(measurement, degradation, noise, settings.seed + index * settings.mean)
            samples = samples[: hw[0], : hw[1]]
            if keeps is not None:
                np.copyto(samples, picture.pixels, where=keeps[: hw[0], : hw[1]])
                if SUFFIXES[target.suffix.lower()] == "JPEG":
                    self.note(f"{source}: observed pixels are kept to the bit, which JPEG then changes; .png does not")
            result = replace(picture, pixels=samples, alpha=_fitted_alpha(picture, degradation, hw, factor))
            result.texts = {key: text for key, text in picture.texts.items() if key != SIZE_KEY}
            opaque = result.alpha is not None and bool((result.alpha == result.largest).all())
            if opaque and SUFFIXES[target.suffix.lower()] in ("JPEG", "PPM"):
                result.alpha = None
            results.append(encode(result, target.suffix))
        return results

    def __call__(self, job: Job) -> None:
        """Write one result to each target of the job, or none at all where one could not be computed."""
        encoded, manifest = self.encoded(job), self.manifest
        make_folder(job)
        known = [manifest is not None and manifest.knows(target) for target in job.targets]
        if manifest is not None:
            manifest.record(job, encoded)
        for data, target, own in zip(encoded, job.targets, known, strict=True):
            write_bytes(target, data, self.settings.force or own)

    def count_tiles(self, path: Path) -> int:
        """The number of tiles that a file is restored in, 1 for one that cannot be read."""
        try:
            return len(self._boxes(read_header(path), self.degradation))
        except ValueError:
            return 1

    # ------------------------------------------------------------------------------------ one file
    def _boxes(self, header: Header, degradation: Degradation) -> list[Box]:
        limit, factor = self.settings.limit, degradation.factor
        side = None if limit is None else tile_side(header, degradation.text, limit)
        return plan_tiles(header.hw, None if side is None else max(1, side // factor), -(-self.recipe.margin // factor))

    def _fitted(self, picture: Picture, source: Path) -> Degradation:
        """The degradation of this file, which may have brought its own mask or tables."""
        if self.degradation.jpeg:
            rounding = rounding_of(picture, self.degradation.quality)
            if rounding is None:
                raise UnsupportedError(
                    f"path: must be a JPEG, whose tables are known, or once have been one of a quality that "
                    f"jpeg:QUALITY says, got {str(source)!r}"
                )
            return replace(self.degradation, rounding=rounding)
        if not self.degradation.own_alpha:
            return self.degradation
        if picture.alpha is None:
            raise UnsupportedError(f"path: must have transparency for the mask 'alpha', got {str(source)!r} without")
        mask, notes = mask_of(replace(picture, exif=None), str(source), self.settings.masks)
        for note in notes:
            self.note(note)
        return replace(self.degradation, mask=lambda shape, seed: fitting_mask(mask, str(source), shape))

    def _noise(self, picture: Picture, degradation: Degradation, source: Path) -> float:
        """The standard deviation of the noise in the range of the network, [-1, 1]; what was taken is noted."""
        given = self.settings.noise or degradation.level
        if given is not None:
            return given.std
        if degradation.rounding is not None:
            level = Level(degradation.rounding.error(picture.pixels / picture.largest * 255) / 255)
            self.note(f"{source}: error of the JPEG: {level}, as its tables say")
            return level.std
        if degradation.kernel is None and not degradation.denoises:
            return 0.0
        estimate = estimate_noise(picture.pixels) / picture.largest
        if degradation.denoises:
            if not estimate:
                self.note(f"{source}: no noise was found, and nothing is changed (--noise-std)")
                return 0.0
            self.note(f"{source}: noise: {Level(estimate)}, as estimated")
            return Level(estimate).std
        # Rounding is noise, too; 16 bits are not known better than the camera knew them.
        known = rounding_of(picture, None)
        coding = 0.0 if known is None else known.error(picture.pixels) / picture.largest
        level = Level(max(math.hypot(estimate, ROUNDING / min(picture.largest, 1023)), coding))
        self.note(f"{source}: noise: {level}, as estimated with rounding")
        return level.std

    def _kept(self, picture: Picture, degradation: Degradation, noise: float) -> np.ndarray | None:
        """Which samples (H, W, C) of a noise-free mask stay as they were measured."""
        if degradation.mask is None or noise:
            return None
        mask = degradation.mask((3, *picture.hw), self.settings.seed)
        observed = mask if picture.pixels.shape[2] == 3 else mask.all(0, keepdim=True)
        return observed.permute(1, 2, 0).numpy()

    def _mean(self, y: Tensor, box: Box, seed: int, grey: bool) -> Tensor:
        """The mean of the samples of one part, (C, H, W)."""
        samples = (self.recipe.restore(y, box, seed + k)[0] for k in range(self.settings.mean))
        mean = torch.stack(list(samples)).mean(0) if self.settings.mean > 1 else next(samples)
        return mean.mean(0, keepdim=True) if grey else mean

    def _restored(self, measurement: np.ndarray, degradation: Degradation, noise: float, seed: int) -> np.ndarray:
        """The samples of the restored picture (H, W, C), with as many channels as the result is to have."""
        factor, settings = degradation.factor, self.settings
        grey = measurement.shape[2] == 1 and degradation.channels == 3
        whole = measurement.shape[0], measurement.shape[1]
        out = np.empty((factor * whole[0], factor * whole[1], 1 if grey else 3), measurement.dtype)
        self.recipe.begin(degradation, whole, noise, settings.seed)
        boxes = self._boxes(Header(whole, measurement.shape[2], 8 * measurement.dtype.itemsize, ""), degradation)

        def restore(box: Box) -> Tensor:
            y = as_tensor(box.of(measurement))
            y = (y.expand(degradation.channels, -1, -1) if len(y) == 1 else y)[None].contiguous()
            with warnings.catch_warnings():
                # That values lie far outside of the range helps nobody here, where they are clamped.
                warnings.simplefilter("ignore", UserWarning)
                return self._mean(y, box, seed, grey)

        def write(box: Box, image: Tensor, weight: Tensor) -> None:
            part = box.of(out)
            if len(boxes) == 1:
                part[:] = as_samples(image, out.dtype)
                return
            old = as_tensor(part)
            part[:] = as_samples(torch.where(weight == 1, image, old + weight * (image - old)), out.dtype)

        join_tiles(boxes, factor, restore, write)
        if measurement.shape[2] == 3 and degradation.channels == 3 and _is_grey(measurement):
            # What is grey in colour stays grey, too.
            for top in range(0, len(out), _ROWS):
                part = out[top : top + _ROWS]
                part[:] = as_samples(as_tensor(part).mean(0, keepdim=True), out.dtype)
        return out


_ROWS = 256
"""Rows that are averaged at once, which takes little memory."""


def _after_each_step(progress: Callable[[], object]) -> Callable[[int, Tensor], None]:
    def callback(step: int, x0hat: Tensor) -> None:
        progress()  # Its result is dropped, since a callback that returns True stops the sampler.

    return callback


def make_folder(job: Job) -> None:
    """Make the folder of the targets, which is done late so that a job that fails leaves no empty folder."""
    job.targets[0].parent.mkdir(parents=True, exist_ok=True)


def _is_grey(samples: np.ndarray) -> bool:
    """Whether all channels (H, W, C) are equal."""
    return bool((samples == samples[..., :1]).all())


def _measured(picture: Picture, degradation: Degradation, path: Path) -> np.ndarray:
    """The samples of a measurement, (H, W, 1) for a grey file and where the operator gives one channel."""
    pixels = picture.pixels
    if degradation.channels == 1 and pixels.shape[2] == 3:
        if not _is_grey(pixels):
            raise ValueError(f"path: must be a greyscale image for this operator, got {str(path)!r} with colours")
        return pixels[..., :1]
    return pixels


def _fitted_alpha(picture: Picture, degradation: Degradation, hw: tuple[int, int], factor: int) -> np.ndarray | None:
    """The alpha channel of the result, enlarged where the result is larger, and none where it was the mask."""
    if picture.alpha is None or degradation.own_alpha:
        return None
    if factor == 1:
        return picture.alpha
    height, width = (factor * side for side in picture.hw)
    floats = Image.fromarray(picture.alpha.astype(np.float32))
    large = np.array(floats.resize((width, height), Image.Resampling.BILINEAR)).round()
    return large.clip(0, picture.largest).astype(picture.alpha.dtype)[: hw[0], : hw[1]]


def _recorded_size(picture: Picture, factor: int) -> tuple[int, int]:
    """The size (H, W) that the restored image is cropped to: the one that ``degrade`` recorded, or the whole size."""
    full = factor * picture.hw[0], factor * picture.hw[1]
    height, _, width = str(picture.texts.get(SIZE_KEY, "")).partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        return full
    recorded = int(height), int(width)
    fits = all(0 <= whole - side < factor for whole, side in zip(full, recorded, strict=True))
    return recorded if fits else full  # A file that was edited after ``degrade`` may have another size by now.
