"""The layout: which folder may import which, no circles, unique names, and what ``import ccfast`` loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pytest

import ccfast

ROOT = Path(__file__).parents[1]

ROOMS = (
    ("_clip", "_guidance", "schedules", "operators"),
    ("_scheduler", "kernels"),
    ("times",),
    ("denoiser",),
    ("latents",),
    ("testing",),
    ("engine",),
    ("solvers",),
    ("presets",),
    ("_values", "errors"),
    ("_arguments",),
    ("sampler",),
    ("adapters", "priors", "metrics", "config", "generator"),
    ("pipelines",),
    ("tuning", "pretrained"),
    ("app",),
)
"""The folders of ``ccfast/`` and the modules beside them. A room may import from itself and from the rows above it."""

RANK = {room: rank for rank, row in enumerate(ROOMS) for room in row}
TOPS = ("ccfast", "kernels", "bench", "training", "tests", "examples", "csrc")
COMPILED = "ccfast._C"
KINDS = ("mask", "block", "channel", "separable", "fourier", "dense")
IMPORT_LIMIT = 0.1
"""Seconds that ``import ccfast`` may add to ``import torch``."""


class Import(NamedTuple):
    """One name that a module imports.

    Attributes:
        target: the module that is imported, or the module that holds the name.
        name: the name that is taken from the module; None where the module itself is imported.
        typing: whether only type checkers import it.
        line: the line of the import.
    """

    target: str
    name: str | None
    typing: bool
    line: int


def dotted(path: Path) -> str:
    """The name of the module; ``kernels/`` is installed as ``ccfast.kernels``."""
    parts = list(path.with_suffix("").parts)
    if parts[0] == "kernels":
        parts.insert(0, "ccfast")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def python_files(*folders: str) -> list[Path]:
    found = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            relative = path.relative_to(ROOT)
            # In a checkout ccfast/kernels.py only finds the folder kernels/.
            if relative.with_suffix("").parts[:2] != ("ccfast", "kernels"):
                found.append(relative)
    return found


PACKAGE = {dotted(path): path for path in python_files("ccfast", "kernels")}
TOOLS = {dotted(path): path for path in python_files("bench", "training", "tests", "examples")}
MODULES = PACKAGE | TOOLS


def is_typing_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING"


def imports_of(module: str, source: str, modules: dict[str, Path]) -> list[Import]:
    """Everything that a module imports, at its top and inside functions, with relative names resolved."""
    package = module if modules[module].name == "__init__.py" else module.rpartition(".")[0]
    found: list[Import] = []

    def visit(node: ast.AST, typing: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, None, typing, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            target = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                child = f"{target}.{alias.name}"
                whole = child in modules or child == COMPILED
                found.append(Import(child if whole else target, None if whole else alias.name, typing, node.lineno))
        guarded = is_typing_guard(node)
        for field, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, typing or (guarded and field == "body"))

    visit(ast.parse(source), False)
    return found


@cache
def imports(module: str) -> list[Import]:
    """The imports of a module of ``MODULES``; files are read when a test asks, and not when tests are collected."""
    return imports_of(module, (ROOT / MODULES[module]).read_text(encoding="utf-8"), MODULES)


def room(module: str) -> str:
    """The folder or module directly inside ``ccfast`` that a module belongs to; "" for ``ccfast`` itself."""
    return module.split(".")[1] if "." in module else ""


def upward(module: str, found: list[Import]) -> list[str]:
    """The imports of a module of the package that are against the order of the rooms."""
    wrong, own = [], room(module)
    for target, name, _, line in found:
        top = target.split(".")[0]
        if top in TOPS and top != "ccfast":
            wrong.append(f"{module}:{line} imports {target}, which is not installed")
        if top != "ccfast" or target == COMPILED or (target, name) == ("ccfast", "__version__"):
            continue
        there = room(target)
        if not there and name in ccfast.__all__:
            there = ccfast._HOMES.get(name, name)
        allowed = there == own or (there in RANK and RANK[there] < RANK[own])
        if not there:
            allowed = own == "app"  # The app uses the package's public names.
        if not allowed:
            wrong.append(f"{module}:{line} imports {target}, but {own} may not import {there or 'ccfast'}")
    return wrong


def edges(module: str, found: list[Import], modules: dict[str, Path]) -> set[str]:
    """Modules that run before or inside this one, the ``__init__`` of every package that is entered among them."""
    reached: set[str] = set()
    for target, _, typing, _ in found:
        if typing or target not in modules:
            continue
        parts = target.split(".")
        entered = (".".join(parts[:count]) for count in range(1, len(parts)))
        reached |= {package for package in entered if not f"{module}.".startswith(f"{package}.")} | {target}
    return reached - {module}


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def private_from_elsewhere(module: str, found: list[Import]) -> list[str]:
    """Private modules that are imported from outside the folder that holds them."""
    wrong = []
    for target, *_, line in found:
        parts = target.split(".")
        if target == COMPILED or parts[0] not in TOPS:
            continue
        for place, part in enumerate(parts):
            if part.startswith("_") and not part.startswith("__") and place:
                holder = ".".join(parts[:place])
                if not f"{module}.".startswith(f"{holder}."):
                    wrong.append(f"{module}:{line} imports {target}, which is private to {holder}")
    return wrong


# ------------------------------------------------------------------------------------------------ the table
def test_every_module_has_its_room():
    rooms = {room(name) for name in PACKAGE} - {"", "__main__"}
    assert rooms <= set(RANK), f"ROOMS has no row for {sorted(rooms - set(RANK))}"
    assert set(RANK) <= rooms, f"ROOMS has rows for {sorted(set(RANK) - rooms)}, which are not there"


def test_no_import_runs_upward():
    wrong = []
    for name in PACKAGE:
        if room(name) not in ("", "__main__"):
            wrong += upward(name, imports(name))
    assert not wrong, "\n".join(wrong)


def test_the_door_opens_every_room_but_the_command_line():
    """``ccfast/__init__.py`` may import nothing at run time; ``__main__`` imports the command line and nothing else."""
    assert {found.target for found in imports("ccfast") if not found.typing} == {"importlib", "typing"}
    assert {found.target for found in imports("ccfast.__main__")} == {"sys", "ccfast.app.cli"}


def test_no_circles():
    found = circle({name: edges(name, imports(name), PACKAGE) for name in PACKAGE})
    assert found is None, " -> ".join(found or [])


def test_private_modules_are_imported_by_their_own_folder():
    wrong = []
    for name, path in MODULES.items():
        if path.parts[0] != "tests":  # A test may look inside.
            wrong += private_from_elsewhere(name, imports(name))
    assert not wrong, "\n".join(wrong)


def test_names_of_files_are_unique():
    """Names repeat only in ``kernels/``, whose backends use the same names, and those of operators for their kinds."""
    places = defaultdict(list)
    for path in python_files(*TOPS):
        # Pytest gives conftest its name.
        if path.stem not in ("__init__", "__main__", "conftest"):
            places[path.stem].append(path)
    wrong = []
    for stem, paths in places.items():
        for first, second in combinations(paths, 2):
            in_backends = [path.parts[0] == "kernels" and len(path.parts) == 3 for path in (first, second)]
            if not (all(in_backends) or (any(in_backends) and stem in KINDS)):
                wrong.append(f"{first} and {second} have one name")
    assert not wrong, "\n".join(wrong)


# ------------------------------------------------------------------------------------------------ the checks themselves
EXAMPLE = {
    "ccfast": Path("ccfast/__init__.py"),
    "ccfast.sampler": Path("ccfast/sampler.py"),
    "ccfast.operators": Path("ccfast/operators/__init__.py"),
    "ccfast.operators.mask": Path("ccfast/operators/mask.py"),
    "ccfast.operators._svd": Path("ccfast/operators/_svd.py"),
    "ccfast.engine": Path("ccfast/engine/__init__.py"),
    "ccfast.engine.plan": Path("ccfast/engine/plan.py"),
}


@pytest.mark.parametrize(
    "source",
    [
        "from ..sampler import Sampler",
        "from ..engine import plan",
        "from ..engine.plan import Plan",
        "def late():\n    from ccfast.engine.plan import Plan",
        "def late():\n    import ccfast.sampler",
        "import ccfast",
        "from ccfast import Sampler",
        "from .. import Sampler",
        "import bench.rivals",
        "from training import crops",
        "if TYPE_CHECKING:\n    from ..engine.plan import Plan",
    ],
)
def test_an_import_against_the_order_is_found(source):
    assert len(upward("ccfast.operators.mask", imports_of("ccfast.operators.mask", source, EXAMPLE))) == 1


@pytest.mark.parametrize(
    "source", ["import torch", "from ._svd import svd", "from . import _svd", "from .. import __version__"]
)
def test_an_import_in_the_order_is_not(source):
    assert not upward("ccfast.operators.mask", imports_of("ccfast.operators.mask", source, EXAMPLE))
    assert not upward("ccfast.engine.plan", imports_of("ccfast.engine.plan", "from ..operators.mask import x", EXAMPLE))


def graph_of(sources: dict[str, str]) -> dict[str, set[str]]:
    return {name: edges(name, imports_of(name, source, EXAMPLE), EXAMPLE) for name, source in sources.items()}


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("from ._svd import svd", "from .mask import mask", True),
        ("from ._svd import svd", "def late():\n    from . import mask", True),
        (
            "from ._svd import svd",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .mask import Mask",
            False,
        ),
        ("from ._svd import svd", "import torch", False),
    ],
)
def test_a_circle_is_found(first, second, found):
    circular = circle(graph_of({"ccfast.operators.mask": first, "ccfast.operators._svd": second}))
    assert (circular is not None) == found


def test_a_circle_through_a_package_is_found():
    """Whoever imports a module of another folder runs the ``__init__`` of that folder first."""
    sources = {"ccfast.operators": "from .mask import x", "ccfast.operators.mask": "from ..engine.plan import y"}
    assert circle(graph_of({**sources, "ccfast.engine.plan": "from ..operators._svd import z"})) is not None
    assert circle(graph_of(sources)) is None


def test_a_private_module_seen_from_elsewhere_is_found():
    found = imports_of("ccfast.engine.plan", "from ..operators import _svd\nfrom ..operators._svd import x", EXAMPLE)
    assert len(private_from_elsewhere("ccfast.engine.plan", found)) == 2
    inside = imports_of("ccfast.operators.mask", "from . import _svd", EXAMPLE)
    assert not private_from_elsewhere("ccfast.operators.mask", inside)


# ------------------------------------------------------------------------------------------------ import ccfast
def in_a_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout


def test_import_loads_nothing_else():
    code = "import sys, torch; before = set(sys.modules); import ccfast; print(*sorted(set(sys.modules) - before))"
    assert in_a_new_process(code).split() == ["ccfast"]


def test_using_the_words_loads_neither_the_command_line_nor_the_adapters():
    code = "import sys, torch, ccfast\nccfast.Sampler, ccfast.Denoiser, ccfast.load_prior\nprint(*sorted(sys.modules))"
    loaded = set(in_a_new_process(code).split())
    assert "ccfast.sampler" in loaded
    unwanted = ("ccfast.app", "ccfast.adapters", "PIL", "skimage", "bench", "training")
    assert not [name for name in loaded if name.startswith(tuple(f"{u}." for u in unwanted)) or name in unwanted]


def test_import_takes_little_time():
    """A process that was disturbed is tried again."""
    code = "import time, torch; start = time.perf_counter(); import ccfast; print(time.perf_counter() - start)"
    assert any(float(in_a_new_process(code)) < IMPORT_LIMIT for _ in range(5))


def test_every_public_name_is_there():
    code = "import ccfast; assert set(ccfast.__all__) <= set(dir(ccfast)); exec('from ccfast import *'); print(*dir())"
    assert set(ccfast.__all__) <= set(in_a_new_process(code).split())
    for name in ccfast.__all__:
        home = ccfast._HOMES.get(name)
        value = getattr(ccfast, name)
        assert (value.__module__ if home else value.__name__) == f"ccfast.{home or name}"


def test_type_checkers_see_every_public_name():
    seen = {found.name or found.target.rpartition(".")[2] for found in imports("ccfast") if found.typing}
    assert seen == set(ccfast.__all__)


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="module 'ccfast' has no attribute 'sampler_of_nothing'"):
        _ = ccfast.sampler_of_nothing
