"""Presets: the lookup, the committed table, and the sweep that makes it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from ccfast import Denoiser, Sampler, presets
from ccfast.metrics import gmsd, gradient_energy, laplacian_energy, psnr
from ccfast.operators import (
    AveragePooling,
    Bicubic,
    FourierBlur,
    GaussianBlur,
    Grayscale,
    Inpainting,
    LinearOperator,
    SeparableBlur,
)
from ccfast.priors import PRIORS, heldout, load_prior
from ccfast.schedules import EDM, VP, Flow
from ccfast.solvers import Conjugate
from ccfast.tuning import search as preset_search
from ccfast.tuning.search import GRIDS, NAMES, Candidate, Task
from training import preset_goals, preset_sweep

ENTRIES = [
    {"prior": "p", "operator": "AveragePooling", "kind": "block", "strength": 16.0, "steps": 5, "w": 30.0},
    {"prior": "p", "operator": "AveragePooling", "kind": "block", "strength": 16.0, "steps": 20, "w": 10.0},
    {"prior": "p", "operator": "AveragePooling", "kind": "block", "strength": 64.0, "steps": 5, "w": 40.0},
    {"prior": "p", "operator": "GaussianBlur", "kind": "separable", "strength": 12.0, "steps": 5, "w": 7.0},
]
NOISY = [{**ENTRIES[0], "w": 3.0, "noise_std": 0.05}, {**ENTRIES[0], "w": 2.0, "noise_std": 0.2}]
SHAPE = (3, 32, 32)


@pytest.fixture
def table(monkeypatch):
    common = {"mode": "one_projection", "start": 0.2, "end": 0.0}
    entries = [{**entry, **common, "noise_std": 0.0} for entry in ENTRIES] + [{**entry, **common} for entry in NOISY]
    monkeypatch.setattr(presets, "read_entries", lambda: entries)


def test_the_nearest_entry_is_found(table):
    def w(operator, steps, noise_std=0.0):
        return presets.lookup("p", operator, steps, noise_std).solver.w

    assert w(AveragePooling(SHAPE, 4), 5) == 30
    assert w(AveragePooling(SHAPE, 4), 19) == 30  # Entries of more steps are not used.
    assert w(AveragePooling(SHAPE, 4), 40) == 10
    assert w(AveragePooling(SHAPE, 4), 1) == 30  # No entry has so few steps.
    assert w(AveragePooling(SHAPE, 8), 20) == 40
    assert w(AveragePooling(SHAPE, 2), 5) == 30
    assert w(SeparableBlur(SHAPE, [0.25, 0.5, 0.25]), 5) == 7  # Its class is another, its kind the same.
    assert w(AveragePooling(SHAPE, 4), 5, 0.2) == w(AveragePooling(SHAPE, 4), 5, 0.4) == 2
    assert w(AveragePooling(SHAPE, 8), 20, 0.05) == 3  # Noise counts for more than strength and steps.
    assert w(GaussianBlur(SHAPE), 5, 0.05) == 7  # Its kind has no entry with noise.
    assert presets.lookup("p", Grayscale(SHAPE), 5) is None
    assert presets.lookup(None, AveragePooling(SHAPE, 4), 5) is None


def test_a_mode_that_refuses_noise_is_not_given_to_a_noisy_measurement(monkeypatch):
    entry = {**ENTRIES[0], "mode": "rayleigh", "start": 0.2, "end": 0.0, "noise_std": 0.0}
    monkeypatch.setattr(presets, "read_entries", lambda: [entry])
    operator = AveragePooling(SHAPE, 4)
    assert presets.lookup("p", operator, 5).solver == Conjugate(30.0, centred="rayleigh")
    assert presets.lookup("p", operator, 5, 0.1) is None
    assert presets.lookup("p", operator, 4) is None  # Its steps would be longer.


def test_the_sampler_uses_it_and_yields_to_arguments(table):
    denoiser = Denoiser(lambda x, t: 0.9 * x, VP(), name="p")
    operator = AveragePooling(SHAPE, 4)
    default = Sampler(denoiser, operator)
    assert default.solver == Conjugate(30.0, jacobian="one_projection")
    assert default.plan.times[[0, -1]].tolist() == [0.2, 0.0]
    assert Sampler(denoiser, operator, end=0.01).plan.times[[0, -1]].tolist() == [0.2, 0.01]
    assert Sampler(denoiser, operator, noise_std=0.04).solver.w == 3
    assert Sampler(denoiser, operator, start=0.5).plan.times[0] == 0.5
    assert Sampler(denoiser, operator, start=0.5).solver == default.solver
    given = Sampler(denoiser, operator, Conjugate())
    assert given.solver == Conjugate()
    assert given.plan.times[[0, -1]].tolist() == [0.4, 0.001]  # A given solver has no start and end of presets.
    assert Sampler(denoiser, operator, times=[0.3, 0.1]).plan.times[0] == 0.3
    other = Sampler(Denoiser(lambda x, t: 0.9 * x, VP()), operator)
    assert (other.solver, other.plan.times[0]) == (Conjugate("bayes", jacobian="auto", refresh=1.0), 0.4)


@pytest.mark.parametrize("word", ["bicubic:2", "bicubic:4", "inpaint:0.5"])
@pytest.mark.parametrize("prior", PRIORS)
def test_the_default_for_an_unknown_network_is_a_good_one(prior, word):
    """It is above H+ y and above the paper's solver with its default weight, which was tuned for other networks."""
    known = load_prior(prior)
    unknown = Denoiser(known.network, known.schedule, known.prediction, known.time_map)
    truth = heldout.crops()[:3, :, 32:96, 32:96].contiguous()
    operator = preset_sweep.parse_operator(word, (3, 64, 64))
    y = operator.forward(truth)
    samplers = [Sampler(unknown, operator, solver) for solver in (None, Conjugate())]
    default, published = (float(psnr(sampler(y, seed=0).clamp(-1, 1), truth).mean()) for sampler in samplers)
    assert default > float(psnr(operator.pinv(y), truth).mean())
    assert default > published + 0.5


