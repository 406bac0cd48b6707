"""The ways to take the Jacobian product, on a bundled prior: ``python bench/jacobian_products.py photo``.

Each way of ``Conjugate(product=...)``, and no product at all, is measured on ten held-out 128x128 crops and three
tasks: its PSNR, the distance of its result from that of reverse mode, its processor seconds over reverse mode's (the
best of three runs in turn, one thread), and the memory that autograd keeps. For one task, a process of its own measures
the peak of the resident memory during a run, above what was resident before. All of it is written into
bench/results/jacobian_products_<prior>.json.

    python bench/jacobian_products.py photo --only memory   # measures the memory alone again, in some seconds
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

import ccfast
from ccfast.app.degradations import parse_operator
from ccfast.metrics import psnr
from ccfast.priors import heldout
from ccfast.solvers import Conjugate
from ccfast.testing import relative_error

TASKS = ("inpaint:0.5", "pool:4", "blur:3.0")
SOLVERS = {name: Conjugate(6.0, product=name) for name in ("reverse", "forward", "finite_difference")}
SOLVERS["none"] = Conjugate(6.0, jacobian="none")
IMAGES = 2
"""The number of images in the runs that are timed, and in those whose memory is measured."""


def measure(denoiser: ccfast.Denoiser, task: str) -> dict[str, dict[str, float]]:
    """The figures of each way on one task, but for the resident memory."""
    x = heldout.crops()
    operator = parse_operator(task, tuple(x.shape[1:]))
    y = operator.forward(x)
    samplers = {name: ccfast.Sampler(denoiser, operator, solver) for name, solver in SOLVERS.items()}
    results = {name: sampler(y, seed=0) for name, sampler in samplers.items()}
    seconds = dict.fromkeys(samplers, float("inf"))
    for _ in range(3):
        for name, sampler in samplers.items():
            started = time.thread_time()
            sampler(y[:IMAGES], seed=0)
            seconds[name] = min(seconds[name], time.thread_time() - started)
    return {
        name: {
            "psnr": round(float(psnr(result.clamp(-1, 1), x).mean()), 3),
            "distance": round(relative_error(result, results["reverse"]), 5),
            "seconds_ratio": round(seconds[name] / seconds["reverse"], 3),
            "activations_mib": round(samplers[name].memory_estimate(IMAGES).activations / 2**20, 1),
        }
        for name, result in results.items()
    }


def resident(name: str) -> float:
    """The resident MiB of this process: VmRSS is what it has now, VmHWM the most that it had since ``reset_peak``."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError(f"/proc/self/status: must have {name}, got none (Linux only)")
    return int(found[1]) / 1024


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak(prior: str, solver: str) -> float:
    """The MiB that a first run adds at most to what is resident, after a run of small images loaded the libraries."""
    torch.set_num_threads(1)
    denoiser, crops = ccfast.load_prior(prior), heldout.crops()[:IMAGES]
    for x in (crops[..., :32, :32].contiguous(), crops):
        operator = parse_operator(TASKS[0], tuple(x.shape[1:]))
        sampler, y = ccfast.Sampler(denoiser, operator, SOLVERS[solver], steps=2), operator.forward(x)
        if x is not crops:
            sampler(y, seed=0)
    before = resident("VmRSS")
    reset_peak()
    sampler(y, seed=0)
    return resident("VmHWM") - before


def peaks(prior: str) -> dict[str, float]:
    """The peak of each way in MiB, measured in a process of its own."""
    found = {}
    for name in SOLVERS:
        command = [sys.executable, __file__, prior, "--peak", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = round(float(done.stdout), 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", nargs="?", default="photo")
    parser.add_argument("--only", choices=["memory"], help="measure again this alone")
    parser.add_argument("--peak", choices=list(SOLVERS), help="print the peak of one way, in MiB")
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak(arguments.prior, arguments.peak))
        return
    path = Path(__file__).parent / "results" / f"jacobian_products_{arguments.prior}.json"
    torch.set_num_threads(1)
    if arguments.only:
        result = json.loads(path.read_text())
    else:
        denoiser = ccfast.load_prior(arguments.prior)
        table = {task: measure(denoiser, task) for task in TASKS}
        result = {"prior": arguments.prior, "steps": 5, "w": 6.0, "tasks": table}
    result["peak_mib"] = {"images": IMAGES, "task": TASKS[0], **peaks(arguments.prior)}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
