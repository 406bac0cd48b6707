"""Find the presets: ``python -m ccfast.presets.sweep photo --photos FOLDER``.

For every task and number of steps, restore crops of *training* photographs with every combination of w, jacobian mode
and start below, and keep the one with the largest

    score = PSNR - 50 GMSD - |log2(gradient energy / that of the truth)|,

which weighs fidelity against perception: PSNR alone would pick the smallest start, H+ y lightly denoised. The exact
mode is tried only well inside its stability limit. Three steps and more than five try only the neighbourhood of the
best at five. Writes ``table.json``, an entry a task, as it goes; a
sweep that is started again leaves finished entries alone unless ``--again`` is given.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import ccfast

from ..degradations import parse_operator
from ..metrics import gmsd, gradient_energy, psnr
from ..operators import Operator
from ..priors import PRIORS
from ..priors.data import PHOTOGRAPHS, fetch, load_pyramid
from ..solvers import Conjugate
from ..solvers.conjugate import STABILITY_LIMIT
from ..times import uniform
from . import TABLE, strength

TASKS = (
    "inpaint:0.5",
    "pool:4",
    "bicubic:4",
    "blur:3.0",
    "box:0.25",
    "gray",
    "motion:15,30",
    "inpaint:0.2",
    "pool:2",
    "bicubic:2",
    "blur:1.5",
    "pool:8",
    "bicubic:8",
)
STEPS = (5, 10, 3, 20)
WEIGHTS = (5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0)
JACOBIANS = ("exact", "one_projection", "none")
STARTS = {"photo": (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)}
SIZE = 128

Candidate = tuple[str, float, float]
"""jacobian, w, start."""


def training_crops(photos: Path, count: int) -> Tensor:
    """``count`` crops of the reduced training photographs with the most detail, one a photograph, (count, 3, 128, 128).

    Wallpapers are smooth; without the choice most crops would be sky.
    """
    generator = np.random.default_rng(0)
    best = []
    for photograph in PHOTOGRAPHS:
        level = load_pyramid(photos / photograph.package / photograph.path)[-1]
        tops = generator.integers(0, [n - SIZE + 1 for n in level.shape[:2]], size=(16, 2))
        cut = [torch.from_numpy(level[a : a + SIZE, b : b + SIZE].copy()).permute(2, 0, 1) for a, b in tops]
        crops = torch.stack(cut).float() / 127.5 - 1.0
        energy = gradient_energy(crops)
        best.append((float(energy.max()), crops[int(energy.argmax())]))
    best.sort(key=lambda pair: -pair[0])
    return torch.stack([crop for _, crop in best[:count]])


def score(restored: Tensor, truth: Tensor) -> Tensor:
    """The objective above, the mean over images; -inf where a result is not finite."""
    if not torch.isfinite(restored).all():
        return torch.tensor(-torch.inf, dtype=torch.float64)
    ratio = gradient_energy(restored) / gradient_energy(truth)
    return (psnr(restored, truth) - 50.0 * gmsd(restored, truth) - ratio.log2().abs()).mean()


def candidates(prior: str, steps: int, around: Candidate | None) -> Iterator[Candidate]:
    """All combinations, or those within one place of ``around`` in w and start, with its jacobian.

    Without those of the exact mode in which w (B - B') of a step comes within a quarter of the stability limit.
    """
    starts, schedule = STARTS[prior], PRIORS[prior]()
    for jacobian, (i, w), (j, start) in itertools.product(JACOBIANS, enumerate(WEIGHTS), enumerate(starts)):
        clock = schedule.clock(uniform(start, schedule.default_end, steps))
        if jacobian == "exact" and -w * np.diff(clock).min() > 0.75 * STABILITY_LIMIT[1]:
            continue
        if around is None or (
            jacobian == around[0] and abs(i - WEIGHTS.index(around[1])) <= 1 and abs(j - starts.index(around[2])) <= 1
        ):
            yield jacobian, w, start


def best_of(
    denoiser: ccfast.Denoiser, operator: Operator, truth: Tensor, steps: int, trials: list[Candidate]
) -> tuple[float, Candidate]:
    """The candidate with the largest score, and the score."""
    y = operator.forward(truth)

    def run(candidate: Candidate) -> float:
        jacobian, w, start = candidate
        solver = Conjugate(w, jacobian=jacobian)
        sampler = ccfast.Sampler(denoiser, operator, solver, steps, start, check_finite=False)
        return float(score(sampler(y, seed=0), truth))

    return max((run(candidate), candidate) for candidate in tqdm(trials, leave=False))


def sweep(prior: str, photos: Path, out: Path, count: int, steps: list[int], tasks: list[str], again: bool) -> None:
    entries = json.loads(out.read_text())["entries"] if out.exists() else []
    denoiser, truth = ccfast.load_prior(prior), training_crops(photos, count)
    for number, task in itertools.product(steps, tasks):
        key = {"prior": prior, "task": task, "steps": number}
        found = [entry for entry in entries if key.items() <= entry.items()]
        if found and not again:
            continue
        five = [e for e in entries if {**key, "steps": 5}.items() <= e.items() and number != 5]
        around = (five[0]["jacobian"], five[0]["w"], five[0]["start"]) if five else None
        operator = parse_operator(task, (3, SIZE, SIZE))
        value, (jacobian, w, start) = best_of(
            denoiser, operator, truth, number, list(candidates(prior, number, around))
        )
        entry = {
            **key,
            "operator": type(operator).__name__,
            "kind": operator.kind,
            "strength": round(strength(operator), 3),
            "w": w,
            "jacobian": jacobian,
            "start": start,
            "score": round(value, 3),
        }
        entries = sorted(
            [e for e in entries if e not in found] + [entry], key=lambda e: (e["prior"], e["task"], e["steps"])
        )
        out.write_text(json.dumps({"entries": entries}, indent=1) + "\n")
        tqdm.write(json.dumps(entry))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", choices=tuple(STARTS))
    parser.add_argument("--photos", type=Path, required=True, help="folder of the unpacked packages; fetched if absent")
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--count", type=int, default=8, help="number of crops")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=list(STEPS), help="five first: the others start from it"
    )
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--again", action="store_true", help="do finished entries again")
    arguments = parser.parse_args()
    if not arguments.photos.is_dir():
        fetch(arguments.photos)
    sweep(**vars(arguments))


if __name__ == "__main__":
    main()