def test_strength():
    assert presets.strength(AveragePooling(SHAPE, 4)) == 16
    assert presets.strength(Grayscale(SHAPE)) == 3
    assert presets.strength(Bicubic(SHAPE, 2)) == 4
    assert presets.strength(FourierBlur(SHAPE, torch.ones(1, 1))) == 1
    assert presets.strength(FourierBlur(SHAPE, torch.ones(2, 1, 1))) == 1
    assert presets.strength(GaussianBlur(SHAPE, 3.0)) > presets.strength(GaussianBlur(SHAPE, 1.5)) > 1
    mask = torch.ones(1, 32, 32)
    assert presets.strength(Inpainting(mask)) == 1
    mask[..., 10:15, 10:15] = 0  # The depths are 1 (16 pixels), 2 (8), 3 (1).
    assert presets.strength(Inpainting(mask)) == pytest.approx(1 + (16 + 16 + 3) / 25)
    assert presets.strength(Inpainting(mask.repeat(3, 1, 1, 1), SHAPE)) == pytest.approx(1 + 35 / 25)
    line = torch.ones(1, 20)
    line[:, 5:8] = 0
    assert presets.strength(Inpainting(line)) == pytest.approx(1 + 4 / 3)


def test_the_committed_table():
    """Every prior, task, number of steps and noise has an entry, which a Sampler finds."""
    entries = json.loads(presets.ENTRIES_FILE.read_text())["entries"]
    keys = [tuple(entry[name] for name in preset_sweep.ORDER) for entry in entries]
    words = (*preset_sweep.TASKS, *preset_sweep.OTHER_STRENGTHS)
    assert keys == sorted(
        [(prior, task, noise_std, n) for prior in PRIORS for task in words
         for noise_std in (0.0, preset_sweep.NOISE[0]) for n in preset_sweep.STEPS]
        + [(prior, task, preset_sweep.NOISE[1], 5) for prior in PRIORS for task in preset_sweep.TASKS]
    )  # fmt: skip
    for entry in entries:
        grid = GRIDS[entry["prior"]]
        assert entry["w"] in grid.weights
        assert entry["mode"] in NAMES
        assert entry["mode"] not in presets.LIMITED, "how near the limit of stability a run is depends on the picture"
        assert entry["start"] in grid.starts
        assert entry["end"] in grid.ends
        operator = preset_sweep.parse_operator(entry["task"], (3, preset_sweep.SIZE, preset_sweep.SIZE))
        assert (entry["operator"], entry["kind"]) == (type(operator).__name__, operator.kind)
        assert entry["strength"] == pytest.approx(presets.strength(operator), abs=1e-3)
        preset = presets.lookup(entry["prior"], operator, entry["steps"], entry["noise_std"])
        assert preset == (presets.conjugate(entry["w"], entry["mode"]), entry["start"], entry["end"], 1.0)


