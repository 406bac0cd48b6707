"""Goals and estimates of a Sampler: faithful or sharp presets, one evaluation for denoising, means of samples."""

from __future__ import annotations

import pytest
import torch

from bench.quality import goals
from ccfast import Denoiser, Sampler, presets
from ccfast.operators import AveragePooling, Denoising, Inpainting
from ccfast.presets.masks import holes
from ccfast.priors import PRIORS
from ccfast.schedules import EDM, VE, VP, DiscreteVP, Flow
from ccfast.solvers import DDIM, Conjugate
from ccfast.solvers.tweedie import Tweedie
from ccfast.testing import Gaussian, relative_error

SHAPE = (3, 16, 16)
POOLING = AveragePooling(SHAPE, 4)


def plain(name=None):
    return Denoiser(lambda x, t: 0.9 * x, VP(), name=name)


def measured(operator, batch=2):
    return operator.forward(torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(0)) - 0.5)


# ------------------------------------------------------------------------------------------------ presets of a goal
ENTRY = {
    "prior": "p",
    "operator": "AveragePooling",
    "kind": "block",
    "strength": 16.0,
    "steps": 5,
    "noise_std": 0.0,
    "end": 0.0,
    "start": 0.2,
    "mode": "none",
}
TABLE = {
    "sharp": {**ENTRY, "goal": "sharp", "w": 30.0},
    "faithful": {**ENTRY, "goal": "faithful", "w": 60.0, "start_noise": 0.0},
}


@pytest.mark.parametrize("goal", presets.GOALS)
def test_the_preset_is_that_of_the_goal(monkeypatch, goal):
    monkeypatch.setattr(presets, "read_entries", lambda: list(TABLE.values()))
    sampler = Sampler(plain("p"), POOLING, goal=goal)
    entry = TABLE[goal]
    assert (sampler.solver.w, sampler.start_noise) == (entry["w"], entry.get("start_noise", 1.0))
    assert sampler.plan.start_noise == sampler.start_noise
    assert Sampler(plain("p"), POOLING).goal == "sharp"
    # What is given goes before what a preset says.
    assert Sampler(plain("p"), POOLING, goal=goal, start_noise=0.5).plan.start_noise == 0.5
    assert Sampler(plain("p"), POOLING, Conjugate(), goal=goal).plan.start_noise == 1.0
    # A goal without an entry takes what there is.
    for other in presets.GOALS:
        monkeypatch.setattr(presets, "read_entries", lambda: [entry])
        assert Sampler(plain("p"), POOLING, goal=other).solver.w == entry["w"]


@pytest.mark.parametrize("name", PRIORS)
def test_an_unknown_network_has_a_default_for_each_goal(name):
    denoiser = Denoiser(lambda x, t: 0.9 * x, PRIORS[name].schedule(), PRIORS[name].prediction)
    for goal, solver, start_noise in (("sharp", presets.GENERAL, 1.0), ("faithful", presets.FAITHFUL, 0.0)):
        sampler = Sampler(denoiser, POOLING, goal=goal)
        assert (sampler.solver, sampler.start_noise) == (solver, start_noise)
        assert sampler.plan.times[0] == denoiser.schedule.default_start
        assert Sampler(denoiser, POOLING, goal=goal, times=sampler.plan.times).solver == solver
    y = measured(POOLING)
    faithful = Sampler(denoiser, POOLING, goal="faithful")
    assert torch.equal(faithful(y, seed=0), faithful(y, seed=1))


def test_wrong_words():
    for name, value in (("goal", "nice"), ("goal", None), ("estimate", "median"), ("estimate", 8)):
        with pytest.raises(ValueError, match=rf"{name}: must be '.*' or '.*', got {value!r}"):
            Sampler(plain(), POOLING, **{name: value})


