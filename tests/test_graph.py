"""Graphs with a stand-in for the capture (``replayer``): what is captured, replayed, evicted, refused and said."""

from __future__ import annotations

import gc
import itertools
import warnings
from functools import partial

import conftest
import pytest
import tabled
import torch
from replayer import Replayer
from torch import nn

from ccfast import Denoiser, Sampler
from ccfast.engine.backends import BACKENDS
from ccfast.engine.graphs.policy import Graphs
from ccfast.engine.graphs.store import Store
from ccfast.kernels import reference
from ccfast.kernels.row import outside
from ccfast.operators import AveragePooling, Bicubic, FourierBlur, FourierDownsampling, Inpainting, SoftMask
from ccfast.schedules import EDM, VP
from ccfast.solvers import BDIA, DDIM, Conjugate, PiGDM

pytestmark = pytest.mark.filterwarnings("ignore:jacobian. 'exact' is stable")

SHAPE = (3, 8, 8)


class Clock:
    """A clock on which an eager run takes 1 second and a replay ``replay`` seconds."""

    def __init__(self, replay=0.5):
        self.now, self.replay, self.asked = 0.0, replay, 0

    def __call__(self):
        # A capture asks at its start, before and after three eager runs and three replays, and at its end.
        self.now += 1.0 if self.asked % 14 < 7 else self.replay
        self.asked += 1
        return self.now


class Network(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)
        self.calls = 0

    def forward(self, x, t, shift=0.0):
        self.calls += 1
        return torch.tanh(self.convolution(x)) + shift * t[:, None, None, None] * x


@pytest.fixture(autouse=True)
def backends(monkeypatch):
    monkeypatch.setitem(BACKENDS, tabled.name, tabled)


def make(operator, solver=None, mode="auto", store=None, network=None, backend="tabled", **options):
    """A sampler that finds graphs on its device."""
    denoiser = network if isinstance(network, Denoiser) else Denoiser(network or Network(), VP())
    sampler = Sampler(denoiser, operator, solver or Conjugate(2.0), backend=backend, graph=False, **options)
    sampler._graphs = Graphs(mode, store or Store(Replayer()), sampler.device)
    if store is None and mode == "auto":
        sampler._graphs.store.clock = Clock()
    return sampler


def eager(sampler):
    """The same sampler without graphs."""
    other = object.__new__(Sampler)
    vars(other).update(vars(sampler))
    other._graphs = Graphs(False, None, sampler.device)
    return other


def measured(operator, batch=2, seed=0):
    return operator.forward(torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(seed)) - 0.5)


def run_all(sampler, measurements):
    return [sampler(y, seed=0) for y in measurements]


def graph_stats(sampler):
    return sampler.stats()["graph"]


# ------------------------------------------------------------------------------------------------ replay is eager
@pytest.mark.parametrize("backend", ["tabled", "native", "reference"])
@pytest.mark.parametrize("solver", [e.solver for e in conftest.REGISTRY] + [Conjugate(2.0, lam=0.1)], ids=repr)
def test_a_replay_is_an_eager_run_bit_for_bit(solver, backend):
    operator = AveragePooling(SHAPE, 4)
    sampler = make(operator, solver, mode=True, backend=backend, steps=4)
    for seed in (0, 1):
        y = measured(operator, seed=seed)
        x = sampler(y, seed=[seed, 7])
        assert torch.equal(x, eager(sampler)(y, seed=[seed, 7]))
    x_init = torch.rand(2, *SHAPE)
    assert torch.equal(sampler(y, x_init=x_init, seed=0), eager(sampler)(y, x_init=x_init, seed=0))
    stats = graph_stats(sampler)
    assert stats["replays"] == 3
    assert stats["device"]["captured"] == 2  # One graph is for a given state, one for none.
    assert stats["eager"] == {}


OPTIONS = {
    "noise": ({"noise_std": 0.1}, Conjugate()),
    "hard consistency": ({"hard_consistency": True}, None),
    "scaled input": ({"start": 5.0, "end": 0.1}, None),
    "stochastic": ({}, PiGDM(eta=0.5)),
    "autocast": ({"autocast": torch.bfloat16}, None),
}


