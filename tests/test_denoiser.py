"""The meaning of a network's output: conversions between all parametrisations on all schedules."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccfast import Denoiser
from ccfast.denoiser import PREDICTIONS, Boundary
from ccfast.schedules import EDM, VE, VP, DiscreteVP, Flow

PRECONDITIONED = ("edm", "consistency")
SCHEDULES = [
    (VP(), 0.37),
    (DiscreteVP(np.linspace(1e-4, 0.02, 1000)), 0.37),
    (VE(0.01, 50.0), 1.7),
    (EDM(), 1.7),
    (Flow(), 0.42),
]


@pytest.mark.parametrize(
    ("schedule", "t", "prediction"),
    [(*row, k) for row in SCHEDULES for k in PREDICTIONS if k not in PRECONDITIONED or isinstance(row[0], EDM)],
    ids=str,
)
def test_every_parametrisation_returns_sample_and_noise(schedule, t, prediction):
    rng = np.random.default_rng(0)
    x0, eps = rng.standard_normal((2, 3, 5))
    mu, sigma = float(schedule.mean(t)), float(schedule.std(t))
    x = mu * x0 + sigma * eps
    outputs = {
        "epsilon": eps,
        "sample": x0,
        "v_prediction": mu * eps - sigma * x0,
        "velocity": x0 - eps,
        "score": -eps / sigma,
    }
    if prediction == "edm":
        data = schedule.sigma_data
        skip, out = data**2 / (sigma**2 + data**2), sigma * data / np.sqrt(sigma**2 + data**2)
        outputs["edm"] = (x0 - skip * x) / out
    if prediction == "consistency":
        data, above = schedule.sigma_data, sigma - schedule.sigma_min
        skip, out = data**2 / (above**2 + data**2), above * data / np.sqrt(sigma**2 + data**2)
        outputs["consistency"] = (x0 - skip * x) / out
    denoiser = Denoiser(lambda x, t: x, schedule, prediction)
    c = denoiser.coefficients(np.array([t]))
    np.testing.assert_allclose(c.p * x + c.q * outputs[prediction], x0, atol=1e-13)
    np.testing.assert_allclose(c.e * x + c.f * outputs[prediction], eps, atol=1e-13)
    assert c.c_in[0] == pytest.approx(1 / np.hypot(sigma, 0.5) if prediction in PRECONDITIONED else 1.0)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_the_boundary_condition_is_the_formula_s(prediction):
    """At timestep 0 the estimate is x itself, whatever the network returns."""
    schedule = DiscreteVP(np.linspace(1e-4, 0.02, 1000))
    rng = np.random.default_rng(0)
    x, F = torch.from_numpy(rng.standard_normal((2, 2, 3, 4)))
    plain = Denoiser(lambda x, t: F, schedule, prediction)
    denoiser = Denoiser(lambda x, t: F, schedule, prediction, boundary=Boundary(0.3, 0.7))
    for index in (0, 3, 500):
        t, s = index / 999, 0.3 * index
        expected = 0.49 / (s**2 + 0.49) * x + s / np.sqrt(s**2 + 0.49) * plain(x, t)
        torch.testing.assert_close(denoiser(x, t), expected, rtol=1e-12, atol=1e-12)
        c = denoiser.coefficients(np.array([t]))
        eps = (x - float(schedule.mean(t)) * expected) / float(schedule.std(t))
        torch.testing.assert_close(float(c.e[0]) * x + float(c.f[0]) * F, eps, rtol=1e-10, atol=1e-10)
    guided = denoiser.guided(1.0, {})
    assert guided.boundary == Boundary(0.3, 0.7)
    for words, error in (("scaling: must be a finite number > 0, got 0", ValueError), ("boundary: must be", TypeError)):
        with pytest.raises(error, match=words):
            Denoiser(lambda x, t: F, schedule, boundary=(Boundary(0) if error is ValueError else 1.0))


def test_the_network_sees_scaled_inputs_and_mapped_times():
    seen = []

    def network(x, t, label):
        seen.append((x.clone(), t.clone(), label))
        return torch.zeros_like(x)

    schedule = EDM()
    x = torch.full((2, 1, 4, 4), 3.0)
    denoised = Denoiser(network, schedule, "edm", network_kwargs={"label": 7})(x, 2.0)
    scaled, time, label = seen[0]
    assert torch.allclose(scaled, x / np.hypot(2.0, 0.5))
    assert torch.allclose(time, torch.full((2,), np.log(2.0) / 4, dtype=torch.float32))
    assert label == 7
    assert torch.allclose(denoised, x * 0.25 / 4.25)


def test_learned_variance_is_dropped():
    x = torch.randn(2, 3, 8, 8)
    denoiser = Denoiser(lambda x, t: torch.cat([0.5 * x, torch.full_like(x, torch.nan)], 1), VP(), "sample")
    assert torch.equal(denoiser(x, 0.3), 0.5 * x)


def test_pure_noise_and_no_noise():
    """At mu = 0 a network that predicts v or the sample gives x0; at sigma = 0 the estimate is the image itself."""
    schedule = DiscreteVP(np.append(np.linspace(1e-4, 0.02, 999), 1.0))
    x = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
    network = lambda x, t: 0.3 * x + 0.1  # noqa: E731
    assert torch.equal(Denoiser(network, schedule, "sample")(x, 1.0), 0.3 * x + 0.1)
    assert torch.equal(Denoiser(network, schedule, "v_prediction")(x, 1.0), -(0.3 * x + 0.1))
    with pytest.raises(ValueError, match=r"'epsilon' does not determine the sample where mu = 0, got t = 1, .* start"):
        Denoiser(network, schedule, "epsilon")(x, 1.0)
    for prediction in ("epsilon", "v_prediction"):
        assert torch.equal(Denoiser(network, schedule, prediction)(x, -1 / 999), x)


def test_times_out_of_range_are_refused():
    for schedule, t in ((VP(), 500.0), (VE(0.01, 50.0), 51.0), (Flow(), -0.1), (VP(), float("nan"))):
        with pytest.raises(ValueError, match=r"times: .* takes times in"):
            Denoiser(lambda x, t: x, schedule, "sample")(torch.zeros(1, 1, 4, 4), t)


def test_time_maps():
    t = np.array([0.4, 0.2])
    assert Denoiser(abs, VP()).network_times(t).tolist() == (999 * t).tolist()
    assert Denoiser(abs, VP(), time_map=lambda t: 1 - t).network_times(t).tolist() == (1 - t).tolist()
    with pytest.raises(ValueError, match="time_map: must return finite numbers"):
        Denoiser(abs, VP(), time_map=lambda t: float("nan")).network_times(t)
    scale = torch.tensor(2.0, requires_grad=True)
    assert Denoiser(abs, VP(), time_map=lambda t: t * scale).network_times(np.array([0.5])).tolist() == [1.0]
    for wrong in (lambda t: None, lambda t: "late", lambda t: [t, t]):
        with pytest.raises(TypeError, match="time_map: must "):
            Denoiser(abs, VP(), time_map=wrong).network_times(t)


def test_names():
    assert repr(Denoiser(abs, VP(), name="photo")) == "photo"
    assert "VP(beta_min=0.1, beta_max=20.0)" in repr(Denoiser(abs, VP()))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Denoiser(3, VP()), TypeError, "network: must be callable"),
        (lambda: Denoiser(abs, "vp"), TypeError, "schedule: must be one of ccfast.schedules, got 'vp'"),
        (lambda: Denoiser(abs, VP(), "noise"), ValueError, "prediction: must be one of epsilon, .*, got 'noise'"),
        (lambda: Denoiser(abs, VP(), "edm"), ValueError, "'edm' needs the EDM schedule"),
        (lambda: Denoiser(abs, VP(), time_map=1.0), TypeError, "time_map: must be callable"),
        (
            lambda: Denoiser(lambda x, t: x[:, :, 1:], VP())(torch.zeros(1, 3, 4, 4), 0.5),
            ValueError,
            "must return shape",
        ),
        (lambda: Denoiser(lambda x, t: (x, x), VP())(torch.zeros(1, 3, 4, 4), 0.5), TypeError, "got tuple"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
