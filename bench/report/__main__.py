"""``python -m bench.report`` (``make report``): write docs/report.md, its pictures, and a part of docs/results.md."""

from __future__ import annotations

from importlib import import_module

from . import results_pictures, section_peers, section_photographs, section_posterior, section_speed
from .page import DOCS

SECTIONS = (
    ("Exact posteriors", section_posterior.section),
    ("Photographs", section_photographs.section),
    ("Other packages", section_peers.section),
    ("Kernels", section_speed.section),
)


def page() -> str:
    """The whole report."""
    head = (
        "# Report\n\nWritten by `make report` from the committed files in `bench/results`; no figure is typed by hand. "
        "Each section names the command that measured it.\n"
    )
    return "\n".join([head, *(f"## {title}\n\n{section()}" for title, section in SECTIONS)])


def main() -> None:
    import_module("matplotlib").use("Agg")
    (DOCS / "report.md").write_text(page())
    results_pictures.BLOCK.write(results_pictures.render())


if __name__ == "__main__":
    main()
