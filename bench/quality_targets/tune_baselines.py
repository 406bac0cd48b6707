"""The parameters of the baselines: ``python -m bench.quality_targets.tune_baselines photo --photos FOLDER``.

The start of PiGDM and DDNM and the weight of PiGDM are chosen by the score of the presets' sweep, the ratio of the
Wiener filter by PSNR, all on three of the crops of *training* photographs that the presets are found on. They are
written into bench/results/tuned_baselines.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

import ccfast
from bench.quality_targets.baselines import SOLVERS, STEPS, TUNED, wiener
from bench.quality_targets.scores import TASKS
from ccfast.app.degradations import parse_operator
from ccfast.metrics import psnr
from training.crops import training_crops
from training.preset_search import GRIDS, score

WEIGHTS = {"PiGDM": (0.5, 1.0, 2.0, 4.0), "DDNM": (1.0,)}
RATIOS = (0.0, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
BLURS = ("blur:3.0",)


def best_wiener(task: str, truth: Tensor) -> dict[str, float]:
    operator = parse_operator(task, tuple(truth.shape[1:]))
    y = operator.forward(truth)
    value, ratio = max((float(psnr(wiener(operator, y, ratio), truth).mean()), ratio) for ratio in RATIOS)
    return {"ratio": ratio, "psnr": round(value, 3)}


def best_start(denoiser: ccfast.Denoiser, task: str, name: str, truth: Tensor) -> dict[str, float]:
    operator = parse_operator(task, tuple(truth.shape[1:]))
    y = operator.forward(truth)

    def run(w: float, start: float) -> float:
        solver = SOLVERS[name]({"w": w})
        sampler = ccfast.Sampler(denoiser, operator, solver, STEPS, start, check_finite=False)
        return score(sampler(y, seed=0), truth)

    trials = list(itertools.product(WEIGHTS[name], GRIDS[str(denoiser.name)].starts[::2]))
    value, w, start = max((run(w, start), w, start) for w, start in tqdm(trials, desc=f"{task} {name}", leave=False))
    return {"w": w, "start": start, "score": round(value, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", choices=tuple(ccfast.priors.PRIORS))
    parser.add_argument("--photos", type=Path, required=True, help="folder of the unpacked packages")
    parser.add_argument("--count", type=int, default=3, help="number of crops")
    arguments = parser.parse_args()
    denoiser, truth = ccfast.load_prior(arguments.prior), training_crops(arguments.photos, arguments.count)
    chosen = json.loads(TUNED.read_text()) if TUNED.exists() else {}
    chosen["wiener"] = {task: best_wiener(task, truth) for task in BLURS}
    for task in TASKS:
        row = {name: best_start(denoiser, task, name, truth) for name in SOLVERS}
        chosen.setdefault(arguments.prior, {})[task] = row
        TUNED.write_text(json.dumps(chosen, indent=1, sort_keys=True) + "\n")
        tqdm.write(f"{task} {json.dumps(row)}")


if __name__ == "__main__":
    main()
