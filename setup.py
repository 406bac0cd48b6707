"""The package (``ccfast/``, in which ``kernels`` is a link to the folder beside it) and its native code.

Two libraries are built with ninja: ``ccfast/_ops.so``, the ops, through torch's stable ABI (any torch >= 2.10, no
Python in it), and ``ccfast._C``, the pybind11 module that loads it. Without a compiler or without torch's headers the
package installs without them, and ``ccfast.show_config()`` says so.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
TORCH_TARGET = (2, 10)
FLAGS = (
    "-O3 -std=c++20 -fPIC -fvisibility=hidden -Wall -Wextra -fopenmp-simd -fno-math-errno -fno-trapping-math "
    f"-DTORCH_TARGET_VERSION=0x{TORCH_TARGET[0]:02x}{TORCH_TARGET[1]:02x}000000000000"
).split()


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
    module_flags += [rf"-D{name}=\"{value}\"" for name, value in defines.items()]
    # the headers' paths, which their error messages hold, are those of whoever built the library
    flags = f"{' '.join(FLAGS)} -isystem {torch}/include -ffile-prefix-map={torch}=torch"
    sources = [Path("csrc/ops.cpp"), *sorted(p.relative_to(ROOT) for p in (ROOT / "csrc/cpu").glob("*.cpp"))]
    rows = [
        f"builddir = {build}",
        rule("compile", f"{compiler} {flags} $flags -MMD -MF $out.d -c $in -o $out"),
        rule("link", f"{compiler} -shared -Wl,--as-needed -o $out $in $libraries"),
    ]
    objects = []
    for source in sources:
        # noise must not depend on the instruction set: no fused multiply-add
        contract = "off" if source.stem == "noise" else "fast"
        objects.append(str(build / f"{source.stem}.o"))
        rows.append(f"build {objects[-1]}: compile {source}\n  flags = -ffp-contract={contract}\n")
    rows.append(f"build {build}/bindings.o: compile csrc/bindings.cpp\n  flags = {' '.join(module_flags)}\n")
    # no-as-needed: the name of torch's library must be in _ops.so, or its symbols are not found
    torch_library = f"-L{torch}/lib -Wl,--no-as-needed -ltorch_cpu -Wl,--allow-shlib-undefined"
    rows.append(f"build {build}/_ops.so: link {' '.join(objects)}\n  libraries = {torch_library}\n")
    ops_library = f"-L{build} -Wl,--no-as-needed -l:_ops.so -Wl,-rpath,'$$ORIGIN' -Wl,--allow-shlib-undefined"
    rows.append(f"build {build}/{module}: link {build}/bindings.o | {build}/_ops.so\n  libraries = {ops_library}\n")
    return "\n".join(rows)


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
