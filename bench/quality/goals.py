"""Faithful, sharp and mean on held-out photographs: ``python -m bench.quality.goals photo``.

Every task of ``training.preset_goals``, without noise and with noise of standard deviation 0.05 on [-1, 1], on the
middle 64 x 64 pixels of the pictures of ``ccfast.priors.heldout``. The rows, for numbers of steps, are

    H+ y
    sharp, faithful      ``Sampler(denoiser, operator, steps=..., goal=...)``
    mean of 8            the same with ``estimate="mean"``, at 5 steps

with the mean PSNR, SSIM, GMSD, the gradient energy as a share of the truth's, and the processor seconds of one thread
per picture. They go into bench/results/goals_<prior>.json; a command that is started again leaves finished rows alone.
No preset was chosen on these pictures. ``python -m bench.quality.goals page`` writes docs/goals.md from the files.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from typing import Any

import torch
from torch import Tensor

import ccfast
from bench.full_reference import full_reference
from ccfast.metrics import gradient_energy
from ccfast.priors import heldout
from training.preset_goals import SIDE, WORDS, operator_of

from .record import RESULTS, Record

__all__ = ["METHODS", "PAGE", "measure", "page", "scores"]

Method = tuple[str, int, dict[str, Any]]
NOISE = (0.0, 0.05)
METHODS: tuple[Method, ...] = (
    ("faithful", 5, {"goal": "faithful"}),
    ("sharp", 5, {}),
    ("mean of 8", 5, {"estimate": "mean"}),
    ("faithful", 3, {"goal": "faithful"}),
    ("sharp", 3, {}),
    ("faithful", 10, {"goal": "faithful"}),
    ("sharp", 10, {}),
)


def pictures() -> Tensor:
    """The middle of every held-out photograph, (5, 3, SIDE, SIDE)."""
    edge = (256 - SIDE) // 2
    squares = [heldout.square(name) for name in heldout.PHOTOGRAPHS]
    return torch.stack([square[:, edge : edge + SIDE, edge : edge + SIDE] for square in squares])


def scores(restored: Tensor, truth: Tensor) -> dict[str, float]:
    """The mean over pictures of every measure, with four digits."""
    restored = restored.clamp(-1, 1)
    values = {
        name: value for name, value in full_reference(restored, truth).items() if name in ("psnr", "ssim", "gmsd")
    }
    values |= {"energy": gradient_energy(restored) / gradient_energy(truth)}
    return {name: float(f"{float(value.mean()):.4g}") for name, value in values.items()}


def measure(
    record: Record, denoiser: ccfast.Denoiser, truth: Tensor, word: str, noise: float, methods: tuple[Method, ...]
) -> None:
    """Add the rows of a task that are not there yet."""
    operator = operator_of(word, truth.shape[-1])
    y = operator.forward(truth)
    y = y + noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    key = {"task": word, "noise": noise}
    if not record.find("rows", **key, method="H+ y"):
        record.add("rows", {**key, "method": "H+ y", "steps": 0, **scores(operator.pinv(y), truth)})
    for method, steps, options in methods:
        own = {**key, "method": method, "steps": steps}
        if record.find("rows", **own):
            continue
        sampler = ccfast.Sampler(denoiser, operator, steps=steps, noise_std=noise, **options)
        begun = time.thread_time()
        x = sampler(y, seed=0)
        seconds = (time.thread_time() - begun) / len(truth)
        chosen = {"solver": repr(sampler.solver), "start": float(f"{sampler.plan.times[0]:.6g}")}
        chosen |= {"start_noise": sampler.start_noise, "seconds": float(f"{seconds:.3g}")}
        record.add("rows", {**own, **chosen, **scores(x, truth)})


PAGE = RESULTS.parents[1] / "docs" / "goals.md"
COLUMNS = (("H+ y", 0), ("sharp", 5), ("faithful", 5), ("mean of 8", 5), ("sharp", 10), ("faithful", 10))
HEAD = """\
# Faithful, sharp, or a mean of samples

<!-- made by python -m bench.quality.goals page -->

PSNR in dB, and in brackets the gradient energy as a share of the truth's, means over the middle 64 x 64 pixels of five
photographs that neither the priors nor the presets have seen. Columns are `Sampler(goal=...)` at 5 and 10 steps and
`Sampler(estimate="mean")`, eight sharp samples, at 5 steps each. What is empty or not there has not been measured yet.
"""


def page() -> str:
    """The page of docs/ that shows the files of both priors."""
    parts = [HEAD]
    for prior in ccfast.priors.PRIORS:
        data = json.loads((RESULTS / f"goals_{prior}.json").read_text())
        rows = {(row["task"], row["noise"], row["method"], row["steps"]): row for row in data["rows"]}
        tasks = list(dict.fromkeys((task, noise) for task, noise, *_ in rows))
        names = [name if not steps else f"{name}, {steps}" for name, steps in COLUMNS]
        table = [f"| task | noise | {' | '.join(names)} |", f"|{' --- |' * (2 + len(names))}"]
        behind = []
        for task, noise in tasks:
            found = [rows.get((task, noise, *column)) for column in COLUMNS]
            cells = ["" if row is None else f"{row['psnr']:.2f} ({row['energy']:.2f})" for row in found]
            table.append(f"| {task} | {noise:g} | {' | '.join(cells)} |")
            own, mean = rows.get((task, noise, "faithful", 5)), rows.get((task, noise, "mean of 8", 5))
            if own and mean and own["psnr"] < mean["psnr"] - 0.05:
                behind.append(f"{task} at noise {noise:g} ({mean['psnr'] - own['psnr']:.2f} dB)")
        words = "; ".join(behind) or "none"
        lost = f"Where the faithful run of 5 steps is more than 0.05 dB behind the mean of eight samples: {words}."
        parts.append(f"## {prior}\n\n`{data['command']}`\n\n" + "\n".join(table) + f"\n\n{lost}\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", choices=(*ccfast.priors.PRIORS, "page"))
    parser.add_argument("--again", action="store_true", help="forget finished rows")
    arguments = parser.parse_args()
    if arguments.prior == "page":
        PAGE.write_text(page(), encoding="utf-8")
        return
    torch.set_num_threads(1)
    path = RESULTS / f"goals_{arguments.prior}.json"
    command = f"python -m bench.quality.goals {arguments.prior}"
    record = Record(path, command, {"side": SIDE, "noise": list(NOISE)}, arguments.again)
    denoiser, truth = ccfast.load_prior(arguments.prior), pictures()
    for methods, noise, word in itertools.product((METHODS[:3], METHODS[3:]), NOISE, WORDS):
        measure(record, denoiser, truth, word, noise, methods)


if __name__ == "__main__":
    main()
