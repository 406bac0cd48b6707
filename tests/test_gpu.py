"""Tests on an NVIDIA GPU: backends against float64, the authors' trajectories, graphs bit for bit, and no leak."""

from __future__ import annotations

import conftest
import pytest
import test_goldens as goldens
import torch
from row_shorthand import residual, update
from torch import nn

import ccfast
from ccfast import Denoiser, Sampler, load_prior
from ccfast.app.benchmark.cases import KINDS
from ccfast.engine.graphs.capture import CudaCapture
from ccfast.kernels import reference
from ccfast.operators import AveragePooling, FourierBlur, Inpainting
from ccfast.schedules import VP
from ccfast.solvers import DDIM, Conjugate, PiGDM
from ccfast.testing import TOLERANCE, relative_error

pytestmark = [
    pytest.mark.gpu,
    # A machine without the device is no failure.
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.filterwarnings("ignore:jacobian. 'exact' is stable"),
]
SIDE = 64


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x, t):
        return torch.tanh(self.convolution(x)) + 1e-4 * t[:, None, None, None].to(x.dtype) * x


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    return torch.device("cuda", torch.cuda.current_device())


def make(operator, device, solver=None, network=None, **options):
    network = (network or Network()).to(device)
    return Sampler(Denoiser(network, VP()), operator, solver or Conjugate(2.0), device=device, **options)


