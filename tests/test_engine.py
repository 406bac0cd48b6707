"""The loop: what it calls, and how often. test_capture shows that it does not wait for the device."""

from __future__ import annotations

import conftest
import pytest
import torch
from recorder import Recorder
from torch import nn

from ccfast import Denoiser, Sampler
from ccfast.engine.backends import BACKENDS, can_run
from ccfast.operators import AveragePooling, Bicubic, Compose, FourierBlur, Grayscale, Inpainting, LinearOperator
from ccfast.schedules import EDM, VP
from ccfast.solvers import DDNM, Conjugate, PiGDM

pytestmark = pytest.mark.filterwarnings("ignore:jacobian. 'exact' is stable")

SHAPE = (3, 16, 16)
aten = torch.ops.aten
MEANS = AveragePooling((1, 16, 16), 4).forward, AveragePooling((1, 16, 16), 4).adjoint
OPERATORS = {
    "mask": lambda: Inpainting(torch.ones(1, 16, 16), SHAPE),
    "block": lambda: AveragePooling(SHAPE, 4),
    "channel": lambda: Grayscale(SHAPE),
    "separable": lambda: Bicubic(SHAPE, 4),
    "fourier": lambda: FourierBlur(SHAPE, torch.ones(3, 3) / 9),
    "krylov": lambda: Compose(Grayscale(SHAPE), LinearOperator(*MEANS, (1, 16, 16), iterations=3), iterations=3),
}
FURTHER = {
    "general": Conjugate(lam=0.1),
    "pigdm": PiGDM(eta=0.5),
    "ddnm": DDNM(),
    "order 2": Conjugate(order=2, eta=0.5),
    "rayleigh": Conjugate(centred="rayleigh", order=2),
}
SOLVERS = {name: entry.solver for name, entry in conftest.SOLVERS.items()} | FURTHER
RUNNING = [name for name in BACKENDS if can_run(name)]


class Network(nn.Module):
    """A network that records its calls: one is due a step, on an input that needs a gradient only for a VJP."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)
        self.tracked: list[bool] = []

    def forward(self, x, t):
        self.tracked.append(x.requires_grad)
        return torch.tanh(self.convolution(x))


@pytest.mark.parametrize("backend", RUNNING)
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_what_a_run_calls(operator, solver, backend, monkeypatch):
    operator, network = operator(), Network()
    sampler = Sampler(Denoiser(network, VP()), operator, solver, steps=4, backend=backend)
    y = operator.forward(torch.rand(2, *SHAPE))
    sampler(y, seed=0)  # The first run moves the operator's constants.
    inside = []
    original = sampler._program.run

    def recorded(*args, **kwargs):
        with Recorder() as recorder:
            steps = original(*args, **kwargs)
        inside.append(recorder.operations)
        return steps

    monkeypatch.setattr(sampler._program, "run", recorded)
    pinv_calls = []
    pinv = type(operator).pinv
    monkeypatch.setattr(type(operator), "pinv", lambda self, y: pinv_calls.append(1) or pinv(self, y))
    network.tracked.clear()
    sampler(y, seed=0)
    sampler(y, seed=1)
    assert len(pinv_calls) == 2  # Each call computes H+ y once.
    product, taken = sampler._program.product, sampler.plan.vjp_steps
    calls = [(need.tracked, *[False] * (need.h * product.evaluations)) for need in sampler._program.needs]
    assert network.tracked == 2 * [tracked for call in calls for tracked in call]
    assert sum(network.tracked) == 2 * taken * product.graph
    backward = [op for op in inside[0] if op is aten.convolution_backward.default]
    assert len(backward) == taken * product.graph


def test_buffers_are_kept_between_calls():
    operator = AveragePooling(SHAPE, 4)
    sampler = Sampler(Denoiser(Network(), VP()), operator)
    y = torch.rand(2, 3, 4, 4)
    addresses = []
    for seed in range(3):
        sampler(y, seed=seed)
        (buffers,) = next(iter(sampler._pool.values()))
        addresses.append(sorted(t.data_ptr() for t in (buffers.state, buffers.spare, buffers.cotangent)))
    assert addresses[0] == addresses[1] == addresses[2]
    assert buffers.input.data_ptr() != buffers.state.data_ptr()  # The network may overwrite its input.


def test_a_scaled_network_gets_an_input_of_its_own():
    seen = []

    class Scaled(Network):
        def forward(self, x, t):
            seen.append((float(x.detach().abs().max()), float(t[0])))
            return super().forward(x, t)

    operator = AveragePooling(SHAPE, 4)
    sampler = Sampler(Denoiser(Scaled(), EDM(), "edm"), operator, start=5.0, end=0.1, steps=3)
    x_init = torch.full((1, *SHAPE), 2.0)
    sampler(torch.rand(1, 3, 4, 4), x_init=x_init)
    assert seen[0][0] == pytest.approx(2.0 / (25 + 0.25) ** 0.5)
    assert [t for _, t in seen] == pytest.approx([step.network_time for step in sampler.plan.steps])


def test_the_gradient_is_with_respect_to_the_unscaled_state():
    """An EDM network gives the trajectory of the x0 network that it is made of."""
    operator = AveragePooling(SHAPE, 4)
    schedule, network = EDM(), Network()

    def raw(x, t):
        return network(x, t)

    def sample(x, t):
        sigma = torch.exp(4 * t)[:, None, None, None]
        norm = (sigma**2 + 0.25).sqrt()
        return 0.25 / norm**2 * x + sigma * 0.5 / norm * network(x / norm, t)

    y = operator.forward(torch.rand(2, *SHAPE))
    for solver in (Conjugate(5.0), Conjugate(5.0, lam=0.1), PiGDM(0.5)):
        results = [
            Sampler(
                Denoiser(function, schedule, prediction, time_map=schedule.default_time_map),
                operator,
                solver,
                start=2.0,
            )(y, seed=0)
            for function, prediction in ((raw, "edm"), (sample, "sample"))
        ]
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)
