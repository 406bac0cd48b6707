"""Tests of the benchmark harness: its registry, gates, load measure, refusals, runner, and table of docs/results.md."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
import torch

from bench import page_block, speed_table, speed_targets
from bench.peak_memory import LiveMemory, memory_states, state_buffers
from bench.rivals import published
from bench.runner import everything, run_all
from ccfast.app import cli
from ccfast.app.benchmark import command, cpu_load, environment, prepared_cases
from ccfast.app.benchmark.cases import KINDS, LOCAL, Case, registry
from ccfast.app.benchmark.measure import Harness, floor, floors, own
from ccfast.app.benchmark.steps import Clock, PreparedStep, stand_in
from ccfast.app.benchmark.text_report import text_table
from ccfast.app.benchmark.timing import interleave, repeated
from ccfast.engine.backends import can_run

SIDE = 32


# ------------------------------------------------------------------------------------------------ registry, gates
def test_registry():
    rows = registry()
    assert len(set(map(str, rows))) == len(rows)
    for kind in KINDS:
        for batch in (1, 8):
            assert {r.op for r in rows if r.kind == kind and r.batch == batch} >= {"residual", "update", "step"}
    assert {r.kind for r in rows if r.dtype == torch.bfloat16} == set(LOCAL)
    assert set(registry(batches=(1,), short=True)) < set(rows)
    assert {r.op for r in everything()} - {r.op for r in rows} == {"photo"}


@pytest.mark.parametrize("case", [r for r in registry(SIDE, (2,)) if r.op not in ("step", "plan")], ids=str)
def test_gate_of_operations(case):
    prepared = prepared_cases.prepare(case)
    with torch.no_grad():
        errors = prepared.check(prepared.rivals(compiled=False))
    assert "eager" in errors
    assert prepared.bytes >= 2 * SIDE * SIDE * 3 * 4


@pytest.mark.parametrize("case", [r for r in registry(SIDE, (2,)) if r.op == "step"], ids=str)
def test_gate_of_steps(case):
    prepared = PreparedStep(case)
    restores = {name: prepared.of_backend(name) for name in ("auto", "reference")}
    if (rival := published(prepared)) is not None:
        restores["published"] = rival.exact
        prepared.check({"as published": rival.restore}, 0.2)
    assert (rival is None) == (case.kind == "fourier")
    prepared.check(restores, 1e-5)


def test_wrong_results_are_not_timed():
    prepared = prepared_cases.prepare(Case("residual", "mask", 1, SIDE))
    wrong = prepared.rivals(compiled=False)["eager"]() + 1e-3
    with pytest.raises(prepared_cases.GateError, match="residual-mask-1x3x32x32: wrong is off by"):
        prepared.check({"wrong": lambda: wrong})
    with pytest.raises(prepared_cases.GateError, match="nothing is off by nan"):
        prepared.check({"nothing": lambda: torch.full_like(wrong, torch.nan)})
    step = PreparedStep(Case("step", "block", 1, SIDE))
    with pytest.raises(prepared_cases.GateError, match="lazy is off by"):
        step.check({"lazy": lambda y, x_init: x_init}, 1e-5)


def test_compile_computes_the_same():
    """The strongest rival, a whole step with torch.func.vjp compiled into one graph, computes the same."""
    with environment.threads(1):
        step = PreparedStep(Case("step", "block", 1, SIDE))
        step.check({"compile": step.compiled()}, 1e-5)


# ------------------------------------------------------------------------------------------------ timing
def test_interleaved_rounds_turn():
    order = []

    def sampling(name, seconds):
        order.append(name)
        return seconds

    rounds = interleave({"a": lambda: sampling("a", 1.0), "b": lambda: sampling("b", 2.0)}, rounds=3)
    assert rounds == {"a": [1.0] * 3, "b": [2.0] * 3}
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_rounds_end_with_their_budget():
    assert len(interleave({"a": lambda: 1.0}, rounds=9, budget=0.0)["a"]) == 5


@pytest.fixture
def passing(monkeypatch):
    """Replace this process's clock by one that stands still; return a function that lets so many seconds pass."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def seconds(number):
        now[0] += number

    return seconds


