"""The ops of csrc/*_cuda.cpp as torch.ops.ccfast_emulated: built for the CPU, with kernels run by cuda_emulator.h.

The tests thus see, on a machine without a GPU, what a GPU would compute, through the same checks and the same Python.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import torch

ROOT = Path(__file__).resolve().parent.parent
FLAGS = "-O1 -std=c++20 -fPIC -fvisibility=hidden -Wall -Wextra -Wno-psabi -Wno-unknown-pragmas -ffp-contract=fast"
FOURIER = ("fourier", "fourier_alias", "fourier_multiply", "fourier_pack", "fourier_unpack")
OPS = ("combine", "finish", *FOURIER, "products", "separable")


def build(folder: Path) -> Path:
    """Build the library with ninja, or raise RuntimeError with the compiler's output."""
    compiler = os.environ.get("CXX") or shutil.which("g++")
    if compiler is None:
        raise RuntimeError("no C++ compiler")
    torch_folder = Path(torch.__file__).parent
    flags = f"{FLAGS} -DCCF_EMULATED -DTORCH_TARGET_VERSION=0x020a000000000000 -isystem {torch_folder}/include"
    rows = [
        f"rule compile\n  command = {compiler} {flags} -I{ROOT}/tests -MMD -MF $out.d -x c++ -c $in -o $out\n"
        "  depfile = $out.d\n  deps = gcc\n",
        f"rule link\n  command = {compiler} -shared -o $out $in -L{torch_folder}/lib -Wl,--no-as-needed -ltorch_cpu "
        "-Wl,--allow-shlib-undefined\n",
    ]
    sources = [*sorted((ROOT / "csrc").glob("*_cuda.cpp")), *sorted((ROOT / "csrc/cuda").glob("*.cu"))]
    objects = [f"{folder}/{source.stem}.o" for source in sources]
    rows += [f"build {o}: compile {source}" for o, source in zip(objects, sources, strict=True)]
    library = folder / "emulated.so"
    rows.append(f"build {library}: link {' '.join(objects)}\n")
    (folder / "build.ninja").write_text("\n".join(rows))
    done = subprocess.run(["ninja", "-j2", "-C", folder], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return library


def load(folder: Path) -> SimpleNamespace:
    """Load the ops under their names in ccfast.kernels.cuda.ops, with its ``stream``."""
    torch.ops.load_library(build(folder))
    ops = {name: getattr(torch.ops.ccfast_emulated, f"cuda_{name}").default for name in OPS}
    return SimpleNamespace(**ops, stream=lambda device: -1)
