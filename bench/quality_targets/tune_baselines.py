"""The parameters of the baselines: ``python -m bench.quality_targets.tune_baselines photo --photos FOLDER``.

PiGDM and DDNM are tuned by the sweep that the report's photographs have (``bench.quality.tuning``), over the same
candidates, among them the published ones. Of a rival without a VJP, whose runs are short, the best candidate and the
deterministic one are also tried from every other start of the presets' grid. The ratio of the Wiener filter is chosen
by PSNR. All of it happens on crops of *training* photographs. The choices are written into
bench/results/tuned_baselines.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

import ccfast
from bench.quality.tuning import TrainingSet, score_of, tune
from bench.quality_targets.baselines import RIVALS, STEPS, TUNED, wiener
from bench.quality_targets.scores import TASKS
from ccfast.app.degradations import parse_operator
from ccfast.metrics import psnr
from ccfast.tuning.search import GRIDS
from training.crops import training_crops

RATIOS = (0.0, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
BLURS = ("blur:3.0",)


def best_wiener(task: str, truth: Tensor) -> dict[str, float]:
    operator = parse_operator(task, tuple(truth.shape[1:]))
    y = operator.forward(truth)
    value, ratio = max((float(psnr(wiener(operator, y, ratio), truth).mean()), ratio) for ratio in RATIOS)
    return {"ratio": ratio, "psnr": round(value, 3)}


def best_rival(denoiser: ccfast.Denoiser, task: str, name: str, training: TrainingSet) -> dict[str, float | str]:
    """The place of the best candidate, with its solver in words, its start, end and score."""
    place, start, end, value = tune(denoiser, RIVALS[name], (task, 0.0), STEPS, training)
    solvers = RIVALS[name].candidates(STEPS, 0.0, math.prod(training.truth.shape[1:]))
    further = () if RIVALS[name].vjp else GRIDS[str(denoiser.name)].starts[::2]
    for other, begin in itertools.product({place, 0}, further):
        found = score_of(training, denoiser, solvers[other], (task, 0.0), STEPS, begin, end)
        value, place, start = max((value, place, start), (found, other, begin))
    solver = solvers[place]
    return {"place": place, "solver": repr(solver), "start": start, "end": end, "score": round(value, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", choices=tuple(ccfast.priors.PRIORS))
    parser.add_argument("--photos", type=Path, required=True, help="folder of the unpacked packages")
    parser.add_argument("--methods", nargs="+", default=list(RIVALS), choices=list(RIVALS))
    arguments = parser.parse_args()
    denoiser, training = ccfast.load_prior(arguments.prior), TrainingSet(arguments.photos)
    chosen = json.loads(TUNED.read_text()) if TUNED.exists() else {}
    chosen["wiener"] = {task: best_wiener(task, training_crops(arguments.photos, 3)) for task in BLURS}
    for task in TASKS:
        row = {name: best_rival(denoiser, task, name, training) for name in arguments.methods}
        chosen.setdefault(arguments.prior, {}).setdefault(task, {}).update(row)
        TUNED.write_text(json.dumps(chosen, indent=1, sort_keys=True) + "\n")
        tqdm.write(f"{task} {json.dumps(row)}")


if __name__ == "__main__":
    main()
