"""Networks that do what other people's do, in every way that a solver uses one: right, or an error with the cure.

A row of ZOO is a network and the plain one that it must equal. A row of USES is what a solver needs: a derivative, no
derivative, a difference, or history. Each result is compared with that of a fresh sampler of the plain network.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ccfast import Denoiser, Sampler
from ccfast.operators import AveragePooling
from ccfast.schedules import VE, VP
from ccfast.solvers import BDIA, DDNM, DEIS, Conjugate, DPMSolverPP, UniPC
from ccfast.testing import relative_error
from ccfast.times import floor_timesteps

SHAPE = (3, 8, 8)
OPERATOR = AveragePooling(SHAPE, 4)
EQUAL = 1e-5
"""The relative distance in float32 between networks whose arithmetic is the same but for the order of calls."""

USES = {
    "VJP": Conjugate(5.0),
    "none": DDNM(),
    "difference": Conjugate(5.0, product="finite_difference"),
    "forward": Conjugate(5.0, product="forward"),
    "history of outputs": DPMSolverPP(order=3),
    "history of outputs, corrected": UniPC(),
    "history of noises": DEIS(),
    "history of states": BDIA(),
    "history of products": Conjugate(5.0, order=2),
}


class Plain(nn.Module):
    """The network that the others equal; smooth, and with a derivative that depends on the input."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def block(self, x):
        return self.b(torch.tanh(self.a(x)))

    def forward(self, x, t):
        return 0.5 * self.block(self.first(x)) * (1 + t.reshape(-1, 1, 1, 1) / 1000)

    def first(self, x):
        return x


def variant(**methods):
    """A subclass of Plain with other methods."""
    return type("Variant", (Plain,), methods)


class Recompute(torch.autograd.Function):
    """A block whose backward evaluates it again and asks for the derivatives of the weights, too."""

    @staticmethod
    def forward(ctx, block, x, *weights):
        ctx.block, ctx.weights = block, weights
        ctx.save_for_backward(x)
        return block(x)

    @staticmethod
    def backward(ctx, cotangent):
        with torch.enable_grad():
            leaf = ctx.saved_tensors[0].detach().requires_grad_()
            output = ctx.block(leaf)
        return None, *torch.autograd.grad(output, (leaf, *ctx.weights), cotangent)


def reused(network):
    """A network that returns the same tensor at every call, as captured graphs and compiled engines do."""
    buffers = {}

    def call(x, t):
        output = network(x, t)
        if output.requires_grad or torch.autograd.forward_ad._current_level >= 0:
            return output
        kept = buffers.setdefault(x.shape, torch.empty_like(output))
        return kept.copy_(output)

    return call


def into_numpy(x):
    x.detach().numpy()[:] *= 0.5
    return x


def overwrites_times(self, x, t):
    t = t.div_(1000)
    return 0.5 * self.block(x) * (1 + t.reshape(-1, 1, 1, 1))


@dataclass(frozen=True)
class Sample:
    sample: torch.Tensor


def wrapped(wrap):
    """A network that returns Plain's output in a container."""
    network = Plain()
    return lambda x, t: wrap(network(x, t))


def halved(x):
    return x * 0.5


PLAIN = Plain()
NO_JVP = r"no forward-mode derivative \(jvp\): .*product='reverse'"

