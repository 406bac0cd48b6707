"""``Generator``: images from noise, as the Sampler's engine makes them, conditions, parts of a batch, graphs, refusals.

On the other side is a caller who gives a picture's (H, W), a batch's or channels-last shape, n as a float or a tensor,
another size in every call, seeds of every kind, and expects image 3 to be the same alone and among others; whose n rows
of labels meet ``together``, and whose network has its labels in ``network_kwargs``; who starts an eps network where
mu = 0, names a solver that needs a measurement, stops early, calls from inference mode, copies it to other processes.
"""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from replayer import Replayer
from test_graph import Clock
from test_networks import EQUAL, Labelled
from test_surroundings import NETWORK, SETTINGS

from ccfast import Denoiser, Generator, Sampler
from ccfast.engine.graphs.policy import Graphs
from ccfast.engine.graphs.store import Store
from ccfast.errors import NonFiniteError
from ccfast.operators import Denoising
from ccfast.schedules import EDM, VE, VP, DiscreteVP, Flow
from ccfast.solvers import BDIA, DDIM, DDPM, UniPC
from ccfast.solvers.registry import REGISTRY
from ccfast.testing import Gaussian, relative_error

SHAPE = (3, 8, 8)
BLIND = [entry.solver for entry in REGISTRY if not entry.measurement]
LABELS = torch.arange(5)


DENOISER = Denoiser(NETWORK, Flow(), "velocity")


def labelled(**kwargs):
    return Denoiser(Labelled(), Flow(), "velocity", network_kwargs=kwargs)


# ------------------------------------------------------------------------------------ what is generated
PATHS = {
    "VP": (VP(), "epsilon"),
    "a table": (DiscreteVP(np.linspace(1e-4, 0.02, 1000)), "epsilon"),
    "a table to pure noise, v": (DiscreteVP(np.append(np.linspace(1e-4, 0.02, 999), 1.0)), "v_prediction"),
    "a table to pure noise, eps": (DiscreteVP(np.append(np.linspace(1e-4, 0.02, 999), 1.0)), "epsilon"),
    "flow": (Flow(), "velocity"),
    "a flow that predicts eps": (Flow(), "epsilon"),
    "VE": (VE(0.01, 50.0), "score"),
    "EDM": (EDM(), "edm"),
}


