"""Schedules in float64 against closed forms and numerical derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccfast.schedules import EDM, VE, VP, DiscreteVP, Flow
from ccfast.times import floor_timesteps, uniform

BETAS = np.linspace(1e-4, 0.02, 1000)


def rescaled(betas):
    """Betas whose sqrt(alphabar) is shifted to end at 0 and scaled to begin as before (arXiv 2305.08891, alg. 1)."""
    root = np.sqrt(np.cumprod(1 - betas))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return 1 - root**2 / np.append(1.0, root[:-1] ** 2)


ZERO_SNR = rescaled(BETAS)
ROWS = [
    (VP(), np.array([0.001, 0.2, 0.4, 0.83, 1.0])),
    (VP(0.3, 15.0), np.array([0.01, 0.5, 0.99])),
    (DiscreteVP(BETAS), np.array([0.00025, 0.1234, 0.5003, 0.9998])),
    (VE(0.01, 50.0), np.array([0.01, 0.3, 2.0, 50.0])),
    (EDM(), np.array([0.002, 0.5, 80.0])),
    (Flow(), np.array([0.05, 0.5, 0.9, 0.999])),
    (DiscreteVP(BETAS, final="first"), np.array([0.00025, 0.5003])),
    # These lie between the first index and the clean end.
    (DiscreteVP(BETAS), np.array([-0.0007, -0.0002])),
    # The last two lie in the last interval.
    (DiscreteVP(ZERO_SNR), np.array([0.1234, 0.9985, 0.9993, 0.9997])),
    (DiscreteVP(np.append(0.0, BETAS)), np.array([0.0003, 0.5003])),
    (DiscreteVP([0.3, 1.0]), np.array([-0.4, 0.2, 0.9])),
    (DiscreteVP([0.0, 1.0]), np.array([0.2, 0.9])),
]


@pytest.mark.parametrize(("schedule", "t"), ROWS, ids=lambda v: type(v).__name__)
def test_the_parts_agree_with_each_other(schedule, t):
    mu, sigma = schedule.mean(t), schedule.std(t)
    rho = sigma / mu
    np.testing.assert_allclose(schedule.rho(t), rho, rtol=1e-10)
    np.testing.assert_allclose(schedule.clock(t), np.log1p(rho**2), rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(schedule.log_snr(t), 2 * np.log(mu / sigma), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(schedule.time(rho), t, rtol=1e-9)
    assert schedule.unit_variance == np.allclose(mu**2 + sigma**2, 1, rtol=1e-14)
    h = 1e-6 * np.abs(t)
    inside = (t + h <= schedule.time_range[1]) & (t - h >= schedule.time_range[0])
    for value, derivative in (
        (schedule.mean, schedule.mean_derivative),
        (schedule.std, schedule.std_derivative),
        (schedule.clock, schedule.clock_derivative),
    ):
        numerical = (value(t + h) - value(t - h)) / (2 * h)
        np.testing.assert_allclose(derivative(t)[inside], numerical[inside], rtol=2e-5, atol=1e-8)
    for value in (mu, sigma, schedule.rho(t), schedule.time(rho), schedule.clock_derivative(t)):
        assert value.dtype == np.float64


def test_vp_closed_forms():
    schedule = VP(0.1, 20.0)
    assert schedule.clock(1.0) == pytest.approx(10.05, rel=1e-15)
    assert schedule.mean(0.4) == pytest.approx(np.exp(-0.816), rel=1e-14)
    assert schedule.std(0.4) == pytest.approx(np.sqrt(1 - np.exp(-1.632)), rel=1e-14)
    t = np.linspace(0, 0.7, 200_001)
    integral = np.trapezoid(schedule.clock_derivative(t), t)
    assert schedule.clock(0.7) == pytest.approx(integral, rel=1e-12)
    assert schedule.clock_derivative(0.3) == pytest.approx(0.1 + 0.3 * 19.9)
    assert schedule.std(0.0) == 0
    # At small noise no digits are lost, where sigma^2 = B to first order.
    assert schedule.std(1e-9) ** 2 == pytest.approx(1e-10, rel=1e-6)


def test_discrete_vp_is_the_product_of_alphas():
    schedule = DiscreteVP(BETAS)
    alphabar = np.cumprod(1 - BETAS)
    index = np.array([0, 1, 17, 500, 999])
    np.testing.assert_allclose(schedule.mean(index / 999) ** 2, alphabar[index], rtol=1e-12)
    between = schedule.mean(17.5 / 999) ** 2
    assert between == pytest.approx(np.sqrt(alphabar[17] * alphabar[18]), rel=1e-12)
    assert [schedule.default_time_map(t) for t in (0.0, 0.4, 1.0)] == [0.0, 400.0, 999.0]


@pytest.mark.parametrize("count", [2, 20, 50, 250, 1000])
def test_a_table_ends_clean_one_index_below_the_first(count):
    betas = np.minimum(np.linspace(0.1, 20, count) / count, 0.999)
    schedule = DiscreteVP(betas)
    index = np.arange(count)
    # Both evaluate one formula in float64, in different orders of at most a few thousand operations.
    np.testing.assert_allclose(schedule.mean(index / (count - 1)), np.sqrt(np.cumprod(1 - betas)), rtol=1e-12)
    low = schedule.time_range[0]
    assert low == schedule.default_end == schedule.time(0.0) == -1 / (count - 1)
    assert (schedule.mean(low), schedule.std(low), schedule.rho(low)) == (1, 0, 0)
    assert schedule.check_times([1.0, 0.5, low])[-1] == low
    first = DiscreteVP(betas, final="first")
    assert first.time_range[0] == first.default_end == 0
    assert first.std(0.0) == pytest.approx(np.sqrt(betas[0]), rel=1e-12)
    assert [s.default_time_map(low) for s in (schedule, first)] == [0.0, 0.0]  # No network has timestep -1.


def test_zero_terminal_snr_begins_at_pure_noise():
    schedule, index = DiscreteVP(ZERO_SNR), np.arange(1000)
    # Both evaluate one formula in float64, in different orders of at most a few thousand operations.
    np.testing.assert_allclose(schedule.mean(index / 999), np.sqrt(np.cumprod(1 - ZERO_SNR)), atol=1e-14)
    assert (schedule.mean(1.0), schedule.std(1.0), schedule.rho(1.0), schedule.time(np.inf)) == (0, 1, np.inf, 1)
    assert schedule.log_snr(1.0) == -np.inf
    # The mean is linear in the last interval, and does not jump where that begins.
    t = (998 + np.array([0.0, 1e-9, 0.25, 0.5, 0.75])) / 999
    np.testing.assert_allclose(schedule.mean(t), schedule.mean(998 / 999) * (999 - 999 * t), rtol=1e-9)
    assert schedule.mean_derivative(1.0) == pytest.approx(-999 * schedule.mean(998 / 999))
    assert schedule.std_derivative(1.0) == 0
    assert schedule.check_times([1.0, 0.9999, 0.5])[0] == 1


def test_a_first_beta_of_zero_is_a_clean_first_index():
    for final in ("zero", "first"):
        schedule = DiscreteVP(np.append(0.0, BETAS), final=final)
        assert schedule.time_range == (0.0, 1.0)
        assert schedule.default_end == schedule.time(0.0) == schedule.std(0.0) == 0
        assert schedule.std(1 / 1000) == pytest.approx(1e-2, rel=1e-12)
    several = DiscreteVP([0.0, 0.0, 0.0, 0.2, 0.4])
    assert several.std(several.default_end) == several.std(0.0) == 0
    assert several.time_range == (0.0, 1.0)
    assert several.std(0.75) == pytest.approx(np.sqrt(0.2))


@pytest.mark.parametrize(
    "convert",
    [
        list,
        tuple,
        lambda b: b.astype(np.float32),
        torch.from_numpy,
        lambda b: torch.from_numpy(b).float().requires_grad_(),
        lambda b: torch.from_numpy(b).to(torch.bfloat16),
        lambda b: [torch.tensor(v) for v in b],
        lambda b: b[::-1][::-1],
    ],
)
def test_betas_come_from_whatever_holds_numbers(convert):
    given = convert(BETAS)
    rtol = 5e-3 if getattr(given, "dtype", None) == torch.bfloat16 else 1e-5
    np.testing.assert_allclose(DiscreteVP(given).clock([0.1, 0.5, 1.0]), DiscreteVP(BETAS).clock([0.1, 0.5, 1.0]), rtol)


def test_a_table_that_falls_is_spoken_of():
    with pytest.warns(UserWarning, match="betas: fall from 0.02 to 0.0001, .* reverse it"):
        DiscreteVP(BETAS[::-1])
    DiscreteVP(np.full(10, 0.3))  # Constant betas do not fall.


@pytest.mark.parametrize(
    "convert",
    [
        list,
        np.array,
        lambda t: np.array(t, dtype=np.float32),
        torch.tensor,
        lambda t: torch.tensor(t, requires_grad=True),
        lambda t: torch.tensor(t, dtype=torch.bfloat16),
        lambda t: [torch.tensor(v) for v in t],
        lambda t: [np.float16(v) for v in t],
    ],
)
def test_times_come_from_whatever_holds_numbers(convert):
    given = convert([1.0, 0.5, 0.25, 0.0])  # Every type holds these exactly.
    grid = VP().check_times(given)
    assert grid.tolist() == [1.0, 0.5, 0.25, 0.0]
    assert grid.dtype == np.float64
    assert grid is not given


def test_rounding_of_single_precision_does_not_leave_the_range():
    sigma_max, sigma_min = 14.614643, 0.0291675
    path = VE(sigma_min, sigma_max)
    for step in (-np.inf, np.inf):
        given = np.nextafter(np.array([sigma_max, 1.0, sigma_min, 0.0], np.float32), np.float32(step))
        assert path.check_times(given.clip(0))[[0, 2]].tolist() == pytest.approx([sigma_max, sigma_min], rel=1e-6)
    assert VP().check_times([1.0 + 1e-7, 0.1])[0] == 1
    assert DiscreteVP(BETAS).check_times([0.5, -1 / 999 - 1e-12])[-1] == -1 / 999
    with pytest.raises(ValueError, match="got 1"):
        VP().check_times([1.00001, 0.1])


def test_edm_flow_and_ve_closed_forms():
    assert EDM().default_time_map(0.5) == pytest.approx(np.log(0.5) / 4)
    assert Flow().rho(0.25) == pytest.approx(3.0)
    assert VE(0.01, 50).clock(2.0) == pytest.approx(np.log(5.0))
    assert Flow().default_time_map(0.5) == VP().default_time_map(0.5) == 499.5
    assert VE(0.01, 50).default_time_map(0.7) == 0.7


def test_default_starts_have_the_noise_of_vp():
    vp = VP()
    for schedule in (EDM(), VE(0.002, 80)):
        assert schedule.default_start == pytest.approx(float(vp.rho(0.4)))
        assert schedule.default_end == pytest.approx(float(vp.rho(0.001)))
    assert (Flow().default_start, Flow().default_end) == (0.6, 1.0)


def test_grids():
    assert uniform(0.4, 0.001, 5).tolist() == np.linspace(0.4, 0.001, 6).tolist()
    assert [floor_timesteps(1000)(t) for t in (0.4, 0.3202, 1.0)] == [399.0, 319.0, 999.0]
    with pytest.raises(ValueError, match="count: must be at least 2, got 1"):
        floor_timesteps(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VP(20.0, 0.1), "VP: must have 0 <= beta_min < beta_max, got 20.0 and 0.1"),
        (lambda: DiscreteVP([0.1, 1.5, 0.2]), r"betas must be at least two numbers in \[0, 1\], got 1.5 at index 1"),
        (lambda: DiscreteVP([0.1, -0.2]), "betas must be .*, got -0.2 at index 1"),
        (lambda: DiscreteVP([0.1, np.nan]), "betas must be .*, got nan at index 1"),
        (lambda: DiscreteVP([0.1, 1.0, 0.2]), "betas must be below 1 but for the last, .*, got 1 at index 1 of 3"),
        (lambda: DiscreteVP([1.0, 1.0]), "betas must be below 1 but for the last, .*, got 1 at index 0 of 2"),
        (lambda: DiscreteVP([0.0, 0.0]), "betas must have one that is not 0"),
        (lambda: DiscreteVP(np.ones((3, 4)) / 9), r"betas must be at least two numbers in .*, got shape \(3, 4\)"),
        (lambda: DiscreteVP([]), r"betas must be at least two numbers in .*, got shape \(0,\)"),
        (lambda: DiscreteVP(1 - BETAS), "fall from 0.9999 to 0.98, which look like alphas"),
        (lambda: DiscreteVP(np.cumprod(1 - BETAS)), "fall from 0.9999 to 4.0.*e-05, .* 1 - alphabar / np.append"),
        (lambda: DiscreteVP(BETAS, final="sigma_min"), "final: must be 'zero' or 'first', got 'sigma_min'"),
        (lambda: DiscreteVP(BETAS).check_times([0.4, -0.0005, -1 / 999]), "at index 0 and above, .* got -0.0005 at pl"),
        (lambda: DiscreteVP(BETAS).check_times([0.4, -0.1]), "times in .*-0.001001, 1.*, got -0.1"),
        (lambda: DiscreteVP(BETAS).check_times([999, 500, 0]), r"got 999; the index n .* is the time n/\(N - 1\)"),
        (lambda: DiscreteVP(np.append(0, BETAS)).check_times([0.4, 0.0, 0.0]), "free of noise, got 0 at place 1"),
        (lambda: VP().check_times([0.1, 0.2, 0.4]), "got 0.1 and then 0.2 at places 0 and 1; reverse the order"),
        (lambda: VP().check_times([[0.4, 0.1]]), r"sequence of at least two numbers, got shape \(1, 2\)"),
        (lambda: VP().check_times(0.4), r"sequence of at least two numbers, got shape \(\)"),
        (lambda: VP().check_times([0.4, np.inf]), "got inf"),
        (lambda: DiscreteVP([0.1]), "betas must be at least two numbers in"),
        (lambda: VE(1.0, 0.5), "VE: must have 0 < sigma_min < sigma_max, got 1.0 and 0.5"),
        (lambda: EDM(sigma_data=0.0), "EDM: sigma_data must be positive, got 0.0"),
        (lambda: VP().check_times([0.4]), "at least two numbers"),
        (lambda: VP().check_times([1.2, 0.1]), r"VP takes times in \[0, 1\], got 1.2"),
        (lambda: VP().check_times([0.4, np.nan]), "got nan"),
        (lambda: VP().check_times([0.1, 0.4]), "noise must fall strictly"),
        (lambda: VP().check_times([0.4, 0.2, 0.2]), "noise must fall strictly"),
        (lambda: VP().check_times([0.4, 0.0, 0.0]), "only the last time may be free of noise"),
        (lambda: Flow().check_times([0.9, 0.6]), "noise must fall strictly"),
        (lambda: VE(0.1, 10).check_times([5.0, 0.01, 0.0]), "sigma >= sigma_min = 0.1 only"),
    ],
)
def test_errors_name_the_rule_and_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VP("0.1"), "beta_min: must be real numbers, got '0.1'"),
        (lambda: VE(0.1, None), "sigma_max: must be real numbers, got None"),
        (lambda: EDM(sigma_data=[0.5, 0.5]), "sigma_data: must be one number, got 2 of them"),
        (lambda: DiscreteVP(None), "betas: must be real numbers, got None"),
        (lambda: DiscreteVP("linear"), "betas: must be real numbers, got 'linear'"),
        (lambda: DiscreteVP(["0.1", "0.2"]), "betas: must be real numbers, got .*'0.1'"),
        (lambda: DiscreteVP([0.1, [0.2]]), "betas: must be real numbers, got"),
        (lambda: DiscreteVP(torch.tensor([0.1, 0.2j])), "betas: must be real numbers, got .*complex"),
        (lambda: DiscreteVP(v for v in BETAS), "betas: must be real numbers, got <generator"),
        (lambda: VP().check_times({0.4, 0.1}), "times: must be real numbers, got {"),
        (lambda: VP().check_times([0.4, None]), "times: must be real numbers, got .0.4, None"),
        (lambda: VP().check_times([True, False]), "times: must be real numbers, got .True, False"),
    ],
)
def test_what_is_no_number_is_named(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_a_last_time_without_noise_is_allowed():
    assert VP().check_times([0.4, 0.0])[-1] == 0
    assert Flow().check_times([0.0, 1.0]).tolist() == [0, 1]
    assert EDM().check_times([80.0, 0.0])[-1] == 0
