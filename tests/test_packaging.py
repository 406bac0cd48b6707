"""The source distribution, the package that is installed from it, and what happens where a build tool fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import headers
import pytest

import ccfast
from ccfast.app import cli
from ccfast.kernels import missing, native

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY_ONLY = {".clang-format", ".gitignore", ".pre-commit-config.yaml", ".ci/run"}
"""The tracked files that a source distribution leaves out."""
COMPILER = """#!/bin/sh
# Writes an empty object, where the source of the command is there.
out=; prev=
for word in "$@"; do
  case "$prev" in -o) out=$word;; -c) [ -f "$word" ] || exit 1;; esac
  prev=$word
done
[ -z "$out" ] || : > "$out"
"""
ALONE = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
"""This code removes the finder of an editable installation, which would supply modules that a package lacks."""
NVCC = """#!/bin/sh
case "$*" in *--dryrun*) echo "#$ TOP={top}" >&2;; *) exit 1;; esac
"""


def script(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def python(*words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run Python in a child process without this user's settings; an empty value counts as not set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CCFAST_") and k not in ("CXX", "CUDA_HOME")}
    environment = {"CCFAST_NO_CUDA": "1", **environment}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env={**kept, **environment}, capture_output=True, text=True
    )


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory) -> Path:
    """The source distribution of this checkout, unpacked into a path with a space and a dollar."""
    folder = tmp_path_factory.mktemp("sdist")
    copy, place = folder / "checkout", folder / "a folder of $HOME"
    left_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "results")
    shutil.copytree(ROOT, copy, ignore=left_out)
    done = python("setup.py", "--quiet", "sdist", f"--dist-dir={folder}", cwd=copy)
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(place, filter="data")
    return next(place.iterdir())


@pytest.fixture
def build(unpacked, tmp_path):
    """A function that builds the package as pip does and returns its stderr, the folder and its _build.json."""

    def run(**environment: str) -> tuple[str, Path, dict]:
        library = tmp_path / "library"
        words = ["setup.py", "--quiet", "build", f"--build-lib={library}", f"--build-temp={tmp_path / 'a temp $x'}"]
        done = python(*words, cwd=unpacked, **environment)
        assert done.returncode == 0, done.stderr
        return done.stderr, library / "ccfast", json.loads((library / "ccfast/_build.json").read_text())

    return run


def tracked() -> list[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")  # An unpacked source distribution has no list of files to compare with.
    return subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split(
        "\n"
    )[:-1]


# ------------------------------------------------------------------------------------------ what is in it
def test_no_symbolic_link_is_tracked():
    """Git writes a link as a text file where links are off, and so does a zip download."""
    assert [row for row in tracked() if row.startswith("120000")] == []


def test_source_distribution_is_the_checkout(unpacked):
    names = {row.split("\t")[1] for row in tracked()} - REPOSITORY_ONLY
    # Results are not copied, which saves time.
    names = {n for n in names if (ROOT / n).is_file() and not n.startswith("bench/results/")}
    assert {name for name in names if not (unpacked / name).is_file()} == set()
    assert [path.name for path in unpacked.rglob("*") if path.suffix in (".so", ".pyc") or path.is_symlink()] == []
    assert not (unpacked / "ccfast/_build.json").exists()


def test_installed_package(build, unpacked, tmp_path):
    """The installed package holds the kernels and its data, nothing that only a checkout needs, and runs."""
    _, package, _ = build(CXX="false")
    inside = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    for folder, prefix in (("kernels", "kernels/"), ("ccfast", "")):
        sources = [path.relative_to(unpacked / folder) for path in (unpacked / folder).rglob("*.py")]
        assert {f"{prefix}{path}" for path in sources} - {"kernels.py"} <= inside
    assert {"py.typed", "_C.pyi", "presets/presets.json", "priors/DATA.md"} <= inside
    assert any(name.endswith(".safetensors") for name in inside)
    assert "kernels.py" not in inside
    check = "import ccfast.kernels.native; print(ccfast.kernels.native.__file__); ccfast.show_config()"
    done = python("-P", "-c", ALONE + check, cwd=tmp_path, PYTHONPATH=str(package.parent))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(package / "kernels"))
    assert "backend native: no, installed without native code, because compiling it failed" in done.stdout


def test_checkout_imports_as_it_is(unpacked, tmp_path):
    """A checkout that is neither installed nor built can be imported, with kernels/ as ccfast.kernels."""
    check = """
