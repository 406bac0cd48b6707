"""In the README and docs/ the code runs as it stands, and links and names lead somewhere."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import ccfast

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
INCLUDED = [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md")]
"""Documents that are pages of the site as well. CONTRIBUTING's code is run by tests/test_contributing.py."""

EXTRAS = ("skimage", "matplotlib", "scipy", "triton", "pytest")
"""Packages that `pip install .` does not install. A page's code does without them, unless it imports them itself."""

OPTIONAL = ("diffusers", "deepinv", "azula", "k_diffusion", "skimage", "matplotlib")
"""Packages that a block may import. A block is skipped where one of them is missing, and for no other reason."""

PUBLIC = ["operators", "solvers", "schedules", "times", "adapters", "metrics", "testing", "presets", "priors"]
PUBLIC += ["pipelines", "engine.plan"]
"""The modules of `ccfast` whose public names are all in the reference."""

TOP_FOLDERS = "bench|ccfast|csrc|docs|examples|kernels|tests|training"


class Block(NamedTuple):
    """A Python block of a page, preceded by the blocks that it continues."""

    page: str
    number: int
    code: str


def blocks_of(page: str, text: str) -> list[Block]:
    """The Python blocks of a page. One below `<!-- continues -->` shares the namespace of the one before it."""
    blocks: list[Block] = []
    for match in re.finditer(r"(<!-- continues -->\s*)?^```python\n(.*?)^```$", text, re.S | re.M):
        code = match[2]
        if match[1]:
            if not blocks:
                raise ValueError(f"{page}: the first block continues none")
            code = blocks[-1].code + code
        blocks.append(Block(page, len(blocks), code))
    return blocks


def missing(code: str) -> list[str]:
    """The optional packages that the code imports and that are not installed."""
    imported = re.findall(r"^\s*(?:import|from)\s+(\w+)", code, re.M)
    return [name for name in imported if name in OPTIONAL and importlib.util.find_spec(name) is None]


def slug(heading: str) -> str:
    """The anchor that a heading gets, as the site and code hosts make it."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())


def dead_links(page: Path, text: str) -> list[str]:
    """The relative links and pictures of a page that lead to no file or to no heading of a Markdown file."""
    dead = []
    targets = re.findall(r"\]\(\s*([^)\s]+)[^)]*\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists():
            dead.append(target)
        elif anchor and file.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
            if anchor not in map(slug, headings):
                dead.append(target)
    return dead


def dead_files(text: str) -> list[str]:
    """Paths between backticks that look like files or folders of this repository and are none; `<kind>` is any name."""
    names = re.findall(rf"`((?:{TOP_FOLDERS})/[\w./<>*-]*)`", text)
    return [name for name in names if not list(ROOT.glob(re.sub(r"<\w+>", "*", name).rstrip("/")))]


def dead_names(text: str) -> list[str]:
    """The dotted names that begin with `ccfast.` and lead to nothing after `import ccfast` alone."""
    dead = []
    for name in sorted(set(re.findall(r"(?<![\w/.-])ccfast(?:\.[A-Za-z]\w*)+", text))):
        value = ccfast
        for part in name.split(".")[1:]:
            try:
                value = getattr(value, part)
            except AttributeError:
                dead.append(name)
                break
    return dead


BLOCKS = [block for page in PAGES for block in blocks_of(page.name, page.read_text(encoding="utf-8"))]
FILES = [*PAGES, *INCLUDED]
NAMES = [page.relative_to(ROOT).as_posix() for page in FILES]


def test_the_readme_is_short_and_has_the_two_commands():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert "\n    make demo " in text
    assert "\n    make test " in text


FORKING = f"""
import importlib, json, os, sys, tempfile, traceback
sys.path.append({str(ROOT / "tests")!r})
import torchvision_schemas  # Of it nothing is seen but that torchvision can be imported.
sys.path.pop()
sys.modules.update(dict.fromkeys({EXTRAS}))
import torch, ccfast
for line in sys.stdin:
    request = json.loads(line)
    for name in request["first"]:
        importlib.import_module(name)
    output = tempfile.TemporaryFile()
    child = os.fork()
    if not child:
        os.chdir(request["folder"])
        os.dup2(output.fileno(), 1), os.dup2(output.fileno(), 2)
        for name in request["used"]:
            del sys.modules[name]
        failed = 1
        try:
            exec(compile(request["code"], request["page"], "exec"), {{"__name__": "__main__"}})
            failed = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(failed)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    output.seek(0)
    print(json.dumps([status, output.read().decode(errors="replace")]), flush=True)
