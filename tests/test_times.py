"""Time grids against the field's formulas, stand-ins for the schedulers of diffusers, and what is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from test_schedules import rescaled

from ccfast import Denoiser, Sampler, times
from ccfast.operators import Denoising
from ccfast.schedules import EDM, VE, VP, DiscreteVP, Flow
from ccfast.solvers import DDIM

LINEAR = np.linspace(1e-4, 0.02, 1000)
TABLE = DiscreteVP(LINEAR)
FIRST = DiscreteVP(LINEAR, final="first")
CLEAN = -1 / 999


def network(x, t):
    return torch.tanh(x)


def karras_sigmas(first, last, count, rho=7.0):
    """Equation 5 of arXiv 2206.00364, term by term."""
    a, b = first ** (1 / rho), last ** (1 / rho)
    return [(a + i / (count - 1) * (b - a)) ** rho for i in range(count)]


# ------------------------------------------------------------------------------------------------ grids in sigma
def test_karras_on_edm_is_equation_5_and_then_zero():
    for steps in (2, 5, 18):
        grid = times.karras(EDM(), steps)
        # Both evaluate one formula in float64, in different orders of at most a few thousand operations.
        np.testing.assert_allclose(grid, [*karras_sigmas(80.0, 0.002, steps), 0.0], rtol=1e-12)
    np.testing.assert_allclose(times.karras(EDM(), 4, rho=3.0)[:-1], karras_sigmas(80.0, 0.002, 4, 3.0), rtol=1e-12)
    assert times.karras(EDM(), 1).tolist() == [80.0, 0.0]


def test_karras_between_given_ends():
    grid = times.karras(VE(0.01, 50.0), 6, start=5.0, end=0.1)
    np.testing.assert_allclose(grid, karras_sigmas(5.0, 0.1, 7), rtol=1e-12)
    assert (grid[0], grid[-1]) == (5.0, 0.1)


@pytest.mark.parametrize("schedule", [VP(), TABLE, FIRST], ids=repr)
def test_karras_on_a_path_of_unit_variance_is_spaced_in_sigma_over_mu(schedule):
    grid = times.karras(schedule, 5)
    least = 1e-3 if isinstance(schedule, VP) else 0.0
    rho = karras_sigmas(float(schedule.rho(1.0)), float(schedule.rho(least)), 6 if schedule is FIRST else 5)
    np.testing.assert_allclose(schedule.rho(grid[: len(rho)]), rho, rtol=1e-9)
    assert grid[-1] == schedule.time_range[0]
    assert len(grid) == 6


def test_karras_on_a_flow_is_spaced_in_its_own_sigma():
    np.testing.assert_allclose(1 - times.karras(Flow(), 5), [*karras_sigmas(1.0, 1e-3, 5), 0.0], rtol=1e-9)


def test_from_pure_noise_a_grid_in_sigma_begins_where_diffusers_does():
    schedule = DiscreteVP(rescaled(LINEAR))
    for make in (times.karras, times.exponential):
        grid = make(schedule, 6)
        assert schedule.rho(grid[0]) == pytest.approx(4096.0, rel=1e-9)
        assert schedule.std(grid[-1]) == 0
    with pytest.raises(ValueError, match=r"start: .* finite sigma/mu, got inf at t = 1; start=None takes t = 0\.99"):
        times.karras(schedule, 6, start=1.0)


def test_exponential_is_geometric_and_the_limit_of_karras():
    grid = times.exponential(EDM(), 5)
    np.testing.assert_allclose(grid[:-1], 80.0 * (0.002 / 80.0) ** (np.arange(5) / 4), rtol=1e-12)
    np.testing.assert_allclose(times.karras(EDM(), 5, rho=np.inf), grid, rtol=1e-12)
    np.testing.assert_allclose(times.karras(EDM(), 5, rho=1e6), grid, rtol=1e-4)


def test_karras_from_the_least_noisy_time():
    assert times.karras(EDM(), 1, start=0.002, end=0.0).tolist() == [0.002, 0.0]
    with pytest.raises(ValueError, match=r"steps: from t = 0\.002, .* one step leads to the end"):
        times.karras(EDM(), 3, start=0.002, end=0.0)


# ------------------------------------------------------------------------------------------------ flow
@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 12.0])
def test_shifted_is_the_published_formula(shift):
    s = 1 - np.arange(8) / 7
    np.testing.assert_allclose(times.shifted(7, shift), 1 - shift * s / (1 + (shift - 1) * s), atol=1e-15)
    part = times.shifted(4, shift, start=0.3, end=0.9)
    s = 1 - part
    assert (part[0], part[-1]) == (0.3, 0.9)
    # The grid was uniform before it was shifted; a few units of rounding are left in float64.
    np.testing.assert_allclose(np.diff(s / (shift - (shift - 1) * s), 2), 0, atol=1e-15)  # rounding of float64


# ------------------------------------------------------------------------------------------------ timesteps
def test_spacings_of_timesteps_by_hand():
    """N = 10 and four steps, every timestep worked out from the definition."""
    schedule = DiscreteVP(np.linspace(0.1, 0.5, 10))
    index = lambda grid: (9 * grid).round(9).tolist()  # noqa: E731
    assert index(times.linspace(schedule, 4)) == [9, 6, 3, 0, -1]
    assert index(times.leading(schedule, 4)) == [6, 4, 2, 0, -1]
    assert index(times.leading(schedule, 4, offset=1)) == [7, 5, 3, 1, -1]
    # These are 10, 7.5, 5 and 2.5, rounded to even, less 1.
    assert index(times.trailing(schedule, 4)) == [9, 7, 4, 1, -1]
    assert index(times.trailing(schedule, 1)) == [9, -1]
    for make in (times.linspace, times.leading, times.trailing):
        assert index(make(schedule, 10)) == [*range(9, -1, -1), -1]


def test_a_table_that_ends_at_its_first_index_is_not_reached_twice():
    assert times.linspace(FIRST, 4).tolist() == [1.0, 666 / 999, 333 / 999, 0.0]
    assert times.leading(FIRST, 4, offset=1)[-2:].tolist() == [1 / 999, 0.0]
    assert times.linspace(VP(), 4).tolist() == [1.0, 666 / 999, 333 / 999, 0.0]
    assert times.trailing(VP(), 2, count=11).tolist() == [1.0, 0.5, 0.0]  # 11 and 5.5 are rounded to even, less 1.


# ------------------------------------------------------------------------------------------------ schedulers
class Scheduler:
    """A stand-in for a diffusers scheduler, whose ``set_timesteps`` writes what the test gives."""

    def __init__(self, betas, timesteps, sigmas=None, **config):
        self.config = {"num_train_timesteps": 1000, **config}
        self.betas = betas
        self._given = timesteps, sigmas
        self.timesteps = self.asked = None

    def set_timesteps(self, steps, mu=None):
        self.timesteps, sigmas = self._given
        self.asked = steps, mu
        if sigmas is not None:
            self.sigmas = sigmas


class FlowMatchSomething(Scheduler):
    """A scheduler whose name says that it is one of flow matching."""


BETAS = torch.linspace(1e-4, 0.02, 1000)
SIGMA = (1 / torch.cumprod(1 - BETAS, 0) - 1).sqrt()
STEPS = torch.tensor([900, 500, 100])


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (Scheduler(BETAS, STEPS), [900 / 999, 500 / 999, 100 / 999, CLEAN]),
        (Scheduler(BETAS, STEPS, set_alpha_to_one=True), [900 / 999, 500 / 999, 100 / 999, CLEAN]),
        (Scheduler(BETAS, STEPS, set_alpha_to_one=False), [900 / 999, 500 / 999, 100 / 999, 0.0]),
        (Scheduler(BETAS, torch.tensor([900, 500, 500, 0]), set_alpha_to_one=False), [900 / 999, 500 / 999, 0.0]),
        (Scheduler(BETAS.tolist(), STEPS.numpy()), [900 / 999, 500 / 999, 100 / 999, CLEAN]),
        (
            Scheduler(BETAS, STEPS, torch.cat([SIGMA[STEPS], torch.zeros(1)]), final_sigmas_type="zero"),
            [900 / 999, 500 / 999, 100 / 999, CLEAN],
        ),
        (
            Scheduler(BETAS, STEPS, torch.cat([SIGMA[STEPS], SIGMA[:1]]), final_sigmas_type="sigma_min"),
            [900 / 999, 500 / 999, 100 / 999, 0.0],
        ),
        # Schedulers of second order repeat all sigmas but the first and the last.
        (
            Scheduler(BETAS, None, torch.cat([SIGMA[[900, 500, 500, 100, 100]], torch.zeros(1)])),
            [900 / 999, 500 / 999, 100 / 999, CLEAN],
        ),
        (FlowMatchSomething(None, None, torch.tensor([1.0, 0.8, 0.3, 0.0])), [0.0, 0.2, 0.7, 1.0]),
        (Scheduler(BETAS, None, torch.tensor([0.9, 0.5, 0.0]), use_flow_sigmas=True), [0.1, 0.5, 1.0]),
        (Scheduler(None, None, torch.tensor([80.0, 2.0, 0.002, 0.0]), sigma_data=0.5), [80.0, 2.0, 0.002, 0.0]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_from_scheduler_reads_sigmas_or_timesteps(scheduler, expected):
    if scheduler._given[0] is None and scheduler.betas is not None:
        scheduler._given = torch.zeros(1), scheduler._given[1]
    before = copy.deepcopy(vars(scheduler))
    grid = times.from_scheduler(scheduler, 3)
    np.testing.assert_allclose(grid, expected, atol=1e-7)  # The sigmas are float32.
    assert vars(scheduler).keys() == before.keys()
    assert scheduler.asked is None


def test_from_scheduler_between_timesteps_takes_the_time_of_the_sigma():
    sigmas = [30.0, 2.5, 0.7, 0.0]
    grid = times.from_scheduler(Scheduler(BETAS, STEPS.double(), torch.tensor(sigmas)), 3)
    np.testing.assert_allclose(DiscreteVP(BETAS).rho(grid), sigmas, rtol=1e-6)


def test_from_scheduler_hands_options_on():
    class Shifting(FlowMatchSomething):
        def set_timesteps(self, steps, mu=None):
            self.timesteps, self.sigmas = None, torch.tensor([1.0, mu, 0.0])

    assert times.from_scheduler(Shifting(None, None), 2, mu=0.25).tolist() == [0.0, 0.75, 1.0]


def test_from_scheduler_starts_at_pure_noise_with_zero_terminal_snr():
    betas = torch.tensor(rescaled(LINEAR), dtype=torch.float32)
    assert betas[-1] == 1
    sigmas = torch.tensor([4096.0, 10.0, 0.0])  # Diffusers writes 4096 for infinity.
    assert times.from_scheduler(Scheduler(betas, torch.tensor([999, 800]), sigmas), 2)[0] == 1.0
    assert times.from_scheduler(Scheduler(betas, torch.tensor([999, 400])), 2).tolist() == [1.0, 400 / 999, CLEAN]


# ------------------------------------------------------------------------------------------------ in a sampler
@pytest.mark.parametrize("schedule", [VE(0.01, 50.0), EDM()], ids=["ve", "edm"])
def test_the_default_grid_in_sigma_is_that_of_karras(schedule):
    sampler = Sampler(Denoiser(network, schedule, "sample"), Denoising((1, 4, 4)), DDIM(), steps=5)
    a, b = schedule.default_start, schedule.default_end
    np.testing.assert_allclose(sampler.plan.times, karras_sigmas(a, b, 6), rtol=1e-12)
    ends = Sampler(Denoiser(network, schedule, "sample"), Denoising((1, 4, 4)), DDIM(), steps=4, start=2.0, end=0)
    np.testing.assert_allclose(ends.plan.times, [*karras_sigmas(2.0, schedule.sigma_min, 4), 0.0], rtol=1e-12)


def test_the_default_grid_of_a_table_ends_where_the_table_does():
    for schedule, end in ((TABLE, CLEAN), (FIRST, 0.0)):
        sampler = Sampler(Denoiser(network, schedule, "sample"), Denoising((1, 4, 4)), DDIM(), steps=5)
        np.testing.assert_allclose(sampler.plan.times, np.linspace(0.4, end, 6), rtol=1e-12, atol=1e-15)


def test_many_steps_on_a_short_table_stay_within_its_indices():
    schedule = DiscreteVP(np.linspace(0.01, 0.5, 20))
    for steps in (1, 2, 8, 9, 40):
        grid = times.default_grid(schedule, 0.4, schedule.default_end, steps)
        assert len(grid) == steps + 1
        assert grid[-2] >= 0
        assert schedule.check_times(grid).tolist() == grid.tolist()


def test_every_grid_is_taken_by_a_sampler():
    for schedule, grids in (
        (TABLE, [times.karras(TABLE, 4), times.leading(TABLE, 4), times.trailing(TABLE, 4), times.linspace(TABLE, 4)]),
        (Flow(), [times.shifted(4, 3.0), times.karras(Flow(), 4)]),
        (EDM(), [times.karras(EDM(), 4), times.exponential(EDM(), 4)]),
    ):
        for grid in grids:
            sampler = Sampler(Denoiser(network, schedule, "sample"), Denoising((1, 4, 4)), DDIM(), times=grid)
            assert sampler.plan.times.tolist() == grid.tolist()
            assert torch.isfinite(sampler(torch.zeros(1, 1, 4, 4), seed=0)).all()


# ------------------------------------------------------------------------------------------------ what is refused
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: times.karras(EDM(), 0), ValueError, "steps: must be an integer >= 1, got 0"),
        (lambda: times.karras(EDM(), 2.5), ValueError, "steps: must be an integer >= 1, got 2.5"),
        (lambda: times.karras(EDM(), True), ValueError, "steps: must be an integer >= 1, got True"),
        (lambda: times.karras(EDM(), 5, rho=0.0), ValueError, "rho: must be a number > 0, got 0.0"),
        (lambda: times.karras(EDM(), 5, rho=float("nan")), ValueError, "rho: must be a number > 0, got nan"),
        (lambda: times.karras(EDM(), 5, start=90.0), ValueError, r"EDM takes times in \[0, 80\], got 90"),
        (lambda: times.karras(EDM(), 5, start=0.1, end=0.2), ValueError, "the noise must fall strictly"),
        (lambda: times.karras(EDM(), 5, start=[1.0, 2.0]), TypeError, "start: must be one number, got 2 of them"),
        (lambda: times.karras(EDM(), 5, end="0"), TypeError, "end: must be real numbers, got '0'"),
        (lambda: times.shifted(5, None), TypeError, "shift: must be real numbers, got None"),
        (lambda: times.shifted(5, 0.0), ValueError, "shift: must be a finite number > 0, got 0.0"),
        (lambda: times.shifted(5, 3.0, start=0.9, end=0.1), ValueError, "reverse the order"),
        (lambda: times.leading(Flow(), 5), TypeError, "schedule: must be DiscreteVP or VP, .*got Flow"),
        (lambda: times.trailing(TABLE, 1001), ValueError, "steps: must be at most the number of timesteps, 1000"),
        (lambda: times.trailing(TABLE, 10, count=500), ValueError, "count: must be that of the table, 1000, .*got 500"),
        (lambda: times.leading(TABLE, 10, offset=-1), ValueError, "offset: must be an integer >= 0, got -1"),
        (lambda: times.leading(TABLE, 1000, offset=1), ValueError, "offset: must leave the largest timestep"),
        (lambda: times.floor_timesteps(2.5), ValueError, "count: must be an integer >= 1, got 2.5"),
        (lambda: times.from_scheduler("ddim", 5), TypeError, "scheduler: must be a scheduler of diffusers, .*got str"),
        (lambda: times.from_scheduler(Scheduler(None, STEPS), 5), ValueError, "scheduler: must have a table of betas"),
        (
            lambda: times.from_scheduler(Scheduler(BETAS, torch.tensor([0, 100, 500])), 3),
            ValueError,
            "the noise must fall strictly",
        ),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


# ------------------------------------------------------------------------------------------------ diffusers itself
@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("DDIMScheduler", {}, lambda: times.leading(TABLE, 6)),
        ("DDIMScheduler", {"steps_offset": 1, "set_alpha_to_one": False}, lambda: times.leading(FIRST, 6, offset=1)),
        ("DDIMScheduler", {"timestep_spacing": "trailing"}, lambda: times.trailing(TABLE, 6)),
        ("DDPMScheduler", {"timestep_spacing": "linspace"}, lambda: times.linspace(TABLE, 6)),
        ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, lambda: times.trailing(TABLE, 6)),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, lambda: times.karras(TABLE, 6)),
        ("EulerDiscreteScheduler", {"use_exponential_sigmas": True}, lambda: times.exponential(TABLE, 6)),
        ("DEISMultistepScheduler", {"timestep_spacing": "trailing"}, lambda: times.trailing(FIRST, 6)),
        ("HeunDiscreteScheduler", {"timestep_spacing": "trailing"}, lambda: times.trailing(TABLE, 6)),
        ("EDMEulerScheduler", {}, lambda: times.karras(EDM(), 6)),
        ("EDMEulerScheduler", {"sigma_schedule": "exponential"}, lambda: times.exponential(EDM(), 6)),
        (
            "DDIMScheduler",
            {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
            lambda: times.trailing(DiscreteVP(rescaled(LINEAR)), 6),
        ),
    ],
    ids=lambda value: "" if callable(value) else str(value),
)
def test_grids_are_those_of_diffusers(name, config, expected):
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, name)(**config)
    # Their betas and sigmas are float32, also where a grid rounds a sigma to a time.
    np.testing.assert_allclose(times.from_scheduler(scheduler, 6), expected(), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_shifted_is_the_grid_of_diffusers(shift):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    grid = times.from_scheduler(scheduler, 5, sigmas=np.linspace(1.0, 0.2, 5))  # Pipelines of Flux do so.
    np.testing.assert_allclose(grid, times.shifted(5, shift), atol=1e-6)