ZOO = {
    # A row is name: (the network, its plain twin, the uses that are refused with the pattern of the error).
    "works in place: clamp_": (
        variant(first=lambda self, x: x.clamp_(-1, 1))(),
        variant(first=lambda self, x: x.clamp(-1, 1))(),
        {},
    ),
    "works in place: ReLU": (
        variant(first=lambda self, x: functional.relu(x, inplace=True))(),
        variant(first=lambda self, x: functional.relu(x))(),
        {},
    ),
    "works in place: slices": (
        variant(first=lambda self, x: x.__setitem__(slice(None), x * 0.5) or x)(),
        variant(first=lambda self, x: halved(x))(),
        {},
    ),
    "works in place on its times": (variant(forward=overwrites_times)(), Plain(), {}),
    "keeps its times for the derivative": (
        variant(forward=lambda self, x, t: self.block(x * t.reshape(-1, 1, 1, 1)) / 1000)(),
        variant(forward=lambda self, x, t: self.block(x * t.clone().reshape(-1, 1, 1, 1)) / 1000)(),
        {},
    ),
    "returns its input": (lambda x, t: x, lambda x, t: x.clone(), {}),
    "returns a view of its input": (lambda x, t: x.view(-1, *SHAPE), lambda x, t: x.clone(), {}),
    "returns an expanded tensor": (
        lambda x, t: x.mean(dim=(2, 3), keepdim=True).expand_as(x),
        lambda x, t: x.mean(dim=(2, 3), keepdim=True).expand_as(x).contiguous(),
        {},
    ),
    "returns the same buffer": (reused(Plain()), Plain(), {}),
    "checkpoints": (
        variant(first=lambda self, x: checkpoint(halved, x, use_reentrant=False))(),
        variant(first=lambda self, x: halved(x))(),
        {},
    ),
    "checkpoints, reentrant": (
        variant(first=lambda self, x: checkpoint(halved, x, use_reentrant=True))(),
        variant(first=lambda self, x: halved(x))(),
        {**dict.fromkeys(("VJP", "history of products"), "reentrant.*use_reentrant=False"), "forward": NO_JVP},
    ),
    "recomputes by a function of its own": (
        lambda x, t: 0.5 * Recompute.apply(PLAIN.block, x, *PLAIN.parameters()) * (1 + t[0] / 1000),
        Plain(),
        {"forward": NO_JVP},
    ),
    "returns a tuple of one": (wrapped(lambda f: (f,)), Plain(), {}),
    "returns a dict": (wrapped(lambda f: {"sample": f}), Plain(), {}),
    "returns a dataclass": (wrapped(Sample), Plain(), {}),
    "is bound": (Plain().forward, Plain(), {}),
    "is a partial": (functools.partial(lambda scale, x, t: scale * PLAIN(x, t), 1.0), Plain(), {}),
    "is scripted": (None, None, {}),
    "is DataParallel": (nn.DataParallel(Plain()), Plain(), {}),
    "changes grad mode": (
        lambda x, t: (torch.set_grad_enabled(torch.is_grad_enabled()), PLAIN(x, t))[1],
        Plain(),
        {},
    ),
}


def scripted():
    class Straight(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x, t):
            return 0.5 * self.a(x)

    network = Straight()
    return torch.jit.trace(network, (torch.zeros(1, *SHAPE), torch.zeros(1)), check_trace=False), network


ZOO["is scripted"] = (*scripted(), {})


def measured(batch=2):
    return torch.rand(batch, 3, 2, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1


def restored(network, solver, backend="auto", y=None, **options):
    sampler = Sampler(Denoiser(network, VP()), OPERATOR, solver, steps=5, backend=backend, **options)
    y = measured() if y is None else y
    first = sampler(y, seed=0)
    assert torch.equal(sampler(y, seed=0), first), "the second call differs"
    return first


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", ZOO)
def test_zoo(name, use, backend):
    network, plain, refused = ZOO[name]
    if use in refused:
        with pytest.raises((RuntimeError, ValueError, TypeError), match=refused[use]):
            restored(network, USES[use], backend)
        return
    assert relative_error(restored(network, USES[use], backend), restored(plain, USES[use], backend)) < EQUAL


# ------------------------------------------------------------------------------------ weights
class Cast(nn.Conv2d):
    """A convolution that keeps its weights in another dtype than it computes in."""

    def forward(self, x):
        return functional.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), padding=1)