def test_repeated_divides_by_its_count(passing):
    assert repeated(lambda: passing(0.001))() == pytest.approx(0.001)


def test_clock_splits_a_run(passing):
    """A slow network counts as inside and a slow step as outside; the last step, which has no end, is left out."""
    clock = Clock()

    def slow(x, t):
        passing(0.02)
        return stand_in(x, t)

    network = clock.network(slow)
    with clock.watching():
        for _ in range(3):
            x = torch.ones(1, requires_grad=True)
            torch.autograd.grad(network(x, x), x)
            passing(0.005)
    assert clock.inside == pytest.approx([0.02] * 2)
    assert clock.outside == pytest.approx([0.005] * 2)


# ------------------------------------------------------------------------------------------------ load
def test_foreign_load_sees_others_and_not_itself():
    def spin(seconds):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    measured = cpu_load.ForeignLoad()
    spin(0.5)
    alone = measured.cores()
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        measured = cpu_load.ForeignLoad()
        time.sleep(1.0)
        beside = measured.cores()
    finally:
        other.kill()
        other.wait()
    # Other processes may use the machine as well. Where it is full, the new process still gets its share of it.
    assert alone < cpu_load.busy_seconds()
    assert beside > 0.3


def test_refusal(monkeypatch):
    monkeypatch.setattr(cpu_load, "foreign_load", lambda seconds: 0.8)
    with pytest.raises(cpu_load.BusyError, match=r"other processes use 0\.80 cores \(limit 0\.1\).*--busy"):
        cpu_load.refuse_when_busy()
    monkeypatch.setattr(cpu_load, "foreign_load", lambda seconds: 0.02)
    assert cpu_load.refuse_when_busy() == 0.02


def test_refusal_while_measuring(monkeypatch):
    """A case is measured again until nobody disturbs it, then given up."""
    cores = iter([0.9, 0.9, 0.0, *[0.9] * 3])
    monkeypatch.setattr("ccfast.app.benchmark.measure.ForeignLoad.cores", lambda self: next(cores))
    harness, case = Harness(rounds=1, compiled=False), Case("lincomb", "any", 1, SIDE)
    assert harness.measure(case)["load"] == 0.0
    with pytest.raises(cpu_load.BusyError, match="in each of 3 attempts"):
        harness.measure(case)


def test_no_proc_stat(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu_load, "_STAT", tmp_path / "stat")
    with pytest.raises(cpu_load.BusyError, match="which is not there"):
        cpu_load.ForeignLoad()


def test_runner_wants_its_settings(monkeypatch):
    for name in environment.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    assert not environment.configured()
    with pytest.raises(cpu_load.BusyError, match="use python -m bench"):
        run_all([Case("noise", "any", 1, SIDE)])


def test_a_killed_process_is_told(monkeypatch, capsys):
    monkeypatch.setattr(environment.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], -15))
    assert environment.run_configured("bench", []) == 143
    assert "bench: its process was ended by SIGTERM" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ memory
def test_live_memory():
    with LiveMemory() as memory:
        a = torch.empty(1000)
        b = a.view(10, 100).add_(1)
        assert memory.live == 4000
        c = b + 1
        del c
        with memory.paused():
            d = b + 1
        assert memory.live == 4000
        del a, b, d
    assert memory.live == 0
    assert memory.peak == 8000


@pytest.mark.parametrize("kind", KINDS)
def test_state_buffers(kind):
    """The buffers are never below what the loop must hold, and exceed it only by constants, masks and coordinates."""
    for batch in (1, 2):
        case = Case("step", kind, batch, SIDE)
        if can_run("native"):
            assert memory_states(case) <= state_buffers(case) < memory_states(case) + 2.5
        assert memory_states(Case("step", "fourier", batch, SIDE)) == 5 + 8 / 3