def measured(operator, device, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return operator.forward(torch.rand(batch, *operator.shape, generator=generator).to(device) - 0.5)


# ------------------------------------------------------------------------------------------------ values
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_kernels_for_the_sanitizer(kind, dtype, device):
    """Every kernel runs at a small size, as compute-sanitizer needs it."""
    operator, ops, row = KINDS[kind][1](SIDE), None, {"x": 0.7, "F": -0.2, "r": 0.5, "h": 0.3, "Ph": -1.1, "PF": 0.4}
    sampler = make(operator, device, graph=False)
    ops = sampler._program.backend.bind(operator)
    generator = torch.Generator(device).manual_seed(0)
    tensors = {
        n: torch.randn(2, *operator.shape, device=device, generator=generator).to(torch.float32 if n in "xy" else dtype)
        for n in ("x", "F", "r", "h", "y")
    }
    exact = {n: t.double() for n, t in tensors.items()}
    truth, own = torch.empty_like(exact["x"]), reference.bind(operator)
    out, after = torch.full_like(tensors["x"], torch.nan), torch.full_like(tensors["F"], torch.nan)
    update(ops, row, tensors, out, after, 0.5)
    update(own, row, exact, truth, None, 1.0)
    assert relative_error(out, truth) < 4 * TOLERANCE[torch.float32]
    assert relative_error(after, 0.5 * truth) < 2 * TOLERANCE[dtype]
    r = torch.full_like(tensors["F"], torch.nan)
    residual(ops, tensors["x"], tensors["F"], tensors["y"], 1.25, -0.75, r)
    residual(own, exact["x"], exact["F"], exact["y"], 1.25, -0.75, truth)
    assert relative_error(r, truth) < 4 * TOLERANCE[dtype]
    words = torch.tensor([3, 5], device=device)
    noise = [o.normal(torch.empty_like(out), words, words, words, 2) for o in (ops, own)]
    assert relative_error(*noise) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("path", goldens.CASES, ids=lambda path: path.stem)
def test_goldens(path, graph, device):
    case, data = goldens.load(path)
    operator = goldens.OPERATORS[case["operator"]]((3, case["size"], case["size"]), data)
    y = data["y"].float().reshape(-1, *operator.measurement_shape).to(device)
    solver = {
        "cpgdm": ccfast.solvers.Conjugate(w=case["w"], lam=case["lam"]),
        "pgdm": ccfast.solvers.PiGDM(w=case["w"]),
    }[case["algo"]]
    kernel = goldens.KERNEL.to(device)

    def network(x, t):
        taps = kernel.to(x.dtype).expand(x.shape[1], 1, 3, 3)
        padded = nn.functional.pad(x, (1, 1, 1, 1), mode="circular")
        convolved = nn.functional.conv2d(padded, taps, groups=x.shape[1])
        return (0.2 + 0.7 * t[:, None, None, None] / 999) * x + 0.15 * torch.tanh(convolved)

    denoiser = Denoiser(network, VP(0.1, 20.0), time_map=ccfast.times.floor_timesteps(1000))
    grid = {"start": 1 - case["t_start"], "end": 1 - case["t_end"], "steps": case["steps"]}
    sampler = Sampler(denoiser, operator, solver, device=device, graph=graph, **grid)
    x = sampler(y, x_init=data["x_init"].float().to(device))
    assert relative_error(x.cpu(), data["x_final"]) < 1e-5


# ------------------------------------------------------------------------------------------------ graphs
def both(operator, device, solver, **options):
    network = options.pop("network", Network)()
    return [make(operator, device, solver, network, graph=graph, **options) for graph in (True, False)]


@pytest.mark.parametrize(
    "options", [{}, {"noise_std": 0.1}, {"autocast": torch.bfloat16}], ids=["plain", "noisy", "bf16"]
)
@pytest.mark.parametrize("solver", [Conjugate(2.0), Conjugate(2.0, order=2), PiGDM(eta=0.5), DDIM(1.0)], ids=repr)
@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_is_eager_bit_for_bit(kind, solver, options, device):
    if options.get("noise_std") and not solver.takes_noise:
        options = {}
    operator = KINDS[kind][1](SIDE)
    captured, eager = both(operator, device, solver, **options)
    for seed in (0, 1):
        y = measured(operator, device, seed=seed)
        assert torch.equal(captured(y, seed=seed), eager(y, seed=seed))
    assert captured.stats()["graph"]["replays"] == 2


def test_other_masks_kernels_and_schedules(device):
    network = Network()
    for operators in (
        [Inpainting(torch.rand(1, SIDE, SIDE) < 0.5, (3, SIDE, SIDE)) for _ in range(3)],
        [FourierBlur((3, SIDE, SIDE), torch.rand(5, 5) / 12) for _ in range(3)],
    ):
        for start in (0.4, 0.6):
            captured, eager = (make(operators[0], device, None, network, graph=g, start=start) for g in (True, False))
            for operator in operators:
                y = measured(operator, device)
                assert torch.equal(captured(y, seed=0, operator=operator), eager(y, seed=0, operator=operator))


def fail_to_capture(device):
    """A capture that meets a wait, as that of a network which was not found out before."""
    capture, number = CudaCapture(device), torch.ones(1, device=device)
    with pytest.raises(RuntimeError, match="captur"), capture.lane():
        capture.record(lambda: number.exp().item())


@pytest.mark.parametrize("before", ["nothing", "a failed capture"])
def test_a_thousand_replays_leak_nothing(before, device):
    operator = AveragePooling((3, SIDE, SIDE), 4)
    if before != "nothing":
        fail_to_capture(device)
    sampler = make(operator, device, graph=True)
    y = measured(operator, device)
    first = sampler(y, seed=0)
    torch.cuda.synchronize()
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for _ in range(1000):
        x = sampler(y, seed=0)
    torch.cuda.synchronize()
    assert torch.equal(x, first)
    del x
    assert torch.cuda.memory_allocated() <= allocated + first.numel() * 4
    assert torch.cuda.memory_reserved() <= reserved + (2 << 20)


def test_a_failed_capture_leaves_torch_as_it_was(device):
    torch.cuda.synchronize()
    allocated, numbers = torch.cuda.memory_allocated(), torch.cuda.default_generators[device.index].get_state()
    for _ in range(3):
        fail_to_capture(device)
    torch.randn(3, device=device)  # The generator would refuse, as long as it believed to be captured.
    torch.cuda.default_generators[device.index].set_state(numbers)
    held, side = torch.zeros(1 << 20, device=device), torch.cuda.Stream(device)
    held.record_stream(side)
    del held  # A free of memory of two streams is put off during a capture.
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() <= allocated + (1 << 16)
    captured, eager = both(AveragePooling((3, SIDE, SIDE), 4), device, Conjugate(2.0))
    y = measured(captured.operator, device)
    assert torch.equal(captured(y, seed=0), eager(y, seed=0))


def test_a_compiled_network(device):
    operator = AveragePooling((3, SIDE, SIDE), 4)
    captured, eager = both(operator, device, Conjugate(2.0), compile_network=True)
    y = measured(operator, device)
    assert relative_error(captured(y, seed=0), eager(y, seed=0)) < 1e-5


def test_threads_and_streams(device):
    operator = AveragePooling((3, SIDE, SIDE), 4)
    captured, eager = both(operator, device, PiGDM(eta=0.5))
    y = measured(operator, device)
    expected = [eager(y, seed=seed) for seed in range(16)]
    results = {}

    def work(first):
        with torch.cuda.stream(torch.cuda.Stream(device)):
            for seed in range(first, 16, 4):
                results[seed] = captured(y, seed=seed).clone()
            torch.cuda.current_stream().synchronize()

    torch.cuda.synchronize()
    conftest.in_threads(work, 4)
    assert all(torch.equal(results[seed], expected[seed]) for seed in range(16))


class Waits(Network):
    def forward(self, x, t):
        return super().forward(x, t) * (1.0 if float(t[0]) >= 0 else 2.0)


def test_a_network_that_waits_runs_eagerly(device):
    operator = AveragePooling((3, SIDE, SIDE), 4)
    sampler = make(operator, device, network=Waits(), graph="auto")
    y = measured(operator, device)
    first = sampler(y, seed=0)
    with pytest.warns(
        RuntimeWarning, match="graph: runs eagerly: capture not tried: aten._local_scalar_dense.default waits"
    ):
        assert torch.equal(sampler(y, seed=0), first)
    # The device and the capture stream are still usable.
    captured, eager = both(operator, device, Conjugate(2.0))
    assert torch.equal(captured(y, seed=0), eager(y, seed=0))


class FailsInItsCapture(Network):
    """A network that fails wherever it is captured."""

    def forward(self, x, t):
        if torch.cuda.is_current_stream_capturing():
            raise LookupError("no such entry")
        return super().forward(x, t)


def test_a_captured_network_that_fails_is_run_eagerly(device):
    sampler = make(AveragePooling((3, SIDE, SIDE), 4), device, network=FailsInItsCapture(), graph="auto")
    y = measured(sampler.operator, device)
    first = sampler(y, seed=0)
    with pytest.warns(RuntimeWarning, match="graph: runs eagerly: capture failed: LookupError: no such entry"):
        assert torch.equal(sampler(y, seed=0), first)
    assert torch.equal(sampler(y, seed=0), first)


class Wide(Network):
    """A network with a learned variance, whose output is in the memory order of its weights."""

    def __init__(self, memory_format):
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 3, padding=1).to(memory_format=memory_format)

    def forward(self, x, t):
        return torch.tanh(self.convolution(x))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels"])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_in_other_memory_orders(kind, memory_format, device):
    operator, network = KINDS[kind][1](SIDE), Wide(memory_format)
    captured, eager = (make(operator, device, Conjugate(2.0), network, graph=graph) for graph in (True, False))
    plain = make(operator, device, Conjugate(2.0), network, graph=False, backend="reference")
    y = measured(operator, device)
    assert torch.equal(captured(y, seed=0), eager(y, seed=0))
    assert relative_error(eager(y, seed=0), plain(y, seed=0)) < 10 * TOLERANCE[torch.float32]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
