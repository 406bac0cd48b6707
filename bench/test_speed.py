"""Every row of the registry and its rivals under pytest-benchmark, which can compare runs and keep their history.

Rivals are timed one after the other here. Figures to quote come from ``make figures``, which times them in turn.
"""

from __future__ import annotations

from functools import lru_cache, partial

import pytest
import torch

from bench.rivals import published
from ccfast.app.benchmark import environment
from ccfast.app.benchmark.cases import registry
from ccfast.app.benchmark.measure import GATE
from ccfast.app.benchmark.prepared_cases import prepare, triad
from ccfast.app.benchmark.steps import PreparedStep

NAMES = {"noise": ("native", "eager", "torch"), "step": ("native", "eager", "compile", "published")}
ROWS = [
    (case, name)
    for case in registry()
    if case.op != "plan"
    for name in NAMES.get(case.op, ("native", "eager", "compile", "triad"))
]


@lru_cache(maxsize=1)
def problem(case):
    return PreparedStep(case) if case.op == "step" else prepare(case)


def runs_of_step(step, name):
    """The rival of a step as a run of five steps with a network of one multiplication, after it passed the gate."""
    if name == "published":
        if (rival := published(step)) is None:
            # This is no failure: the published code has bases for some operators only.
            pytest.skip("the published code has no such operator")
        gated, restore = rival.exact, rival.restore
    else:
        backend = {"eager": "reference"}.get(name, name)
        gated = restore = step.compiled() if name == "compile" else step.of_backend(backend)
    step.check({name: gated}, GATE)
    return partial(restore, step.y, step.x_init)


@pytest.mark.parametrize(("case", "name"), ROWS, ids=[f"{case}-{name}" for case, name in ROWS])
def test_speed(case, name, benchmark):
    benchmark.group = str(case)
    with environment.threads(torch.get_num_threads()), torch.no_grad():
        ready = problem(case)
        if isinstance(ready, PreparedStep):
            run = runs_of_step(ready, name)
        elif name == "triad":
            run = triad(ready.bytes)
        elif name in ready.ungated:
            run = ready.ungated[name]
        else:
            run = ready.rivals(compiled=name == "compile")[name]
            ready.check({name: run})
        benchmark(run)
