"""The section on the distance to exact posteriors."""

from __future__ import annotations

from typing import Any

from .page import Result, error, load, mean, missing, origin, picture, pyplot, save, table

__all__ = ["figure", "section"]

COMMAND = "python -m bench.quality.posterior"
SHOWN = (5, 20, 100, 1000)


def section() -> str:
    result = load("posterior")
    if result is None:
        return missing(COMMAND)
    settings = result["settings"]
    save(figure(result), "posterior")
    return "\n".join(
        [
            origin(result, seeds=settings["seeds"], samples=f"{settings['samples']} each"),
            "Sliced Wasserstein distance to the exact posterior in units of its standard deviation, against network "
            "evaluations; bars are standard errors over seeds (each with its own draw, measurement and noise), the "
            "grey line is what as many exact draws score. All samplers, ours included, were tuned on other draws by "
            "the same sweep (`bench/quality/methods.py`).\n",
            picture("posterior", "Distance to exact posteriors"),
            unfinished(result),
            "Mean over the problems that all have finished of the distance (and of the coverage of 90 % intervals):\n",
            summary(result),
            "Everything at 20 evaluations: distance, error of the mean, of the covariance, spread (1 is right), "
            "coverage of 50 % and 90 % intervals.\n",
            details(result, 20),
        ]
    )


def unfinished(result: Result) -> str:
    """A sentence that names the problems without all rows; nothing where there is none."""
    done = {(row["problem"], row["method"]) for row in result["rows"]}
    methods = names(result, "method")
    left = [p for p in result["settings"]["problems"] if any((p, method) not in done for method in methods)]
    return f"**Unfinished**: not all rows yet of {'; '.join(left)}.\n" if left else ""


def select(result: Result, measure: str, **key: Any) -> list[float]:
    return [row[measure] for row in result["rows"] if key.items() <= row.items() and measure in row]


def names(result: Result, measure: str) -> list[str]:
    """The distinct values of a column, in the order in which they come."""
    return list(dict.fromkeys(row[measure] for row in result["rows"]))


def summary(result: Result) -> str:
    methods = names(result, "method")
    problems = [
        p for p in names(result, "problem") if all(select(result, "seed", problem=p, method=m) for m in methods)
    ]
    rows = []
    for method in methods:
        cells = [method]
        for steps in SHOWN:
            key = {"method": method, "evaluations": steps}
            values = [
                [select(result, measure, problem=p, **key) for p in problems]
                for measure in ("sliced_wasserstein", "coverage_90")
            ]
            whole = all(all(lists) for lists in values)
            distance, coverage = (mean([mean(list_) for list_ in lists if list_]) for lists in values)
            cells.append(f"{distance:.2f} ({coverage:.2f})" if whole else "failed on some")
        rows.append(cells)
    return table(["sampler", *(f"{steps} evaluations" for steps in SHOWN)], rows)


def details(result: Result, steps: int) -> str:
    measures = ("sliced_wasserstein", "mean_error", "covariance_error", "spread", "coverage_50", "coverage_90")
    rows = []
    for problem in names(result, "problem"):
        floor = [row for row in result["floor"] if row["problem"] == problem]
        rows.append([problem, "*exact draws*", *(f"*{mean([row[m] for row in floor]):.2f}*" for m in measures), ""])
        for method in names(result, "method"):
            key = {"problem": problem, "method": method, "evaluations": steps}
            own = [row for row in result["rows"] if key.items() <= row.items()]
            if own:
                values = ([row[m] for row in own if m in row] for m in measures)
                cells = (f"{mean(list_):.2f}" if list_ else "failed" for list_ in values)
                rows.append([problem, method, *cells, f"`{own[0]['solver']}` from {own[0]['start']:g}"])
    return table(["problem", "sampler", "SW", "mean", "cov.", "spread", "50 %", "90 %", "tuned to"], rows)


def figure(result: Result) -> Any:
    plt = pyplot()
    problems, methods = names(result, "problem"), names(result, "method")
    columns = 3
    count = -(-len(problems) // columns)
    figure, axes = plt.subplots(count, columns, figsize=(13, 3.4 * count), squeeze=False, sharex=True)
    colours = plt.get_cmap("tab20").colors
    for axis, problem in zip(axes.flat, problems, strict=False):
        for number, method in enumerate(methods):
            own = [row for row in result["rows"] if row["problem"] == problem and row["method"] == method]
            counts = sorted({row["evaluations"] for row in own})
            lists = [
                select(result, "sliced_wasserstein", problem=problem, method=method, evaluations=n) for n in counts
            ]
            axis.errorbar(
                counts,
                [mean(values) for values in lists],
                [error(values) for values in lists],
                label=method,
                color=colours[number % 20],
                linestyle="-" if method.startswith("Conjugate") else "--",
                linewidth=1.2,
                elinewidth=0.8,
            )
        floor = mean([row["sliced_wasserstein"] for row in result["floor"] if row["problem"] == problem])
        axis.axhline(floor, color="grey", linewidth=1)
        axis.set(xscale="log", yscale="log", title=problem)
        axis.title.set_fontsize(9)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(problems) :]:
        axis.axis("off")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=7, fontsize=8, bbox_to_anchor=(0.5, -0.09))
    figure.supxlabel("network evaluations", fontsize=9, y=-0.01)
    figure.supylabel("sliced Wasserstein distance / posterior standard deviation", fontsize=9)
    figure.tight_layout()
    return figure