@pytest.mark.parametrize("path", PATHS)
def test_defaults_come_near_the_exact_flow_of_a_gaussian(path):
    """The ODE of N(m, c I) has the solution x0 = m + sqrt(c/(mu^2 c + sigma^2)) (x - mu m) from x = sigma z."""
    schedule, prediction = PATHS[path]
    mean, variance = 0.2, 0.09
    prior = Gaussian(torch.full((4,), mean), variance * torch.eye(4), (1, 2, 2))
    errors = {}
    for solver in (None, DDIM()):
        generator = Generator(prior.denoiser(schedule, prediction), solver)
        first, last = generator.plan.times[[0, -1]].tolist()
        mu, sigma = float(schedule.mean(first)), float(schedule.std(first))
        assert len(generator.plan.times) == 21
        assert (float(schedule.std(last)), sigma > 0.99) == (0.0, True)
        x = sigma * torch.randn(6, 1, 2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        got = generator(6, (1, 2, 2), x_init=x, dtype=torch.float64)
        exact = mean + (variance / (mu**2 * variance + sigma**2)) ** 0.5 * (x - mu * mean)
        errors[solver] = relative_error(got, exact)
    assert errors[None] < 0.15  # Twenty steps come that near.
    assert errors[None] < errors[DDIM()]


@pytest.mark.parametrize("solver", BLIND, ids=repr)
def test_it_is_a_sampler_that_does_not_look(solver):
    times = np.linspace(0, 1, 5)
    generator = Generator(DENOISER, solver, times=times, clip=(-1, 1))
    sampler = Sampler(DENOISER, Denoising(SHAPE), solver, times=times, clip=(-1, 1))
    for seed in (0, [3, 1, 4]):
        assert torch.equal(generator(3, SHAPE, seed), sampler(torch.zeros(3, *SHAPE), seed=seed))
    ours, theirs = generator.stats(), sampler.stats()
    assert [ours[key] for key in ("calls", "images", "vjps")] == [theirs[key] for key in ("calls", "images", "vjps")]
    assert "native mask" in generator.sampler(SHAPE).plan.explain()


@pytest.mark.parametrize("entry", [entry for entry in REGISTRY if entry.measurement], ids=lambda entry: entry.name)
@pytest.mark.filterwarnings("ignore:jacobian:RuntimeWarning")
def test_solvers_that_look_are_refused(entry):
    with pytest.raises(ValueError, match="solver: must not look at a measurement, since there is none, got"):
        Generator(Denoiser(NETWORK, VP()), entry.solver, steps=4)


def test_an_image_is_its_seed_and_its_place():
    generator = Generator(labelled(), DDPM(), steps=3)
    condition = {"labels": LABELS}
    want = generator(5, SHAPE, 7, condition)
    assert torch.equal(generator(3, SHAPE, 7, {"labels": LABELS[:3]}), want[:3])
    for together in (1, 2, 4, 5, 9, np.int64(3)):
        got = generator(5, SHAPE, 7, condition, together=together)
        assert relative_error(got, want) < EQUAL
    alone = torch.cat([generator(1, SHAPE, k, {"labels": LABELS[k][None]}) for k in range(5)])
    assert torch.equal(generator(5, SHAPE, range(5), condition), alone)
    states = want + 1
    for together in (2, None):
        got = generator(5, SHAPE, 7, condition, x_init=states, together=together)
        assert relative_error(got, generator(5, SHAPE, 7, condition, x_init=states)) < EQUAL
    drawn = [generator(2, SHAPE, torch.Generator().manual_seed(4), {"labels": LABELS[:1]}) for _ in range(2)]
    assert torch.equal(*drawn)
    assert not torch.equal(generator(1, SHAPE, None, {"labels": LABELS[:1]}), drawn[0][:1])


def test_conditions_are_the_network_s_arguments():
    own = Generator(labelled(labels=LABELS), steps=3)
    want = own(5, SHAPE)
    for together in (None, 2):
        assert relative_error(own(5, SHAPE, together=together), want) < EQUAL
        given = Generator(labelled(), steps=3)(5, SHAPE, condition={"labels": LABELS}, together=together)
        assert relative_error(given, want) < EQUAL
        other = own(5, SHAPE, condition={"labels": LABELS.flip(0)}, together=together)
        assert relative_error(other, want) > 0.01
    guided = labelled().guided(1.5, {"labels": torch.tensor([9])})
    by_hand = labelled(labels=LABELS)
    network, none = by_hand.network, torch.tensor([9])

    def mixed(x, t):
        other = network(x, t, labels=none)
        return other + 1.5 * (network(x, t, labels=LABELS) - other)

    want = Generator(Denoiser(mixed, Flow(), "velocity"), steps=3)(5, SHAPE)
    for together in (None, 2):
        got = Generator(guided, steps=3)(5, SHAPE, condition={"labels": LABELS}, together=together)
        assert relative_error(got, want) < 10 * EQUAL


def test_one_graph_serves_every_part_and_condition():
    generator = Generator(labelled(), DDPM(), steps=3, backend="reference")
    want = [generator(5, SHAPE, seed, {"labels": LABELS + seed}) for seed in range(3)]
    sampler = generator.sampler(SHAPE)
    sampler._graphs = Graphs(True, Store(Replayer(), Clock()), sampler.device)
    for seed in range(3):
        got = generator(5, SHAPE, seed, {"labels": LABELS + seed}, together=2)
        assert relative_error(got, want[seed]) < EQUAL
    graph = generator.stats()["graph"]
    assert (graph["replays"], graph["device"]["captured"]) == (9, 2)  # Parts of two images, and the last one.


def test_a_callback_sees_and_stops():
    generator, seen = Generator(DENOISER, DDIM(), steps=4), []
    full = generator(2, SHAPE, callback=lambda k, x0hat: seen.append((k, x0hat.shape)))
    assert seen == [(k, (2, *SHAPE)) for k in range(4)]
    times = generator.plan.times
    stopped = generator(2, SHAPE, callback=lambda k, x0hat: k == 1)
    assert torch.equal(stopped, Generator(generator.denoiser, DDIM(), times=times[:3])(2, SHAPE))
    assert relative_error(stopped, full) > 0.01
    with pytest.raises(ValueError, match="callback: sees one batch, so that together must be None or at least 2, got"):
        generator(2, SHAPE, callback=lambda k, x0hat: None, together=1)


def test_a_run_backwards():
    generator = Generator(DENOISER, BDIA(), steps=4)
    x = generator(2, SHAPE, dtype=torch.float64)
    assert relative_error(generator(2, SHAPE, x_init=generator.invert(x), dtype=torch.float64), x) < 1e-9


# ------------------------------------------------------------------------------------ around it
@pytest.mark.elsewhere
@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_of_torch_change_nothing(setting):
    want = Generator(DENOISER, steps=3)(3, SHAPE)
    for together in (None, 2):
        with SETTINGS[setting]():
            got = Generator(DENOISER, steps=3)(3, SHAPE, together=together)
        assert (got.dtype, got.device, got.is_inference()) == (want.dtype, want.device, False)
        assert relative_error(got, want) < EQUAL


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_it_can_be_copied(duplicate):
    generator = Generator(labelled(labels=LABELS[:1]), UniPC(3), times=[0.0, 0.2, 0.5, 1.0], clip=(-1, 1))
    other = duplicate(generator)
    assert repr(other) == repr(generator)
    assert torch.equal(other(2, SHAPE), generator(2, SHAPE))


def test_shapes_come_and_go_and_threads_meet():
    generator = Generator(DENOISER, DDIM(), steps=2)
    shapes = [(3, 4 + k, 4) for k in range(18)]
    want = {shape: Generator(generator.denoiser, DDIM(), steps=2)(1, shape) for shape in shapes}
    wrong = []

    def run():
        wrong.extend(shape for shape in shapes if not torch.equal(generator(1, shape), want[shape]))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(generator._samplers) <= 16
    stats = generator.stats()
    assert stats["network_evaluations"] == 2 * stats["calls"] > 0
    assert generator.warmup(2, (3, 8, 8)) > 0
    assert generator.memory_estimate(2, (3, 8, 8)).weights == sum(p.numel() * 4 for p in NETWORK.parameters())


def test_signals_and_double_precision():
    prior = Gaussian(torch.zeros(16), torch.eye(16), (2, 8))
    generator = Generator(prior.denoiser(Flow(), "velocity"), steps=3)
    exact = generator(2, (2, 8), dtype=torch.float64)
    assert exact.dtype == torch.float64
    assert relative_error(generator(2, (2, 8)), exact) < 1e-5


def test_no_images_are_no_work():
    generator = Generator(DENOISER, steps=2)
    for together in (None, 1):
        assert generator(0, SHAPE, together=together).shape == (0, *SHAPE)
    assert generator.stats()["calls"] == 0


def test_values_that_are_not_finite_are_named():
    def network(x, t, labels):
        return x / labels.reshape(-1, 1, 1, 1)

    generator = Generator(Denoiser(network, VP()), DDIM(), steps=2)
    labels = torch.tensor([1.0, 1.0, 0.0, 1.0])
    with pytest.raises(NonFiniteError, match=r"result: images \[2\] of 4") as raised:
        generator(4, SHAPE, condition={"labels": labels}, together=1)
    assert raised.value.result.shape == (4, *SHAPE)


# ------------------------------------------------------------------------------------ wrong calls
MADE = [
    ({"denoiser": NETWORK}, TypeError, "denoiser: must be a ccfast Denoiser, got Network"),
    ({"solver": "ddim"}, TypeError, "solver: must be one of ccfast.solvers, got 'ddim'"),
    ({"steps": 0}, ValueError, "steps: must be an integer >= 1, got 0"),
    ({"steps": 2.5}, ValueError, "steps: must be an integer >= 1, got 2.5"),
    ({"steps": 3, "times": [0.0, 0.5, 1.0]}, ValueError, "times: is the whole grid, here of 2 steps, and excludes"),
    ({"times": [0.5, 0.1]}, ValueError, "times: the noise must fall strictly"),
    ({"start": 1.5}, ValueError, "times: Flow takes times in"),
    ({"graph": True}, ValueError, "graph: True needs a CUDA device"),
    ({"nan": "ignore"}, ValueError, "nan: must be 'raise' or 'return'"),
    ({"backend": "fastest"}, ValueError, "backend"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), MADE)
def test_wrong_generators(arguments, error, message):
    with pytest.raises(error, match=message):
        Generator(**{"denoiser": DENOISER} | arguments)


CALLS = [
    ((2.0, SHAPE), ValueError, "n: must be an integer >= 0, got 2.0"),
    ((-1, SHAPE), ValueError, "n: must be an integer >= 0, got -1"),
    ((True, SHAPE), ValueError, "n: must be an integer >= 0, got True"),
    ((2, (64, 64)), ValueError, r"Generator: shape must be \(C, H, W\), .*write shape=\(3, 64, 64\)"),
    ((2, (64, 64, 3)), ValueError, r"Generator: shape must be .*write shape=\(3, 64, 64\)"),
    ((2, (2, 3, 8, 8)), ValueError, r"Generator: shape must be .*write shape=\(3, 8, 8\), of one image"),
    ((2, 8), ValueError, "Generator: shape must be"),
    ((2, SHAPE, [1, 2, 3]), ValueError, "seed: must be an int or one for each of the 2 images, got 3"),
    ((2, SHAPE, "0"), TypeError, "seed: must be an integer"),
    ((2, SHAPE, 0, {"labels": LABELS}), ValueError, "condition: labels must have one row, or one for each of 2 images"),
    ((2, SHAPE, 0, {"x": torch.ones(2, device="meta")}), ValueError, "condition: must be on cpu"),
]
OPTIONS = [
    ({"together": 0}, ValueError, "together: must be an integer >= 1 or None, got 0"),
    ({"dtype": torch.float16}, TypeError, "dtype: must be torch.float32 or torch.float64, got torch.float16"),
    ({"x_init": torch.zeros(1, *SHAPE)}, ValueError, r"x_init: must have shape \(2, 3, 8, 8\), got \(1, 3, 8, 8\)"),
    ({"x_init": torch.zeros(2, *SHAPE).double()}, TypeError, "x_init: must have dtype torch.float32, got"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), CALLS)
def test_wrong_calls(arguments, error, message):
    with pytest.raises(error, match=message):
        Generator(DENOISER, steps=2)(*arguments)


@pytest.mark.parametrize(("options", "error", "message"), OPTIONS)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        Generator(DENOISER, steps=2)(2, SHAPE, **options)


def test_a_sampler_without_an_operator_names_it():
    with pytest.raises(TypeError, match=r"operator: must be a ccfast Operator, got NoneType; ccfast\.Generator"):
        Sampler(DENOISER, None)


def test_transforms_are_refused():
    generator = Generator(DENOISER, steps=2)
    with pytest.raises(RuntimeError, match=r"torch\.func"):
        torch.func.vmap(lambda v: generator(1, SHAPE) + v)(torch.zeros(2))