# ------------------------------------------------------------------------------------------------ pure denoising
SCHEDULES = [VP(), DiscreteVP(torch.linspace(1e-4, 0.02, 1000)), VE(0.002, 80.0), EDM(), Flow()]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
def test_faithful_denoising_is_the_posterior_mean_in_one_evaluation(schedule):
    """For a Gaussian prior the posterior mean is known, whatever the mean and the covariance; in a batch of levels."""
    generator = torch.Generator().manual_seed(0)
    root = 0.3 * torch.randn(12, 12, generator=generator, dtype=torch.float64)
    covariance, mean = root @ root.mT + 0.1 * torch.eye(12), torch.rand(12, generator=generator, dtype=torch.float64)
    prior, operator, levels = Gaussian(mean, covariance, (3, 2, 2)), Denoising((3, 2, 2)), [0.05, 0.5, 0.2]
    y = prior.sample(3, generator)
    y = y + torch.tensor(levels)[:, None, None, None] * torch.randn(y.shape, generator=generator, dtype=y.dtype)
    sampler = Sampler(prior.denoiser(schedule), operator, steps=5, goal="faithful")
    x = sampler(y, noise_std=levels)
    for k, level in enumerate(levels):
        inverse = torch.linalg.solve(covariance + level**2 * torch.eye(12, dtype=torch.float64), y[k].flatten() - mean)
        assert relative_error(x[k].flatten(), mean + covariance @ inverse) < 1e-9
    assert sampler.stats()["network_evaluations"] == 3  # One for each level.
    own = Sampler(prior.denoiser(schedule), operator, noise_std=0.5, goal="faithful")
    assert isinstance(own.solver, Tweedie)
    assert relative_error(own(y[1:2]), x[1:2]) < 1e-12
    assert relative_error(sampler(y, noise_std=0.0), y) < 0.02
    assert torch.equal(Sampler(own.denoiser, operator, noise_std=0.5, goal="faithful", estimate="mean")(y), own(y))


def test_denoising_is_a_run_where_more_is_said():
    operator = Denoising(SHAPE)
    options = [{}, {"goal": "faithful", "start": 0.5}, {"goal": "faithful", "end": 0.1}]
    options += [{"goal": "faithful", "times": [0.5, 0.1]}, {"goal": "faithful", "start_noise": 1.0}]
    for given in options:
        assert not isinstance(Sampler(plain(), operator, noise_std=0.1, **given).solver, Tweedie)
    assert isinstance(Sampler(plain(), operator, DDIM(), goal="faithful").solver, DDIM)
    with pytest.raises(ValueError, match="operator: must be a Denoising, got"):
        Sampler(plain(), POOLING, Tweedie())


# ------------------------------------------------------------------------------------------------ means of samples
@pytest.mark.parametrize("noise", [None, [0.0, 0.1]])
def test_the_mean_is_that_of_eight_samples(mixture, noise):
    operator = AveragePooling((1, 16), 4)
    denoiser, y = mixture.denoiser(VP()), operator.forward(mixture.sample(2, torch.Generator().manual_seed(1)))
    one, mean = (Sampler(denoiser, operator, estimate=estimate) for estimate in ("sample", "mean"))
    got = mean(y, seed=3, noise_std=noise)
    if noise is None:
        samples = one.sample(y, 8, seed=3)
        assert relative_error(got, samples.mean(0)) < 1e-12
        assert relative_error(mean.sample(y, 8, seed=3), samples) < 1e-12
        assert mean.stats()["network_evaluations"] == 2 * 8 * 5
        with pytest.raises(ValueError, match="callback: sees one run, so that estimate must be 'sample', got 'mean'"):
            mean(y, callback=lambda step, x0hat: None)
    else:
        by_level = [Sampler(denoiser, operator, one.solver, noise_std=level).sample(y, 8, seed=3) for level in noise]
        assert relative_error(got, torch.stack([by_level[k].mean(0)[k] for k in range(2)])) < 1e-12


def test_a_mean_has_samples_whatever_the_goal(monkeypatch):
    monkeypatch.setattr(presets, "read_entries", lambda: list(TABLE.values()))
    y = measured(POOLING)
    means = [Sampler(plain("p"), POOLING, goal=goal, estimate="mean") for goal in presets.GOALS]
    assert {sampler.solver.w for sampler in means} == {TABLE["sharp"]["w"]}
    assert torch.equal(*(sampler(y, seed=0) for sampler in means))
    # From the mean every run is the same, and one is enough.
    single = Sampler(plain(), POOLING, Conjugate(), start_noise=0.0, estimate="mean")
    single(y)
    assert single.stats()["network_evaluations"] == 5


# ------------------------------------------------------------------------------------------------ what is not known
def mask(side, *holes):
    """A mask that hides rectangles (top, bottom, left, right)."""
    observed = torch.ones(1, side, side)
    for top, bottom, left, right in holes:
        observed[:, top:bottom, left:right] = 0
    return observed


STROKES = [(10 + 9 * k, 13 + 9 * k, 4, 44) for k in range(4)]