@pytest.mark.elsewhere
@pytest.mark.parametrize("name", OPTIONS)
def test_options(name):
    options, solver = OPTIONS[name]
    operator = Bicubic(SHAPE, 2)
    network = Denoiser(Network(), EDM(), "edm") if name == "scaled input" else None
    sampler = make(operator, solver, mode=True, network=network, **options)
    for seed in (0, 1):
        y = measured(operator, seed=seed)
        assert torch.equal(sampler(y, seed=seed), eager(sampler)(y, seed=seed))
    assert graph_stats(sampler)["replays"] == 2


@pytest.mark.elsewhere
def test_two_states():
    operator = AveragePooling(SHAPE, 4)
    sampler = make(operator, BDIA(), mode=True)
    y, states = measured(operator), (torch.rand(2, *SHAPE), torch.rand(2, *SHAPE))
    assert torch.equal(sampler(y, x_init=states), eager(sampler)(y, x_init=states))
    assert sampler.stats()["network_evaluations"] == 2 * 4  # The sampler and its eager twin share the count.


@pytest.mark.elsewhere
def test_samples_and_inference_mode():
    operator = Inpainting(torch.rand(2, 1, 8, 8) < 0.5, SHAPE)
    sampler = make(operator, DDIM(1.0), mode=True)
    y = measured(operator)
    assert torch.equal(sampler.sample(y, 3, seed=0), eager(sampler).sample(y, 3, seed=0))
    assert graph_stats(sampler)["device"]["captured"] == 1
    with torch.inference_mode():
        assert torch.equal(sampler(y, seed=0), eager(sampler)(y, seed=0))
    assert torch.equal(sampler(y, seed=0), eager(sampler)(y, seed=0))
    assert graph_stats(sampler)["device"]["captured"] == 1


def test_results_are_the_callers_own():
    operator = AveragePooling(SHAPE, 4)
    sampler = make(operator, mode=True)
    y = measured(operator)
    first = sampler(y, seed=0)
    kept = first.clone()
    second = sampler(y, seed=1)
    assert torch.equal(first, kept)
    first.zero_()
    assert torch.equal(second, sampler(y, seed=1))


# ------------------------------------------------------------------------------------------------ what is shared
def test_one_graph_serves_every_schedule_of_its_length():
    operator, network, store = AveragePooling(SHAPE, 4), Network(), Store(Replayer())
    y = measured(operator)
    samplers = [
        make(operator, Conjugate(w), True, store, network, steps=3, start=start, start_noise=start_noise)
        for w, start, start_noise in ((2, 0.4, 1.0), (5, 0.7, 0.0), (2, 0.4, 0.3))
    ]
    for sampler in [*samplers, *samplers]:
        assert torch.equal(sampler(y, seed=0), eager(sampler)(y, seed=0))
    assert store.captured == 1
    longer = make(operator, Conjugate(2.0), True, store, network, steps=4)
    assert torch.equal(longer(y, seed=0), eager(longer)(y, seed=0))
    assert store.captured == 2


def test_floats_are_not_shared():
    """A backend without a device table has its coefficients in the graph, so every plan has a graph of its own."""
    operator, network, store = AveragePooling(SHAPE, 4), Network(), Store(Replayer())
    y = measured(operator)
    for w in (2.0, 5.0):
        sampler = make(operator, Conjugate(w), True, store, network, backend="reference")
        assert torch.equal(sampler(y, seed=0), eager(sampler)(y, seed=0))
        assert store.captured == 1
        del sampler  # The graph goes with it.
        gc.collect()
        assert not store.graphs
        store.captured = 0


def test_a_backend_that_does_not_read_its_table(monkeypatch):
    """A backend that takes a row but does not read the table is found out before the graph serves another plan."""
    monkeypatch.setattr(tabled, "residual", reference.residual)
    monkeypatch.setattr(tabled, "update", reference.update)
    operator, network, store = AveragePooling(SHAPE, 4), Network(), Store(Replayer())
    y = measured(operator)
    samplers = [make(operator, Conjugate(w), True, store, network) for w in (2.0, 5.0)]
    for sampler in [*samplers, *samplers]:
        assert torch.equal(sampler(y, seed=0), eager(sampler)(y, seed=0))
    assert store.captured == 2