@pytest.mark.parametrize("use", USES)
def test_weights_that_are_only_stored_in_float8(use):
    results = []
    for storage in (torch.float32, torch.float8_e4m3fn):
        network = Plain()
        network.a.__class__ = network.b.__class__ = Cast
        for p in network.parameters():
            p.requires_grad_(False)
            p.data = p.data.to(torch.float8_e4m3fn).to(storage)
        results.append(restored(network, USES[use]))
    assert relative_error(results[1], results[0]) < EQUAL


def offloaded():
    """A network whose weights are on the meta device except while they are used."""
    network, kept = Plain(), {}
    for name, part in network.named_children():
        kept[name] = dict(part.named_parameters())

        def load(module, given, name=name):
            for key, value in kept[name].items():
                module._parameters[key] = value

        def unload(module, given, output):
            for key, value in module._parameters.items():
                module._parameters[key] = nn.Parameter(value.detach().to("meta"))

        part.register_forward_pre_hook(load)
        part.register_forward_hook(unload)
        unload(part, None, None)
    return network


@pytest.mark.parametrize("use", USES)
def test_weights_that_hooks_bring(use):
    assert relative_error(restored(offloaded(), USES[use]), restored(Plain(), USES[use])) < EQUAL


def test_weights_that_were_not_loaded():
    with torch.device("meta"):
        network = Plain()
    with pytest.raises(ValueError, match=r"weights must have values, got the 'meta' device; .*assign=True"):
        restored(network, DDNM())


EDITS = {
    "written through .data": lambda net: [p.data.mul_(0.1) for p in net.parameters()],
    "assigned to .data": lambda net: [setattr(p, "data", p.data * 0.1) for p in net.parameters()],
    "load_state_dict(assign=True)": lambda net: net.load_state_dict(
        {name: value * 0.1 for name, value in net.state_dict().items()}, assign=True
    ),
    "a layer replaced": lambda net: setattr(net, "b", nn.Conv2d(8, 3, 1)),
    "a layer without weights replaced": lambda net: setattr(net, "first", torch.tanh),
    "a hook added": lambda net: net.b.register_forward_hook(lambda module, given, output: 0.1 * output),
    "another dtype": lambda net: net.double(),
    "parametrised": lambda net: nn.utils.parametrize.register_parametrization(net.b, "weight", Tenth()),
}


class Tenth(nn.Module):
    def forward(self, weight):
        return 0.1 * weight


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("name", EDITS)
def test_changes_of_a_network_are_seen(name, autocast):
    network = Plain()
    sampler = Sampler(Denoiser(network, VP()), OPERATOR, autocast=autocast)
    before = sampler(measured(), seed=0)
    EDITS[name](network)
    want = Sampler(Denoiser(network, VP()), OPERATOR, autocast=autocast)(measured(), seed=0)
    if name != "another dtype":
        assert relative_error(before, want) > 1e-3
    assert torch.equal(sampler(measured(), seed=0), want)


def test_another_network_of_the_same_denoiser_is_seen():
    denoiser = Denoiser(Plain(), VP())
    sampler = Sampler(denoiser, OPERATOR)
    sampler(measured(), seed=0)
    denoiser.network = other = variant(first=lambda self, x: halved(x))()
    assert torch.equal(sampler(measured(), seed=0), restored(other, None))
    for name, value in (("schedule", VE(0.01, 10.0)), ("prediction", "sample"), ("time_map", float)):
        with pytest.raises(AttributeError, match=name):
            setattr(denoiser, name, value)


@pytest.mark.parametrize("use", USES)
def test_weights_made_under_inference_mode(use):
    want = restored(Plain(), USES[use])
    with torch.inference_mode():
        network = Plain()
    for inside in (True, False):
        with torch.inference_mode(inside):
            if use in ("VJP", "history of products"):
                with pytest.raises(RuntimeError, match=r"made under torch.inference_mode; load the network outside"):
                    restored(network, USES[use])
            else:
                assert relative_error(restored(network, USES[use]), want) < EQUAL


