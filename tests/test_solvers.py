"""The coefficients that solvers write, compared with integrals computed in another way, and the laws of Plan."""

from __future__ import annotations

import sys
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from row_shorthand import columns
from scipy.integrate import quad

from ccfast import Denoiser
from ccfast.engine.plan import Term
from ccfast.operators import AveragePooling
from ccfast.schedules import EDM, VE, VP, Flow
from ccfast.solvers import DDIM, DDNM, Conjugate, PiGDM

pytestmark = pytest.mark.filterwarnings("ignore:jacobian. 'exact' is stable")

OPERATOR = AveragePooling((3, 8, 8), 4)
STEPS = [(0.999, 0.8), (0.8, 0.3), (0.4, 0.25), (0.25, 0.01), (0.02, 0.001)]


def identity(x, t):
    return x


def row(solver, schedule, start, end, prediction="epsilon"):
    denoiser = Denoiser(identity, schedule, prediction, time_map=float)
    plan = solver.plan(denoiser, OPERATOR, np.array([start, end]))
    return {name: float(column[0]) for name, column in columns(plan).items()}


def integral(f, low, high):
    return quad(f, low, high, epsabs=1e-13, epsrel=1e-12, limit=400)[0]


@pytest.mark.parametrize("w", [0.5, 2.0, 15.0, 40.0])
@pytest.mark.parametrize(("start", "end"), STEPS)
def test_conjugate_rows_on_vp_against_quadrature_in_time(start, end, w):
    """The rows are the paper's integrals over t, with integrating factors e^{B/2} and e^{B/2 - wB/2}."""
    s = VP()
    mu, mu1, sigma1 = s.mean(start), s.mean(end), s.std(end)
    kappa = -np.expm1(-0.5 * w * (s.clock(start) - s.clock(end)))

    def weight(t, relax):
        b = s.clock(t) - s.clock(end)
        return 0.5 * w * s.clock_derivative(t) * np.exp(0.5 * b * (1 - relax * w)) * s.std(t) * s.mean(t)

    d_null = -integral(lambda t: weight(t, 0), end, start)
    d_range = -integral(lambda t: weight(t, 1), end, start)
    exact = row(Conjugate(w), s, start, end)
    assert exact["x"] == pytest.approx(mu1 / mu, rel=1e-12)
    assert exact["F"] == pytest.approx(sigma1 - mu1 / mu * s.std(start), rel=1e-11, abs=1e-14)
    assert exact["r"] == pytest.approx(mu1 * kappa, rel=1e-12)
    assert exact["h"] == pytest.approx(d_null, rel=1e-9)
    assert exact["h"] + exact["Ph"] == pytest.approx(d_range, rel=1e-9)
    assert -mu1 * kappa * s.std(start) * (1 + 1e-12) <= d_range <= -mu1 * kappa * sigma1 * (1 - 1e-12)
    one = row(Conjugate(w, jacobian="one_projection"), s, start, end)
    assert one["h"] == pytest.approx(d_range, rel=1e-9)
    assert "Ph" not in one
    assert row(Conjugate(w, jacobian="none"), s, start, end).keys() == {"x", "F", "r"}


@pytest.mark.parametrize("w", [1.0, 20.0])
@pytest.mark.parametrize(("start", "end"), [(80.0, 9.0), (3.0, 0.5), (0.5, 0.01)])
@pytest.mark.parametrize("schedule", [VE(0.002, 80), EDM()], ids=["ve", "edm"])
def test_conjugate_rows_with_unit_mean(schedule, start, end, w):
    exact = row(Conjugate(w), schedule, start, end)
    d_null = -w * integral(lambda r: r * r / (1 + r * r), end, start)
    d_range = -w * integral(lambda r: ((1 + end**2) / (1 + r * r)) ** (w / 2) * r * r / (1 + r * r), end, start)
    assert exact["r"] == pytest.approx(1 - ((1 + end**2) / (1 + start**2)) ** (w / 2), rel=1e-12)
    assert exact["h"] == pytest.approx(d_null, rel=1e-9)
    assert exact["h"] + exact["Ph"] == pytest.approx(d_range, rel=1e-9)