def test_steps_that_the_reference_runs_are_not_shared(monkeypatch):
    """The reference runs float64 states and reads no table, so the graph holds its coefficients and is not shared."""
    takes = partial(outside, most_terms=24, tensors=False)
    monkeypatch.setattr(tabled, "takes", lambda operator, row, dtypes, elements: takes(row, dtypes))
    operator, network, store = AveragePooling(SHAPE, 4), Network(), Store(Replayer())
    y = measured(operator)
    samplers = [make(operator, Conjugate(w), True, store, network) for w in (2.0, 5.0)]
    for sampler in [*samplers, *samplers]:
        assert torch.equal(sampler(y.double(), seed=0), eager(sampler)(y.double(), seed=0))
    assert store.captured == 2
    for sampler in [*samplers, *samplers]:
        assert torch.equal(sampler(y, seed=0), eager(sampler)(y, seed=0))
    assert store.captured == 3


EXCHANGEABLE = {
    "mask": lambda seed: Inpainting(conftest._random(1, 8, 8, seed=seed) < 0.5, SHAPE),
    "masks": lambda seed: Inpainting(conftest._random(2, 3, 8, 8, seed=seed) < 0.5),
    "soft": lambda seed: SoftMask(conftest._random(1, 8, 8, seed=seed), SHAPE),
    "blur": lambda seed: FourierBlur(SHAPE, conftest._random(3, 3, seed=seed) / 4, 0.2),
    "blurs": lambda seed: FourierBlur(SHAPE, conftest._random(2, 5, 3, seed=seed) / 6, 0.2),
    "downsampling": lambda seed: FourierDownsampling(SHAPE, conftest._random(3, 3, seed=seed) / 4, 2, 0.2),
}


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("backend", ["tabled", "native"])
@pytest.mark.parametrize("name", EXCHANGEABLE)
def test_one_graph_serves_other_masks_and_kernels(name, backend, noise):
    operators = [EXCHANGEABLE[name](seed) for seed in range(3)]
    sampler = make(operators[0], mode=True, backend=backend, noise_std=noise, steps=2)
    for operator in [*operators, *reversed(operators)]:
        y = measured(operator)
        assert torch.equal(sampler(y, seed=0, operator=operator), eager(sampler)(y, seed=0, operator=operator))
    stats = graph_stats(sampler)
    assert stats["replays"] + len(stats["eager"]) > 0
    assert stats["device"]["captured"] == 1


def test_other_operators_have_graphs_of_their_own():
    operators = [Bicubic(SHAPE, 2), Bicubic(SHAPE, 2)]
    sampler = make(operators[0], mode=True)
    for operator in [*operators, *operators]:
        y = measured(operator)
        assert torch.equal(sampler(y, seed=0, operator=operator), eager(sampler)(y, seed=0, operator=operator))
    assert graph_stats(sampler)["device"]["captured"] == 2


@pytest.mark.filterwarnings("ignore:result. images:RuntimeWarning")
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_graph_serves_another_plan_beside_an_image_that_is_not_finite(value):
    operator, network, store = AveragePooling(SHAPE, 4), Network(), Store(Replayer())
    shift = torch.tensor([0.0, value]).reshape(2, 1, 1, 1)
    denoiser = Denoiser(network, VP(), network_kwargs={"shift": shift})
    samplers = [make(operator, Conjugate(w), True, store, denoiser, nan="return") for w in (2.0, 3.0)]
    for sampler in samplers:
        x, want = (run(measured(operator), seed=0) for run in (sampler, eager(sampler)))
        assert torch.equal(x[0], want[0])
        assert not x[1].isfinite().any()
        assert graph_stats(sampler)["eager"] == {}
    assert store.captured == 1