def test_floor():
    """The floor is a call plus the longer of the triad and the arithmetic, timed on a quarter of the pixels."""
    case = Case("update", "block", 2, SIDE)
    medians = {"call": 1.0, "cached": 3.0, "triad": 5.0, "sweep": 7.0, "swept call": 8.5, "native": 30.0}
    seconds = {name: {"median": value} for name, value in medians.items()}
    assert floor(seconds, case) == (1.5, 5.0, 8 * 2.0)
    assert floor(seconds, case).seconds() == 1.5 + 16.0
    assert floor(seconds | {"triad": {"median": 20.0}}, case).seconds() == 21.5
    assert floor(seconds | {"native": {"median": 10.0}}, case).arithmetic == 10.0
    assert floor(seconds | {"swept call": {"median": 7.0}}, case).call == 1.0
    assert floor({"triad": {"median": 20.0}}, case) is None
    runs = floors(case)
    assert set(runs) == ({"call", "cached", "sweep", "swept call"} if can_run("native") else set())
    assert all(run().isfinite().all() for run in runs.values())


# ------------------------------------------------------------------------------------------------ the whole
@pytest.fixture(scope="module")
def result():
    cases = [Case(op, "banded", 1, SIDE) for op in ("residual", "update", "step", "plan")]
    said = []
    made = run_all(cases, threads=(1,), rounds=1, compiled=False, busy=True, say=said.append)
    assert len(said) == len(cases)
    return made


def test_runner(result):
    assert json.loads(json.dumps(result)) == result
    assert [record["op"] for record in result["records"]] == ["residual", "update", "step", "plan"]
    for record in result["records"]:
        assert record["seconds"][own(record)]["median"] > 0
        assert record["seconds"].keys() & {"published", "eager"}
        if record["op"] != "plan":
            assert 0 < record["share"] < 1
    assert set(result["memory"]) == set(KINDS)
    assert result["machine"]["torch"] == torch.__version__
    assert 0 < result["import"]["ccfast"]["median"] < 60
    assert result["load"]["busy"] == (max(result["load"]["before"], result["load"]["during"]) > cpu_load.LIMIT)


def test_result_names_no_machine(result):
    text = json.dumps(result)
    for name in (environment.os.uname().nodename, str(page_block.PAGE.parent), str(speed_table.Path.home()) + "/"):
        assert name not in text


def test_tables_and_targets(result):
    text = text_table(result["records"])
    assert "bicubic x4" in text
    assert "compile" not in text.splitlines()[0]
    met = {target.what: target.met for target in speed_targets.judge(result)}
    assert any(what.startswith("plan banded") for what in met)
    assert any(what.startswith("step banded") for what in met)
    assert ("floor" in text.splitlines()[0]) == can_run("native")
    page = speed_table.full_page(result)
    assert page.count("\n| step ") == 1
    assert ("Preliminary" in page) == result["load"]["busy"]
    assert all(str(target).startswith(("met", "MISSED")) for target in speed_targets.judge(result))


def test_the_page_shows_the_result():
    """Every figure on the page comes from the result file."""
    assert speed_table.BLOCK.inside(page_block.PAGE.read_text()) == speed_table.render(speed_table.load())


def test_the_page_is_written(result, monkeypatch, tmp_path):
    page = tmp_path / "results.md"
    page.write_text(f"before\n{speed_table.BLOCK.begin}old\n{speed_table.BLOCK.end}after\n")
    monkeypatch.setattr(page_block, "PAGE", page)
    speed_table.write(result)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert speed_table.BLOCK.inside(text) == speed_table.render(result)
    assert "| step | bicubic x4 |" in text


def test_the_page_needs_its_comments():
    with pytest.raises(ValueError, match="must hold the comments"):
        speed_table.BLOCK.inside("nothing")


# ------------------------------------------------------------------------------------------------ ccfast bench
def test_command_refuses(monkeypatch, capsys):
    monkeypatch.setattr(cpu_load, "foreign_load", lambda seconds: 0.8)
    assert command.main(["--side", "32"]) == 1
    assert "other processes use 0.80 cores" in capsys.readouterr().err
    assert command.main(["--rounds", "0"]) == 1
    assert "rounds: must be at least 1, got 0" in capsys.readouterr().err


def test_command(capfd, tmp_path):
    """The command measures in a process of its own, with malloc's settings."""
    out = tmp_path / "figures.json"
    assert cli.main(["bench", "--side", "32", "--rounds", "1", "--threads", "1", "--busy", "--json", str(out)]) == 0
    assert "motion blur" in capfd.readouterr().out
    assert {record["op"] for record in json.loads(out.read_text())["records"]} == {
        "residual",
        "update",
        "noise",
        "step",
    }