import pickle, ccfast, ccfast.kernels.triton.rows
from ccfast.kernels import reference
from ccfast import kernels
assert "backends of the sampling loop" in kernels.__doc__
assert ccfast.kernels is kernels and kernels.reference is reference
assert pickle.loads(pickle.dumps(reference.Ops)) is reference.Ops
print(reference.__file__)
print(ccfast.show_config())
"""
    done = python("-P", "-c", ALONE + check, cwd=tmp_path, PYTHONPATH=str(unpacked))
    assert done.returncode == 0, done.stderr
    assert str(unpacked / "kernels/reference.py") in done.stdout
    assert "backend native: no, its native code has not been built" in done.stdout


# ------------------------------------------------------------------------------------------ tools that are there or not
def test_native_code_is_built_in_odd_folders(build, unpacked, tmp_path):
    """A stand-in for the compiler gets every source, in folders whose names have spaces and dollars."""
    said, package, reasons = build(CXX=script(tmp_path / "compiler", COMPILER))
    assert reasons == {"native": None, "cuda": "CCFAST_NO_CUDA was set to 1"}
    assert (package / "_ops.so").is_file()
    assert len(list(package.glob("_C.*.so"))) == 1
    assert [line for line in said.splitlines() if "ccfast:" in line] == [
        "ccfast: no CUDA code, because CCFAST_NO_CUDA was set to 1"
    ]
    objects = {str(path.relative_to(tmp_path / "a temp $x")) for path in (tmp_path / "a temp $x").rglob("*.o")}
    sources = [
        path.relative_to(unpacked) for folder in ("csrc", "csrc/cpu") for path in (unpacked / folder).glob("*.cpp")
    ]
    assert objects == {f"{path}.o" for path in sources if not path.stem.endswith("_cuda")}


@pytest.mark.parametrize("compiler", ["false", "/nowhere/g++", "exit 1;"])
def test_a_compiler_that_fails(build, tmp_path, compiler):
    """A failed build falls back with its reason, and removes what an earlier build that worked has left."""
    build(CXX=script(tmp_path / "compiler", COMPILER))
    said, package, reasons = build(CXX=compiler)
    assert "ccfast: no native code, because compiling it failed" in said
    assert "compiling it failed" in reasons["native"]
    assert list(package.glob("*.so")) == []


def test_an_nvcc_that_fails(build, tmp_path):
    """Where nvcc fails, the code for the CPU is built all the same."""
    (tmp_path / "toolkit/lib64").mkdir(parents=True)
    (tmp_path / "toolkit/lib64/libcudart_static.a").touch()
    script(tmp_path / "toolkit/bin/nvcc", NVCC.format(top=tmp_path / "toolkit"))
    compiler = script(tmp_path / "compiler", COMPILER)
    said, package, reasons = build(CXX=compiler, CCFAST_NO_CUDA="", CUDA_HOME=str(tmp_path / "toolkit"))
    assert "ccfast: no CUDA code, because compiling it with nvcc failed" in said
    assert (reasons["native"], "nvcc failed" in reasons["cuda"]) == (None, True)
    assert (package / "_ops.so").is_file()


@pytest.mark.parametrize(
    ("nvcc", "reason"),
    [
        ("#!/bin/sh\nexit 1\n", "nvcc failed"),
        ("#!/nowhere\n", "nvcc does not start"),
        ("#!/bin/sh\n", "nvcc has no libcudart_static.a"),
    ],
)
def test_an_nvcc_of_no_use(monkeypatch, tmp_path, nvcc, reason):
    setup = headers.load_setup()
    script(tmp_path / "bin/nvcc", nvcc)
    monkeypatch.delenv("CCFAST_NO_CUDA", raising=False)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(setup.MissingError, match=reason):
        setup.find_cuda()


def test_architectures_are_checked(monkeypatch):
    monkeypatch.setenv("CCFAST_CUDA_ARCH", "80,90")
    with pytest.raises(ValueError, match=r"CCFAST_CUDA_ARCH: must be architectures like 80;90, got 80,90"):
        headers.load_setup().find_cuda()


def test_tools_that_are_missing(monkeypatch, tmp_path):
    """Every missing tool has an error message of its own, and no other exception is raised."""
    setup = headers.load_setup()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CCFAST_NO_CUDA", raising=False)
    monkeypatch.setattr(setup.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(setup.sysconfig, "get_path", lambda *arguments: str(tmp_path))
    monkeypatch.setitem(sys.modules, "pybind11", None)
    for find, reason in [
        (setup.find_compiler, "no C++ compiler was found"),
        (setup.find_torch, "no installed torch was found, which has to be there before ccfast"),
        (setup.find_pybind11, "no pybind11 was found"),
        (setup.find_ninja, "no ninja was found"),
        (setup.find_cuda, "no nvcc was found"),
    ]:
        with pytest.raises(setup.MissingError) as raised:
            find()
        assert str(raised.value) == reason


def test_a_build_folder_that_cannot_be_made(build, tmp_path):
    """The folder of the objects is a file, since root could write into a folder that is merely protected."""
    (tmp_path / "a temp $x").touch()
    said, package, reasons = build(CXX=script(tmp_path / "compiler", COMPILER))
    assert "ccfast: no native code, because its files cannot be read or written" in said
    assert "a temp $x" in reasons["native"]
    assert list(package.glob("*.so")) == []


def test_reasons_are_told(monkeypatch, tmp_path):
    """The reasons come from the record of the installation, and where there is no record they do not guess."""
    monkeypatch.setattr(missing, "files", lambda name: tmp_path)
    assert missing.why_missing("cuda") == "its CUDA code has not been built, which pip install does"
    (tmp_path / "_build.json").write_text(json.dumps({"native": "no C++ compiler was found", "cuda": None}))
    assert missing.why_missing("native") == "installed without native code, because no C++ compiler was found"


def test_native_code_is_here():
    """Where there is a compiler an installation falls back without an error; the suite must not run on the fallback."""
    if shutil.which(os.environ.get("CXX", "g++").split()[0]) is None:
        pytest.skip("no C++ compiler")  # Without one an installation has to fall back.
    assert native.REASON is None


# ------------------------------------------------------------------------------------------ headers of other versions
@pytest.mark.parametrize(
    ("installed", "releases"),
    [
        ("2.13.0+cpu", ["2.10", "2.11", "2.12"]),
        ("2.11.1", ["2.10"]),
        ("2.10.0", ["2.11"]),
        ("3.0.0", ["2.10", "2.11"]),
    ],
)
def test_versions_whose_headers_are_read(installed, releases):
    assert headers.wanted((2, 10), installed) == releases


def test_headers_come_from_a_wheel(monkeypatch, tmp_path):
    """Only the headers are kept, pip is called once, and a version that it does not find gives None."""
    asked = []

    def pip(command: list[str], **options) -> subprocess.CompletedProcess:
        asked.append(command)
        if "torch==2.10.*" in command:
            with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "torch-2.10.0-none.whl", "w") as wheel:
                for name in ("include/torch/csrc/stable/library.h", "version.py", "lib/libtorch_cpu.so"):
                    wheel.writestr(f"torch/{name}", "")
        return subprocess.CompletedProcess(command, "torch==2.10.*" not in command)

    monkeypatch.setattr(headers.subprocess, "run", pip)
    folder = headers.fetch("2.10", tmp_path / "cache")
    assert folder is not None
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == ["library.h", "version.py"]
    assert headers.fetch("2.10", tmp_path / "cache") == folder
    assert len(asked) == 1
    assert headers.fetch("9.9", tmp_path / "cache") is None
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["2.10"]


# ------------------------------------------------------------------------------------------ version
def test_version(capsys):
    assert headers.load_setup().version() == ccfast.__version__
    assert (cli.main(["--version"]), capsys.readouterr().out) == (0, f"ccfast {ccfast.__version__}\n")
