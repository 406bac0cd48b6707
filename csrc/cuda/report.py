"""What ptxas said of every kernel (nvcc -Xptxas -v), as rows of a C++ table: report.py REPORT... > kernel_report.inc

One row a kernel and architecture: {kernel, variant, arch, registers, spills, stack, static shared, barriers}.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ENDS = ("terms_to_field", "field_to_field", "field_to_row")
"""``Ends`` of separable.cuh, which a demangled name gives as a number."""

ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<arch>\d+)\w*'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<more>[^\n]*)",
    re.DOTALL,
)


class Entry(NamedTuple):
    kernel: str
    variant: str
    arch: int
    registers: int
    spills: int
    stack: int
    shared: int
    barriers: int


def entries(text: str) -> Iterator[Entry]:
    found = list(ENTRY.finditer(text))
    for match, name in zip(found, demangled([m["name"] for m in found]), strict=True):
        kernel, variant = parts(name)
        more = {unit: int(number) for number, unit in re.findall(r"(\d+) (bytes smem|barriers)", match["more"])}
        yield Entry(
            kernel,
            variant,
            int(match["arch"]),
            int(match["registers"]),
            int(match["stores"]) + int(match["loads"]),
            int(match["stack"]),
            more.get("bytes smem", 0),
            more.get("barriers", 0),
        )


def demangled(names: list[str]) -> list[str]:
    return subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )[: len(names)]


def parts(name: str) -> tuple[str, str]:
    """``void ccf::cuda::columns_alias<128, 4>(...)`` is columns_alias and "128, 4"."""
    match = re.search(r"ccf::cuda::(\w+)(?:<(.*?)>)?\(", name.replace("(ccf::cuda::Ends)", "Ends"))
    if match is None:
        raise ValueError(f"name: must be of a kernel in ccf::cuda, got {name!r}")
    return match[1], re.sub(r"Ends(\d)", lambda ends: ENDS[int(ends[1])], match[2] or "")


def main(paths: Iterable[str]) -> None:
    for path in paths:
        for entry in entries(Path(path).read_text()):
            kernel, variant, *numbers = entry
            print(f'{{"{kernel}", "{variant}", {", ".join(map(str, numbers))}}},')


if __name__ == "__main__":
    main(sys.argv[1:])
