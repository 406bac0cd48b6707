"""How the Jacobian product is taken, on a bundled prior: ``python bench/products.py photo``.

For each way of ``Conjugate(product=...)``, and for no product at all, on ten held-out 128x128 crops and three tasks:
PSNR, distance of the result from that of reverse mode, processor seconds as a multiple of reverse mode's (the best of
three, interleaved, one thread) and what autograd keeps. Writes bench/results/products_<prior>.json.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

import ccfast
from ccfast.degradations import parse_operator
from ccfast.metrics import psnr
from ccfast.priors import heldout
from ccfast.solvers import Conjugate
from ccfast.testing import relative_error

TASKS = ("inpaint:0.5", "pool:4", "blur:3.0")
SOLVERS = {name: Conjugate(6.0, product=name) for name in ("reverse", "forward", "finite_difference")}
SOLVERS["none"] = Conjugate(6.0, jacobian="none")


def measure(denoiser: ccfast.Denoiser, task: str) -> dict[str, dict[str, float]]:
    x = heldout.crops()
    operator = parse_operator(task, tuple(x.shape[1:]))
    y = operator.forward(x)
    samplers = {name: ccfast.Sampler(denoiser, operator, solver) for name, solver in SOLVERS.items()}
    results = {name: sampler(y, seed=0) for name, sampler in samplers.items()}
    seconds = dict.fromkeys(samplers, float("inf"))
    for _ in range(3):
        for name, sampler in samplers.items():
            started = time.thread_time()
            sampler(y[:2], seed=0)
            seconds[name] = min(seconds[name], time.thread_time() - started)
    return {
        name: {
            "psnr": round(float(psnr(result.clamp(-1, 1), x).mean()), 3),
            "distance": round(relative_error(result, results["reverse"]), 5),
            "seconds_ratio": round(seconds[name] / seconds["reverse"], 3),
            "activations_mib": round(samplers[name].memory_estimate(2).activations / 2**20, 1),
        }
        for name, result in results.items()
    }


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "photo"
    torch.set_num_threads(1)
    denoiser = ccfast.load_prior(name)
    table = {task: measure(denoiser, task) for task in TASKS}
    path = Path(__file__).parent / "results" / f"products_{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"prior": name, "steps": 5, "w": 6.0, "tasks": table}, indent=1) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