def test_another_thread_may_train_the_network():
    network = Plain()
    sampler = Sampler(Denoiser(network, VP()), OPERATOR, Conjugate(5.0))
    want, missing = sampler(measured(), seed=0), []

    def train():
        network.zero_grad(set_to_none=True)
        network(torch.randn(2, *SHAPE), torch.zeros(2)).square().mean().backward()
        missing.extend(p for p in network.parameters() if p.grad is None)

    def callback(step, x0hat):
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()

    assert torch.equal(sampler(measured(), seed=0, callback=callback), want)
    assert not missing
    assert all(p.requires_grad for p in network.parameters())


def test_weights_changed_while_a_derivative_is_taken():
    class Trained(Plain):
        def forward(self, x, t):
            output = super().forward(x, t)
            with torch.no_grad():
                self.b.weight.mul_(0.999)  # An optimiser in another thread does so.
            return output

    with pytest.raises(RuntimeError, match=r"weights were changed in place .*moving average"):
        restored(Trained(), Conjugate(5.0))


# ------------------------------------------------------------------------------------ train mode
TRAINING = {
    "dropout": (lambda: nn.Dropout(0.2), "Dropout draws random numbers"),
    "batch normalisation": (lambda: nn.BatchNorm2d(3), "running statistics"),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 3, 1)), "singular value"),
    "a function": (None, "in train mode it draws random numbers"),
}


@pytest.mark.parametrize("held", ["module", "lambda", "partial", "method"])
@pytest.mark.parametrize("name", TRAINING)
def test_train_mode_is_refused_where_it_does_harm(name, held):
    make, message = TRAINING[name]

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.part = nn.Identity() if make is None else make()

        def forward(self, x, t):
            x = functional.dropout(x, 0.2, self.training) if make is None else x
            return 0.5 * self.part(x)

    network = Network().train()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    held_by = {
        "module": network,
        "lambda": lambda x, t: network(x, t),
        "partial": functools.partial(network),
        "method": network.forward,
    }
    with pytest.raises(ValueError, match=rf"must be in eval mode, call network.eval\(\); .*{message}"):
        restored(held_by[held], DDNM())
    assert network.training
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    network.eval()
    restored(held_by[held], DDNM())


def test_train_mode_alone_is_no_harm():
    assert torch.equal(restored(Plain().train(), DDNM()), restored(Plain().eval(), DDNM()))


# ------------------------------------------------------------------------------------ times and conditions
def test_integer_times():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table = nn.Embedding(1000, 3)

        def forward(self, x, t):
            return 0.5 * x + self.table(t)[:, :, None, None]

    network = Table()

    def cast(x, t):
        return network(x, t.long())

    for solver in USES.values():
        got, want = (
            Sampler(Denoiser(net, VP(), time_map=floor_timesteps(1000)), OPERATOR, solver)(measured(), seed=0)
            for net in (network, cast)
        )
        assert relative_error(got, want) < EQUAL
    with pytest.raises(ValueError, match=r"takes integer times, got .*floor_timesteps"):
        restored(Table(), DDNM())


