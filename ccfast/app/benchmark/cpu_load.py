"""The CPU use of other processes, from /proc/stat, which a timing has to be protected from."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["LIMIT", "BusyError", "ForeignLoad", "foreign_load", "refuse_when_busy"]

LIMIT = 0.1
"""Cores that others may use during a measurement. One more process already delays a barrier of two threads by
milliseconds."""

_STAT = Path("/proc/stat")
_TICKS = os.sysconf("SC_CLK_TCK")


class BusyError(RuntimeError):
    """Other processes use the CPU, or it cannot be found out whether they do."""


class ForeignLoad:
    """Counts the cores that other processes, and the hypervisor for other machines, have used since it was made.

    That is the time that /proc/stat counts as busy, less that of this process and of its children that have ended.
    """

    def __init__(self) -> None:
        self._wall, self._busy, self._own = time.perf_counter(), busy_seconds(), own_seconds()

    def cores(self) -> float:
        """The mean number since the start. The kernel counts in ticks of 10 ms, so that a second should have passed."""
        wall = time.perf_counter() - self._wall
        return max(0.0, (busy_seconds() - self._busy) - (own_seconds() - self._own)) / wall


def busy_seconds() -> float:
    """CPU time of all processes since boot: user, nice, system, interrupts and stolen, not idle, not waiting."""
    try:
        fields = [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
    except OSError as error:
        raise BusyError(f"load: other processes' CPU use is read from {_STAT}, which is not there: {error}") from None
    return (sum(fields) - fields[3] - fields[4]) / _TICKS


def own_seconds() -> float:
    """CPU time of all threads of this process, and of its children that have ended."""
    return sum(os.times()[:4])


def foreign_load(seconds: float = 1.0) -> float:
    """The cores that others use now, as a mean over so many seconds."""
    load = ForeignLoad()
    time.sleep(seconds)
    return load.cores()


def refuse_when_busy(seconds: float = 2.0, limit: float = LIMIT) -> float:
    """The load as ``foreign_load`` has it.

    Raises:
        BusyError: the load is above the limit.
    """
    load = foreign_load(seconds)
    if load > limit:
        raise BusyError(
            f"load: other processes use {load:.2f} cores (limit {limit}), so that no time measured now means anything; "
            "stop them, or give --busy for figures that say so"
        )
    return load
