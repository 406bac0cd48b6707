"""Tests marked ``interpreted`` run in one child process, in Triton's interpreter, and are reported one by one.

Triton decides when it is imported whether the kernels of the process are compiled or interpreted. The other tests must
not see an interpreter, which would add a slow backend to theirs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
_outcomes: dict[str, tuple[str, str]] | None = None


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Report the test's outcome in the child, in place of calling the test function."""
    if INTERPRETING or pyfuncitem.get_closest_marker("interpreted") is None:
        return None
    outcome, text = outcomes(pyfuncitem.session).get(pyfuncitem.nodeid, ("failed", "the child did not run it"))
    if outcome == "skipped":
        pytest.skip(text)  # The child skipped the test, and its reason is passed on.
    if outcome != "passed":
        pytest.fail(text, pytrace=False)
    return True


def outcomes(session) -> dict[str, tuple[str, str]]:
    """The outcomes {node id: (passed | skipped | failed, text)} of the session's marked tests, run at first use."""
    global _outcomes
    if _outcomes is None:
        items = [item for item in session.items if item.get_closest_marker("interpreted")]
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "no:cacheprovider",
                "--members=all",
                f"--junitxml={report}",
            ]
            environment = {**os.environ, "TRITON_INTERPRET": "1"}
            done = subprocess.run(
                [*command, f"--junitxml={report}", *(item.nodeid for item in items)],
                cwd=session.config.rootpath,
                env=environment,
                capture_output=True,
                text=True,
            )
            if not report.exists():
                pytest.fail(f"pytest in the interpreter: {done.stdout[-3000:]}{done.stderr[-3000:]}", pytrace=False)
            cases = {_key(case.get("classname"), case.get("name")): case for case in ET.parse(report).iter("testcase")}
        _outcomes = {}
        for item in items:
            file, _, name = item.nodeid.partition("::")
            case = cases.get(_key(file.removesuffix(".py").replace("/", "."), name))
            if case is not None:
                _outcomes[item.nodeid] = _outcome(case)
    return _outcomes


def _key(classname, name) -> tuple[str, str]:
    return str(classname), str(name)


def _outcome(case: ET.Element) -> tuple[str, str]:
    for child in case:
        if child.tag == "skipped":
            return "skipped", child.get("message", "")
        if child.tag in ("failure", "error"):
            return "failed", child.text or child.get("message", "")
    return "passed", ""
