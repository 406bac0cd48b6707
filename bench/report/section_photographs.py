"""The section on photographs, with a part for every prior that was measured, and the claim task by task."""

from __future__ import annotations

from typing import Any, NamedTuple

from .page import Result, error, mean, origin, parts, picture, pyplot, save, table

__all__ = ["claim", "section"]

COMMAND = "python -m bench.quality.photographs photo --photos FOLDER"
MEASURES = {"psnr": ("PSNR, dB", 1), "gmsd": ("GMSD", -1), "edge_vgg": ("edge-VGG", -1), "lpips": ("LPIPS", -1)}
"""The name of each measure by its column, with 1 where more is better and -1 where less is."""
OURS = ("preset", "untuned", "Conjugate exact", "Conjugate none", "Conjugate refresh 1")
BASELINES = ("PiGDM", "DDRM", "DDNM", "DPS", "DiffPIR", "RED-diff", "DDS")
LINES = (*OURS, *BASELINES)

WHY = """\
Where the claim fails and 5 against 5 does not, it is the number of steps that lacks: pixels hidden at random, the box,
colour and motion blur keep improving over steps that each begin from fresh noise, ours (`Conjugate refresh 1`) as well
as the baselines'. Where 5 against 5 fails too, it is the preset: the sweep's training crops chose another sampler than
these crops would have, which `untuned` shows where it is the better one.
"""


def section() -> str:
    return parts("photographs_*", part, COMMAND)


def part(result: Result) -> str:
    settings = result["settings"]
    prior, noises = settings["prior"], sorted({row["noise"] for row in result["rows"]})
    lines = [
        f"### Prior `{prior}`, {settings['pictures']} held-out crops of {settings['size']} x {settings['size']}\n",
        origin(result, LPIPS=f"({settings['lpips']})", **{"edge-VGG": f"({settings['edge_vgg']})"}),
        'All but `preset` (what a user gets) and `untuned` (`Conjugate("bayes", jacobian="auto", refresh=1)` from the '
        "schedule's default start) were tuned on training photographs, for every task and number of evaluations, by "
        "the same sweep (`bench/quality/tuning.py`). Bars are standard errors of the difference to the five-step "
        "preset, crop by crop.\n",
        "**The claim**: five-step `preset` is at least as good as every training-free baseline at 20 evaluations, and "
        "as DPS at 1000. Difference to the best baseline of each measure (positive: ours is better), same crops:\n",
        claim(result),
        "Where it does not hold, is it the sampler or the number of its steps? The same difference with 5 evaluations "
        "for both, and with 20 for both:\n",
        equal_evaluations(result),
        WHY,
    ]
    for noise in noises:
        for axis in ("evaluations", "seconds"):
            name = f"photographs_{prior}_{axis}_{noise:g}"
            save(figure(result, noise, axis), name)
            lines += [picture(name, f"Quality against {axis}, noise {noise:g}")]
    lines += ["One sample, the mean of 16 and the ways to take the Jacobian product:\n", variants(result)]
    return "\n".join(lines)


def measures(result: Result) -> list[str]:
    return [name for name in MEASURES if any(name in row for row in result["rows"])]


def tasks(result: Result) -> list[tuple[str, float]]:
    return list(dict.fromkeys((row["task"], row["noise"]) for row in result["rows"]))


def find(result: Result, task: tuple[str, float], method: str, steps: int) -> Result | None:
    key = {"task": task[0], "noise": task[1], "method": method, "steps": steps, "failed": False}
    return next((row for row in result["rows"] if key.items() <= row.items()), None)


def gain(own: Result, rival: Result, measure: str) -> list[float]:
    """The differences picture by picture, over the pictures that both rows have; positive where ``own`` is better."""
    sign = MEASURES[measure][1]
    return [sign * (a - b) for a, b in zip(own[measure], rival[measure], strict=False)]


def paired(result: Result, task: tuple[str, float], row: Result, measure: str) -> tuple[float, float]:
    """The mean of a row and its standard error, from differences to the five-step preset on the same pictures.

    Because of the differences, rows of fewer pictures stand at the right height, and error bars do not show how much
    the pictures differ from each other.
    """
    base = find(result, task, "preset", 5)
    if base is None:
        return mean(row[measure]), error(row[measure])
    differences = [a - b for a, b in zip(row[measure], base[measure], strict=False)]
    return mean(base[measure]) + mean(differences), error(differences)


class Gaps(NamedTuple):
    """The preset less the best baseline.

    Attributes:
        cells: for each task (word, noise), the difference by every measure as text.
        held: for each measure, the number of tasks on which the preset is at least as good.
    """

    cells: dict[tuple[str, float], list[str]]
    held: dict[str, int]

    def verdict(self) -> str:
        return ", ".join(f"{MEASURES[m][0]} {count} of {len(self.cells)}" for m, count in self.held.items())


