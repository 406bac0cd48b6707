"""The tables of quality of docs/results.md, which ``python -m bench.quality_targets.quality_table`` writes.

They are made from the committed results alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from bench.page_block import PageBlock
from bench.quality_targets.scores import NOISE_LEVELS, RESULTS, TASKS
from ccfast.priors import PRIORS

__all__ = ["BLOCK", "render"]

BLOCK = PageBlock("quality", "python -m bench.quality_targets.quality_table")
SET = "128 crops"


def render() -> str:
    """Markdown with the scores on the ten crops, each prior as a denoiser, and the targets that any set misses."""
    records = {prior: json.loads((RESULTS / f"quality_{prior}.json").read_text()) for prior in PRIORS}
    parts = [part for prior, record in records.items() for part in _scores(prior, record)]
    head = " | ".join(f"std {level}/255" for level in NOISE_LEVELS)
    rows = [f"| denoising PSNR, dB | {head} |", "| --- |" + " --- |" * len(NOISE_LEVELS)]
    for prior, record in records.items():
        found = record["denoising_psnr"]
        rows.append(f"| `{prior}` | " + " | ".join(f"{found[str(level)]:.2f}" for level in NOISE_LEVELS) + " |")
    return "\n".join([*parts, *rows, "", *_missed(records), ""])


def _scores(prior: str, record: dict[str, Any]) -> Iterator[str]:
    rows = [row for row in record["rows"] if row["set"] == SET]
    methods = dict.fromkeys(row["method"] for row in rows)
    yield f"| `{prior}`: PSNR, SSIM, GMSD | " + " | ".join(TASKS) + " |"
    yield "| --- |" + " --- |" * len(TASKS)
    for method in methods:
        found = {row["task"]: row for row in rows if row["method"] == method}
        cells = [
            f"{found[task]['psnr']:.2f}, {found[task]['ssim']:.3f}, {found[task]['gmsd']:.4f}" if task in found else ""
            for task in TASKS
        ]
        yield f"| {method} | " + " | ".join(cells) + " |"
    yield ""


def _missed(records: dict[str, dict[str, Any]]) -> Iterator[str]:
    targets = [(p, name, one) for p, r in records.items() for name, found in r["targets"].items() for one in found]
    missed = [(prior, name, target) for prior, name, target in targets if not target["met"]]
    yield f"Of {len(targets)} targets that the project set itself, {len(missed)} are missed:"
    yield ""
    for prior, name, target in missed:
        measured, bound = f"{target['measured']:.4g}", f"{target['bound']:.4g}"
        yield f"- `{prior}`, {name}, {target['task']}: {target['what']} is {measured}, asked for {bound}"


if __name__ == "__main__":
    BLOCK.write(render())
