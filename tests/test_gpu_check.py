"""The program behind ``make gpu-check``, run on the CPU at tiny sizes, and its targets."""

from __future__ import annotations

import json
import time

import pytest
import torch

from bench.gpu import __main__ as check
from bench.gpu import checks, runs
from bench.gpu.gpu_targets import judge, page
from bench.gpu.runs import CONTENDERS, NETWORKS, run_records
from bench.gpu.surroundings import exact_float32, precision

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    assert check.main(["--dry-run", "--no-compile", "--out", str(folder)]) == 0
    assert (folder / "dry-run.md").read_text().startswith("# dry run\n")
    return json.loads((folder / "dry-run.json").read_text())


def test_dry_run(result):
    assert {r["kind"] for r in result["kernels"]} == {"mask", "block", "channel", "banded", "lowrank", "fourier", "any"}
    assert all(r["seconds"] > 0 and r["of_copy"] > 0 for r in result["kernels"])
    assert {(r["network"], r["contender"]) for r in result["runs"]} == {
        (network, contender)
        for network in ("stand-in", "photo", "adm")
        for contender in CONTENDERS
        if network != "stand-in" or "compiled" not in contender
    }
    timed = {r["contender"] for r in result["runs"] if "seconds" in r}
    assert timed == {"eager", "ccfast", "ccfast as called", "published"}
    assert all("why" in r for r in result["runs"] if "graph" in r["contender"])
    assert {r["rival"] for r in result["rivals"]} == {"eager"}
    assert all(r["seconds"] > 0 and r["hot_seconds"] > 0 and r["copies"] > 1 for r in result["kernels"])
    assert set(result["tf32"]) == {"products", "convolutions"}


def test_what_compiles_comes_last_and_the_largest_batch_first(monkeypatch):
    monkeypatch.setattr(runs, "_network", lambda name, full, device: (None, torch.float32))
    records = list(run_records(CPU, 0.0))
    order = [(r["network"], "compiled" in r["contender"]) for r in records]
    assert list(dict.fromkeys(order)) == [
        *((name, False) for name in ("stand-in", "photo", "adm")),
        *((name, True) for name in ("photo", "adm")),
    ]
    assert [r["batch"] for r in records[:3]] == [16, 4, 1]


def test_every_record_is_written_at_once(tmp_path, monkeypatch):
    """What is ended in its midst leaves all that it had measured, and another part adds to it."""

    def records(device, *arguments):
        yield {"op": "update"}
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "kernel_records", records)
    monkeypatch.setattr(check, "page", lambda result: "")
    with pytest.raises(KeyboardInterrupt):
        check.main(["--dry-run", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "dry-run.json").read_text())["kernels"] == [{"op": "update"}]
    report = check.Report(tmp_path, dry=True)
    report.check("memcheck", "passed")
    found = json.loads((tmp_path / "dry-run.json").read_text())
    assert (found["kernels"], found["checks"]) == ([{"op": "update"}], {"memcheck": "passed"})
    assert not list(tmp_path.glob("*.new"))


def test_a_deadline_leaves_out():
    assert {r["why"] for r in run_records(CPU, 0.0, full=False)} == {"no time left"}


def test_targets(result):
    kernel = {"op": "update", "dtype": "float32", "of_copy": 0.9}
    kernels = [
        kernel | {"kind": "mask", "shape": [8, 3, 512, 512]},
        kernel | {"kind": "fourier", "shape": [8, 3, 256, 256]},
    ]
    seconds = {("stand-in", "ccfast as called"): 1e-4, ("adm", "ccfast as called"): 0.1}
    seconds |= {("photo", "ccfast + graph"): 1e-3}
    seconds |= {("photo", "compiled step"): 2e-3, ("photo", "published"): 4e-3}
    records = [{"network": n, "batch": 1, "contender": c, "seconds": s} for (n, c), s in seconds.items()]
    targets = judge({"kernels": kernels, "runs": records})
    assert [t.met for t in targets] == [True, True, True, True, False]
    assert "4.00x" in targets[-1].measured
    assert "left out: " in page(result)


def test_needs_a_device(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert check.main([]) == 1
    assert "gpu-check: needs a CUDA device" in capsys.readouterr().err


def test_checks_are_told(tmp_path, monkeypatch):
    log, late = tmp_path / "logs/a.log", time.monotonic() + 60
    assert checks.command(["true"], log, late) == "passed"
    assert checks.command(["sh", "-c", "echo broken; exit 3"], log, late) == "FAILED with 3: broken"
    assert checks.command(["sh", "-c", "echo $A"], log, late, {"A": "set"}) == "set"
    assert checks.command(["true"], log, time.monotonic() - 1) == "not run: no time left"
    monkeypatch.setattr(checks.shutil, "which", lambda *_, **__: None)
    found = dict(checks.sanitize(tmp_path, late))
    assert found == dict.fromkeys(("memcheck", "racecheck", "initcheck"), "not run: compute-sanitizer is not installed")


def test_output_of_what_takes_too_long_is_kept(tmp_path):
    log = tmp_path / "slow.log"
    told = checks.command(["sh", "-c", "echo begun; exec sleep 60"], log, time.monotonic() + 0.3)
    assert told == "FAILED: not finished in 0 s: begun"
    assert log.read_text() == "begun\n"


def test_sanitizers_see_every_allocation(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(checks.shutil, "which", lambda *_, **__: "compute-sanitizer")
    monkeypatch.setattr(checks, "command", lambda words, log, deadline, variables: seen.append((words, variables)))
    list(checks.sanitize(tmp_path, 0.0))
    assert [words[2] for words, _ in seen] == ["memcheck", "racecheck", "initcheck"]
    assert all(variables == {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} for _, variables in seen)


def test_gates_are_run_without_tf32():
    before = precision()
    with exact_float32():
        assert set(precision().values()) == {"ieee"}
    assert precision() == before


def test_the_large_network():
    """The network has the public one's size, but its output has as many channels as its input, which rivals need."""
    make, dtype = NETWORKS["adm"]
    with torch.device("meta"):
        network = make().to(dtype)
        x, t = torch.empty(2, 3, 256, 256, dtype=dtype), torch.empty(2)
    assert 4.5e8 < sum(p.numel() for p in network.parameters()) < 6e8
    output = network(x, t)
    assert (output.shape, output.dtype) == (x.shape, dtype)
