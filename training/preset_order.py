"""Order the presets over the number of steps: ``python -m training.preset_order photo --photos FOLDER``.

``training.preset_sweep`` finds entries one by one. An entry may lose to that of fewer steps, and some combinations have
none. This goes over the entries of a task and a level of noise from few steps to many. An entry whose score is that of
the entry for fewer steps at least is left as it is, unless it loses PSNR by more steps, or its mode has a limit of
stability, since how near it is depends on the picture. In place of any other, and where there is none, these candidates
are compared on crops of *training* photographs:

- the entry of the sweep, where there is one, and that at five steps without noise;
- what was chosen for fewer steps;
- the entries of the operator's class that are nearest in strength, with the same number of steps and noise;
- the mode of ``REFRESHED`` with each of ``WEIGHTS``, from the start of each of these.

The candidate with the largest score is kept whose PSNR is that of the choice for fewer steps at least, and which does
not lose PSNR by more steps, up to the next number that has entries (``UNTIL``). Its score is that on these crops, which
are smaller than those of the sweep.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

import ccfast
from ccfast.app.degradations import parse_operator
from ccfast.operators import Operator
from ccfast.presets import ENTRIES_FILE, LIMITED, conjugate, described, distance, strength, write_entries
from ccfast.tuning.search import GRIDS, NAMES, REFRESHED, Task, fidelity, score

from .crops import SIZE, training_crops
from .patches import parse_with_photographs
from .preset_sweep import NOISE, ORDER, OTHER_STRENGTHS, STEPS, TASKS

__all__ = ["UNTIL", "order"]

UNTIL = {3: 4, 5: 9, 10: 19, 20: 30}
"""The largest number of steps that the entries of a number of steps are tried with."""
SLACK = 0.2
"""The decibels of PSNR that a choice may lose, about the spread between seeds on so many crops."""
ROUNDING = 0.05
"""How much an entry of the sweep may lose in score to that of fewer steps, and is left as it is."""
WEIGHTS = ("bayes", 80.0, 160.0, 320.0)
SIDE = 64

Entry = dict[str, Any]


def task_of(denoiser: ccfast.Denoiser, word: str, noise_std: float, crops: Tensor) -> Task:
    """The task of a word of ``ccfast.app.degradations`` on the middle of crops (B, 3, SIZE, SIZE).

    A hidden box gets as many pixels as it has in a crop of ``SIZE``.
    """
    edge = (crops.shape[-1] - SIDE) // 2
    truth = crops[..., edge : edge + SIDE, edge : edge + SIDE].contiguous()
    if word.startswith("box:"):
        word = f"box:{float(word[4:]) * crops.shape[-1] / SIDE:g}"
    return Task(denoiser, parse_operator(word, tuple(truth.shape[1:])), truth, STEPS[0], noise_std)


def measure(task: Task, entry: Entry, steps: int) -> tuple[float, float]:
    """The score and the PSNR of an entry at a number of steps."""
    x = replace(task, steps=steps).restored(conjugate(entry["w"], entry["mode"]), entry["start"], entry["end"])
    return score(x, task.truth), fidelity(x, task.truth)


def steady(task: Task, entry: Entry, steps: int, own: float) -> bool:
    """Whether the PSNR of an entry, ``own`` at its number of steps, does not fall by more steps."""
    return measure(task, entry, UNTIL[steps])[1] >= own - SLACK


def settings(entry: Entry) -> tuple[Any, ...]:
    return entry["w"], entry["mode"], entry["start"], entry["end"]


def candidates(entries: list[Entry], key: Entry, chosen: Entry | None, operator: Operator) -> Iterator[Entry]:
    """The candidates for a key (prior, task, noise_std, steps), as the docstring of this module names them."""
    own = [e for e in entries if (e["prior"], e["operator"]) == (key["prior"], type(operator).__name__)]
    found = [e for e in own if e["task"] == key["task"] and (e["steps"], e["noise_std"]) == (5, 0.0)]
    found += [e for e in own if all(e[name] == key[name] for name in ORDER)]
    same = [e for e in own if (e["steps"], e["noise_std"]) == (key["steps"], key["noise_std"])]
    size = strength(operator)
    found += sorted(same, key=lambda e: distance(e["strength"], size))[:2]
    found += [chosen] if chosen else []
    starts = dict.fromkeys((e["start"], e["end"]) for e in found)
    seen = set()
    fresh = ({"w": w, "mode": NAMES[REFRESHED], "start": a, "end": b} for a, b in starts for w in WEIGHTS)
    for entry in (*found, *fresh):
        if settings(entry) not in seen and entry["mode"] not in LIMITED:
            seen.add(settings(entry))
            yield entry


def choose(task: Task, tried: list[Entry], steps: int, floor: float) -> tuple[Entry, float, float]:
    """The best candidate with its score and PSNR, among those that keep ``floor`` and do not lose by more steps."""
    found = [(*measure(task, entry, steps), entry) for entry in tried]
    found.sort(key=lambda row: (row[1] < floor, -row[0]))
    for value, own, entry in found:
        if own >= floor and steady(task, entry, steps, own):
            return entry, value, own
    value, own, entry = max(found, key=lambda row: row[1])
    return entry, value, own


def order(prior: str, photos: Path, out: Path, count: int, tasks: list[str], noise: list[float]) -> None:
    entries: list[Entry] = json.loads(out.read_text())["entries"]
    denoiser, crops = ccfast.load_prior(prior), training_crops(photos, count)
    for noise_std, word in itertools.product(noise, tasks):
        task, chosen, floor, swept = task_of(denoiser, word, noise_std, crops), None, -math.inf, -math.inf
        operator = parse_operator(word, (3, SIZE, SIZE))
        for steps in sorted(STEPS):
            key: Entry = dict(zip(ORDER, (prior, word, noise_std, steps), strict=True))
            found = next((e for e in entries if all(e[name] == key[name] for name in ORDER)), None)
            if found and found["mode"] not in LIMITED and found["score"] >= swept - ROUNDING:
                own = measure(task, found, steps)[1]
                if steady(task, found, steps, own):
                    chosen, swept, floor = found, found["score"], own - SLACK
                    continue
            best, value, own = choose(task, list(candidates(entries, key, chosen, operator)), steps, floor)
            chosen = {
                **key,
                **described(operator),
                **{name: best[name] for name in ("w", "mode", "start", "end")},
                "score": round(value, 3),
            }
            floor = own - SLACK
            entries = [e for e in entries if any(e[name] != key[name] for name in ORDER)]
            entries = sorted([*entries, chosen], key=lambda e: [e[name] for name in ORDER])
            tqdm.write(f"{json.dumps(chosen)} {own:.2f} dB")
        write_entries(out, entries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", choices=tuple(GRIDS))
    parser.add_argument("--out", type=Path, default=ENTRIES_FILE)
    parser.add_argument("--count", type=int, default=4, help="number of crops")
    parser.add_argument("--tasks", nargs="+", default=[*TASKS, *OTHER_STRENGTHS])
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, NOISE[0]], help="levels of noise_std")
    arguments = parse_with_photographs(parser)
    warnings.simplefilter("ignore", UserWarning)  # A candidate may be unstable; its score tells.
    order(**vars(arguments))


if __name__ == "__main__":
    main()