"""
"""A process that has imported what takes long, without the extras, and runs each block in a fork of its own."""


@pytest.fixture(scope="module")
def forking():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", FORKING]
    with subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True) as process:
        yield process
        process.stdin.close()


@pytest.mark.parametrize("block", BLOCKS, ids=[f"{block.page}-{block.number}" for block in BLOCKS])
def test_a_block_of_code_runs_as_it_stands(block, forking, tmp_path):
    """A block runs in a process and an empty folder of its own, as a reader would paste it, without the extras."""
    if lacking := missing(block.code):
        pytest.skip(f"needs {', '.join(lacking)}")  # The block imports an extra that is not installed.
    imported = re.findall(r"^\s*(?:import|from)\s+(\w+)", block.code, re.M)
    used = [name for name in EXTRAS if name in imported or "deepinv" in imported]  # Deepinv imports some of them.
    first = [name for name in imported if name in OPTIONAL and not used]
    request = {"page": block.page, "code": block.code, "folder": str(tmp_path), "first": first, "used": used}
    print(json.dumps(request), file=forking.stdin, flush=True)
    status, text = json.loads(forking.stdout.readline())
    assert status == 0, text


def test_there_is_code_to_run():
    assert {block.page for block in BLOCKS} >= {"README.md", "concepts.md", "networks.md", "operators.md"}


def test_the_first_block_of_the_readme_has_ten_lines():
    first = blocks_of("README.md", README.read_text(encoding="utf-8"))[0]
    assert len([line for line in first.code.splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("page", FILES, ids=NAMES)
def test_links_lead_somewhere(page):
    assert dead_links(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", FILES, ids=NAMES)
def test_the_pages_name_files_that_exist(page):
    assert dead_files(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES[: len(PAGES)])
def test_the_pages_name_what_ccfast_has(page):
    """A reader types these names after `import ccfast`. The site's build checks the reference."""
    if page.parent.name != "api":
        assert dead_names(page.read_text(encoding="utf-8")) == []


def test_the_listing_of_folders_names_what_is_there():
    """A name in "Where things live" lies in the folder of its line, in that of the line above, or at the top."""
    listing = re.search(r"## Where things live\n\n((?:    .*\n)+)", README.read_text(encoding="utf-8"))
    assert listing is not None
    seen = []
    above = ROOT
    for line in listing[1].splitlines():
        places = [ROOT]
        if line.startswith("      "):
            places.append(above)
        for name in re.findall(r"(?<![\w<>])\w+(?:/|\.py)(?![\w>])", line):
            found = [place / name for place in places if (place / name).exists()]
            assert found, name
            if name.endswith("/"):
                places.append(found[-1])
            seen.append(name)
        if not line.startswith("      "):
            above = places[-1]
    assert {"ccfast/", "operators/", "solvers/", "engine/", "graphs/", "kernels/", "csrc/", "sampler.py"} <= set(seen)


@pytest.mark.parametrize("module", PUBLIC)
def test_the_reference_has_every_public_name(module):
    references = {
        name for page in (DOCS / "api").glob("*.md") for name in re.findall(r"^::: ([\w.]+)", page.read_text(), re.M)
    }
    module = importlib.import_module(f"ccfast.{module}")
    for name in module.__all__:
        full = f"{module.__name__}.{name}"
        assert module.__name__ in references or any(r == full or r.startswith(f"{full}.") for r in references), full
    assert {"ccfast.sampler.Sampler", "ccfast.denoiser.Denoiser", "kernels.row"} <= references


def test_the_version_is_released_and_the_same_everywhere():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (.*)$", changes, re.M)
    assert heads[0] == "[Unreleased]"
    version, day = re.fullmatch(r"\[([\d.]+)\] - (\d{4}-\d\d-\d\d)", heads[1]).groups()
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert version == ccfast.__version__
    assert f"\nversion: {version}\n" in citation
    assert f"\ndate-released: {day}\n" in citation


def test_the_checks_of_this_file_find_what_is_wrong(tmp_path):
    (tmp_path / "there.md").write_text("# A heading, here\n")
    page = tmp_path / "page.md"
    text = "[a](there.md#a-heading-here) [b](there.md#other) [c](gone.md) [d](https://x.org/e) ![f](gone.png)"
    assert dead_links(page, text) == ["there.md#other", "gone.md", "gone.png"]
    assert dead_files("`tests/test_readme.py` `kernels/triton/<kind>.py` `csrc/` `tests/gone.py`") == ["tests/gone.py"]
    assert dead_names("`ccfast.Sampler(...)` `ccfast.adapters.gone(x)`") == ["ccfast.adapters.gone"]
    first, second = blocks_of("page", "```python\na = 1\n```\n\n<!-- continues -->\n```python\nassert a\n```\n")
    assert (first.code, second.code) == ("a = 1\n", "a = 1\nassert a\n")
    with pytest.raises(ValueError, match="continues none"):
        blocks_of("page", "<!-- continues -->\n```python\n```\n")
