"""Parse the native code against headers of other torch versions, with the flags of setup.py: headers.py [VERSION...]

Without arguments these are the oldest torch that is promised, the one that machines with a GPU have, and the one before
the installed one. Their headers come from wheels of the package index, whatever the platform of the wheel, and are kept
in CCFAST_HEADERS (default: ~/.cache/ccfast/headers). A version whose wheel cannot be had is named and left out; a file
that does not parse is an error.
CUDA sources, which include nothing of torch, are compiled once, where nvcc is found. `make headers`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("CCFAST_HEADERS") or Path.home() / ".cache/ccfast/headers")
PLATFORMS = "macosx_26_0_arm64", "win_amd64", "manylinux_2_28_aarch64"
"""The platforms, the smallest wheel (80 MB; 500 MB with CUDA) first. All have the same headers that we include."""


WITH_GPU = 2, 11
"""The torch of the machines with a GPU, with CUDA 13."""


def load_setup():
    spec = importlib.util.spec_from_file_location("ccfast_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wanted(oldest: tuple[int, int], installed: str) -> list[str]:
    """The oldest version that is promised, that beside a GPU, and the one before the installed one."""
    major, minor = map(int, installed.split(".")[:2])
    # The last minor version of an earlier major version is not known here.
    before = [(major, minor - 1)] if minor > 0 else []
    return [f"{a}.{b}" for a, b in sorted({oldest, WITH_GPU, *before} - {(major, minor)}) if (a, b) >= oldest]


def fetch(release: str, cache: Path = CACHE) -> Path | None:
    """The folder of a torch package of which only headers and version.py are kept, or None where no wheel is found."""
    folder = cache / release / "torch"
    if (folder / "include/torch/csrc/stable/library.h").is_file():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as made:
        for platform in PLATFORMS:
            command = f"download --quiet --no-deps --only-binary :all: --retries 1 --timeout 20 --platform {platform}"
            words = [*command.split(), "--dest", made, f"torch=={release}.*"]
            if subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True).returncode == 0:
                break
        wheels = list(Path(made).glob("torch-*.whl"))
        if not wheels:
            return None
        with zipfile.ZipFile(wheels[0]) as wheel:
            names = [n for n in wheel.namelist() if n.startswith("torch/include/") or n == "torch/version.py"]
            wheel.extractall(Path(made) / "package", names)
        (Path(made) / "package").rename(cache / release)
    return folder


def commands(setup, torch: Path, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The source and the command of every C++ file that the build compiles, including those that need CUDA."""
    (folder / "kernel_report.inc").touch()  # The build makes this file from nvcc's output.
    cuda = setup.Cuda("nvcc", folder, ["90"])
    text = setup.ninja_file(folder, setup.find_compiler(), torch, setup.find_pybind11(), "_C.so", cuda)
    (folder / "build.ninja").write_text(text)
    listed = [setup.find_ninja(), "-C", ROOT, "-f", folder / "build.ninja", "-t", "compdb", "compile"]
    rows = json.loads(subprocess.run(listed, check=True, capture_output=True, cwd=ROOT).stdout)
    for row in rows:
        words = shlex.split(row["command"])
        for flag, values in (("-MMD", 0), ("-MF", 1), ("-c", 0), ("-o", 1)):
            at = words.index(flag)
            del words[at : at + 1 + values]
        yield row["file"], [*words, "-fsyntax-only"]


def cuda_commands(setup, folder: Path) -> Iterator[tuple[str, list[str]]]:
    try:
        cuda = setup.find_cuda()
    except setup.MissingError as missing:
        print(f"csrc/cuda: not compiled, because {missing}")
        return
    for source in setup.sources("csrc/cuda/*.cu"):
        to = ["-arch=sm_90", "-ptx", "-o", str(folder / f"{source.stem}.ptx"), str(source)]
        yield str(source), [cuda.nvcc, *shlex.split(setup.NVCC_FLAGS), *to]


def failures(rows: Iterator[tuple[str, list[str]]]) -> list[str]:
    """The compiler's messages for the files that do not parse."""

    def compiled(row: tuple[str, list[str]]) -> str:
        done = subprocess.run(row[1], cwd=ROOT, capture_output=True, text=True)
        return f"{row[0]}: {done.stderr}" if done.returncode else ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [said for said in pool.map(compiled, rows) if said]


def main(releases: list[str]) -> int:
    setup, said = load_setup(), []
    with tempfile.TemporaryDirectory() as made:
        for release in releases or wanted(setup.TORCH_TARGET, version("torch")):
            torch = fetch(release)
            if torch is None:
                print(f"torch {release}: NOT CHECKED, because the package index gives no wheel of it")
                continue
            rows = list(commands(setup, torch, Path(made)))
            wrong = failures(iter(rows))
            print(f"torch {release}: {len(rows) - len(wrong)} of {len(rows)} C++ files parse against its headers")
            said += wrong
        said += failures(cuda_commands(setup, Path(made)))
    print(*said, sep="\n", end="", file=sys.stderr)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
