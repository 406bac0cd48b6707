"""The package (``ccfast/``, in which ``kernels`` is a link to the folder beside it) and its native code.

Two libraries are built with ninja: ``ccfast/_ops.so``, the ops, through torch's stable ABI (any torch >= 2.10, no
Python in it), and ``ccfast._C``, the pybind11 module that loads it. Without a compiler or without torch's headers the
package installs without them, and ``ccfast.show_config()`` says so.

Where nvcc is found (CUDA_HOME, PATH) the kernels of csrc/cuda are built in too, for the architectures in
CCFAST_CUDA_ARCH ("80;90") and as PTX for later ones; CCFAST_NO_CUDA=1 leaves them out. The CUDA runtime is linked in,
so that the library loads where there is none.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
TORCH_TARGET = (2, 10)
FLAGS = (
    "-O3 -std=c++20 -fPIC -fvisibility=hidden -Wall -Wextra -Wno-psabi -fopenmp-simd -fno-math-errno "
    f"-fno-trapping-math -DTORCH_TARGET_VERSION=0x{TORCH_TARGET[0]:02x}{TORCH_TARGET[1]:02x}000000000000"
).split()
NVCC_FLAGS = "-O3 -std=c++20 --expt-relaxed-constexpr -Xcompiler=-fPIC,-fvisibility=hidden -Xptxas=-v"


class Cuda(NamedTuple):
    """nvcc, the folder of libcudart_static.a, and architectures: "80", "90"."""

    nvcc: str
    libraries: Path
    archs: list[str]


def find_cuda() -> Cuda | None:
    """The CUDA toolkit, unless CCFAST_NO_CUDA=1; nvcc says itself where it lies, since it may be a link or a script."""
    if os.environ.get("CCFAST_NO_CUDA") == "1":
        return None
    home = Path(os.environ["CUDA_HOME"]) / "bin/nvcc" if "CUDA_HOME" in os.environ else None
    nvcc = str(home) if home and home.is_file() else shutil.which("nvcc")
    if nvcc is None:
        return None
    said = subprocess.run([nvcc, "--dryrun", "-c", "-x", "cu", os.devnull, "-o", os.devnull], capture_output=True)
    top = re.search(r"TOP=(\S+)", said.stderr.decode())
    folders = [Path(top[1]) / name for name in ("lib64", "lib", "targets/x86_64-linux/lib")] if top else []
    libraries = next((folder for folder in folders if (folder / "libcudart_static.a").is_file()), None)
    if libraries is None:
        print(f"ccfast: no CUDA code, because {nvcc} has no libcudart_static.a", file=sys.stderr)
        return None
    archs = os.environ.get("CCFAST_CUDA_ARCH", "80;90").split(";")
    if not all(re.fullmatch(r"\d{2,3}[af]?", arch) for arch in archs):
        raise ValueError(f"CCFAST_CUDA_ARCH: must be architectures like 80;90, got {';'.join(archs)}")
    return Cuda(nvcc, libraries.resolve(), archs)


def find_torch() -> Path | None:
    """Folder of the installed torch, also from pip's isolated build environment, where it cannot be imported.

    That environment is run by the interpreter that torch is installed for, so its site-packages are still known.
    """
    spec = importlib.util.find_spec("torch")
    candidates = [Path(spec.origin).parent] if spec and spec.origin else []
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if "VIRTUAL_ENV" in os.environ:  # uv builds with an interpreter of its own
        folders.append(sysconfig.get_path("purelib", "venv", {"base": os.environ["VIRTUAL_ENV"]}))
    candidates += [Path(folder) / "torch" for folder in folders]
    return next((path for path in candidates if (path / "include/torch/csrc/stable/library.h").is_file()), None)


class BuildNative(build_ext):
    """Writes build.ninja and runs it."""

    def run(self) -> None:
        self.built: list[str] = []
        compiler, torch = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++"), find_torch()
        missing = [name for name, found in (("a C++ compiler", compiler), ("an installed torch", torch)) if not found]
        if missing:
            print(f"ccfast: no native code, because it needs {' and '.join(missing)}", file=sys.stderr)
            return
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        module = "_C" + sysconfig.get_config_var("EXT_SUFFIX")
        (build / "build.ninja").write_text(ninja_file(build, compiler, torch, module))
        import ninja

        subprocess.run([Path(ninja.BIN_DIR) / "ninja", "-C", ROOT, "-f", build / "build.ninja"], check=True)
        package = ROOT / "ccfast" if self.inplace else Path(self.build_lib) / "ccfast"
        package.mkdir(parents=True, exist_ok=True)
        for name in ("_ops.so", module):
            # removed first: a process that has the old file loaded keeps it
            (package / name).unlink(missing_ok=True)
            shutil.copy2(build / name, package / name)
            self.built.append(str(package / name))

    def get_outputs(self) -> list[str]:
        return self.built

    def get_output_mapping(self) -> dict[str, str]:
        return {}


def ninja_file(build: Path, compiler: str, torch: Path, module: str) -> str:
    """Rules and targets; sources relative to the repository, so that no message of the library holds a path of ours."""
    import pybind11

    torch_version = re.search(r"__version__ = '(.+?)'", (torch / "version.py").read_text())
    defines = {
        "CCF_TORCH_BUILT": torch_version[1] if torch_version else "unknown",
        "CCF_TORCH_TARGET": ".".join(map(str, TORCH_TARGET)),
    }
    module_flags = [f"-I{sysconfig.get_path('include')}", f"-isystem{pybind11.get_include()}"]
    cuda = find_cuda()
    if cuda:
        defines["CCF_CUDA_ARCHS"] = ";".join(cuda.archs)
        module_flags.append(f"-I{build}")  # the compiler's report, for the table of kernels
    module_flags += [f"'-D{name}=\"{value}\"'" for name, value in defines.items()]
    # the headers' paths, which their error messages hold, are those of whoever built the library
    flags = f"{' '.join(FLAGS)} -isystem {torch}/include -ffile-prefix-map={torch}=torch"
    ops = sorted(p.relative_to(ROOT) for p in (ROOT / "csrc").glob("*.cpp") if p.stem != "bindings")
    if not cuda:
        ops = [p for p in ops if not p.stem.endswith("_cuda")]
    sources = [*ops, *sorted(p.relative_to(ROOT) for p in (ROOT / "csrc/cpu").glob("*.cpp"))]
    rows = [
        f"builddir = {build}",
        rule("compile", f"{compiler} {flags} $flags -MMD -MF $out.d -c $in -o $out"),
        rule("link", f"{compiler} -shared -Wl,--as-needed -o $out $in $libraries"),
    ]
    objects = []
    for source in sources:
        # noise must not depend on the instruction set: no fused multiply-add
        contract = "off" if source.stem == "noise" else "fast"
        objects.append(str(build / f"{source.parent.name}_{source.stem}.o"))
        rows.append(f"build {objects[-1]}: compile {source}\n  flags = -ffp-contract={contract}\n")
    report = [f"{build}/kernel_report.inc"] if cuda else []
    if cuda:
        rows.append(cuda_rules(cuda))
        sources = sorted(p.relative_to(ROOT) for p in (ROOT / "csrc/cuda").glob("*.cu"))
        kernels = [f"{build}/cuda_{source.stem}.o" for source in sources]
        rows += [f"build {o} | {o}.report: cuda {source}\n" for o, source in zip(kernels, sources, strict=True)]
        rows.append(f"build {report[0]}: report {' '.join(f'{o}.report' for o in kernels)} | csrc/cuda/report.py\n")
        objects += kernels
    implicit = f" | {report[0]}" if report else ""
    rows.append(f"build {build}/bindings.o: compile csrc/bindings.cpp{implicit}\n  flags = {' '.join(module_flags)}\n")
    # no-as-needed: the name of torch's library must be in _ops.so, or its symbols are not found
    torch_library = f"-L{torch}/lib -Wl,--no-as-needed -ltorch_cpu -Wl,--allow-shlib-undefined"
    if cuda:
        torch_library += f" -L{cuda.libraries} -lcudart_static -ldl -lrt -lpthread -Wl,--exclude-libs,ALL"
    rows.append(f"build {build}/_ops.so: link {' '.join(objects)}\n  libraries = {torch_library}\n")
    ops_library = f"-L{build} -Wl,--no-as-needed -l:_ops.so -Wl,-rpath,'$$ORIGIN' -Wl,--allow-shlib-undefined"
    rows.append(f"build {build}/{module}: link {build}/bindings.o | {build}/_ops.so\n  libraries = {ops_library}\n")
    return "\n".join(rows)


def cuda_rules(cuda: Cuda) -> str:
    """nvcc for all architectures, the words of ptxas kept beside each object; and the table made of them."""
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in cuda.archs]
    codes.append(f"-gencode=arch=compute_{cuda.archs[-1]},code=compute_{cuda.archs[-1]}")
    compiler = f"{cuda.nvcc} {NVCC_FLAGS} {' '.join(codes)} -MMD -MF $out.d -c $in -o $out"
    report = f"{sys.executable} csrc/cuda/report.py $in > $out"
    return (
        f"rule cuda\n  command = {compiler} > $out.report 2>&1 || (cat $out.report; false)\n"
        f"  depfile = $out.d\n  deps = gcc\nrule report\n  command = {report}\n"
    )


def rule(name: str, command: str) -> str:
    return f"rule {name}\n  command = {command}\n" + ("  depfile = $out.d\n  deps = gcc\n" if name == "compile" else "")


version = re.search(r'__version__ = "(.+?)"', (ROOT / "ccfast/__init__.py").read_text())
assert version is not None

setup(
    version=version[1],
    packages=find_packages(include=["ccfast", "ccfast.*"]),
    ext_modules=[Extension("ccfast._C", sources=[])],
    cmdclass={"build_ext": BuildNative},
)