@pytest.mark.parametrize("w", [1.0, 20.0, 40.0])
@pytest.mark.parametrize(("start", "end"), [(0.0, 0.3), (0.3, 0.6), (0.6, 1.0)])
def test_conjugate_rows_on_the_flow(start, end, w):
    exact = row(Conjugate(w), Flow(), start, end, "velocity")
    rate = w * integral(lambda t: t * (1 - t), start, end)

    def decay(s):
        return np.exp(-w * integral(lambda t: t * (1 - t), s, end))

    d_null = w * integral(lambda t: t * (1 - t) ** 2, start, end)
    d_range = w * integral(lambda t: t * (1 - t) ** 2 * decay(t), start, end)
    assert exact["x"] == pytest.approx(1.0, rel=1e-13)
    assert exact["F"] == pytest.approx(end - start, rel=1e-12)
    assert exact["r"] == pytest.approx(-np.expm1(-rate), rel=1e-11)
    assert exact["h"] == pytest.approx(d_null, rel=1e-10)
    assert exact["h"] + exact["Ph"] == pytest.approx(d_range, rel=1e-9)


@pytest.mark.parametrize("jacobian", ["exact", "one_projection", "none"])
@pytest.mark.parametrize(
    ("schedule", "start", "end"), [(VP(), 0.5, 0.2), (VP(), 0.2, 0.0), (EDM(), 4.0, 0.3), (Flow(), 0.2, 0.7)]
)
def test_the_general_row_tends_to_the_closed_form_as_lam_vanishes(schedule, start, end, jacobian):
    """Terms such as x - P x are collected, because the two rows write the same map in different terms."""
    closed = row(Conjugate(6.0, 0.0, jacobian), schedule, start, end)
    general = row(Conjugate(6.0, 1e-9, jacobian), schedule, start, end)
    p, q, _, _ = (float(v[0]) for v in Denoiser(identity, schedule, time_map=float).coefficients(np.array([start]))[1:])
    get = lambda r, name: r.get(name, 0.0)  # noqa: E731
    # Here r = ybar - P (p x + q F) is inserted.
    for name, expected in (
        ("x", get(closed, "x")),
        ("F", get(closed, "F")),
        ("ybar", get(closed, "r") - get(general, "r")),
        ("Px", -p * (get(closed, "r") - get(general, "r"))),
        ("PF", -q * (get(closed, "r") - get(general, "r"))),
        ("h", get(closed, "h")),
        ("Ph", get(closed, "Ph")),
    ):
        assert get(general, name) == pytest.approx(expected, rel=1e-7, abs=1e-8), name


@pytest.mark.parametrize("lam", [0.3, -0.2])
def test_general_rows_on_vp_against_quadrature_in_time(lam):
    s, w, start, end = VP(), 5.0, 0.5, 0.2
    general = row(Conjugate(w, lam), s, start, end)
    step = start - end

    def shift(t, relax):
        return np.exp(lam * (t - end) + 0.5 * (1 - relax * w) * (s.clock(t) - s.clock(end)))

    def moment(f, relax):
        return integral(lambda t: 0.5 * s.clock_derivative(t) * shift(t, relax) * f(t), end, start)

    a_null, a_range = (float(shift(start, relax)) * (1 - lam * step) for relax in (0, 1))
    b_null = -moment(lambda t: 1 / s.std(t), 0)
    b_range = -moment(lambda t: 1 / s.std(t) - w * s.std(t), 1)
    d_null, d_range = (-moment(lambda t: w * s.std(t) * s.mean(t), relax) for relax in (0, 1))
    expected = {
        "x": a_null,
        "F": b_null,
        "Px": a_range - a_null,
        "PF": b_range - b_null,
        "h": d_null,
        "Ph": d_range - d_null,
        "ybar": moment(lambda t: w * s.mean(t), 1),
    }
    assert general == pytest.approx(expected, rel=1e-9)


def test_auto_takes_one_projection_beyond_the_stability_limit():
    denoiser, times = Denoiser(identity, VP()), np.array([0.9, 0.4, 0.01])
    auto = columns(Conjugate(5.0, jacobian="auto").plan(denoiser, OPERATOR, times))
    exact = columns(Conjugate(5.0).plan(denoiser, OPERATOR, times))
    one = columns(Conjugate(5.0, jacobian="one_projection").plan(denoiser, OPERATOR, times))
    clock = VP().clock(times)
    assert 5.0 * (clock[0] - clock[1]) > 13.7 > 5.0 * (clock[1] - clock[2])
    assert auto["h"].tolist() == [one["h"][0], exact["h"][1]]
    assert auto["Ph"].tolist() == [0.0, exact["Ph"][1]]


