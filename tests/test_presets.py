"""Presets: the lookup, and that the table and the sweep fit each other."""

from __future__ import annotations

import json
import math

import pytest
import torch

from ccfast import Denoiser, Sampler, presets
from ccfast.metrics import gmsd, gradient_energy
from ccfast.operators import AveragePooling, Bicubic, FourierBlur, GaussianBlur, Grayscale, Inpainting, SeparableBlur
from ccfast.presets import sweep
from ccfast.schedules import VP
from ccfast.solvers import Conjugate

ENTRIES = [
    {"prior": "p", "operator": "AveragePooling", "kind": "block", "strength": 16.0, "steps": 5, "w": 30.0},
    {"prior": "p", "operator": "AveragePooling", "kind": "block", "strength": 16.0, "steps": 20, "w": 10.0},
    {"prior": "p", "operator": "AveragePooling", "kind": "block", "strength": 64.0, "steps": 5, "w": 40.0},
    {"prior": "p", "operator": "GaussianBlur", "kind": "separable", "strength": 12.0, "steps": 5, "w": 7.0},
]
SHAPE = (3, 32, 32)


@pytest.fixture
def table(monkeypatch):
    entries = [{**entry, "jacobian": "one_projection", "start": 0.2} for entry in ENTRIES]
    monkeypatch.setattr(presets, "table", lambda: entries)


def test_the_nearest_entry_is_found(table):
    def w(operator, steps):
        return presets.lookup("p", operator, steps).solver.w

    assert w(AveragePooling(SHAPE, 4), 5) == 30
    assert w(AveragePooling(SHAPE, 4), 8) == 30
    assert w(AveragePooling(SHAPE, 4), 15) == 10
    assert w(AveragePooling(SHAPE, 8), 20) == 40
    assert w(AveragePooling(SHAPE, 2), 5) == 30
    assert w(SeparableBlur(SHAPE, [0.25, 0.5, 0.25]), 5) == 7  # another class of the same kind
    assert presets.lookup("p", Grayscale(SHAPE), 5) is None
    assert presets.lookup(None, AveragePooling(SHAPE, 4), 5) is None


def test_the_sampler_uses_it_and_yields_to_arguments(table):
    denoiser = Denoiser(lambda x, t: 0.9 * x, VP(), name="p")
    operator = AveragePooling(SHAPE, 4)
    default = Sampler(denoiser, operator)
    assert default.solver == Conjugate(30.0, jacobian="one_projection")
    assert default.plan.times[[0, -1]].tolist() == [0.2, 0.001]
    assert Sampler(denoiser, operator, start=0.5).plan.times[0] == 0.5
    assert Sampler(denoiser, operator, start=0.5).solver == default.solver
    given = Sampler(denoiser, operator, Conjugate())
    assert given.solver == Conjugate()
    assert given.plan.times[0] == 0.4  # the start belongs to the preset's solver
    assert Sampler(denoiser, operator, times=[0.3, 0.1]).plan.times[0] == 0.3
    other = Sampler(Denoiser(lambda x, t: 0.9 * x, VP()), operator)
    assert (other.solver, other.plan.times[0]) == (Conjugate(), 0.4)


def test_strength():
    assert presets.strength(AveragePooling(SHAPE, 4)) == 16
    assert presets.strength(Grayscale(SHAPE)) == 3
    assert presets.strength(Bicubic(SHAPE, 2)) == 4
    assert presets.strength(FourierBlur(SHAPE, torch.ones(1, 1))) == 1
    assert presets.strength(FourierBlur(SHAPE, torch.ones(2, 1, 1))) == 1
    assert presets.strength(GaussianBlur(SHAPE, 3.0)) > presets.strength(GaussianBlur(SHAPE, 1.5)) > 1
    mask = torch.ones(1, 32, 32)
    assert presets.strength(Inpainting(mask)) == 1
    mask[..., 10:15, 10:15] = 0  # depths 1 (16 pixels), 2 (8), 3 (1)
    assert presets.strength(Inpainting(mask)) == pytest.approx(1 + (16 + 16 + 3) / 25)
    assert presets.strength(Inpainting(mask.repeat(3, 1, 1, 1), SHAPE)) == pytest.approx(1 + 35 / 25)
    line = torch.ones(1, 20)
    line[:, 5:8] = 0
    assert presets.strength(Inpainting(line)) == pytest.approx(1 + 4 / 3)