def test_the_tuned_table():
    """Every prior, task and noise has a faithful entry for five steps, which is found, and strokes a sharp one."""
    entries = json.loads(presets.TUNED_FILE.read_text())["entries"]
    found = {tuple(entry[name] for name in preset_goals.ORDER) for entry in entries}
    assert len(found) == len(entries)
    plan = [("faithful", task) for task in preset_goals.WORDS] + [("sharp", preset_goals.STROKES)]
    noises = (0.0, preset_sweep.NOISE[0])
    assert found >= {(prior, goal, task, noise, 5) for prior in PRIORS for goal, task in plan for noise in noises}
    for entry in entries:
        assert entry["goal"] in presets.GOALS
        assert entry["mode"] not in presets.LIMITED
        assert entry["start_noise"] == 1.0 or entry["goal"] == "faithful"
        assert entry["start_noise"] == 1.0 or not entry["mode"].endswith("refresh")
        if entry["steps"] == 5:
            operator = preset_goals.operator_of(entry["task"])
            assert presets.described(operator).items() <= entry.items()
            preset = presets.lookup(entry["prior"], operator, 5, entry["noise_std"], entry["goal"])
            own = presets.conjugate(entry["w"], entry["mode"]), entry["start"], entry["end"], entry["start_noise"]
            assert preset == own


def flat_shapes():
    """Coloured rectangles on a slope, which are further from the photographs that presets are found on than others."""
    generator = torch.Generator().manual_seed(5)
    slope = torch.linspace(-0.6, 0.6, 64)
    images = (slope[:, None] - slope[None, :]).expand(1, 3, 64, 64).clone()
    for image in images:
        for a, b, height, width in torch.randint(4, 40, (9, 4), generator=generator).tolist():
            image[:, a : a + height, b : b + width] = 2 * torch.rand(3, 1, 1, generator=generator) - 1
    return images


@pytest.mark.filterwarnings("error:jacobian:RuntimeWarning")
@pytest.mark.parametrize(
    ("goal", "word"),
    [*(("sharp", word) for word in ("inpaint:0.5", "blur:3.0", "bicubic:8")), ("faithful", "inpaint:0.5")],
)
@pytest.mark.parametrize("prior", PRIORS)
def test_one_step_more_is_never_clearly_worse(prior, goal, word):
    """Whatever lies between the numbers of steps that have entries, and on pictures of another kind."""
    truth, operator = flat_shapes(), preset_sweep.parse_operator(word, (3, 64, 64))
    y, denoiser, before = operator.forward(truth), load_prior(prior), -math.inf
    for steps in (3, 4, 5, 9, 10):
        restored = Sampler(denoiser, operator, steps=steps, goal=goal)(y, seed=0)
        now = float(psnr(restored.clamp(-1, 1), truth).mean())
        assert now > before - 0.3, steps
        before = now