def test_what_asks_for_another_graph():
    operator, network, store = AveragePooling(SHAPE, 4), Network(), Store(Replayer())
    denoiser = Denoiser(network, VP(), network_kwargs={"shift": torch.tensor(1e-4)})
    sampler = make(operator, mode=True, store=store, network=denoiser)
    captured = itertools.count(1)

    def check(y):
        assert torch.equal(sampler(y, seed=0), eager(sampler)(y, seed=0))
        assert store.captured == next(captured)

    check(measured(operator))
    check(measured(operator, batch=3))
    check(measured(operator).double())
    denoiser.network_kwargs["shift"] = torch.tensor(2e-4)
    check(measured(operator))
    network.convolution.weight.data = network.convolution.weight.data * 2  # The weight moves to another address.
    check(measured(operator))
    network.eval()
    check(measured(operator))
    network.convolution.weight.data.mul_(0.5)  # It changes in place, so the graph stays.
    assert torch.equal(sampler(measured(operator), seed=0), eager(sampler)(measured(operator), seed=0))
    assert store.captured == next(captured) - 1


@pytest.mark.parametrize("backend", [torch.backends.cuda.matmul, torch.backends.cudnn.conv], ids=["matmul", "conv"])
def test_a_graph_is_of_one_precision(backend):
    sampler, before, captured = make(AveragePooling(SHAPE, 4), mode=True), backend.fp32_precision, []
    try:
        for precision in ("ieee", "tf32", "ieee"):
            backend.fp32_precision = precision
            sampler(measured(sampler.operator), seed=0)
            captured.append(graph_stats(sampler)["device"]["captured"])
    finally:
        backend.fp32_precision = before
    assert captured == [1, 2, 2]


def test_cast_weights_are_cast_again():
    operator, network = AveragePooling(SHAPE, 4), Network()
    sampler = make(operator, mode=True, network=network, autocast=torch.bfloat16)
    y = measured(operator)
    sampler(y, seed=0)
    with torch.no_grad():
        network.convolution.weight.mul_(2)
    assert torch.equal(sampler(y, seed=0), eager(sampler)(y, seed=0))


def test_weights_that_change_in_place_under_autocast_keep_the_graph():
    operator, network, store = AveragePooling(SHAPE, 4), Network(), Store(Replayer())
    sampler = make(operator, mode=True, store=store, network=network, autocast=torch.bfloat16)
    y, kept = measured(operator), None
    for _ in range(4):
        assert torch.equal(sampler(y, seed=0), eager(sampler)(y, seed=0))
        assert kept in (None, (store.captured, len(store.graphs), store.bytes))
        kept = store.captured, len(store.graphs), store.bytes
        network.load_state_dict({name: value * 0.8 for name, value in network.state_dict().items()})
    assert store.captured == 1


