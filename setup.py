"""Builds the package (``ccfast/``, and ``kernels/`` as ``ccfast.kernels``) and its native code.

Ninja builds two libraries. ``ccfast/_ops.so`` holds the ops; it uses torch's stable ABI and no Python, so that it works
with any torch >= 2.10. ``ccfast._C`` is the pybind11 module that loads it. Where something that they need is missing or
fails, the package installs without them, and a sentence on stderr and ``ccfast.show_config()`` say why.

Where nvcc is found (in CUDA_HOME or PATH) and works, the kernels of csrc/cuda are built in too, for the architectures
in CCFAST_CUDA_ARCH ("80;90") and as PTX for later ones. CCFAST_NO_CUDA=1 leaves them out. The CUDA runtime is linked
statically, so that the library loads where there is none.
"""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
TORCH_TARGET = (2, 10)
FLAGS = (
    "-O3 -std=c++20 -fPIC -fvisibility=hidden -Wall -Wextra -Wno-psabi -fopenmp-simd -fno-math-errno "
    f"-fno-trapping-math -DTORCH_TARGET_VERSION=0x{TORCH_TARGET[0]:02x}{TORCH_TARGET[1]:02x}000000000000"
).split()
NVCC_FLAGS = "-O3 -std=c++20 --expt-relaxed-constexpr -Xcompiler=-fPIC,-fvisibility=hidden -Xptxas=-v"


class MissingError(Exception):
    """Something that native code needs is not here; the text is a clause like "no C++ compiler was found"."""


class Cuda(NamedTuple):
    """The path of nvcc, the folder of libcudart_static.a, and the architectures, such as "80" and "90"."""

    nvcc: str
    libraries: Path
    archs: list[str]


def find_cuda() -> Cuda:
    """The CUDA toolkit. nvcc itself is asked for its folder, since the nvcc on the path may be a link or a script.

    Raises:
        MissingError: there is no toolkit, or CCFAST_NO_CUDA is 1.
        ValueError: CCFAST_CUDA_ARCH holds something else than architectures.
    """
    archs = os.environ.get("CCFAST_CUDA_ARCH", "80;90").split(";")
    if not all(re.fullmatch(r"\d{2,3}[af]?", arch) for arch in archs):
        raise ValueError(f"CCFAST_CUDA_ARCH: must be architectures like 80;90, got {';'.join(archs)}")
    if os.environ.get("CCFAST_NO_CUDA") == "1":
        raise MissingError("CCFAST_NO_CUDA was set to 1")
    home = Path(os.environ["CUDA_HOME"]) / "bin/nvcc" if "CUDA_HOME" in os.environ else None
    nvcc = str(home) if home and home.is_file() else shutil.which("nvcc")
    if nvcc is None:
        raise MissingError("no nvcc was found")
    said = run([nvcc, "--dryrun", "-c", "-x", "cu", os.devnull, "-o", os.devnull], "nvcc", capture_output=True)
    top = re.search(r"TOP=(.+)", said.stderr.decode(errors="replace"))
    folders = [Path(top[1].strip()) / name for name in ("lib64", "lib", "targets/x86_64-linux/lib")] if top else []
    libraries = next((folder for folder in folders if (folder / "libcudart_static.a").is_file()), None)
    if libraries is None:
        raise MissingError("nvcc has no libcudart_static.a beside it")
    return Cuda(nvcc, libraries.resolve(), archs)


def find_compiler() -> str:
    """The C++ compiler as a part of a shell command, since CXX may by custom hold one like "ccache g++"."""
    found = shutil.which("g++") or shutil.which("c++")
    if not os.environ.get("CXX") and found is None:
        raise MissingError("no C++ compiler was found")
    return os.environ.get("CXX") or shlex.quote(str(found))


def find_ninja() -> str:
    """The path of the ninja that the build's requirements install, or of one on the path."""
    found = shutil.which("ninja")
    if importlib.util.find_spec("ninja"):
        import ninja

        found = shutil.which("ninja", path=ninja.BIN_DIR) or found
    if found is None:
        raise MissingError("no ninja was found")
    return found


def find_torch() -> Path:
    """The folder of the installed torch, which is found from pip's isolated build environment too.

    torch cannot be imported there, but that environment is run by the interpreter that torch is installed for, so that
    its site-packages are known.
    """
    spec = importlib.util.find_spec("torch")
    candidates = [Path(spec.origin).parent] if spec and spec.origin else []
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if "VIRTUAL_ENV" in os.environ:  # uv builds with an interpreter of its own.
        folders.append(sysconfig.get_path("purelib", "venv", {"base": os.environ["VIRTUAL_ENV"]}))
    candidates += [Path(folder) / "torch" for folder in folders]
    found = next((path for path in candidates if (path / "include/torch/csrc/stable/library.h").is_file()), None)
    if found is None:
        raise MissingError("no installed torch was found, which has to be there before ccfast")
    return found


