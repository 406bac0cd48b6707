"""``condition=``: keyword arguments of the network for one call, for every use of a network, and in graphs.

On the other side is a caller who gives labels, embeddings and pictures, in float or integers, one for all images or one
for each, nested in what the network takes, with other values in every call and sometimes on another device.
"""

from __future__ import annotations

import math

import pytest
import torch
from test_graph import graph_stats, make
from test_networks import EQUAL, OPERATOR, SHAPE, USES, Labelled, measured

from ccfast import Denoiser, Sampler
from ccfast.schedules import VP
from ccfast.solvers import BDIA, DDNM, Conjugate
from ccfast.testing import relative_error

CONDITIONS = {
    "labels": {"labels": torch.tensor([1, 2, 3])},
    "one label": {"labels": torch.tensor([4])},
    "nested": {"nested": {"labels": [torch.tensor([1, 2, 3])]}},
    "a picture": {"picture": torch.linspace(-1, 1, 192).reshape(1, *SHAPE)},
    "pictures": {"picture": torch.linspace(-1, 1, 576).reshape(3, *SHAPE)},
}


def sampler_of(solver=None, kwargs=None, **options):
    return Sampler(Denoiser(Labelled(), VP(), network_kwargs=kwargs), OPERATOR, solver or DDNM(), steps=3, **options)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_is_what_the_denoiser_s_arguments_would_be(name, use):
    y, solver = measured(3), USES[use]
    sampler = sampler_of(solver)
    for condition in (CONDITIONS[name], {"labels": torch.tensor([0])}, CONDITIONS[name]):
        got = sampler(y, seed=0, condition=condition)
        assert relative_error(got, sampler_of(solver, condition)(y, seed=0)) < EQUAL


def test_it_goes_before_the_denoiser_s_own():
    y, own = measured(3), {"labels": torch.tensor([5]), "picture": None}
    sampler = sampler_of(kwargs=own)
    got = sampler(y, seed=0, condition={"labels": torch.tensor([1, 2, 3])})
    assert torch.equal(got, sampler_of(kwargs=own | CONDITIONS["labels"])(y, seed=0))
    assert torch.equal(sampler(y, seed=0), sampler_of(kwargs=own)(y, seed=0))  # The call after has its own again.
    assert sampler.denoiser.network_kwargs == own


def test_every_image_keeps_its_rows():
    y, condition = measured(3), CONDITIONS["labels"]
    sampler, held = sampler_of(), sampler_of(kwargs=condition)
    levels = torch.tensor([0.1, 0.0, 0.1])
    got = sampler(y, seed=0, noise_std=levels, condition=condition)
    assert torch.equal(got, held(y, seed=0, noise_std=levels))
    for together in (1, 2, 4):
        drawn = sampler.sample(y, 4, seed=0, together=together, condition=condition)
        assert relative_error(drawn, held.sample(y, 4, seed=0)) < EQUAL


def test_a_run_backwards_has_the_same_condition():
    y, condition = measured(3), CONDITIONS["labels"]
    sampler = sampler_of(BDIA())
    x = sampler(y, seed=0, condition=condition)
    states = sampler.invert(x, condition=condition)
    assert relative_error(sampler(y, x_init=states, seed=0, condition=condition), x) < 1e-3
    other = sampler.invert(x, condition={"labels": torch.tensor([7])})
    assert relative_error(states[0], other[0]) > 1e-2


def test_a_network_that_needs_one():
    sampler = sampler_of(Conjugate())
    with pytest.raises((TypeError, AttributeError)):
        sampler(measured(3), seed=0)
    assert sampler.warmup(3, condition=CONDITIONS["labels"]) > 0
    with pytest.raises(RuntimeError, match=r"memory_estimate: network .* cannot be traced"):
        sampler.memory_estimate(3)
    assert sampler.memory_estimate(3, condition=CONDITIONS["labels"]).weights == 10 * 3 * 4


@pytest.mark.parametrize("name", CONDITIONS)
def test_one_graph_serves_other_values(name):
    denoiser = Denoiser(Labelled(), VP())
    sampler = make(OPERATOR, DDNM(), mode=True, network=denoiser, backend="reference", steps=3)
    y = measured(3)
    for shift in range(3):
        condition = shifted(CONDITIONS[name], shift)
        got = sampler(y, seed=0, condition=condition)
        assert relative_error(got, sampler_of(kwargs=condition, backend="reference")(y, seed=0)) < EQUAL
    stats = graph_stats(sampler)
    assert (stats["replays"], stats["device"]["captured"]) == (3, 1)
    sampler(y, seed=0, condition={"labels": torch.tensor([[1, 2, 3]]).mT[:, 0].to(torch.int32)})
    assert graph_stats(sampler)["device"]["captured"] == 2  # Another dtype is another graph.


def shifted(value, shift):
    if isinstance(value, torch.Tensor):
        return value + shift if not value.is_floating_point() else value * (1 + 0.1 * shift)
    if isinstance(value, dict):
        return {key: shifted(item, shift) for key, item in value.items()}
    return [shifted(item, shift) for item in value]


BAD = [
    (7, TypeError, r"condition: must be a mapping from names of arguments to values, got 7"),
    ({1: torch.ones(3)}, TypeError, "condition: must be a mapping from names"),
    ({"labels": torch.ones(2)}, ValueError, "condition: labels must have one row, or one for each of 3 images, got 2"),
    (
        {"nested": {"labels": [torch.ones(4)]}},
        ValueError,
        r"condition: nested\['labels'\]\[0\] must have one row, or one for each of 3 images, got 4",
    ),
    ({"labels": torch.ones(3, device="meta")}, ValueError, "condition: must be on cpu, .* got a tensor on meta"),
]


@pytest.mark.parametrize(("condition", "error", "message"), BAD)
def test_bad_conditions(condition, error, message):
    sampler = sampler_of()
    for call in (
        lambda: sampler(measured(3), condition=condition),
        lambda: sampler.sample(measured(3), 2, condition=condition),
        lambda: sampler.warmup(3, condition=condition),
    ):
        with pytest.raises(error, match=message):
            call()


ALIKE = [1, 1.0, True, "1", [1], (1,), {"a": 1}, {"a": 1.0}, 0.0, -0.0]


def test_values_that_are_equal_but_not_the_same_have_graphs_of_their_own():
    def network(x, t, kind):
        step = {int: 0.1, float: 0.2, bool: 0.3, str: 0.4, list: 0.5, tuple: 0.6}.get(type(kind), 0.7)
        return step * x + (math.copysign(0.05, kind) if kind == 0.0 else 0.0) + isinstance(kind, dict) * len(repr(kind))

    sampler = make(OPERATOR, DDNM(), mode=True, network=Denoiser(network, VP()), backend="reference", steps=3)
    alone = Sampler(sampler.denoiser, OPERATOR, DDNM(), backend="reference", steps=3)
    for value in ALIKE:
        got = sampler(measured(3), seed=0, condition={"kind": value})
        assert relative_error(got, alone(measured(3), seed=0, condition={"kind": value})) < EQUAL
    assert graph_stats(sampler)["device"]["captured"] == len(ALIKE)