def test_pigdm_rows():
    s, w, start, end = VP(), 3.0, 0.4, 0.32
    got = row(PiGDM(w), s, start, end)
    c = s.mean(end) / s.mean(start) * w / 2 * s.clock_derivative(start) * (start - end)
    assert got["r"] == pytest.approx(c / s.mean(start))
    assert got["h"] == pytest.approx(-c * s.std(start) / s.mean(start))
    constant = row(PiGDM(w, weight="constant", eta=0.0), s, start, end)
    assert constant["r"] == pytest.approx(s.mean(end) * w)  # For "constant", kappa = w and d = -mu' w sigma.
    assert constant["h"] == pytest.approx(-s.mean(end) * w * s.std(start))
    flow = row(PiGDM(w), Flow(), 0.6, 0.7, "velocity")
    assert flow["r"] == pytest.approx(w * (0.4 / 0.6) * 0.1)
    assert flow["h"] == pytest.approx(w * (0.4 / 0.6) * 0.1 * 0.4)
    for named, same in ((PiGDM(), PiGDM(1.0, "constant", 1.0)), (PiGDM(w), PiGDM(w, "ode", 0.0))):
        assert row(named, s, start, end) == row(same, s, start, end)
    ve = row(PiGDM(w), VE(0.01, 50), 2.0, 1.5)
    assert ve["r"] == pytest.approx(w * 2.0 * 0.5)


@pytest.mark.parametrize("solver", [DDIM(eta=0.7), PiGDM(eta=0.7), PiGDM(2.0, eta=0.7)], ids=repr)
def test_ancestral_noise_keeps_the_variance(solver):
    s, start, end = VP(), 0.5, 0.3
    got = row(solver, s, start, end)
    noise = 0.7 * s.std(end) / s.std(start) * np.sqrt(1 - s.mean(start) ** 2 / s.mean(end) ** 2)
    assert got["z"] == pytest.approx(noise)
    direction = got["F"] + s.mean(end) * s.std(start) / s.mean(start)
    assert direction**2 + got["z"] ** 2 == pytest.approx(s.std(end) ** 2)


def test_a_five_step_plan_takes_few_calls():
    """Python calls are counted and not timed, since a processor may be slow or busy."""
    denoiser, times = Denoiser(identity, VP()), VP().check_times(np.linspace(0.4, 0.001, 6))
    Conjugate().plan(denoiser, OPERATOR, times)  # The first plan makes the quadrature's nodes.
    counted = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, argument: counted.append(event) if event.endswith("call") else None)
    try:
        Conjugate().plan(denoiser, OPERATOR, times)
    finally:
        sys.setprofile(before)
    assert 500 < len(counted) < 2000, len(counted)


def test_a_plan_is_frozen_and_prints_as_a_table():
    plan = Conjugate().plan(Denoiser(identity, VP()), OPERATOR, np.linspace(0.4, 0.001, 6))
    assert (len(plan.steps), plan.vjp_steps) == (5, 5)
    with pytest.raises(ValueError, match="read-only"):
        plan.times[0] = 0.0
    with pytest.raises(FrozenInstanceError):
        plan.steps[0].row[0].a = 0.0
    lines = str(plan).splitlines()
    assert len(lines) == 7
    assert "Conjugate(w=15.0" in lines[0]
    for term, message in ((Term("g"), "reads g, which no rule writes"), (Term("x", a=np.nan), "of x must be finite")):
        with pytest.raises(ValueError, match=message):
            replace(plan, steps=[replace(step, row=(term,)) for step in plan.steps])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conjugate(w=-1.0), "w: must be a finite number >= 0, got -1.0"),
        (lambda: Conjugate(w=float("inf")), "w: must be a finite number >= 0, got inf"),
        (lambda: Conjugate(lam=float("nan")), "lam: must be a finite number, got nan"),
        (lambda: Conjugate(jacobian="full"), "jacobian: must be 'exact', .*, got 'full'"),
        (lambda: PiGDM(w=-0.1), "w: must be a finite number >= 0, got -0.1"),
        (lambda: PiGDM(weight="song"), "weight: must be 'ode' or 'constant', got 'song'"),
        (lambda: DDIM(eta=1.5), r"eta: must lie in \[0, 1\], got 1.5"),
        (lambda: DDNM(eta=-0.5), r"eta: must lie in \[0, 1\], got -0.5"),
        (lambda: row(Conjugate(), Flow(), 0.0, 0.5), "'epsilon' does not determine the sample where mu = 0"),
        (lambda: row(PiGDM(1.0), Flow(), 0.0, 0.5, "velocity"), "weight 'ode' needs mu > 0"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
