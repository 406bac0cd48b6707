"""The targets that the project set itself on a GPU, compared with a result, and the page of a result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.speed_targets import Target
from ccfast.app.benchmark.cases import LOCAL
from ccfast.app.benchmark.text_report import duration

__all__ = ["judge", "page"]

OF_COPY, FOURIER, OUTSIDE, COMPILED, PUBLISHED = 0.9, 1 / 1.5, 0.01, 1.5, 5.0


def judge(result: dict[str, Any]) -> list[Target]:
    """Every target that the result has figures for."""
    return [*_kernels(result["kernels"]), *_runs(result["runs"])]


def _kernels(records: list[dict[str, Any]]) -> Iterator[Target]:
    for r in records:
        where = f"{r['op']} {r['kind']} {'x'.join(map(str, r['shape']))} {r['dtype']}, of copy bandwidth"
        if r["kind"] in LOCAL and r["shape"] == [8, 3, 512, 512]:
            yield Target(where, f"{r['of_copy']:.0%}", f"at least {OF_COPY:.0%}", r["of_copy"] >= OF_COPY)
        if r["kind"] == "fourier" and r["op"] == "update" and r["shape"][-1] in (256, 512, 1024):
            yield Target(where, f"{r['of_copy']:.0%}", f"at least {FOURIER:.0%}", r["of_copy"] >= FOURIER)


def _runs(records: list[dict[str, Any]]) -> Iterator[Target]:
    took = {(r["network"], r["batch"], r["contender"]): r["seconds"] for r in records if "seconds" in r}
    for batch in sorted({r["batch"] for r in records}):
        outside, adm = (took.get((name, batch, "ccfast as called")) for name in ("stand-in", "adm"))
        if outside is not None and adm is not None:
            share = outside / adm
            what = f"outside the network, a whole call, ADM-sized, batch {batch}"
            yield Target(what, f"{share:.2%}", f"at most {OUTSIDE:.0%}", share <= OUTSIDE)
        ours = [t for (n, b, c), t in took.items() if (n, b) == ("photo", batch) and "ccfast" in c and "graph" in c]
        for rival, bound in (("compiled step", COMPILED), ("published", PUBLISHED)):
            theirs = took.get(("photo", batch, rival))
            if ours and theirs is not None:
                ratio = theirs / min(ours)
                what = f"{rival} over ccfast + graph, photo, batch {batch}"
                yield Target(what, f"{ratio:.2f}x", f"at least {bound:g}x", ratio >= bound)


def page(result: dict[str, Any]) -> str:
    """Markdown with the machine, every kernel, every run and every target."""
    machine = result["machine"]
    lines = [
        f"# {machine['device']}",
        "",
        f"torch {machine['torch']}, commit {result['commit']}, {result['date'][:10]}; copy bandwidth "
        f"{result['copy_bandwidth'] / 1e9:.0f} GB/s. {result['checks']}",
        "",
        f"Gates were run without TF32, timings with {result['tf32']}. Before: {result['before']}; after: "
        f"{result['after']}.",
        "",
        *_table(
            ("op", "kind", "shape", "dtype", "backend", "cold", "spread", "hot", "GB/s", "of copy"),
            map(_kernel, result["kernels"]),
        ),
        "",
        *_table(
            ("network", "batch", "contender", "run", "spread", "first call", "peak GiB"), map(_run, result["runs"])
        ),
        "",
        *_table(("op", "kind", "shape", "dtype", "rival", "cold", "over ours"), _rivals(result)),
        "",
        *(f"- {target}" for target in judge(result)),
    ]
    return "\n".join(lines) + "\n"


def _table(heading: tuple[str, ...], rows: Any) -> list[str]:
    cells = [heading, ("---",) * len(heading), *rows]
    return [f"| {' | '.join(map(str, row))} |" for row in cells]


def _kernel(r: dict[str, Any]) -> tuple[Any, ...]:
    shape, speed = "x".join(map(str, r["shape"])), r["bytes"] / r["seconds"] / 1e9
    return (
        r["op"],
        r["kind"],
        shape,
        r["dtype"],
        r["backend"],
        duration(r["seconds"]),
        f"{r['spread']:.0%}",
        duration(r["hot_seconds"]),
        f"{speed:.0f}",
        f"{r['of_copy']:.0%}",
    )


def _run(r: dict[str, Any]) -> tuple[Any, ...]:
    where = r["network"], r["batch"], r["contender"]
    if "why" in r:
        return *where, f"left out: {r['why']}", "", "", ""
    peak = f"{r['peak_bytes'] / 2**30:.1f}" if "peak_bytes" in r else ""
    return *where, duration(r["seconds"]), f"{r['spread']:.0%}", duration(r["first_call"]), peak


def _rivals(result: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    ours = {(r["op"], r["kind"], *r["shape"], r["dtype"]): r["seconds"] for r in result["kernels"]}
    for r in result["rivals"]:
        where = r["op"], r["kind"], "x".join(map(str, r["shape"])), r["dtype"], r["rival"]
        own = ours.get((r["op"], r["kind"], *r["shape"], r["dtype"]))
        if "why" in r:
            yield *where, f"left out: {r['why']}", ""
        else:
            yield *where, duration(r["seconds"]), "" if own is None else f"{r['seconds'] / own:.2f}x"
