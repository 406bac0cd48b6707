"""The program behind ``make gpu-check``, run on the CPU at tiny sizes, and its targets."""

from __future__ import annotations

import json

import pytest
import torch

from bench.gpu import __main__ as check
from bench.gpu.gpu_targets import judge, page
from bench.gpu.runs import CONTENDERS, NETWORKS, run_records

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
        (network, contender) for network in ("stand-in", "photo", "adm") for contender in CONTENDERS
    }
    timed = {r["contender"] for r in result["runs"] if "seconds" in r}
    assert timed == {"eager", "ccfast", "published"}
    assert all("why" in r for r in result["runs"] if "graph" in r["contender"])


def test_a_deadline_leaves_out():
    assert {r["why"] for r in run_records(CPU, 0.0, full=False)} == {"no time left"}


def test_targets(result):
    kernel = {"op": "update", "dtype": "float32", "of_copy": 0.9}
    kernels = [
        kernel | {"kind": "mask", "shape": [8, 3, 512, 512]},
        kernel | {"kind": "fourier", "shape": [8, 3, 256, 256]},
    ]
    seconds = {("stand-in", "ccfast + graph"): 1e-4, ("adm", "ccfast + graph"): 0.1, ("photo", "ccfast + graph"): 1e-3}
    seconds |= {("photo", "compiled step"): 2e-3, ("photo", "published"): 4e-3}
    runs = [{"network": n, "batch": 1, "contender": c, "seconds": s} for (n, c), s in seconds.items()]
    targets = judge({"kernels": kernels, "runs": runs})
    assert [t.met for t in targets] == [True, True, True, True, False]
    assert "4.00x" in targets[-1].measured
    assert "left out: " in page(result)


def test_needs_a_device(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert check.main([]) == 1
    assert "gpu-check: needs a CUDA device" in capsys.readouterr().err


def test_checks_are_told(monkeypatch):
    assert check._command(["true"]) == "passed"
    assert check._command(["sh", "-c", "echo broken; exit 3"]) == "FAILED with 3: broken"
    monkeypatch.setattr(check.shutil, "which", lambda *_, **__: None)
    assert check.sanitize()["memcheck"] == "not run: compute-sanitizer is not installed"


def test_the_large_network():
    """The network has the public one's size, but its output has as many channels as its input, which rivals need."""
    make, dtype = NETWORKS["adm"]
    with torch.device("meta"):
        network = make().to(dtype)
        x, t = torch.empty(2, 3, 256, 256, dtype=dtype), torch.empty(2)
    assert 4.5e8 < sum(p.numel() for p in network.parameters()) < 6e8
    output = network(x, t)
    assert (output.shape, output.dtype) == (x.shape, dtype)