def find_pybind11() -> str:
    try:
        import pybind11
    except ImportError:
        raise MissingError("no pybind11 was found") from None
    return pybind11.get_include()


def run(command: list, name: str, **options) -> subprocess.CompletedProcess:
    """Run a command. ``MissingError`` says that it cannot be started or that it fails."""
    try:
        return subprocess.run(command, check=True, **options)
    except OSError as error:
        raise MissingError(f"{name} does not start ({error.strerror})") from None
    except subprocess.CalledProcessError as error:
        raise MissingError(f"{name} failed (pip install -v prints its messages)") from error


class BuildNative(build_ext):
    """Writes build.ninja and runs it, again without CUDA if that fails; _build.json says why a part is missing."""

    def run(self) -> None:
        package = ROOT / "ccfast" if self.inplace else Path(self.build_lib) / "ccfast"
        package.mkdir(parents=True, exist_ok=True)
        self.built, reasons = [], {"native": None, "cuda": None}
        for old in (*package.glob("_C.*.so"), package / "_ops.so"):
            # A process that has the old file loaded keeps it; a build that fails must not leave it to a later one.
            old.unlink(missing_ok=True)
        try:
            reasons["cuda"] = self.build_native(package)
        except MissingError as missing:
            reasons["native"] = str(missing)
            print(f"ccfast: no native code, because {missing}; plain PyTorch is used instead", file=sys.stderr)
        (package / "_build.json").write_text(json.dumps(reasons) + "\n")
        self.built.append(str(package / "_build.json"))

    def build_native(self, package: Path) -> str | None:
        """Build the libraries into ``package``; returns why they have no CUDA code, or None where they have."""
        compiler, torch, pybind11, ninja = find_compiler(), find_torch(), find_pybind11(), find_ninja()
        cuda, reason = None, None
        try:
            cuda = find_cuda()
        except MissingError as missing:
            reason = str(missing)
        module = "_C" + sysconfig.get_config_var("EXT_SUFFIX")
        build = Path(self.build_temp).resolve()
        try:
            build.mkdir(parents=True, exist_ok=True)
            try:
                make(ninja, build, ninja_file(build, compiler, torch, pybind11, module, cuda))
            except MissingError:
                if cuda is None:
                    raise
                make(ninja, build, ninja_file(build, compiler, torch, pybind11, module, None))
                reason = "compiling it with nvcc failed (pip install -v prints its messages)"
            for name in ("_ops.so", module):
                shutil.copy2(build / name, package / name)
                self.built.append(str(package / name))
        except OSError as error:
            raise MissingError(f"its files cannot be read or written ({error})") from error
        if reason:
            print(f"ccfast: no CUDA code, because {reason}", file=sys.stderr)
        return reason

    def get_outputs(self) -> list[str]:
        return self.built

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class BuildPython(build_py):
    """Leaves out ``ccfast/kernels.py``, by which a checkout finds what an installation has inside the package."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        return [m for m in super().find_package_modules(package, package_dir) if m[:2] != ("ccfast", "kernels")]


def make(ninja: str, build: Path, text: str) -> None:
    (build / "build.ninja").write_text(text)
    run([ninja, "-C", ROOT, "-f", build / "build.ninja"], "compiling it")


def escaped(path: object) -> str:
    """A path as it has to be written in a build line of ninja."""
    return re.sub(r"([$: ])", r"$\1", str(path))


def quoted(word: object) -> str:
    """One word of a command, quoted for ninja and for the shell that ninja starts."""
    return shlex.quote(str(word)).replace("$", "$$")


def ninja_file(build: Path, compiler: str, torch: Path, pybind11: str, module: str, cuda: Cuda | None) -> str:
    """The text of build.ninja.

    Paths of sources are relative to the repository, so that no message of the library holds a path of the machine that
    built it. ``csrc/bindings.cpp`` is the module, the other ``csrc/*.cpp`` are the ops. Those that end in ``_cuda.cpp``
    are built with CUDA only.
    """
    torch_version = re.search(r"__version__ = '(.+?)'", (torch / "version.py").read_text())
    defines = {
        "CCF_TORCH_BUILT": torch_version[1] if torch_version else "unknown",
        "CCF_TORCH_TARGET": ".".join(map(str, TORCH_TARGET)),
    }
    # The module includes nothing of torch, whose headers hold a pybind11 of its own that is not meant for the module.
    module_flags = [f"-I{pybind11}", f"-I{sysconfig.get_path('include')}"]
    if cuda:
        defines["CCF_CUDA_ARCHS"] = ";".join(cuda.archs)
        module_flags.append(f"-I{build}")  # It holds the compiler's report, for the table of kernels.
    module_flags += [f'-D{name}="{value}"' for name, value in defines.items()]
    # Error messages of torch's headers hold the headers' paths; -ffile-prefix-map lets them begin with "torch".
    torch_flags = f"-isystem {quoted(torch / 'include')} {quoted(f'-ffile-prefix-map={torch}=torch')}"
    command = f"{compiler.replace('$', '$$')} {' '.join(FLAGS)} $flags -MMD -MF $out.d -c $in -o $out"
    rows = [
        f"builddir = {escaped(build)}",
        rule("compile", command),
        rule("link", f"{compiler.replace('$', '$$')} -shared -Wl,--as-needed -o $out $in $libraries"),
    ]
    ops = [path for path in sources("csrc/*.cpp") if path.name != "bindings.cpp"]
    objects = []
    for source in [path for path in ops if cuda or not path.stem.endswith("_cuda")] + sources("csrc/cpu/*.cpp"):
        # Without fused multiply-adds, noise does not depend on the instruction set.
        contract = "off" if source.stem == "noise" else "fast"
        objects.append(escaped(build / f"{source}.o"))
        rows.append(f"build {objects[-1]}: compile {source}\n  flags = {torch_flags} -ffp-contract={contract}\n")
    report = escaped(build / "kernel_report.inc") if cuda else ""
    if cuda:
        rows.append(cuda_rules(cuda))
        kernels = {source: escaped(build / f"{source}.o") for source in sources("csrc/cuda/*.cu")}
        rows += [f"build {o} | {o}.report: cuda {source}\n" for source, o in kernels.items()]
        reports = " ".join(f"{o}.report" for o in kernels.values())
        rows.append(f"build {report}: report {reports} | csrc/cuda/report.py\n")
        objects += kernels.values()
    flags = " ".join(map(quoted, module_flags))
    bindings, library = escaped(build / "csrc/bindings.cpp.o"), escaped(build / "_ops.so")
    rows.append(f"build {bindings}: compile csrc/bindings.cpp{f' | {report}' if cuda else ''}\n  flags = {flags}\n")
    # --no-as-needed keeps the name of torch's library in _ops.so, without which its symbols are not found.
    torch_library = f"{quoted(f'-L{torch}/lib')} -Wl,--no-as-needed -ltorch_cpu -Wl,--allow-shlib-undefined"
    if cuda:
        cudart = "-lcudart_static -ldl -lrt -lpthread -Wl,--exclude-libs,ALL"
        torch_library += f" {quoted(f'-L{cuda.libraries}')} {cudart}"
    rows.append(f"build {library}: link {' '.join(objects)}\n  libraries = {torch_library}\n")
    ops_library = f"{quoted(f'-L{build}')} -Wl,--no-as-needed -l:_ops.so -Wl,-rpath,'$$ORIGIN'"
    rows.append(
        f"build {escaped(build / module)}: link {bindings} | {library}\n"
        f"  libraries = {ops_library} -Wl,--allow-shlib-undefined\n"
    )
    return "\n".join(rows)


def sources(pattern: str) -> list[Path]:
    return sorted(path.relative_to(ROOT) for path in ROOT.glob(pattern))


def cuda_rules(cuda: Cuda) -> str:
    """The rules that run nvcc for all architectures, keep the reports of ptxas, and collect them."""
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in cuda.archs]
    codes.append(f"-gencode=arch=compute_{cuda.archs[-1]},code=compute_{cuda.archs[-1]}")
    compiler = f"{quoted(cuda.nvcc)} {NVCC_FLAGS} {' '.join(codes)} -MMD -MF $out.d -c $in -o $out"
    report = f"{quoted(sys.executable)} csrc/cuda/report.py $in > $out"
    return (
        f"rule cuda\n  command = {compiler} > $out.report 2>&1 || (cat $out.report; false)\n"
        f"  depfile = $out.d\n  deps = gcc\nrule report\n  command = {report}\n"
    )


def rule(name: str, command: str) -> str:
    return f"rule {name}\n  command = {command}\n" + ("  depfile = $out.d\n  deps = gcc\n" if name == "compile" else "")


def packages() -> list[str]:
    """The packages in ``ccfast/``, and ``kernels/`` beside it, which is installed as ``ccfast.kernels``."""
    kernels = [f"ccfast.{name}" for name in find_packages(include=["kernels", "kernels.*"])]
    return [name for name in find_packages(include=["ccfast", "ccfast.*"]) if name not in kernels] + kernels


def version() -> str:
    match = re.search(r'__version__ = "(.+?)"', (ROOT / "ccfast/__init__.py").read_text())
    if match is None:
        raise ValueError('ccfast/__init__.py: must hold a line like __version__ = "0.1.0"')
    return match[1]


if __name__ == "__main__":  # Pip and build run the file so; tests import its functions.
    setup(
        version=version(),
        packages=packages(),
        package_dir={"ccfast": "ccfast", "ccfast.kernels": "kernels"},
        ext_modules=[Extension("ccfast._C", sources=[])],
        cmdclass={"build_ext": BuildNative, "build_py": BuildPython},
    )