def test_holes_are_a_distribution_of_widths():
    assert holes(mask(16)) == []
    *widths, seen = holes(mask(48, *STROKES))
    assert widths == [3.0] * 8
    assert 0.6 < seen < 0.8
    # A quarter of the hidden pixels lies in lines of width 1.
    *widths, _ = holes(mask(64, (4, 28, 4, 28), (40, 41, 0, 64), (50, 51, 0, 64), (60, 61, 0, 64)))
    assert widths == [1.0, 1.0, *[24.0] * 6]
    random = torch.rand(1, 48, 48, generator=torch.Generator().manual_seed(0))
    assert max(holes(random < 0.5)[:4]) == 1.0
    assert holes(random < 0.5)[-1] == pytest.approx(0.5, abs=0.03)
    signal = torch.ones(2, 40)
    signal[:, 10:13] = 0
    assert holes(signal)[:8] == [3.0] * 8


@pytest.mark.parametrize("scale", [1, 2, 5])
def test_holes_in_loops(scale):
    """The widths are the sides of the largest squares of hidden pixels, found one by one."""
    observed = torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(scale)) < 0.3
    observed = observed.repeat_interleave(scale, 1).repeat_interleave(scale, 2)[..., :12, :12]
    width = torch.zeros(12, 12)
    for side in (1, 2, 3, 4, 6, 8, 12):
        for i in range(13 - side):
            for j in range(13 - side):
                square = (slice(i, i + side), slice(j, j + side))
                if not observed[0][square].any():
                    width[square] = width[square].clamp_min(side)
    values = sorted(width[~observed[0]].tolist())
    at = [values[int((2 * k + 1) / 16 * len(values))] for k in range(8)]
    assert holes(observed)[:8] == at


@pytest.mark.parametrize("goal", presets.GOALS)
@pytest.mark.parametrize("name", PRIORS)
def test_connected_holes_begin_near_pure_noise(name, goal):
    schedule = PRIORS[name].schedule()
    known = Denoiser(lambda x, t: x, schedule, PRIORS[name].prediction, name=name)
    unknown = Denoiser(lambda x, t: x, schedule, PRIORS[name].prediction)
    random = torch.rand(1, 48, 48, generator=torch.Generator().manual_seed(0)) < 0.5
    for denoiser in (known, unknown):
        rho = [
            float(schedule.rho(Sampler(denoiser, Inpainting(hidden, (3, 48, 48)), goal=goal).plan.times[0]))
            for hidden in (mask(48, *STROKES), mask(48, (12, 36, 12, 36)), random)
        ]
        assert min(rho[:2]) >= max(3.0, rho[2]), rho


def test_between_entries():
    """Coefficients are interpolated, or the entry for the more difficult task is taken."""

    def preset(entries, factor, noise_std=0.0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(presets, "read_entries", lambda: entries)
            found = presets.lookup("p", AveragePooling((3, 24, 24), factor), 5, noise_std)
        return found.solver.w, found.start, found.solver.jacobian

    easy, hard = {**ENTRY, "strength": 4.0, "w": 10.0, "start": 0.2}, {**ENTRY, "w": 40.0, "start": 0.4}
    w, start, _ = preset([easy, hard], 3)  # Its strength is 9, and ln(9/4)/ln(16/4) = 0.585.
    assert w == pytest.approx(10.0 * 4.0**0.58496, rel=1e-4)
    assert start == pytest.approx(0.2 + 0.2 * 0.58496, rel=1e-4)
    assert preset([easy, hard], 2) == (10.0, 0.2, "none")
    assert preset([easy, hard], 6) == (40.0, 0.4, "none")
    assert preset([easy, {**hard, "w": "bayes"}], 3)[0] == "bayes"
    assert preset([easy, {**hard, "mode": "auto"}], 3) == (40.0, 0.4, "auto")
    assert preset([{**easy, "strength": 8.0}, {**hard, "mode": "auto"}], 3)[0] == 10.0  # The other is far away.
    quiet, loud = {**ENTRY, "noise_std": 0.05, "w": 9.0}, {**ENTRY, "noise_std": 0.2, "w": 1.0}
    assert preset([quiet, loud], 4, 0.1)[0] == pytest.approx(3.0)
    assert preset([quiet, {**loud, "start_noise": 0.0}], 4, 0.1)[0] == 1.0


# ------------------------------------------------------------------------------------------------ the page of results
def test_the_page_is_made_from_the_files():
    assert goals.PAGE.read_text(encoding="utf-8") == goals.page(), "run python -m bench.quality.goals page"
