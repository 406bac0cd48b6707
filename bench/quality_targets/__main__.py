"""Quality of a bundled prior on held-out pictures: ``python -m bench.quality_targets photo``.

Every task is restored, without noise, on ten 128x128 crops and on five 256x256 pictures. Its rows are H+ y, a harmonic
fill for masks, the Wiener filter for blurs, one five-step sample with the default solver and preset, the mean of
several samples, and PiGDM and DDNM at twenty steps with the same prior and parameters of their own, tuned by
``bench.quality_targets.tune_baselines``. A row has PSNR, SSIM, GMSD and the Laplacian energy. The prior's PSNR as a
denoiser is measured too. The command prints the rows and the targets that are met, and writes both to
bench/results/quality_<prior>.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

import ccfast
from bench.quality_targets.baselines import methods
from bench.quality_targets.scores import RESULTS, TASKS, denoising, scores
from bench.quality_targets.targets import judge
from ccfast.app.degradations import parse_operator
from ccfast.priors import heldout


def evaluate(
    denoiser: ccfast.Denoiser,
    name: str,
    truth: Tensor,
    samples: int,
    tasks: Sequence[str],
    words: Sequence[str] = ("",),
) -> list[dict]:
    """Restore the pictures (B, 3, H, W) of the set ``name``; returns a row for every task and method.

    The methods are those whose names begin with one of the ``words``.
    """
    rows = []
    for task in tasks:
        operator = parse_operator(task, tuple(truth.shape[1:]))
        y = operator.forward(truth)
        for method, restore in tqdm(list(methods(denoiser, task, operator, samples)), desc=task, leave=False):
            if not method.startswith(tuple(words)):
                continue
            started = time.perf_counter()
            restored = restore(y)
            seconds = time.perf_counter() - started
            row = {"set": name, "task": task, "method": method, **scores(restored, truth)}
            rows.append({**row, "seconds": round(seconds, 2)})
            tqdm.write(
                f"{name:<14}{task:<13}{method:<30}{row['psnr']:8.2f}{row['ssim']:8.3f}{row['gmsd']:9.4f}"
                f"{row['laplacian']:8.2f}{seconds:9.1f} s"
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", choices=tuple(ccfast.priors.PRIORS))
    parser.add_argument("--samples", type=int, default=16, help="samples in the mean")
    parser.add_argument("--tasks", nargs="+", default=TASKS, help="the rows of other tasks are kept as they are")
    parser.add_argument("--methods", nargs="+", default=[""], help="those whose names begin so; other rows are kept")
    parser.add_argument("--crops-only", action="store_true", help="leave the 256x256 pictures out")
    arguments = parser.parse_args()
    denoiser = ccfast.load_prior(arguments.prior)
    sets = {"128 crops": heldout.crops()}
    if not arguments.crops_only:
        sets["256 pictures"] = torch.stack([heldout.square(name) for name in heldout.PHOTOGRAPHS])
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    path = RESULTS / f"quality_{arguments.prior}.json"
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    record: dict = {
        "commit": commit.stdout.strip(),
        "torch": torch.__version__,
        "samples": arguments.samples,
        "denoising_psnr": denoising(denoiser, sets["128 crops"]),
        "targets": {},
        "rows": [],
    }
    for name, truth in sets.items():
        own = [row for row in old if row["set"] == name]
        begins = tuple(arguments.methods)
        rows = [row for row in own if row["task"] not in arguments.tasks or not row["method"].startswith(begins)]
        rows += evaluate(denoiser, name, truth, arguments.samples, arguments.tasks, arguments.methods)
        order = {(row["task"], row["method"]): place for place, row in enumerate(own)}
        rows.sort(key=lambda row: (TASKS.index(row["task"]), order.get((row["task"], row["method"]), len(order))))
        record["rows"] += rows
        record["targets"][name] = [target._asdict() for target in judge(rows)]
        print("\n".join(map(str, judge(rows))))
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
