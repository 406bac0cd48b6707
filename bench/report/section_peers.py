"""The section on other packages, which were measured as they are installed."""

from __future__ import annotations

from .page import Result, origin, parts, table

__all__ = ["section"]

COMMAND = "python -m bench.peers photo"


def section() -> str:
    return parts("peers_*", part, COMMAND)


def part(result: Result) -> str:
    settings = result["settings"]
    packages = ", ".join(f"{name} {version}" for name, version in settings["packages"].items())
    text = (
        f"{packages}; one network, operator and measurement, parameters as each package has them. `outside` is the "
        f"time of a whole run at {settings['side']} x {settings['side']} with a network of one multiplication; "
        "`memory` is what a run at 128 x 128 allocates at its peak, network included.\n"
    )
    heading = ["task", "noise", "sampler", "evaluations", "outside, ms", "memory, MiB", "PSNR", "GMSD", "rms of Hx - y"]
    rows = [
        [
            row["task"],
            f"{row['noise']:g}",
            row["peer"],
            str(row["evaluations"]),
            f"{1000 * row['outside_network_seconds']:.3g}",
            f"{row['peak_mib']:g}",
            *(f"{row[m]:.4g}" if m in row else "not finite" for m in ("psnr", "gmsd", "residual")),
        ]
        for row in result["rows"]
    ]
    return "\n".join([origin(result), text, table(heading, rows)])
