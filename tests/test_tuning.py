"""``ccfast.tune``: it is never worse than the default, keeps its time, and what it saves is looked up."""

from __future__ import annotations

import json

import pytest
import torch

import ccfast
from ccfast import Denoiser, Sampler, presets
from ccfast.operators import AveragePooling, Inpainting
from ccfast.schedules import EDM, VE, VP, DiscreteVP, Flow
from ccfast.solvers import Conjugate
from ccfast.tuning import search, tuner
from ccfast.tuning.search import NAMES, grid_of

SHAPE = (3, 16, 16)
POOLING = AveragePooling(SHAPE, 4)
SCHEDULES = [VP(), DiscreteVP(torch.linspace(1e-4, 0.02, 1000)), VE(0.01, 50.0), EDM(), Flow()]


def pictures(count=4):
    """Smooth pictures: the second integral of noise, in [-1, 1]."""
    x = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0)).cumsum(-1).cumsum(-2)
    return x / x.abs().amax((1, 2, 3), keepdim=True)


def smoothing(x, t):
    """A network for eps that takes smooth images for clean ones, with VP's noise at network time t."""
    sigma = torch.as_tensor(VP().std(t.double().numpy() / 999)).to(x).reshape(-1, 1, 1, 1)
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return (x - blurred) / sigma.clamp_min(0.05)


@pytest.fixture(autouse=True)
def no_loaded_entries(monkeypatch):
    monkeypatch.setattr(presets, "_loaded", [])


def closeness(restored, truth):
    return -float((restored - truth).abs().mean())


LONG = 600.0
"""Seconds after which no search here is still running: it ends where the neighbours of the best are no better."""


@pytest.mark.parametrize(
    ("objective", "noise_std"), [("faithful", 0.0), ("faithful", 0.1), ("sharp", 0.0), (closeness, 0.0)]
)
def test_it_is_at_least_as_good_as_the_default(objective, noise_std):
    denoiser, images = Denoiser(smoothing, VP()), pictures()
    found = ccfast.tune(denoiser, POOLING, images, steps=3, objective=objective, seconds=LONG, noise_std=noise_std)
    assert found.score >= found.default
    assert found.tried > 10
    measure = tuner.OBJECTIVES[objective] if isinstance(objective, str) else objective
    y = POOLING.forward(images)
    y += noise_std * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    goal = objective if isinstance(objective, str) else "sharp"
    for solver, start, end, start_noise, score in (
        (found.solver, found.start, found.end, found.start_noise, found.score),
        (*[None] * 4, found.default),
    ):
        options = {"noise_std": noise_std, "start_noise": start_noise, "goal": goal}
        sampler = Sampler(denoiser, POOLING, solver, 3, start, end, **options)
        assert measure(sampler(y, seed=0), images) == pytest.approx(score, abs=1e-4)


def test_it_keeps_its_time(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(tuner, "now", lambda: next(clock))
    assert ccfast.tune(Denoiser(smoothing, VP()), POOLING, pictures(), steps=2, seconds=5).tried <= 10


def test_a_network_without_gradients_gets_modes_without_them():
    network = torch.no_grad()(smoothing)
    found = ccfast.tune(Denoiser(network, VP()), POOLING, pictures(), steps=2, seconds=LONG)
    assert found.solver.jacobian == "none"
    assert found.score > found.default == -float("inf")


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
def test_every_schedule_has_a_grid(schedule):
    grid = grid_of(schedule)
    assert len(grid.starts) == len(search.STARTS)
    assert schedule.rho(grid.starts) == pytest.approx(VP().rho(search.STARTS), rel=1e-2)
    assert set(grid.modes) <= set(NAMES)
    assert ("rayleigh" in grid.modes) == (type(schedule) in (VP, DiscreteVP, Flow))
    for start in grid.starts:
        for end in grid.ends:
            assert len(schedule.check_times([start, end])) == 2


def test_what_is_saved_is_looked_up(tmp_path):
    path, operator = tmp_path / "mine.json", AveragePooling(SHAPE, 2)
    denoiser = Denoiser(smoothing, VP(), name="mine")
    assert Sampler(denoiser, operator, steps=3).solver == presets.GENERAL
    for _ in range(2):  # An entry takes the place of one with the same name, operator, noise and steps.
        found = ccfast.tune(denoiser, operator, pictures(), steps=3, seconds=LONG, save=path)
        assert found.score > found.default
    assert presets.load(path) == 1
    for goal in presets.GOALS:  # The goal "sharp" has no entry of its own.
        default = Sampler(denoiser, operator, steps=3, goal=goal)
        assert (default.solver, default.plan.times[0], default.plan.times[-1]) == found[:3]
        assert default.start_noise == found.start_noise
    assert Sampler(Denoiser(smoothing, VP()), operator, steps=3).solver == presets.GENERAL
    again = ccfast.tune(denoiser, operator, pictures(), steps=3, seconds=0.01)
    assert again.default == pytest.approx(found.score)


def test_files_that_are_none():
    with pytest.raises(ValueError, match=r"path: must be a file of presets that ccfast.tune wrote, got .*pyproject"):
        presets.load("pyproject.toml")


@pytest.mark.parametrize(("name", "value"), [("steps", "5"), ("start", None), ("mode", "magic"), ("w", "best")])
def test_entries_that_are_none(tmp_path, name, value):
    path = tmp_path / "wrong.json"
    entry = {**presets.shipped_entries()[0], name: value}
    path.write_text(json.dumps({"entries": [entry]}))
    with pytest.raises(ValueError, match="path: must be a file of presets"):
        presets.load(path)
    assert not presets._loaded


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": torch.zeros(3, 16, 16)}, r"images: must be of shape \(B, 3, 16, 16\), got \(3, 16, 16\)"),
        ({"images": torch.zeros(0, *SHAPE)}, r"images: must be of shape \(B, 3, 16, 16\), got \(0, 3, 16, 16\)"),
        ({"steps": 0}, "steps: must be an integer >= 1, got 0"),
        ({"objective": "best"}, "objective: must be 'faithful', 'sharp' or a function, got 'best'"),
        ({"seconds": 0}, "seconds: must be > 0, got 0"),
        ({"save": "here.json"}, "save: needs a denoiser with a name"),
        ({"noise_std": -1.0}, "noise_std: must be"),
        ({"images": torch.full((1, *SHAPE), torch.nan)}, "images: no candidate restores them to finite values"),
    ],
)
def test_errors(arguments, message):
    given = {"images": pictures(), "seconds": 1, "steps": 2, **arguments}
    with pytest.raises(ValueError, match=message):
        ccfast.tune(Denoiser(smoothing, VP()), POOLING, **given)


def test_operators_of_other_kinds():
    mask = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    found = ccfast.tune(Denoiser(lambda x, t: -x, Flow(), "velocity"), Inpainting(mask, SHAPE), pictures(), seconds=1)
    assert isinstance(found.solver, Conjugate)
