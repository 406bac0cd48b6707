"""``python -m bench.peers photo``: measure every peer that is installed, on the same problems.

Every sampler restores a held-out 128 x 128 crop with the bundled prior. Its row has PSNR, SSIM, GMSD, the root mean
square of Hx - y, the network evaluations, and the peak of the memory that the run allocates, network included. The same
sampler then runs at 256 x 256 with a network of one multiplication; the seconds of that run, the fewest of several
rounds in turn on one thread, are those outside the network. Parameters are the packages' own, and nothing is tuned. The
rows are written into bench/results/peers_<prior>.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from tqdm import tqdm

import ccfast
from bench.peak_memory import LiveMemory
from bench.quality.photographs import scores
from bench.quality.record import RESULTS, Record
from bench.quality.tuning import measure
from ccfast.priors import heldout

from . import peer_ccfast
from .case import Case, Restore, stand_in

PACKAGES = ("azula", "deepinv", "diffusers")
PROBLEMS = (("inpaint:0.5", 0.0), ("inpaint:0.5", 0.05), ("pool:4", 0.0), ("pool:4", 0.05), ("motion:15,30", 0.05))
EVALUATIONS, SIDE, ROUNDS = 20, 256, 5


def everyone(case: Case) -> Iterator[tuple[str, Restore]]:
    """Our samplers and those of the packages that are installed."""
    yield from peer_ccfast.peers(case)
    for package in PACKAGES:
        if find_spec(package):
            yield from import_module(f".peer_{package}", __package__).peers(case)


def case_of(denoiser: ccfast.Denoiser, task: tuple[str, float], truth: torch.Tensor) -> Case:
    operator, y = measure(task, truth, seed=0)
    return Case(denoiser, operator, y, task[1], task[0], EVALUATIONS)


def run(denoiser: ccfast.Denoiser, task: tuple[str, float], record: Record, rounds: int) -> None:
    """Measure the rows of one problem."""
    truth = heldout.crops()[2:3]
    case, large = (
        case_of(denoiser, task, truth),
        case_of(stand_in(denoiser), task, heldout.square("chelsea", SIDE)[None]),
    )
    outside = dict(everyone(large))
    seconds = dict.fromkeys(outside, float("inf"))
    for _ in range(rounds):
        for name, restore in outside.items():
            seconds[name] = min(seconds[name], large.timed(restore)[1])
    for name, restore in everyone(case):
        x, taken, evaluations = case.timed(restore)
        with LiveMemory() as memory:
            restore()
        row = {
            "task": task[0],
            "noise": task[1],
            "peer": name,
            "evaluations": evaluations,
            "seconds": float(f"{taken:.3g}"),
            "outside_network_seconds": float(f"{seconds[name]:.3g}"),
            "peak_mib": round(memory.peak / 2**20, 1),
            "finite": bool(torch.isfinite(x).all()),
        }
        values = scores(x.detach(), truth, case.operator, case.y) if row["finite"] else {}
        record.add("rows", {**row, **{key: value[0] for key, value in values.items()}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", choices=tuple(ccfast.priors.PRIORS))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="times that the stand-in run is timed")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = {
        "packages": {name: version(name) for name in PACKAGES if find_spec(name)},
        "missing": [name for name in PACKAGES if not find_spec(name)],
        "evaluations": EVALUATIONS,
        "side": SIDE,
        "rounds": arguments.rounds,
    }
    path = arguments.out or RESULTS / f"peers_{arguments.prior}.json"
    record = Record(path, f"python -m bench.peers {arguments.prior}", settings, again=True)
    denoiser = ccfast.load_prior(arguments.prior)
    for task in tqdm(PROBLEMS):
        run(denoiser, task, record, arguments.rounds)


if __name__ == "__main__":
    main()
