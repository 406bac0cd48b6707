"""The targets of quality, each compared with the rows that were measured on one set of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from bench.quality_targets.baselines import STEPS

__all__ = ["QualityTarget", "judge"]

DETAIL = ("bicubic:4", "blur:3.0")


class QualityTarget(NamedTuple):
    """A bound that the project set itself on one task, what was measured, and whether that keeps the bound."""

    task: str
    what: str
    measured: float
    bound: float
    met: bool

    def __str__(self) -> str:
        word = "met   " if self.met else "MISSED"
        return f"{word}  {self.task:<12} {self.what}: {self.measured:.4g} (asked: {self.bound:.4g})"


def judge(rows: list[dict[str, Any]]) -> Iterator[QualityTarget]:
    """Every target that the rows of one set of pictures have figures for."""
    by_task: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_task.setdefault(row["task"], {})[row["method"]] = row
    for task, methods in by_task.items():
        yield from _of_task(task, methods)


def _of_task(task: str, methods: dict[str, dict[str, Any]]) -> Iterator[QualityTarget]:
    def least(what: str, measured: float, bound: float) -> QualityTarget:
        return QualityTarget(task, what, round(measured, 4), bound, measured >= bound)

    own, pinv = methods["ccfast, 5 steps"], methods["H+ y"]
    many = next(row for name, row in methods.items() if "mean of" in name)
    if task == "inpaint:0.5":
        yield least("PSNR", own["psnr"], 27.0)
        yield least("SSIM", own["ssim"], 0.80)
    if task == "box:0.25":
        for score in ("psnr", "ssim"):
            yield least(f"{score.upper()} over the harmonic fill", own[score] - methods["harmonic fill"][score], 0.0)
    if task == "pool:4":
        yield least("PSNR over H+ y", own["psnr"] - pinv["psnr"], 1.5)
        yield least("SSIM over H+ y", own["ssim"] - pinv["ssim"], 0.02)
    if task in DETAIL:
        yield least("PSNR over H+ y", own["psnr"] - pinv["psnr"], -1.0)
        yield least("GMSD under H+ y", pinv["gmsd"] - own["gmsd"], 0.0)
        yield least("Laplacian energy", own["laplacian"], 0.5)
    yield least("PSNR of the mean over H+ y", many["psnr"] - pinv["psnr"], 0.3)
    if "Wiener" in methods:
        yield least("PSNR of the mean over Wiener", many["psnr"] - methods["Wiener"]["psnr"], 0.0)
    for name in ("PiGDM", "DDNM"):
        rival = methods[f"{name}, {STEPS} steps"]
        yield least(f"PSNR over {name} at {STEPS}", own["psnr"] - rival["psnr"], 0.0)
        yield least(f"GMSD under {name} at {STEPS}", rival["gmsd"] - own["gmsd"], 0.0)
