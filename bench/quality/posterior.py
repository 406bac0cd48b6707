"""Samplers against exact posteriors: ``python -m bench.quality.posterior``, three quarters of an hour on one core.

Every problem of ``exact_posteriors`` is measured in two stages, at each number of network evaluations:

1. The sweep tries the six candidates of ``methods`` at three starts, on measurements and noise of their own (with the
   seeds ``TUNING``). The smallest sliced Wasserstein distance wins. At 50 evaluations only the best six of 20 are
   tried, at 100 the best two of 50, and at 1000 the best one of 100; DPS's step follows the number of steps.
2. The report runs what won once for each of ``SEEDS``, which has its own draw from the prior, its own measurement and
   noise, and compares the samples with exact draws by ``distances.compare``.

``floor`` is the score of as many independent exact draws. The network is the exact denoiser of the prior in single
precision, which predicts epsilon on VP; times are uniform from the start to 0. The rows are written into
bench/results/posterior.json one by one; a command that is started again leaves finished rows alone.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

import ccfast
from ccfast.schedules import VP
from ccfast.solvers import DPS, Solver

from .distances import Reference, compare
from .exact_posteriors import PROBLEMS, Problem
from .methods import BASELINES, CONJUGATE, STARTS, Method
from .record import RESULTS, Record, rounded

__all__ = ["EVALUATIONS", "Trial", "run", "tuned"]

EVALUATIONS = (2, 5, 10, 20, 50, 100, 1000)
SEEDS, TUNING = (0, 1, 2, 3), (1000, 1001)
SAMPLES, TUNING_SAMPLES = 256, 128
KEPT = {50: 6, 100: 2, 1000: 1}
"""How many candidates are tried at these numbers of evaluations, the best at the number before."""

Trial = tuple[Solver, float]
"""A solver and the time of its first state."""


class Measured:
    """A problem with one measurement for every seed, and a ``Reference`` for the samples of each."""

    def __init__(self, problem: Problem, seeds: Sequence[int], samples: int) -> None:
        self.problem, self.seeds, self.samples = problem, seeds, samples
        self.y = torch.cat([problem.draw(1, seed) for seed in seeds])
        self.references = [
            Reference(problem.posterior(y), samples, seed) for y, seed in zip(self.y, seeds, strict=True)
        ]
        self.denoiser = problem.prior.denoiser(VP())

    def restore(self, solver: Solver, start: float, steps: int) -> tuple[Tensor, ccfast.Sampler]:
        """Samples of every measurement in one batch, (seeds, samples, D), and the sampler that drew them."""
        y = self.y.float().repeat_interleave(self.samples, 0)
        problem = self.problem
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # The exact mode beyond its stability limit is shown too.
            sampler = ccfast.Sampler(
                self.denoiser,
                problem.operator,
                solver,
                steps,
                start,
                0.0,
                noise_std=problem.noise_std,
                check_finite=False,
            )
            x = sampler(y, seed=self.seeds[0])
        return x.reshape(len(self.seeds), self.samples, -1), sampler

    def score(self, x: Tensor) -> list[dict[str, float] | None]:
        """What ``compare`` says for every seed, or None where a sample is not finite or above 1e6."""
        fine = [bool(torch.isfinite(own).all()) and float(own.abs().max()) < 1e6 for own in x]
        return [
            compare(own, reference) if good else None
            for own, reference, good in zip(x, self.references, fine, strict=True)
        ]

    def floor(self) -> list[dict[str, float]]:
        return [compare(reference.own, reference) for reference in self.references]


def scaled(trial: Trial, steps: int, before: int) -> Trial:
    """The trial that was made with ``before`` steps, for another number of steps."""
    solver, start = trial
    return (replace(solver, zeta=solver.zeta * before / steps), start) if isinstance(solver, DPS) else trial


def sweep(tuning: Measured, steps: int, trials: Sequence[Trial]) -> list[Trial]:
    """The trials in the order of their mean sliced Wasserstein distance, best first, without those that failed."""
    results = []
    for solver, start in trials:
        scores = tuning.score(tuning.restore(solver, start, steps)[0])
        if all(scores):
            value = sum(score["sliced_wasserstein"] for score in scores if score) / len(scores)
            results.append((value, (solver, start)))
    return [trial for _, trial in sorted(results, key=lambda pair: pair[0])]


def run(problem: Problem, methods: Sequence[Method], record: Record) -> None:
    """Tune and report the methods that the record has no rows of; all rows of a method are added at once."""
    tuning, test = Measured(problem, TUNING, TUNING_SAMPLES), Measured(problem, SEEDS, SAMPLES)
    if not record.find("floor", problem=problem.name):
        rows = zip(SEEDS, test.floor(), strict=True)
        record.add("floor", *({"problem": problem.name, "seed": seed, **rounded(values)} for seed, values in rows))
    for method in tqdm(methods, desc=problem.name, leave=False):
        if record.find("rows", problem=problem.name, method=method.name):
            continue
        rows = []
        for steps, (solver, start) in tuned(method, tuning):
            started = time.thread_time()
            x, sampler = test.restore(solver, start, steps)
            key = {
                "problem": problem.name,
                "method": method.name,
                "evaluations": steps,
                "vjps": sampler.stats()["vjps"],
                "solver": repr(solver),
                "start": start,
                "seconds": float(f"{time.thread_time() - started:.3g}"),
            }
            scores = zip(SEEDS, test.score(x), strict=True)
            rows += [{**key, "seed": seed, "failed": not values, **rounded(values or {})} for seed, values in scores]
        record.add("rows", *rows)


def tuned(method: Method, tuning: Measured) -> Iterator[tuple[int, Trial]]:
    """The best trial for each number of evaluations at which not all fail."""
    problem = tuning.problem
    pixels = math.prod(problem.prior.shape)
    ranked: list[Trial] = []
    before = 1
    for steps in EVALUATIONS:
        if steps in KEPT:
            trials = [scaled(trial, steps, before) for trial in ranked[: KEPT[steps]]]
        else:
            solvers = method.candidates(steps, problem.noise_std, pixels)
            trials = [(solver, start) for solver in solvers for start in STARTS]
        ranked = trials if len(trials) == 1 else sweep(tuning, steps, trials)
        before = steps
        if ranked:
            yield steps, ranked[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=[""], metavar="WORD", help="those whose name begins so")
    parser.add_argument("--again", action="store_true", help="forget what the file holds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = {
        "samples": SAMPLES,
        "seeds": list(SEEDS),
        "tuning_samples": TUNING_SAMPLES,
        "tuning_seeds": list(TUNING),
        "starts": list(STARTS),
        "evaluations": list(EVALUATIONS),
        "problems": [problem.name for problem in PROBLEMS],
    }
    record = Record(RESULTS / "posterior.json", "python -m bench.quality.posterior", settings, arguments.again)
    for problem in PROBLEMS:
        if problem.name.startswith(tuple(arguments.problems)):
            run(problem, (*CONJUGATE, *BASELINES), record)


if __name__ == "__main__":
    main()