class Crowded(Replayer):
    """A capture beside which another thread evaluates the network, so that torch keeps casts of its weights."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def record(self, work):
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=True), torch.enable_grad():
            self.network(torch.zeros(1, *SHAPE), torch.zeros(1))
        try:
            return super().record(work)
        finally:
            torch.clear_autocast_cache()


def test_casts_of_another_thread_are_not_in_a_graph():
    operator, network = AveragePooling(SHAPE, 4), Network()
    sampler = make(operator, mode=True, store=Store(Crowded(network)), network=network, autocast=torch.bfloat16)
    y = measured(operator)
    sampler(y, seed=0)
    with torch.no_grad():
        network.convolution.weight.mul_(2)
    assert torch.equal(sampler(y, seed=0), eager(sampler)(y, seed=0))


def test_a_graph_dies_with_its_samplers():
    operator, network, store = AveragePooling(SHAPE, 4), Network(), Store(Replayer())
    first, second = (make(operator, Conjugate(w), True, store, network) for w in (2.0, 3.0))
    first(measured(operator)), second(measured(operator))
    assert store.captured == 1
    del first
    gc.collect()
    assert len(store.graphs) == 1
    del second
    gc.collect()
    assert not store.graphs
    assert store.bytes == 0


# ------------------------------------------------------------------------------------------------ auto
def test_auto_captures_at_the_second_call():
    operator = AveragePooling(SHAPE, 4)
    sampler = make(operator)
    y = measured(operator)
    for _ in range(3):
        sampler(y, seed=0)
    stats = graph_stats(sampler)
    assert stats["eager"] == {"the first of its kind": 1}
    assert stats["replays"] == 2
    (graph,) = stats["graphs"]
    assert graph["shape"] == (2, *SHAPE)
    assert graph["bytes"] > 4 * 2 * 192
    assert graph["gain"] == 0.5


def test_warmup_captures():
    operator = AveragePooling(SHAPE, 4)
    sampler = make(operator)
    sampler.warmup(2)
    assert sampler.stats()["calls"] == 0
    sampler(measured(operator), seed=0)
    assert graph_stats(sampler)["eager"] == {}


@pytest.mark.parametrize(("replay", "used"), [(0.97, True), (0.985, False), (1.5, False)])
def test_auto_is_off_where_it_gains_less_than_two_percent(replay, used, recwarn):
    operator = AveragePooling(SHAPE, 4)
    sampler = make(operator)
    sampler._graphs.store.clock.replay = replay
    y = measured(operator)
    results = [sampler(y, seed=0) for _ in range(4)]
    assert all(torch.equal(x, results[0]) for x in results)
    stats = graph_stats(sampler)
    assert stats["replays"] == (3 if used else 0)
    assert stats["device"]["captured"] == 1
    if not used:
        assert stats["eager"] == {"the first of its kind": 1, f"a graph saves {1 - replay:.1%}, asked are 2%": 3}
        assert stats["device"]["bytes"] == 0
    assert not recwarn.list


def test_callbacks_run_eagerly():
    operator = AveragePooling(SHAPE, 4)
    sampler, strict = make(operator), make(operator, mode=True)
    steps = []
    sampler(measured(operator), callback=lambda k, x0hat: steps.append(k))
    assert steps == [0, 1, 2, 3, 4]
    assert graph_stats(sampler)["eager"] == {"a callback looks at every step": 1}
    with pytest.raises(ValueError, match="graph: True cannot be had: a callback looks at every step"):
        strict(measured(operator), callback=lambda k, x0hat: None)


class Waits(Network):
    def forward(self, x, t):
        return super().forward(x, t) * (1.0 if float(t[0]) >= 0 else 2.0)


def test_what_cannot_be_captured_runs_eagerly_and_says_so_once():
    operator = AveragePooling(SHAPE, 4)
    sampler = make(operator, network=Waits())
    y = measured(operator)
    results = [sampler(y, seed=0)]
    message = r"graph: runs eagerly: capture not tried: aten\..* waits for the device"
    with pytest.warns(RuntimeWarning, match=message):
        results.append(sampler(y, seed=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results.append(sampler(y, seed=0))
    assert all(torch.equal(x, results[0]) for x in results)
    assert sum(graph_stats(sampler)["eager"].values()) == 3
    assert sampler._graphs.store.capture.captures == 0
    with pytest.raises(ValueError, match="graph: True cannot be had: capture not tried"):
        make(operator, mode=True, network=Waits())(y)


class FailsOnce(Network):
    """A network that fails in its last evaluation of a capture, and in no other one."""

    def __init__(self, capture):
        super().__init__()
        self.capture, self.inside = capture, 0

    def forward(self, x, t):
        self.inside += bool(self.capture.captures)
        if self.inside == 5:
            raise LookupError("no such entry")
        return super().forward(x, t)


def test_a_captured_network_that_fails_is_run_eagerly():
    operator, store = AveragePooling(SHAPE, 4), Store(Replayer())
    sampler = make(operator, store=store, network=FailsOnce(store.capture))
    y = measured(operator)
    first = sampler(y, seed=0)
    with pytest.warns(RuntimeWarning, match="graph: runs eagerly: capture failed: LookupError: no such entry"):
        assert torch.equal(sampler(y, seed=0), first)
    assert torch.equal(sampler(y, seed=0), first)
    assert (store.captured, store.bytes, len(store.graphs)) == (0, 0, 0)


def test_a_wait_in_a_compiled_network_is_found_by_the_capture():
    """A dispatch mode would keep torch.compile from compiling the network, so that it is not watched."""
    network = Waits()
    network._orig_mod = None  # The wrapper of torch.compile has this attribute.
    sampler = make(AveragePooling(SHAPE, 4), mode=True, network=network)
    with pytest.raises(ValueError, match="graph: True cannot be had: capture failed: RuntimeError: operation not perm"):
        sampler(measured(sampler.operator))


def test_errors_of_the_network_are_its_own():
    operator = AveragePooling(SHAPE, 4)

    def detached(x, t):
        return x.detach() * 0.5

    sampler = make(operator, mode=True, network=Denoiser(detached, VP()))
    with pytest.raises(ValueError, match="its output must be differentiable"):
        sampler(measured(operator))
    assert not sampler._graphs.store.graphs


def test_modes():
    with pytest.raises(ValueError, match="graph: must be 'auto', True or False, got 'on'"):
        Graphs("on", None, torch.device("cpu"))
    with pytest.raises(ValueError, match="graph: True needs a CUDA device, got device 'cpu'"):
        Graphs(True, None, torch.device("cpu"))
    operator = AveragePooling(SHAPE, 4)
    sampler = Sampler(Denoiser(Network(), VP()), operator)
    sampler(measured(operator))
    assert graph_stats(sampler) == {"mode": "auto", "eager": {}, "replays": 0, "reason": "no CUDA device, but cpu"}


# ------------------------------------------------------------------------------------------------ memory
def test_the_least_recently_used_go_first():
    operator = AveragePooling(SHAPE, 4)
    sampler = make(operator, mode=True)
    store = sampler._graphs.store
    for batch in (1, 2):
        sampler(measured(operator, batch))
    small, large = (g["bytes"] for g in graph_stats(sampler)["graphs"])
    assert large > small
    store.capture.limit = store.bytes + small
    sampler(measured(operator, 1))
    # The third graph does not fit beside both, and the graph of batch 2 was used least recently.
    sampler(measured(operator, 3))
    assert [g["shape"][0] for g in graph_stats(sampler)["graphs"]] == [1, 3]
    assert store.bytes <= store.capture.limit
    assert graph_stats(sampler)["device"]["evicted"] == store.evicted == 1
    assert torch.equal(sampler(measured(operator, 2), seed=0), eager(sampler)(measured(operator, 2), seed=0))
    assert store.captured == 4


def test_graphs_that_push_each_other_out_are_given_up():
    operator = AveragePooling(SHAPE, 4)
    sampler = make(operator)
    store = sampler._graphs.store
    for batch in (1, 2):
        sampler.warmup(batch)
    store.capture.limit = store.bytes * 3 // 2  # Any two of the three fit.
    measurements = [measured(operator, batch) for batch in (1, 2, 3) * 8]
    with pytest.warns(RuntimeWarning, match="evicted 3 times: the graphs in use take more than the limit") as said:
        run_all(sampler, measurements)
    assert len(said) == 1
    assert store.captured < 12


def test_a_graph_larger_than_the_limit():
    operator = AveragePooling(SHAPE, 4)
    sampler = make(operator, store=Store(Replayer(limit=1000)), mode=True)
    with pytest.raises(ValueError, match="graph: True cannot be had: it takes 0 MiB, the limit is 0 MiB"):
        sampler(measured(operator))
    assert sampler._graphs.store.bytes == 0


# ------------------------------------------------------------------------------------------------ threads
def test_threads_share_a_graph():
    operator = AveragePooling(SHAPE, 4)
    sampler = make(operator, mode=True)
    y = measured(operator)
    expected = [eager(sampler)(y, seed=seed) for seed in range(12)]
    results = {}

    def work(first):
        for seed in range(first, 12, 4):
            results[seed] = sampler(y, seed=seed)

    conftest.in_threads(work, 4)
    assert all(torch.equal(results[seed], expected[seed]) for seed in range(12))
    assert graph_stats(sampler)["device"]["captured"] == 1
    assert graph_stats(sampler)["replays"] == 12


def test_a_compiled_network_is_compiled_before_the_capture():
    operator, network = AveragePooling(SHAPE, 4), Network()
    capture, seen = Replayer(), []

    def backend(module, inputs):
        seen.append(capture.captures)
        return module.forward

    compiled = Denoiser(torch.compile(network, backend=backend), VP())
    sampler = make(operator, mode=True, store=Store(capture), network=compiled)
    y = measured(operator)
    x = sampler(y, seed=0)
    assert seen
    assert set(seen) == {0}
    assert torch.equal(x, eager(sampler)(y, seed=0))