def test_the_grid_keeps_out_of_the_unstable():
    exact, auto = NAMES.index("rayleigh"), NAMES.index("auto")
    for name, grid in GRIDS.items():
        schedule = PRIORS[name].schedule()
        assert not grid.valid(Candidate(exact, len(grid.weights) - 1, len(grid.starts) - 1), schedule, 5)
        assert grid.valid(Candidate(auto, len(grid.weights) - 1, len(grid.starts) - 1), schedule, 5)
        assert grid.valid(Candidate(exact, 1, 0), schedule, 5)
        assert not grid.valid(Candidate(exact, 0, 0), schedule, 5)  # The weight "bayes" has no such limit.
        assert not grid.valid(Candidate(auto, -1, 0), schedule, 5)
        assert not grid.valid(Candidate(auto, 0, len(grid.starts)), schedule, 5)
        noise_to_signal = [float(schedule.rho(start)) for start in grid.starts]
        assert noise_to_signal == sorted(noise_to_signal)
    for diffusion, flow in zip(GRIDS["photo"].starts, GRIDS["photo-flow"].starts, strict=True):
        levels = VP().log_snr(diffusion), PRIORS["photo-flow"].schedule().log_snr(flow)
        assert abs(levels[0] - levels[1]) < 0.5


def test_the_search_walks_to_the_best(monkeypatch):
    """On an invented score with one peak, the search finds the peak from a coarse grid and from a guess."""
    grid, peak = GRIDS["photo"], (80.0, "one_projection", 0.3, 0.0)
    runs = []

    def made_up(task, solver, start, end, start_noise=1.0, every=1):
        runs.append(every)
        off = abs(grid.weights.index(solver.w) - grid.weights.index(peak[0]))
        off += abs(grid.starts.index(start) - grid.starts.index(peak[2]))
        return -off - (solver.jacobian != peak[1]) - bool(solver.refresh) - 0.1 * (end != peak[3])

    monkeypatch.setattr(Task, "score", made_up)
    task = Task(Denoiser(lambda x, t: x, VP()), AveragePooling(SHAPE, 4), torch.zeros(3, *SHAPE), 5, 0.0)
    for guess in (None, Candidate(2, 3, 2)):
        runs.clear()
        found, end, value = preset_search.search(task, grid, guess, 2, lambda count: None)
        assert found == Candidate(1, grid.weights.index(80.0), grid.starts.index(0.3))
        assert (end, value) == (0.0, 0.0)
        assert runs.count(1) == (6 if guess is None else 4)


def test_a_search_does_not_lose_what_was_known(monkeypatch):
    grid, known = GRIDS["photo"], Candidate(NAMES.index("none"), 6, 7)

    def made_up(task, solver, start, end, start_noise=1.0, every=1):
        return float((solver.w, solver.jacobian, solver.refresh, start) == (320.0, "none", 0.0, grid.starts[7]))

    monkeypatch.setattr(Task, "score", made_up)
    task = Task(Denoiser(lambda x, t: x, VP()), AveragePooling(SHAPE, 4), torch.zeros(3, *SHAPE), 5, 0.0)
    assert preset_search.search(task, grid, Candidate(0, 1, 0), 0, lambda count: None, [known])[0] == known
    assert preset_search.search(task, grid, Candidate(0, 1, 0), 0, lambda count: None)[0] != known


def test_a_search_tries_the_weight_of_a_gaussian_prior(monkeypatch):
    tried = set()

    def made_up(task, solver, start, end, start_noise=1.0, every=1):
        tried.add((solver.w, solver.jacobian, solver.refresh, solver.centred))
        return float(solver.w == "bayes")

    monkeypatch.setattr(Task, "score", made_up)
    for noise_std in (0.0, 0.1):
        tried.clear()
        task = Task(Denoiser(lambda x, t: x, VP()), AveragePooling(SHAPE, 4), torch.zeros(3, *SHAPE), 5, noise_std)
        found, _, _ = preset_search.search(task, GRIDS["photo"], Candidate(0, 5, 2), 0, lambda count: None)
        assert found.w == 0
        assert ("bayes", "auto", 1.0, False) in tried
        assert not noise_std or all(centred is False for *_, centred in tried)


