"""The authors' trajectories (tests/goldens/README.md) through the public API, in float32."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import ccfast
from ccfast import operators
from ccfast.testing import relative_error

CASES = sorted((Path(__file__).parent / "goldens").glob("*.npz"))
KERNEL = torch.tensor([[0.0, 0.1, 0.05], [0.2, 0.3, -0.1], [0.05, 0.1, 0.0]])
BLUR = np.exp(-(np.arange(-30, 30) ** 2) / 18.0)
OPERATORS = {
    "bicubic4": lambda shape, data: operators.Bicubic(shape, 4),
    "box4": lambda shape, data: operators.AveragePooling(shape, 4),
    "color": lambda shape, data: operators.Grayscale(shape, (0.3333, 0.3334, 0.3333)),
    "mask": lambda shape, data: operators.Inpainting(data["mask"]),
    "gauss": lambda shape, data: operators.SeparableBlur(shape, BLUR / BLUR.sum(), center=30, boundary="zero"),
}


def network(x, t):
    """The network of the goldens: its Jacobian is not symmetric."""
    kernel = KERNEL.to(x.dtype).expand(x.shape[1], 1, 3, 3)
    convolved = functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="circular"), kernel, groups=x.shape[1])
    return (0.2 + 0.7 * t[:, None, None, None] / 999) * x + 0.15 * torch.tanh(convolved)


def load(path):
    with np.load(path) as archive:
        data = {key: archive[key] for key in archive.files}
    return json.loads(str(data.pop("case"))), {key: torch.from_numpy(value) for key, value in data.items()}


def test_all_six_are_here():
    assert len(CASES) == 6


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_trajectory(path):
    case, data = load(path)
    operator = OPERATORS[case["operator"]]((3, case["size"], case["size"]), data)
    y = data["y"].float().reshape(-1, *operator.measurement_shape)
    assert relative_error(operator.pinv(y), data["pinv_y"]) < 1e-5
    assert relative_error(operator.project(data["x_true"]), data["proj_x"]) < 1e-5
    assert relative_error(operator.forward(data["x_true"]).flatten(1), data["hx"].flatten(1)) < 1e-5
    seen = []

    def recording(x, t):
        seen.append(float(t[0]))
        return network(x, t)

    denoiser = ccfast.Denoiser(recording, ccfast.schedules.VP(0.1, 20.0), time_map=ccfast.times.floor_timesteps(1000))
    solver = {
        "cpgdm": ccfast.solvers.Conjugate(w=case["w"], lam=case["lam"]),
        "pgdm": ccfast.solvers.PiGDM(w=case["w"]),
    }[case["algo"]]
    sampler = ccfast.Sampler(
        denoiser, operator, solver, start=1 - case["t_start"], end=1 - case["t_end"], steps=case["steps"]
    )
    x_init = data["x_init"].float()
    x = sampler(y, x_init=x_init)
    assert seen == data["model_timesteps"].tolist()
    assert relative_error(x, data["x_final"]) < 1e-5
    first = sampler(y, x_init=x_init, callback=lambda step, x0hat: True)
    assert relative_error(first, data["x_step1"]) < 1e-5
