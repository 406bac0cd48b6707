"""Rivals that are timed in turn, once a round, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

__all__ = ["Sampling", "interleave", "repeated", "summary"]

Sampling = Callable[[], float]
"""Runs something and returns the seconds that one run took."""

FEWEST = 5
"""Rounds that are run however long they take, unless fewer are asked for."""


def repeated(run: Callable[[], object], seconds: float = 0.01) -> Sampling:
    """A sampling that calls ``run`` in a loop of so many seconds, since reading a clock costs as much as a kernel."""
    count = 1
    while (took := _loop(run, count)) < seconds / 2 and count < 1 << 20:
        count = max(2 * count, min(100 * count, int(count * seconds / max(took, 1e-9))))
    return lambda: _loop(run, count) / count


def _loop(run: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        run()
    return time.perf_counter() - start


def interleave(rivals: Mapping[str, Sampling], rounds: int, budget: float = 10.0) -> dict[str, list[float]]:
    """The seconds of each rival in each round.

    The order of the rivals turns by one from round to round, so that none always follows the same other. After
    ``budget`` seconds no round is begun, except the first ``FEWEST``.
    """
    names = list(rivals)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    end = time.perf_counter() + budget
    for turn in range(rounds):
        if turn >= FEWEST and time.perf_counter() > end:
            break
        for k in range(len(names)):
            name = names[(turn + k) % len(names)]
            seconds[name].append(rivals[name]())
    return seconds


def summary(seconds: list[float]) -> dict[str, Any]:
    """What a record keeps of the seconds of all rounds."""
    return {"median": median(seconds), "best": min(seconds), "rounds": len(seconds)}