def test_where_a_search_begins():
    grid, flow = GRIDS["photo"], GRIDS["photo-flow"]
    entry = {"operator": "AveragePooling", "strength": 16.0, "mode": "auto"}
    entries = [
        {**entry, "prior": "photo", "steps": 5, "noise_std": 0.0, "w": grid.weights[1], "start": grid.starts[2]},
        {**entry, "prior": "photo", "steps": 5, "noise_std": 0.05, "w": grid.weights[2], "start": grid.starts[3]},
        {**entry, "prior": "photo-flow", "steps": 5, "noise_std": 0.0, "w": flow.weights[4], "start": flow.starts[5]},
    ]
    operator = AveragePooling(SHAPE, 4)

    def places(prior, noise_std):
        key = {"prior": prior, "noise_std": noise_std, "steps": 20}
        return preset_sweep.place(preset_sweep.guess(entries, key, operator))[1:3]

    assert places("photo", 0.0) == (1, 2)
    assert places("photo", 0.05) == (2, 3)
    assert places("photo-flow", 0.05) == (4, 5)
    assert preset_sweep.guess(entries, {"prior": "photo", "noise_std": 0.0, "steps": 5}, Grayscale(SHAPE)) is None


def test_one_entry_end_to_end():
    """A search on two small crops, with two steps, gives a finite score that is no worse than the guess's."""
    denoiser = Denoiser(lambda x, t: 0.5 * x, VP(), name="photo")
    truth = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    task = Task(denoiser, AveragePooling((3, 16, 16), 2), truth, 2, 0.05)
    found, end, value = preset_search.search(task, GRIDS["photo"], Candidate(1, 2, 2), 0, lambda count: None)
    assert math.isfinite(value)
    assert end in GRIDS["photo"].ends
    assert GRIDS["photo"].valid(found, VP(), 2)


def test_score():
    truth = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    better, worse = (
        truth + scale * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1)) for scale in (0.05, 0.2)
    )
    assert preset_search.score(better, truth) > preset_search.score(worse, truth)
    assert preset_search.score(truth * torch.nan, truth) == -math.inf
    smooth = torch.nn.functional.avg_pool2d(truth, 3, 1, 1)
    assert gradient_energy(smooth).max() < 0.3 * gradient_energy(truth).min()
    plane = torch.linspace(-1, 1, 9)[None, None, :, None] * torch.ones(1, 1, 1, 7)
    assert float(laplacian_energy(plane)) == pytest.approx(0, abs=1e-12)
    assert float(laplacian_energy(plane.square())) == pytest.approx((2 * 0.25**2) ** 2, rel=1e-5)


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


# ------------------------------------------------------------------------------------ operators without singular values
@pytest.mark.parametrize("schedule", [VP(), Flow(), EDM(0.002, 80.0)], ids=["VP", "Flow", "EDM"])
def test_noise_without_singular_values_has_a_default(schedule):
    """Its evaluations go from rho = 0.38, or the noise, down to the noise, evenly in ln rho."""
    denoiser = Denoiser(lambda x, t: 0.5 * x, schedule, "sample")
    operator = LinearOperator(lambda x: 2.0 * x[..., ::2], lambda y: 2.0 * y.repeat_interleave(2, -1) * ODD, (1, 4, 4))
    for noise, first, last in ((0.05, presets.FIRST_RHO, 0.05), (0.6, 0.6, presets.FIRST_RHO / 2)):
        sampler = Sampler(denoiser, operator, steps=4, noise_std=noise)
        assert sampler.solver == presets.BY_ADJOINTS
        ratios = schedule.rho(sampler.plan.times[:-1])
        assert np.allclose(ratios, np.geomspace(first, last, 4), rtol=1e-6)
        assert sampler.plan.times[-1] == schedule.default_end
        assert sampler(torch.ones(1, 1, 4, 2), seed=0).isfinite().all()
    grid = Sampler(denoiser, operator, steps=3, noise_std=0.05, start=schedule.default_start).plan.times
    assert grid[0] == schedule.default_start
    assert Sampler(denoiser, operator, steps=3).solver == presets.GENERAL


ODD = torch.tensor([1.0, 0.0, 1.0, 0.0])
"""What the operator of every second column sees."""
