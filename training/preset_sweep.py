"""Find the presets: ``python -m training.preset_sweep photo --photos FOLDER``.

For every task, number of steps and level of noise, the sweep restores crops of *training* photographs
(``training.crops``) and keeps the w, mode, start and end with the largest score (``ccfast.tuning.search``). The first
task of an operator class is searched from a coarse grid, every other one from the nearest entry that is there (see
``guess``). The tasks of ``OTHER_STRENGTHS``, and the larger noise, are searched at five steps only.

Entries are written into ``ccfast/presets/presets.json`` one by one. A sweep that is started again leaves finished
entries alone unless ``--again`` is given.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

import ccfast
from ccfast.app.degradations import parse_operator
from ccfast.operators import Operator
from ccfast.presets import ENTRIES_FILE, described, distance, strength, write_entries
from ccfast.tuning.search import GRIDS, NAMES, REFRESHED, Candidate, Grid, Task, search

from .crops import SIZE, training_crops
from .patches import parse_with_photographs

TASKS = (
    "inpaint:0.5",
    "pool:4",
    "bicubic:4",
    "blur:3.0",
    "box:0.25",
    "gray",
    "motion:15,30",
)
OTHER_STRENGTHS = ("bicubic:2", "bicubic:8", "pool:2", "pool:8", "blur:1.5", "inpaint:0.2")
STEPS = (5, 10, 3, 20)
NOISE = (0.05, 0.2)
ORDER = ("prior", "task", "noise_std", "steps")


def guess(entries: list[dict], key: dict, operator: Operator) -> dict | None:
    """The entry that the search for ``key`` begins from; None where the operator's class has no entry yet.

    An entry of the same prior goes before others, then one near in strength, then one with the same noise, then one of
    five steps, then one near in the number of steps.
    """
    same = [entry for entry in entries if entry["operator"] == type(operator).__name__]
    if not same:
        return None
    return min(
        same,
        key=lambda e: (
            e["prior"] != key["prior"],
            distance(e["strength"], strength(operator)),
            e["noise_std"] != key["noise_std"],
            e["steps"] != STEPS[0],  # Entries of other numbers of steps may be older.
            distance(e["steps"], key["steps"]),
        ),
    )


def place(entry: dict) -> Candidate:
    """The place of an entry in the grid of its prior."""
    grid = GRIDS[entry["prior"]]
    return Candidate(NAMES.index(entry["mode"]), grid.weights.index(entry["w"]), grid.starts.index(entry["start"]))


def find(
    key: dict, entries: list[dict], denoiser: ccfast.Denoiser, truth: torch.Tensor, grid: Grid, known: list[Candidate]
) -> dict:
    """Search the entry for the prior, task, noise and number of steps in ``key``; ``known`` holds earlier finds."""
    operator = parse_operator(key["task"], (3, SIZE, SIZE))
    task = Task(denoiser, operator, truth, key["steps"], key["noise_std"])
    near = guess(entries, key, operator)
    begin, rounds = None if near is None else place(near), 2
    if (
        near
        and begin
        and key["steps"] != 5
        and grid.valid(begin, denoiser.schedule, key["steps"])
        and near["prior"] == key["prior"]
    ):
        # The entry at five steps is near, so that its end is kept, and its mode or the one that gains most from steps.
        grid, rounds = replace(grid, ends=(near["end"],), modes=(near["mode"], NAMES[REFRESHED])), 0
    with tqdm(desc=" ".join(map(str, key.values())), leave=False) as bar:
        candidate, end, value = search(task, grid, begin, rounds, bar.update, known)
    return {
        **key,
        **described(operator),
        "w": grid.weights[candidate.w],
        "mode": NAMES[candidate.mode],
        "start": grid.starts[candidate.start],
        "end": end,
        "score": round(value, 3),
    }


def sweep(
    prior: str, photos: Path, out: Path, count: int, steps: list[int], tasks: list[str], noise: list[float], again: bool
) -> None:
    entries = json.loads(out.read_text())["entries"] if out.exists() else []
    denoiser, truth = ccfast.load_prior(prior), training_crops(photos, count)
    for number, noise_std, task in itertools.product(steps, noise, tasks):
        rare = task in OTHER_STRENGTHS or noise_std > NOISE[0]
        if (rare and number != 5) or (task in OTHER_STRENGTHS and noise_std):
            continue
        key = dict(zip(ORDER, (prior, task, noise_std, number), strict=True))
        found = [entry for entry in entries if key.items() <= entry.items()]
        if found and not again:
            continue
        others = [e for e in entries if e not in found]
        entry = find(key, others, denoiser, truth, GRIDS[prior], [place(old) for old in found])
        entries = sorted([*others, entry], key=lambda e: [e[name] for name in ORDER])
        write_entries(out, entries)
        tqdm.write(json.dumps(entry))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", choices=tuple(GRIDS))
    parser.add_argument("--out", type=Path, default=ENTRIES_FILE)
    parser.add_argument("--count", type=int, default=9, help="number of crops")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=list(STEPS), help="five first: the others start from it"
    )
    parser.add_argument("--tasks", nargs="+", default=[*TASKS, *OTHER_STRENGTHS])
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, *NOISE], help="levels of noise_std")
    parser.add_argument("--again", action="store_true", help="do finished entries again")
    arguments = parse_with_photographs(parser)
    sweep(**vars(arguments))


if __name__ == "__main__":
    main()