def gaps(result: Result, steps: int, rival_steps: int) -> Gaps:
    """The gaps between the preset at ``steps`` evaluations and the best baseline of each measure at ``rival_steps``."""
    found = Gaps({}, dict.fromkeys(measures(result), 0))
    for task in tasks(result):
        own = find(result, task, "preset", steps)
        rivals = [row for method in BASELINES if (row := find(result, task, method, rival_steps))]
        if own is None or not rivals:
            continue
        found.cells[task] = []
        for measure in measures(result):
            sign = MEASURES[measure][1]
            best = max(rivals, key=lambda row: sign * mean(row[measure]))
            value = mean(gain(own, best, measure))
            found.held[measure] += value >= 0
            mark = "" if value >= 0 else "**"
            found.cells[task].append(f"{mark}{value:+.3g}{mark} ({best['method']})")
    return found


def claim(result: Result) -> str:
    """A table that says whether the claim holds, task by task and measure by measure."""
    found, rows = gaps(result, 5, 20), []
    for task, cells in found.cells.items():
        own, long = find(result, task, "preset", 5), find(result, task, "DPS", 1000)
        text = [f"{mean(gain(own, long, m)):+.3g}" for m in measures(result)] if own and long else ["not measured"]
        rows.append([task[0], f"{task[1]:g}", *cells, ", ".join(text)])
    heading = ["task", "noise", *(MEASURES[m][0] for m in measures(result)), "against DPS at 1000 (same order)"]
    return f"{table(heading, rows)}\nThe first part holds for: {found.verdict()} tasks. Bold: it does not.\n"


def equal_evaluations(result: Result) -> str:
    """A table of the same gaps where the preset has as many evaluations as the baselines.

    It shows whether the steps or the sampler are the reason where the claim does not hold.
    """
    at = {steps: gaps(result, steps, steps) for steps in (5, 20)}
    names = [MEASURES[m][0] for m in measures(result)]
    heading = ["task", "noise", *(f"{name}, {steps}" for steps in at for name in names)]
    rows = [
        [task[0], f"{task[1]:g}", *(cell for found in at.values() for cell in found.cells.get(task, [""] * len(names)))]
        for task in at[5].cells
    ]
    verdicts = "; ".join(f"{steps} against {steps}: {found.verdict()}" for steps, found in at.items())
    return f"{table(heading, rows)}\nAt least as good as the best baseline with as many evaluations: {verdicts}.\n"


def variants(result: Result) -> str:
    rows, wanted = [], ("preset", "product ", "mean of")
    for row in result["rows"]:
        if row["failed"] or not any(word in row["method"] for word in wanted) or row["steps"] not in (5, 20):
            continue
        if row["method"] == "preset" and row["steps"] != 5:
            continue
        cells = (f"{mean(row[m]):.4g}" for m in (*measures(result), "residual"))
        rows.append([row["task"], f"{row['noise']:g}", row["method"], str(row["evaluations"]), *cells])
    heading = ["task", "noise", "row", "evaluations", *(MEASURES[m][0] for m in measures(result)), "rms of Hx - y"]
    return table(heading, rows)


def figure(result: Result, noise: float, axis: str) -> Any:
    """A figure with a row of axes for each measure and a column for each task."""
    plt = pyplot()
    own = [task for task in tasks(result) if task[1] == noise]
    shown = measures(result)
    figure, axes = plt.subplots(len(shown), len(own), figsize=(3.0 * len(own), 2.6 * len(shown)), squeeze=False)
    colours = plt.get_cmap("tab20").colors
    for j, task in enumerate(own):
        for i, measure in enumerate(shown):
            for number, method in enumerate(LINES):
                key = {"task": task[0], "noise": noise, "method": method, "failed": False}
                rows = sorted(
                    (row for row in result["rows"] if key.items() <= row.items()), key=lambda row: row["evaluations"]
                )
                points = [paired(result, task, row, measure) for row in rows]
                axes[i, j].errorbar(
                    [row[axis] for row in rows],
                    [value for value, _ in points],
                    [bar for _, bar in points],
                    label=method,
                    color=colours[number],
                    marker="o" if method in OURS else ".",
                    linestyle="-" if method in OURS else "--",
                    linewidth=1,
                    elinewidth=0.6,
                    markersize=4,
                )
            axes[i, j].set(xscale="log")
            axes[i, j].grid(alpha=0.3)
            axes[i, j].tick_params(labelsize=7)
            axes[i, j].xaxis.set_minor_formatter("")
            if axis == "evaluations":
                counts = sorted({row[axis] for row in result["rows"] if row["method"] in LINES})
                axes[i, j].set_xticks(counts, [str(count) for count in counts])
        axes[0, j].set_title(f"{task[0]}, noise {noise:g}", fontsize=9)
    for i, measure in enumerate(shown):
        axes[i, 0].set_ylabel(MEASURES[measure][0], fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(LINES), fontsize=8, bbox_to_anchor=(0.5, -0.06))
    figure.supxlabel("network evaluations" if axis == "evaluations" else "processor seconds a picture", fontsize=9)
    figure.tight_layout()
    return figure
