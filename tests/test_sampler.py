"""The Sampler's public behaviour."""

from __future__ import annotations

import conftest
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import ccfast
from ccfast import Denoiser, Sampler
from ccfast.operators import AveragePooling, FourierBlur, Inpainting
from ccfast.schedules import EDM, VP, Flow
from ccfast.solvers import DDIM, DDNM, Conjugate, PiGDM
from ccfast.testing import LIBRARY, relative_error

SHAPE = (3, 16, 16)
RUN = 10 * LIBRARY[torch.float32]
"""The bound for a whole run with convolutions in its network."""


class Tiny(nn.Module):
    """A small convolutional network with parameters."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(8, channels, 3, padding=1)

    def forward(self, x, t, shift=0.0):
        time = t.to(x.dtype)[:, None, None, None] / 999
        return 0.8 * x[:, :3] + 0.3 * self.last(torch.tanh(self.first(x) + time)) + shift


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Tiny()


@pytest.fixture
def denoiser(network):
    return Denoiser(network, VP(), name="tiny")


@pytest.fixture
def operator():
    return AveragePooling(SHAPE, 4)


def measurement(operator, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return operator.forward(torch.rand((batch, *SHAPE), generator=generator) * 2 - 1)


def test_the_defaults_restore_something(denoiser, operator):
    y = measurement(operator)
    x = Sampler(denoiser, operator)(y, seed=0)
    assert x.shape == (2, *SHAPE)
    assert x.dtype == torch.float32
    assert x.device == y.device
    assert not x.requires_grad
    # Guidance pulls the restored image towards the measurement.
    unguided = Sampler(denoiser, operator, DDIM())(y, seed=0)
    assert relative_error(operator.forward(x), y) < 0.3 * relative_error(operator.forward(unguided), y)


def test_default_times():
    for schedule, start, end in ((VP(), 0.4, 0.001), (Flow(), 0.6, 1.0), (EDM(), VP().rho(0.4), VP().rho(0.001))):
        plan = Sampler(Denoiser(Tiny(), schedule), AveragePooling(SHAPE, 4)).plan
        spacing = 1 / 7 if isinstance(schedule, EDM) else 1  # Karras et al. take rho = 7.
        expected = np.linspace(start**spacing, end**spacing, 6) ** (1 / spacing)
        # Both evaluate one formula in float64, in different orders of at most a few thousand operations.
        np.testing.assert_allclose(plan.times, expected, rtol=1e-12)
    plan = Sampler(Denoiser(Tiny(), VP()), AveragePooling(SHAPE, 4), times=[0.9, 0.5, 0.1]).plan
    assert plan.times.tolist() == [0.9, 0.5, 0.1]


@pytest.mark.elsewhere
@pytest.mark.parametrize("solver", [Conjugate(), Conjugate(lam=0.2), DDNM(eta=0.8), DDIM(eta=1.0), PiGDM(eta=0.5)])
def test_a_sample_does_not_depend_on_its_batch(denoiser, operator, solver):
    y = measurement(operator, 3)
    sampler = Sampler(denoiser, operator, solver)
    together = sampler(y, seed=[5, 6, 7])
    for b, seed in enumerate((5, 6, 7)):
        torch.testing.assert_close(sampler(y[b : b + 1], seed=[seed])[0], together[b], rtol=RUN, atol=RUN)
    one = sampler(y, seed=5)
    torch.testing.assert_close(sampler(y[:2], seed=5), one[:2], rtol=RUN, atol=RUN)
    torch.testing.assert_close(one[0], together[0], rtol=RUN, atol=RUN)
    same = sampler(y[:1].repeat(2, 1, 1, 1), seed=5)
    assert relative_error(same[0], same[1]) > 1e-3  # One int gives every image its own noise.


@pytest.mark.elsewhere
def test_seeds_repeat_and_differ(denoiser, operator):
    y = measurement(operator)
    sampler = Sampler(denoiser, operator)
    assert torch.equal(sampler(y, seed=3), sampler(y, seed=3))
    assert not torch.equal(sampler(y, seed=3), sampler(y, seed=4))
    assert not torch.equal(sampler(y), sampler(y))
    torch.manual_seed(1)
    first = sampler(y)
    torch.manual_seed(1)
    assert torch.equal(sampler(y), first)
    assert torch.equal(sampler(y, seed=2**64 - 1), sampler(y, seed=[2**64 - 1] * 2)) is False


@pytest.mark.elsewhere
def test_posterior_samples(denoiser, operator):
    y = measurement(operator)
    sampler = Sampler(denoiser, operator)
    samples = sampler.sample(y, 5, seed=1)
    assert samples.shape == (5, 2, *SHAPE)
    assert torch.equal(samples[0], sampler(y, seed=1))
    torch.testing.assert_close(sampler.sample(y, 5, seed=1, together=3), samples, rtol=RUN, atol=RUN)
    torch.testing.assert_close(sampler.sample(y, 2, seed=[1, 8])[:, 0], samples[:2, 0], rtol=RUN, atol=RUN)
    assert relative_error(samples[0], samples[1]) > 1e-3


@pytest.mark.elsewhere
def test_posterior_samples_with_a_mask_for_every_image(denoiser):
    operator = Inpainting(torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.5, SHAPE)
    sampler = Sampler(denoiser, operator)
    y = measurement(operator)
    together = sampler.sample(y, 4, seed=1, together=4)
    torch.testing.assert_close(together, sampler.sample(y, 4, seed=1), rtol=RUN, atol=RUN)


@pytest.mark.elsewhere
def test_callback_sees_every_estimate_and_can_stop(denoiser, operator):
    y = measurement(operator)
    sampler = Sampler(denoiser, operator)
    seen = []
    x = sampler(y, seed=0, callback=lambda step, x0hat: seen.append((step, x0hat)))
    assert [step for step, _ in seen] == [0, 1, 2, 3, 4]
    assert torch.equal(x, sampler(y, seed=0))
    assert relative_error(seen[-1][1], x) < 0.2
    # Stopping after step k gives the run on the first k + 1 intervals of the grid.
    stopped = sampler(y, seed=0, callback=lambda step, x0hat: step == 1)
    short = Sampler(denoiser, operator, times=sampler.plan.times[:3])
    assert torch.equal(stopped, short(y, seed=0))
    # The callback may write to its estimate without changing the run.
    assert torch.equal(sampler(y, seed=0, callback=lambda step, x0hat: x0hat.zero_() is None), x)


@pytest.mark.elsewhere
def test_the_result_is_the_callers_own(denoiser, operator):
    y = measurement(operator)
    sampler = Sampler(denoiser, operator)
    first = sampler(y, seed=0)
    kept = first.clone()
    sampler(y, seed=1)
    assert torch.equal(first, kept)
    first.zero_()
    assert torch.equal(sampler(y, seed=0), kept)


@pytest.mark.elsewhere
def test_another_operator_of_the_same_kind(denoiser):
    masks = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    one, other = (Inpainting(mask[None], SHAPE) for mask in masks)
    sampler = Sampler(denoiser, one)
    y = measurement(other)
    assert torch.equal(sampler(y, seed=0, operator=other), Sampler(denoiser, other)(y, seed=0))
    blurs = [FourierBlur(SHAPE, torch.ones(1, k) / k) for k in (3, 5)]
    sampler = Sampler(denoiser, blurs[0])
    y = measurement(blurs[1])
    assert torch.equal(sampler(y, seed=0, operator=blurs[1]), Sampler(denoiser, blurs[1])(y, seed=0))
    with pytest.raises(ValueError, match="operator: must have the kind and shapes of the sampler's"):
        sampler(y, operator=one)
    with pytest.raises(TypeError, match="operator: must be a ccfast Operator, got int"):
        sampler(y, operator=3)


def test_hard_consistency(denoiser, operator):
    y = measurement(operator)
    soft = Sampler(denoiser, operator)(y, seed=0)
    hard = Sampler(denoiser, operator, hard_consistency=True)(y, seed=0)
    assert relative_error(operator.forward(hard), y) < 1e-6 < relative_error(operator.forward(soft), y)
    null = hard - soft
    assert relative_error(operator.project(null), null) < 1e-5


def test_network_kwargs(network, operator):
    y = measurement(operator)
    plain = Sampler(Denoiser(network, VP()), operator)(y, seed=0)
    zero = Sampler(Denoiser(network, VP(), network_kwargs={"shift": 0.0}), operator)(y, seed=0)
    shifted = Sampler(Denoiser(network, VP(), network_kwargs={"shift": 0.1}), operator)(y, seed=0)
    assert torch.equal(plain, zero)
    assert not torch.equal(plain, shifted)


def test_statistics_and_warmup(denoiser, operator):
    sampler = Sampler(denoiser, operator, steps=4)
    assert sampler.warmup(2) > 0
    assert sampler.stats()["network_evaluations"] == 0
    sampler(measurement(operator), seed=0)
    sampler(measurement(operator), seed=0, callback=lambda step, x0hat: True)
    stats = sampler.stats()
    assert (stats["calls"], stats["images"], stats["network_evaluations"], stats["vjps"]) == (2, 4, 5, 5)
    assert stats["backend"] == sampler.backend
    assert Sampler(denoiser, operator, DDNM()).plan.vjp_steps == 0


@pytest.mark.elsewhere
def test_several_threads_share_a_sampler(denoiser, operator):
    y = measurement(operator)
    sampler = Sampler(denoiser, operator)
    expected = [sampler(y, seed=seed) for seed in range(8)]
    got: dict[int, torch.Tensor] = {}

    def work(seed):
        got[seed] = sampler(y, seed=seed)

    conftest.in_threads(work, 8)
    for seed, x in enumerate(expected):
        assert torch.equal(got[seed], x)


def test_parameters_are_never_touched(network, operator):
    during = []

    class Watching(Tiny):
        def forward(self, x, t):
            during.append([p.requires_grad for p in self.parameters()])
            return super().forward(x, t)

    watching = Watching()
    watching.last.bias.requires_grad_(False)
    Sampler(Denoiser(watching, VP()), operator)(measurement(operator), seed=0)
    assert all(flags == [True, True, True, False] for flags in during)
    assert all(p.grad is None for p in watching.parameters())

    class Failing(Tiny):
        def forward(self, x, t):
            raise ArithmeticError("inside the network")

    failing = Failing()
    with pytest.raises(ArithmeticError):
        Sampler(Denoiser(failing, VP()), operator)(measurement(operator), seed=0)
    assert all(p.requires_grad for p in failing.parameters())


@pytest.mark.elsewhere
def test_network_in_its_own_dtype(operator):
    torch.manual_seed(0)
    network = Tiny()
    y = measurement(operator)
    single = Sampler(Denoiser(network, VP()), operator)(y, seed=0)
    seen = []

    class Half(Tiny):
        def forward(self, x, t):
            seen.append((x.dtype, t.dtype))
            return super().forward(x, t)

    half = Half()
    half.load_state_dict(network.state_dict())
    x = Sampler(Denoiser(half.bfloat16(), VP()), operator)(y, seed=0)
    assert x.dtype == torch.float32
    assert set(seen) == {(torch.bfloat16, torch.float32)}
    assert relative_error(x, single) < 0.03
    double = Sampler(Denoiser(network, VP()), operator)(y.double(), seed=0)
    assert double.dtype == torch.float64
    assert relative_error(single, double) < 1e-5


class Casts(TorchDispatchMode):
    """A dispatch mode that counts casts of tensors with the given shapes."""

    def __init__(self, shapes):
        super().__init__()
        self.shapes, self.count = shapes, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default and tuple(args[0].shape) in self.shapes:
            self.count += 1
        return function(*args, **(kwargs or {}))


def test_autocast_casts_a_weight_once_a_run(denoiser, network, operator):
    y = measurement(operator)
    single = Sampler(denoiser, operator)(y, seed=0)
    sampler = Sampler(denoiser, operator, autocast=torch.bfloat16)
    with Casts({tuple(p.shape) for p in network.parameters()}) as casts:
        first = sampler(y, seed=0)
    assert casts.count == len(list(network.parameters()))
    assert first.dtype == torch.float32
    assert 1e-6 < relative_error(first, single) < 0.03
    with torch.no_grad():
        network.first.weight.mul_(-1.0)  # Changed weights are cast again.
    changed = sampler(y, seed=0)
    assert relative_error(changed, first) > 1e-3
    assert relative_error(changed, Sampler(denoiser, operator)(y, seed=0)) < 0.03


def test_the_network_may_run_under_torch_compile(denoiser, operator):
    y = measurement(operator)
    x = Sampler(denoiser, operator, compile_network=True)(y, seed=0)
    torch.testing.assert_close(x, Sampler(denoiser, operator)(y, seed=0), rtol=1e-4, atol=1e-4)


@pytest.mark.elsewhere
@pytest.mark.parametrize("schedule", [VP(), Flow(), EDM()], ids=lambda v: type(v).__name__)
def test_the_default_dtype_does_not_matter(network, operator, schedule):
    denoiser = Denoiser(network, schedule, "edm" if isinstance(schedule, EDM) else "velocity")
    y = measurement(operator)
    expected = Sampler(denoiser, operator, DDNM(eta=0.5))(y, seed=0)
    torch.set_default_dtype(torch.float64)
    try:
        got = Sampler(denoiser, AveragePooling(SHAPE, 4), DDNM(eta=0.5))(y, seed=0)
    finally:
        torch.set_default_dtype(torch.float32)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


@pytest.mark.elsewhere
def test_without_a_vjp_inference_mode_and_detached_networks_work(network, operator):
    y = measurement(operator)
    denoiser = Denoiser(lambda x, t: network(x, t).detach(), VP())
    sampler = Sampler(denoiser, operator, Conjugate(jacobian="none"))
    x = sampler(y, seed=0)
    with torch.inference_mode():
        inside = sampler(measurement(operator), seed=0)
    assert torch.equal(inside, x)
    assert torch.equal(sampler(y, seed=0), x)  # Buffers of inference mode are not used outside it.


def test_signals_and_empty_batches():
    operator = AveragePooling((2, 32), 4)
    sampler = Sampler(Denoiser(lambda x, t: 0.9 * x, VP()), operator)
    x = sampler(torch.randn(3, 2, 8), seed=0)
    assert x.shape == (3, 2, 32)
    assert sampler(torch.empty(0, 2, 8)).shape == (0, 2, 32)


def test_memory_estimate(network, denoiser, operator):
    estimate = Sampler(denoiser, operator, Conjugate()).memory_estimate(4)
    state = 4 * 3 * 16 * 16 * 4
    assert estimate.weights == sum(p.numel() * 4 for p in network.parameters())
    assert 4 * state <= estimate.buffers <= 6.1 * state
    hidden = 4 * 8 * 16 * 16 * 4
    assert hidden <= estimate.activations <= 6 * hidden
    assert estimate.total == sum(estimate)
    assert Sampler(denoiser, operator, DDNM()).memory_estimate(4).activations == 0
    bigger = Sampler(denoiser, operator).memory_estimate(8)
    assert bigger.activations == pytest.approx(2 * estimate.activations, rel=0.1)


def test_memory_estimate_of_a_network_that_looks_at_values(operator):
    sampler = Sampler(Denoiser(lambda x, t: x * float(t[0]), VP(), name="peeking"), operator)
    with pytest.raises(RuntimeError, match="memory_estimate: network peeking cannot be traced without values"):
        sampler.memory_estimate()


def test_vjp_steps_are_one_network_forward_each(network, operator):
    calls = []

    class Counting(Tiny):
        def forward(self, x, t):
            calls.append(x.shape)
            return super().forward(x, t)

    Sampler(Denoiser(Counting(), VP()), operator, steps=5)(measurement(operator), seed=0)
    assert len(calls) == 5


def test_the_public_names():
    assert set(ccfast.__all__) <= set(dir(ccfast))
    assert "backend reference: yes" in ccfast.show_config()
