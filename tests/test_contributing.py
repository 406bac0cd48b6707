"""The code in CONTRIBUTING.md runs, meets the laws of the tables, and passes its own tests."""

from __future__ import annotations

import re
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest
import test_capture
import test_engine
import test_operators
import test_registry
import torch

import ccfast
from ccfast.engine.backends import BACKENDS, can_run
from ccfast.solvers.registry import Entry

DOCUMENT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"^ *```python\n(.*?)^ *```$", DOCUMENT, re.S | re.M)]


@pytest.fixture(scope="module")
def walk():
    """All names that the document defines, each file as a module of its own, as it would be in the package."""
    known = {"torch": torch, "np": np, "Entry": Entry}
    known |= {name: getattr(ccfast, name) for name in ("Denoiser", "Sampler", "schedules")}
    for i, block in enumerate(BLOCKS):
        where = block.splitlines()[0].lstrip("# ")
        module = types.ModuleType(f"contributing_{i}")
        sys.modules[module.__name__] = module  # Dataclasses look up their module.
        is_file = where.startswith("ccfast/")
        module.__dict__.update({} if is_file else known)
        exec(compile(block, f"CONTRIBUTING.md: {where}", "exec"), module.__dict__)
        known |= {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return types.SimpleNamespace(**known)


def test_every_step_has_its_code():
    assert [block.splitlines()[0].lstrip("# ").split(":")[0] for block in BLOCKS] == [
        "ccfast/operators/pair_difference.py",
        "a row of OPERATORS in tests/conftest.py",
        "tests/test_operators.py",
        "ccfast/solvers/adams_bashforth.py",
        "a row of REGISTRY in ccfast/solvers/registry.py",
        "tests/test_multistep.py",
    ]


def test_the_tests_of_the_document_pass(walk):
    walk.test_pair_difference()
    walk.test_adams_bashforth_is_of_second_order()


def test_the_operator_meets_the_laws(walk):
    name, make = walk.OPERATOR_ROW
    assert name == "pair-difference"
    for law, *arguments in (
        (test_operators.test_matrices,),
        (test_operators.test_singular_values,),
        (test_operators.test_laws, torch.float64, 1e-12),
        (test_operators.test_laws, torch.float32, 1e-6),
        (test_operators.test_laws_of_coordinates, torch.float64, 1e-12),
        (test_operators.test_coordinates,),
        (test_operators.test_half, torch.bfloat16),
        (test_operators.test_half_coordinates, torch.bfloat16),
        (test_operators.test_strides_and_purity,),
        (test_operators.test_empty_batch,),
        (test_operators.test_repeat,),
        (test_operators.test_shapes_are_checked,),
    ):
        law(make(), *arguments)


def test_the_operator_says_what_is_wrong(walk):
    with pytest.raises(ValueError, match=r"PairDifference: shape must be \(C, L\) with an even L, got \(1, 5\)"):
        walk.PairDifference((1, 5))
    with pytest.raises(ValueError, match="PairDifference: gain must be a finite number > 0, got 0"):
        walk.PairDifference((1, 4), gain=0)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if can_run(name)])
def test_the_solver_runs_in_the_capture_lint(walk, backend, monkeypatch):
    make = test_engine.OPERATORS["block"]
    test_engine.test_what_a_run_calls(make, walk.AdamsBashforth(), backend, monkeypatch)
    test_capture.check(make(), walk.AdamsBashforth(), monkeypatch, backend)


def test_the_row_of_the_solver_is_true(walk):
    assert walk.SOLVER_ROW.name == "AdamsBashforth()"
    denoiser = test_registry.make_denoiser()
    test_registry.test_a_row_says_what_a_run_does(walk.SOLVER_ROW, denoiser)
    test_registry.test_noise_is_what_a_row_says(walk.SOLVER_ROW, denoiser)