def test_the_committed_table():
    entries = json.loads(presets.TABLE.read_text())["entries"]
    keys = [(entry["prior"], entry["task"], entry["steps"]) for entry in entries]
    assert keys == sorted(set(keys))
    for entry in entries:
        assert entry["task"] in sweep.TASKS
        assert entry["w"] in sweep.WEIGHTS
        assert entry["jacobian"] in sweep.JACOBIANS
        assert entry["start"] in sweep.STARTS[entry["prior"]]
        operator = sweep.parse_operator(entry["task"], (3, sweep.SIZE, sweep.SIZE))
        assert (entry["operator"], entry["kind"]) == (type(operator).__name__, operator.kind)
        assert entry["strength"] == pytest.approx(presets.strength(operator), abs=1e-3)
        preset = presets.lookup(entry["prior"], operator, entry["steps"])
        assert preset == (Conjugate(entry["w"], jacobian=entry["jacobian"]), entry["start"])


def test_candidates_and_score():
    every = list(sweep.candidates("photo", 5, None))
    assert len(every) == len(set(every))
    for jacobian in sweep.JACOBIANS:
        some = [candidate for candidate in every if candidate[0] == jacobian]
        assert (len(some) == len(sweep.WEIGHTS) * len(sweep.STARTS["photo"])) == (jacobian != "exact")
    assert ("exact", 15.0, 0.4) in every
    assert ("exact", 120.0, 0.4) not in every  # beyond the stability limit
    near = list(sweep.candidates("photo", 5, ("none", 15.0, 0.3)))
    assert ("none", 15.0, 0.3) in near
    assert len(near) == 9
    assert set(near) < set(every)
    truth = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    better, worse = (
        truth + scale * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1)) for scale in (0.05, 0.2)
    )
    assert sweep.score(better, truth) > sweep.score(worse, truth)
    assert sweep.score(truth * torch.nan, truth) == -math.inf
    smooth = torch.nn.functional.avg_pool2d(truth, 3, 1, 1)
    assert gradient_energy(smooth).max() < 0.3 * gradient_energy(truth).min()


def test_gmsd_against_its_definition_in_loops():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(1, 12, 10, generator=generator) * 2 - 1 for _ in range(2))

    def magnitude(x):
        x = ((x[0].double() + 1) * 127.5).reshape(6, 2, 5, 2).mean((1, 3))
        h, w = x.shape
        padded = torch.zeros(h + 2, w + 2, dtype=torch.float64)
        padded[1:-1, 1:-1] = x
        out = torch.zeros(h, w, dtype=torch.float64)
        for i in range(h):
            for j in range(w):
                window = padded[i : i + 3, j : j + 3]
                dx, dy = (window[:, 0] - window[:, 2]).sum() / 3, (window[0] - window[2]).sum() / 3
                out[i, j] = (dx**2 + dy**2).sqrt()
        return out

    m, n = magnitude(a), magnitude(b)
    similarity = (2 * m * n + 170) / (m**2 + n**2 + 170)
    assert float(gmsd(a, b)) == pytest.approx(float(similarity.std(correction=0)), rel=1e-12)
    assert float(gmsd(a, a)) == 0
    assert gmsd(torch.zeros(2, 4, 3, 8, 8), torch.zeros(2, 4, 3, 8, 8)).shape == (2, 4)
    with pytest.raises(ValueError, match="a, b: must have one shape"):
        gmsd(a, b[:, :8])