class Labelled(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(10, 3)

    def forward(self, x, t, labels=None, nested=None, picture=None):
        if nested is not None:
            labels = nested["labels"][0]
        if picture is not None:
            return 0.3 * torch.cat([x, picture], 1)[:, 1:4]
        return 0.5 * x + self.table(labels)[:, :, None, None]


CONDITIONS = {
    "labels": {"labels": torch.tensor([1, 2, 3])},
    "nested": {"nested": {"labels": [torch.tensor([1, 2, 3])]}},
    "one for all": {"picture": torch.linspace(-1, 1, 192).reshape(1, *SHAPE)},
    "one label": {"labels": torch.tensor([4])},
}


@pytest.mark.parametrize("use", ["VJP", "none", "difference"])
@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_follow_their_images(name, use):
    kwargs, y = CONDITIONS[name], measured(3)

    def of(value, image):
        if isinstance(value, torch.Tensor):
            return value if len(value) == 1 else value[image : image + 1]
        return {k: of(v, image) for k, v in value.items()} if isinstance(value, dict) else [of(v, image) for v in value]

    sampler = Sampler(Denoiser(Labelled(), VP(), network_kwargs=kwargs), OPERATOR, USES[use], steps=3)
    alone = torch.cat(
        [
            Sampler(Denoiser(Labelled(), VP(), network_kwargs=of(kwargs, b)), OPERATOR, USES[use], steps=3)(
                y[b : b + 1], seed=[b]
            )
            for b in range(3)
        ]
    )
    assert relative_error(sampler(y, seed=[0, 1, 2]), alone) < EQUAL
    drawn = sampler.sample(y, 4, seed=[0, 1, 2], together=2)
    assert (
        relative_error(drawn, sampler.sample(y, 4, seed=[0, 1, 2])) < 10 * EQUAL
        # Differences divide by a small step, which enlarges rounding errors.
    )
    with_noise = sampler(y, seed=[0, 1, 2], noise_std=torch.tensor([0.0, 0.1, 0.0]))
    assert relative_error(with_noise[[0, 2]], alone[[0, 2]]) < EQUAL


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("use", ["none", "difference", "forward"])
def test_a_network_that_switches_gradients(use, on):
    def switching(x, t):
        torch.set_grad_enabled(on)
        return network(x, t)

    network = Plain()
    assert relative_error(restored(switching, USES[use]), restored(network, USES[use])) < EQUAL


def test_outputs_that_are_no_real_numbers():
    for dtype in (torch.complex64, torch.int32):
        with pytest.raises(TypeError, match=rf"must return real floating-point numbers, got {dtype}"):
            restored(lambda x, t, dtype=dtype: x.detach().to(dtype), DDNM())


def test_a_network_that_takes_one_time():
    network = Plain()

    def of_one(x, t):
        return network(x, torch.full((1,), t.item()))

    with pytest.raises(ValueError, match=r"must take a time for every image, got 2 .*network\(x, t\[:1\]\)"):
        restored(of_one, DDNM())
    got = restored(lambda x, t: of_one(x, t[:1]), DDNM())
    assert relative_error(got, restored(network, DDNM())) < EQUAL


def test_an_index_that_is_not_the_time_leaves_times_alone():
    """An error for want of integers is tried to be cured with integer times, which stay as they were if that fails."""
    denoiser = Denoiser(Labelled(), VP(), time_map=floor_timesteps(1000), network_kwargs={"labels": torch.ones(1)})
    sampler = Sampler(denoiser, OPERATOR, DDNM(), steps=3)
    with pytest.raises(RuntimeError, match="indices"):
        sampler(measured(3), seed=0)
    seen = []
    denoiser.network_kwargs["labels"] = torch.ones(1, dtype=torch.long)
    denoiser.network.register_forward_pre_hook(lambda module, given: seen.append(given[1].dtype))
    sampler(measured(3), seed=0)
    assert set(seen) == {torch.float32}


def test_conditions_of_another_number():
    denoiser = Denoiser(Labelled(), VP(), network_kwargs={"labels": torch.tensor([1, 2])})
    with pytest.raises(ValueError, match=r"network_kwargs: .* each of the 3 measurements, got labels with 2 rows"):
        Sampler(denoiser, OPERATOR, DDNM())(measured(3), seed=0)


def test_errors_of_a_network_say_where_they_come_from():
    class Failing(Plain):
        def forward(self, x, t):
            raise ArithmeticError("inside the network")

    with pytest.raises(ArithmeticError, match="inside the network") as caught:
        restored(Failing(), DDNM())
    assert "raised by network" in caught.value.__notes__[0]
