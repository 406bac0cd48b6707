"""Schedules in float64 against closed forms and numerical derivatives."""

from __future__ import annotations

import numpy as np
import pytest

from ccfast.schedules import EDM, VE, VP, DiscreteVP, Flow
from ccfast.times import floor_timesteps, uniform

BETAS = np.linspace(1e-4, 0.02, 1000)
ROWS = [
    (VP(), np.array([0.001, 0.2, 0.4, 0.83, 1.0])),
    (VP(0.3, 15.0), np.array([0.01, 0.5, 0.99])),
    (DiscreteVP(BETAS), np.array([0.00025, 0.1234, 0.5003, 0.9998])),
    (VE(0.01, 50.0), np.array([0.01, 0.3, 2.0, 50.0])),
    (EDM(), np.array([0.002, 0.5, 80.0])),
    (Flow(), np.array([0.05, 0.5, 0.9, 0.999])),
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
    h = 1e-6 * t
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
    # digits at small noise: sigma^2 = B to first order
    assert schedule.std(1e-9) ** 2 == pytest.approx(1e-10, rel=1e-6)


def test_discrete_vp_is_the_product_of_alphas():
    schedule = DiscreteVP(BETAS)
    alphabar = np.cumprod(1 - BETAS)
    index = np.array([0, 1, 17, 500, 999])
    np.testing.assert_allclose(schedule.mean(index / 999) ** 2, alphabar[index], rtol=1e-12)
    between = schedule.mean(17.5 / 999) ** 2
    assert between == pytest.approx(np.sqrt(alphabar[17] * alphabar[18]), rel=1e-12)
    assert [schedule.default_time_map(t) for t in (0.0, 0.4, 1.0)] == [0.0, 400.0, 999.0]


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
        (lambda: DiscreteVP([0.1, 1.0]), "betas must be at least two numbers in"),
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


def test_a_last_time_without_noise_is_allowed():
    assert VP().check_times([0.4, 0.0])[-1] == 0
    assert Flow().check_times([0.0, 1.0]).tolist() == [0, 1]
    assert EDM().check_times([80.0, 0.0])[-1] == 0
