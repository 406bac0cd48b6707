"""What the commands of the command line do, once their options have been read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import ccfast

from ..priors.padding import any_size, multiple_of
from . import demo as demonstration
from .degradations import Degradation, parse_degradation
from .degrade_files import degrade as degrade_file
from .gallery import draw_gallery
from .images import check_output, write_picture
from .jobs import Job, Naming, plan_jobs, run_jobs, tell
from .levels import Level
from .manifest import Manifest, options_hash
from .mask_files import MaskOptions
from .picture_files import remove_partial_files
from .recipes import SamplerOptions
from .restore_files import Restorer, Settings
from .solver_words import parse_solver

__all__ = ["degrade", "demo", "restore"]


def restore(
    *,
    inputs: Sequence[str],
    operator: str,
    output: str | None,
    suffix: str,
    samples: int,
    mean: int,
    steps: int | None,
    goal: str,
    solver: str | None,
    hard_consistency: bool,
    prior: str,
    device: str,
    threads: int | None,
    resume: bool,
    limit: int | None,
    **common: Any,
) -> int:
    """Restore files; returns the exit code."""
    degradation = _degradation(operator, common)
    naming = Naming.of(output, suffix, samples=samples)
    goal = goal if samples == mean == 1 else "sharp"  # Faithful results would all be the same.
    settings = _settings(
        common, mean=mean, limit=limit, sampler=SamplerOptions(steps, goal, parse_solver(solver), hard_consistency)
    )
    work = {
        "operator": operator,
        "prior": prior,
        "steps": steps,
        "solver": solver,
        "goal": goal,
        "hard": hard_consistency,
    }
    work |= {"samples": samples, "mean": mean, "version": ccfast.__version__}
    work |= {name: common[name] for name in ("seed", "alpha", "to_rgb", "invert", "noise", "threshold")}
    manifest = Manifest(options_hash(work, _named_files(operator)))
    jobs = plan_jobs(inputs, naming, force=settings.force, known=manifest.knows if resume else None)
    remove_partial_files(target for job in jobs for target in job.targets)
    if resume:
        left = [job for job in jobs if not manifest.is_done(job)]
        tell(f"ccfast: resume: {len(jobs) - len(left)} of {len(jobs)} inputs were done before")
        jobs = left
    denoiser = _prior(prior, device, threads)
    denoiser = any_size(denoiser, multiple_of(denoiser.network))
    with _bar(0, "step") as bar:
        restorer = Restorer(
            denoiser,
            degradation,
            settings,
            progress=None if bar.disable else bar.update,
            manifest=manifest if resume or len(jobs) > 1 or naming.is_folder else None,
        )
        bar.total = (
            sum(map(restorer.count_tiles, (job.source for job in jobs))) * samples * mean * restorer.recipe.steps
        )
        return 1 if run_jobs(jobs, restorer) else 0


def _named_files(operator: str) -> list[Path]:
    """The file that the word of a degradation names, whose contents belong to the options."""
    path = operator.partition(":")[2]
    for given in (path, path.rpartition(",")[0]):
        if operator.startswith(("mask:", "kernel:")) and given and Path(given).is_file():
            return [Path(given)]
    return []


def degrade(*, inputs: Sequence[str], operator: str, output: str | None, suffix: str, **common: Any) -> int:
    """Make the measurements of files; returns the exit code."""
    degradation = _degradation(operator, common)
    naming = Naming.of(output, suffix, kind=".png")
    settings = _settings(common)
    jobs = plan_jobs(inputs, naming, force=settings.force)
    for job in jobs:
        if job.targets[0].suffix.lower() != ".png":
            raise ValueError(
                f"output: a measurement must be a .png (JPEG would change it), got {str(job.targets[0])!r}"
            )
    with _bar(len(jobs), "file") as bar:

        def work(job: Job) -> None:
            try:
                degrade_file(job, degradation, settings)
            finally:
                bar.update()

        return 1 if run_jobs(jobs, work) else 0


def _degradation(operator: str, common: dict[str, Any]) -> Degradation:
    """The degradation that a word names, whose notes are told."""
    degradation = parse_degradation(operator, _masks(common))
    for note in degradation.notes:
        tell(f"ccfast: {note}")
    return degradation


def _masks(common: dict[str, Any]) -> MaskOptions:
    return MaskOptions(common["threshold"], common["invert"])


def _settings(common: dict[str, Any], **more: Any) -> Settings:
    noise: Level | None = common["noise"]
    if noise is not None:
        tell(f"ccfast: noise: {noise}, as given")
    return Settings(
        seed=common["seed"],
        force=common["force"],
        alpha=common["alpha"],
        to_rgb=common["to_rgb"],
        masks=_masks(common),
        noise=noise,
        **more,
    )


def demo(
    *, out: str, size: int, prior: str, steps: int, seed: int, threads: int | None, device: str, force: bool
) -> int:
    """Restore held-out photographs and draw a gallery; returns the exit code."""
    check_output(out, overwrite=force)
    if not Path(out).parent.is_dir():
        raise FileNotFoundError(f"out: its folder must exist, got {out!r}")
    denoiser = _prior(prior, device, threads)
    tasks = demonstration.restore_tasks(denoiser, steps=steps, seed=seed, size=size, device=_device(device))
    results = []
    print(f"{'task':<24}{'photograph':<12}{'PSNR H+ y':>10}{'restored':>10}{'SSIM H+ y':>11}{'restored':>10}"
          f"{'evaluations':>13}{'seconds':>9}")  # fmt: skip
    for r in tqdm(tasks, total=len(demonstration.TASKS), desc="restoring", unit="task", disable=None, leave=False):
        results.append(r)
        tqdm.write(f"{r.task:<24}{r.photograph:<12}{r.psnr[0]:>10.2f}{r.psnr[1]:>10.2f}{r.ssim[0]:>11.3f}{r.ssim[1]:>10.3f}"
                   f"{r.network_evaluations:>13}{r.seconds:>9.2f}", file=sys.stdout)  # fmt: skip
    write_picture(draw_gallery([result.row() for result in results]), out, overwrite=force)
    print(f"gallery: {out}")
    return 0


def _prior(name: str, device: str, threads: int | None) -> ccfast.Denoiser:
    """The prior of this name on the device; sets the number of CPU threads too, where one is given."""
    place = _device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    denoiser = ccfast.load_prior(name)
    if isinstance(denoiser.network, torch.nn.Module):
        denoiser.network.to(place)
    return denoiser


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # Torch asserts that it was built for the device.
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"device: must be a device that torch can use, got {text!r}: {reason}") from None
    return device


def _bar(total: int, unit: str) -> tqdm:
    """A progress bar with the time left, which ``disable=None`` hides where stderr is no terminal."""
    return tqdm(total=total, unit=unit, disable=None, leave=False)