@pytest.mark.parametrize("kind", KINDS)
def test_the_second_device(kind, device):
    """The present device is the first one all along, and a thread captures there meanwhile."""
    operator, devices = KINDS[kind][1](SIDE), [torch.device("cuda", index) for index in (0, 1)]
    results = {}

    def work(index):
        captured, eager = both(operator, devices[index], PiGDM(eta=0.5))
        for seed in range(4):
            y = measured(operator, devices[index], seed=seed)
            results[index, seed] = captured(y, seed=seed).cpu(), eager(y, seed=seed).cpu()

    conftest.in_threads(work, 2)
    assert all(torch.equal(*results[index, seed]) for index in (0, 1) for seed in range(4))
    assert torch.cuda.current_device() == 0


def test_nothing_in_a_run_waits(device):
    operator = AveragePooling((3, SIDE, SIDE), 4)
    for sampler in both(operator, device, PiGDM(eta=0.5), check_finite=False):
        y = measured(operator, device)
        sampler(y, seed=0)
        torch.cuda.set_sync_debug_mode("error")
        try:
            sampler(y, seed=1)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_the_bundled_prior(device):
    operator = AveragePooling((3, SIDE, SIDE), 4)
    y = measured(operator, torch.device("cpu"))
    on_cpu = Sampler(load_prior("photo"), operator, Conjugate(2.0))(y, seed=0)
    denoiser = load_prior("photo")
    assert isinstance(denoiser.network, nn.Module)
    denoiser.network.to(device)
    x = Sampler(denoiser, operator, Conjugate(2.0), device=device, graph=True)(y.to(device), seed=0)
    assert relative_error(x.cpu(), on_cpu) < 1e-3  # The GPU's network sums in another order in five steps.
