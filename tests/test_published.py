"""The port of the published algorithm, which speed is compared with, on the authors' trajectories and our sampler."""

from __future__ import annotations

import pytest
import torch
from test_goldens import CASES, OPERATORS, load, network

import ccfast
from bench.published import Published, full_svd
from ccfast.testing import relative_error

CONJUGATE = [path for path in CASES if path.stem.startswith("cpgdm")]


@pytest.mark.parametrize("path", CONJUGATE, ids=lambda path: path.stem)
def test_trajectory(path):
    """The port differs from the authors' trajectory by no more than its ODE tolerance and float32 rounding."""
    case, data = load(path)
    operator = OPERATORS[case["operator"]]((3, case["size"], case["size"]), data)
    denoiser = ccfast.Denoiser(network, ccfast.schedules.VP(), time_map=ccfast.times.floor_timesteps(1000))
    times = (1 - torch.linspace(case["t_start"], case["t_end"], case["steps"] + 1, dtype=torch.float64)).tolist()
    y = data["y"].reshape(-1, *operator.measurement_shape)

    def error(**options):
        published = Published(denoiser, operator, case["w"], case["lam"], times, **options)
        return relative_error(published(y, data["x_init"]), data["x_final"])

    assert error(basis_dtype=torch.float64, tolerance=1e-9) < 1e-5
    # An error of the coefficients grows by e^{w B(t)/2}: 2e5 in the first step of bicubic4 (w = 15), below 150 in
    # the others. So does the rounding of the conjugate state where it is projected in float32.
    large = case["w"] > 10
    assert error(basis_dtype=torch.float64) < (5e-3 if large else 5e-5)
    assert error() < (5e-3 if large else 5e-5)


@pytest.mark.parametrize("path", CONJUGATE, ids=lambda path: path.stem)
def test_full_bases(path):
    """H, H+ and P of the full bases are right; a mask's published measurement holds the observed pixels alone."""
    case, data = load(path)
    operator = OPERATORS[case["operator"]]((3, case["size"], case["size"]), data)
    svd, x = full_svd(operator, torch.float64), data["x_true"].double()
    y, observed = operator.forward(x).flatten(1), slice(None)
    if operator.kind == "mask":
        observed = operator.singular_values.expand(operator.shape).flatten() > 0
    assert relative_error(svd.forward(x), y[:, observed]) < 1e-12
    assert relative_error(svd.pinv(y), operator.pinv(operator.forward(x))) < 1e-12
    assert relative_error(svd.pinv(svd.forward(x)), operator.project(x)) < 1e-12
    c = svd.down(x.flatten(1))
    assert relative_error(svd.lift(c), x.flatten(1)) < 1e-12
    assert relative_error(c.norm(), x.norm()) < 1e-12


def test_no_full_basis():
    operator = ccfast.operators.FourierBlur((3, 8, 8), torch.ones(3, 3) / 9)
    with pytest.raises(ValueError, match="must be a mask for all images, pooling, greyscale or separable"):
        full_svd(operator, torch.float32)


def test_needs_epsilon_on_vp():
    denoiser = ccfast.Denoiser(network, ccfast.schedules.Flow(), "velocity")
    with pytest.raises(ValueError, match="must predict epsilon on the VP schedule"):
        Published(denoiser, ccfast.operators.AveragePooling((3, 8, 8), 4), 1.0, 0.0, [0.4, 0.1])
