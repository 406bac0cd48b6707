"""Find presets with ``ccfast.tune``: ``python -m training.preset_goals photo --photos FOLDER``.

For the goal "faithful" every task, number of steps and level of noise gets an entry, and for the goal "sharp" the task
"strokes", thin connected holes, which ``training.preset_sweep`` does not have. Images are crops of *training*
photographs (``training.crops``, the middle 64 x 64 pixels). The steps go from few to many, and the search at each
begins at the entry for fewer steps, so that on these crops no entry is worse than that one with as many steps.

Entries are written into ``ccfast/presets/tuned.json`` one by one. Finished ones are left alone unless ``--again``.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import ccfast
from ccfast import presets
from ccfast.app.degradations import parse_operator
from ccfast.operators import Inpainting, Operator

from .crops import training_crops
from .patches import parse_with_photographs
from .preset_sweep import NOISE, OTHER_STRENGTHS, TASKS

__all__ = ["ORDER", "SIDE", "STROKES", "WORDS", "operator_of", "strokes"]

STROKES = "strokes"
WORDS = (*TASKS, *OTHER_STRENGTHS, STROKES)
STEPS = (3, 5, 10, 20)
SIDE = 64
ORDER = ("prior", "goal", "task", "noise_std", "steps")
WIDTHS = (2, 3, 4)

Entry = dict[str, Any]


def strokes(side: int, seed: int = 0) -> torch.Tensor:
    """A mask (1, side, side) that hides scratches: five straight strokes of 2 to 4 pixels in width, 1 = observed."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(1, side, side)
    for _ in range(5):
        top, bottom, left, right = torch.rand(4, generator=generator).tolist()
        width = WIDTHS[int(torch.randint(len(WIDTHS), (), generator=generator))]
        for u in torch.linspace(0, 1, 4 * side).tolist():
            i, j = (int((a + u * (b - a)) * (side - width)) for a, b in ((top, bottom), (left, right)))
            mask[:, i : i + width, j : j + width] = 0
    return mask


def operator_of(word: str, side: int = SIDE) -> Operator:
    """The operator of a task on colour pictures of this side."""
    shape = (3, side, side)
    return Inpainting(strokes(side), shape) if word == STROKES else parse_operator(word, shape)


def find(
    denoiser: ccfast.Denoiser, key: Entry, crops: torch.Tensor, seconds: float
) -> tuple[Entry, ccfast.tuning.Tuned]:
    """The entry of a key (prior, goal, task, noise_std, steps), and what ``ccfast.tune`` says of it."""
    operator = operator_of(key["task"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        found = ccfast.tune(denoiser, operator, crops, key["steps"], key["goal"], seconds, key["noise_std"], save=path)
        saved = json.loads(path.read_text())["entries"] if path.exists() else []
    if saved:
        return {**saved[0], **key}, found
    # The default, which came from an entry for fewer steps or another strength, was the best.
    names = (mode for mode in presets.MODES if presets.conjugate(found.solver.w, mode) == found.solver)
    values = {"w": found.solver.w, "mode": next(names), "start": found.start, "end": found.end}
    values |= {"start_noise": found.start_noise, "score": round(found.score, 3)}
    return {**key, **presets.described(operator), **values}, found


def goals(
    prior: str, photos: Path, out: Path, count: int, seconds: float, steps: list[int], tasks: list[str], again: bool
) -> None:
    denoiser = ccfast.load_prior(prior)
    edge = (training_crops(photos, 1).shape[-1] - SIDE) // 2
    crops = training_crops(photos, count)[..., edge : edge + SIDE, edge : edge + SIDE].contiguous()
    plan = [("faithful", task) for task in tasks] + [("sharp", STROKES)] * (STROKES in tasks)
    for number, noise_std, (goal, task) in itertools.product(sorted(steps), (0.0, NOISE[0]), plan):
        key: Entry = dict(zip(ORDER, (prior, goal, task, noise_std, number), strict=True))
        entries = [] if again else json.loads(out.read_text())["entries"]
        if any(key.items() <= entry.items() for entry in entries):
            continue
        begun = time.perf_counter()
        entry, found = find(denoiser, key, crops, seconds * (2.0 + number) / 7.0)
        spent = time.perf_counter() - begun
        with out.open("r+") as file:  # Two priors may be searched at once.
            fcntl.flock(file, fcntl.LOCK_EX)
            entries = [e for e in json.loads(out.read_text())["entries"] if not key.items() <= e.items()]
            presets.write_entries(out, sorted([*entries, entry], key=lambda e: [e[name] for name in ORDER]))
        presets.shipped_entries.cache_clear()
        tqdm.write(f"{json.dumps(entry)} default {found.default:.3f}, {found.tried} tried, {spent:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", choices=tuple(ccfast.priors.PRIORS))
    parser.add_argument("--out", type=Path, default=presets.TUNED_FILE)
    parser.add_argument("--count", type=int, default=9, help="number of crops")
    parser.add_argument("--seconds", type=float, default=9.0, help="of a search at 5 steps; more for more steps")
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--tasks", nargs="+", default=list(WORDS), choices=WORDS)
    parser.add_argument("--again", action="store_true", help="do finished entries again")
    goals(**vars(parse_with_photographs(parser)))


if __name__ == "__main__":
    main()
