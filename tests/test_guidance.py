"""Classifier-free guidance against two plain evaluations, for every use of a network, in graphs and per call.

On the other side are networks that write into their inputs, return the same buffer or a learned variance, that take
embeddings, labels, nothing or lists of tensors, and callers who change the condition or the negative one in every call.
"""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from test_graph import graph_stats, make
from test_networks import EQUAL, OPERATOR, SHAPE, USES, Labelled, Plain, measured, reused, variant
from torch import nn

from ccfast import Denoiser, Sampler
from ccfast.schedules import VP, Flow
from ccfast.solvers import DDNM, DDPM
from ccfast.testing import relative_error

LABELS, NONE = torch.tensor([1, 2, 3]), torch.tensor([0])
SCALE = 3.0


def by_hand(network, scale=SCALE, rescale=0.0, span=(-1.0, 1e9)):
    """The guided network, written out with two calls."""

    def guided(x, t):
        found, other = network(x.clone(), t, labels=LABELS), network(x.clone(), t, labels=NONE)
        mixed = other + scale * (found - other)
        ratio = found.std((1, 2, 3), keepdim=True) / mixed.std((1, 2, 3), keepdim=True)
        mixed = rescale * mixed * ratio + (1 - rescale) * mixed
        return torch.where(((t >= span[0]) & (t <= span[1])).reshape(-1, 1, 1, 1), mixed, found)

    return guided


def guided(network, **options):
    own = Denoiser(network, VP(), network_kwargs={"labels": LABELS})
    return own.guided(SCALE, {"labels": NONE}, **options)


def restored(denoiser, solver, **options):
    return Sampler(denoiser, OPERATOR, solver, steps=3)(measured(3), seed=0, **options)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("use", USES)
def test_it_is_two_evaluations(use, together):
    want = restored(Denoiser(by_hand(Labelled()), VP()), USES[use])
    assert relative_error(restored(guided(Labelled(), together=together), USES[use]), want) < 10 * EQUAL


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("rescale", "interval"), [(0.7, None), (0.0, (0.1, 0.3)), (1.0, (0.3, 0.1))])
def test_rescaled_and_in_an_interval(rescale, interval, together):
    span = (-1.0, 1e9) if interval is None else (99.9, 299.7)
    want = restored(Denoiser(by_hand(Labelled(), rescale=rescale, span=span), VP()), USES["VJP"])
    denoiser = guided(Labelled(), rescale=rescale, interval=interval, together=together)
    assert relative_error(restored(denoiser, USES["VJP"]), want) < 10 * EQUAL


def test_times_of_a_flow_run_the_other_way():
    def network(x, t, labels):
        return 0.3 * x * labels.reshape(-1, 1, 1, 1)

    denoiser = Denoiser(network, Flow(), "velocity", network_kwargs={"labels": torch.ones(1)})
    always, early = (denoiser.guided(2.0, {"labels": torch.zeros(1)}, interval=i) for i in ((0.0, 1.0), (0.0, 0.1)))
    x = torch.ones(1, *SHAPE)
    assert torch.equal(always.network(x, torch.tensor([500.0]), **always.network_kwargs), 0.6 * x)
    assert torch.equal(early.network(x, torch.tensor([500.0]), **early.network_kwargs), 0.3 * x)
    assert torch.equal(early.network(x, torch.tensor([50.0]), **early.network_kwargs), 0.6 * x)


class Shifted(nn.Module):
    """A network in the zoo with a label that shifts its output."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, t, labels):
        return self.network(x, t) * (1 + 0.1 * labels.reshape(-1, 1, 1, 1))


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("use", ["VJP", "none", "difference"])
def test_networks_that_write_where_they_should_not(use, together):
    in_place = variant(first=lambda self, x: x.clamp_(-1, 1))()
    twin = variant(first=lambda self, x: x.clamp(-1, 1))()
    want = restored(Denoiser(by_hand(Shifted(twin)), VP()), USES[use])
    assert relative_error(restored(guided(Shifted(in_place), together=together), USES[use]), want) < 10 * EQUAL


def test_the_same_buffer_twice():
    network, plain = reused(Plain()), Plain()

    def called(x, t, labels):
        return network(x * (1 + 0.1 * labels.reshape(-1, 1, 1, 1)), t)

    def twin(x, t, labels):
        return plain(x * (1 + 0.1 * labels.reshape(-1, 1, 1, 1)), t)

    want = restored(Denoiser(by_hand(twin), VP()), DDNM())
    assert relative_error(restored(guided(called, together=False), DDNM()), want) < EQUAL


def test_conditions_of_a_call():
    denoiser = Denoiser(Labelled(), VP()).guided(SCALE, {"labels": NONE})
    assert (
        relative_error(restored(denoiser, DDNM(), condition={"labels": LABELS}), restored(guided(Labelled()), DDNM()))
        < EQUAL
    )
    other = restored(
        denoiser, DDNM(), condition={"labels": LABELS, "unconditional": {"labels": torch.tensor([7, 8, 9])}}
    )
    want = Denoiser(Labelled(), VP(), network_kwargs={"labels": LABELS}).guided(
        SCALE, {"labels": torch.tensor([7, 8, 9])}
    )
    assert torch.equal(other, restored(want, DDNM()))
    drawn = Sampler(denoiser, OPERATOR, DDNM(), steps=3).sample(
        measured(3), 2, seed=0, together=2, condition={"labels": LABELS}
    )
    assert relative_error(drawn[0], restored(guided(Labelled()), DDNM())) < EQUAL


def test_one_graph_serves_other_conditions():
    denoiser = Denoiser(Labelled(), VP()).guided(SCALE, {"labels": NONE})
    sampler = make(OPERATOR, DDNM(), mode=True, network=denoiser, backend="reference", steps=3)
    for shift in range(3):
        condition = {"labels": LABELS + shift, "unconditional": {"labels": NONE + shift}}
        got = sampler(measured(3), seed=0, condition=condition)
        assert relative_error(got, restored(denoiser, DDNM(), condition=condition)) < EQUAL
    assert graph_stats(sampler)["device"]["captured"] == 1


def test_a_learned_variance_is_that_of_the_condition():
    def network(x, t, labels):
        return torch.cat([0.1 * x * labels.reshape(-1, 1, 1, 1), labels.reshape(-1, 1, 1, 1) * torch.ones_like(x)], 1)

    for together in (True, False):
        denoiser = guided(network, together=together)
        output = denoiser.network(torch.ones(3, *SHAPE), torch.ones(3), **denoiser.network_kwargs)
        assert torch.equal(output[:, :3].amax((1, 2, 3)), SCALE * 0.1 * LABELS)
        assert torch.equal(output[:, 3:].amax((1, 2, 3)), LABELS.float())
        assert restored(denoiser, DDPM("learned")).isfinite().all()


def test_train_mode_is_seen_behind_it():
    dropping = nn.Dropout(0.5)
    denoiser = Denoiser(lambda x, t, labels: dropping(x), VP(), network_kwargs={"labels": LABELS})
    with pytest.raises(ValueError, match=r"must be in eval mode, call network.eval\(\)"):
        Sampler(denoiser.guided(SCALE, {"labels": NONE}), OPERATOR, DDNM())
    dropping.eval()
    Sampler(denoiser.guided(SCALE, {"labels": NONE}), OPERATOR, DDNM())


def test_copies():
    denoiser = guided(Labelled())
    for copied in (copy.deepcopy(denoiser), pickle.loads(pickle.dumps(denoiser))):
        assert torch.equal(restored(copied, DDNM()), restored(denoiser, DDNM()))


BAD = [
    ((SCALE, None), {}, TypeError, "unconditional: must be a mapping from names of arguments to values, got None"),
    ((float("nan"), {}), {}, ValueError, "scale: must be a finite number, got nan"),
    ((SCALE, {}), {"rescale": 2.0}, ValueError, r"rescale: must lie in \[0, 1\], got 2.0"),
    ((SCALE, {}), {"together": "yes"}, ValueError, "together: must be True or False, got 'yes'"),
    ((SCALE, {}), {"interval": (0.1,)}, ValueError, r"interval: must be two schedule times, got \(0.1,\)"),
    ((SCALE, {}), {"interval": (0.1, 2.0)}, ValueError, "times: VP takes times in"),
]


@pytest.mark.parametrize(("given", "options", "error", "message"), BAD)
def test_errors(given, options, error, message):
    with pytest.raises(error, match=message):
        Denoiser(Labelled(), VP()).guided(*given, **options)


def test_values_that_cannot_share_an_evaluation():
    own = Denoiser(lambda x, t, words: x, VP(), network_kwargs={"words": torch.ones(1, 5, 4)})
    with pytest.raises(ValueError, match=r"unconditional: words must be .* got a tensor \(3, 7, 4\) .* together=False"):
        restored(own.guided(SCALE, {"words": torch.ones(1, 7, 4)}), DDNM())
    restored(own.guided(SCALE, {"words": torch.ones(1, 7, 4)}, together=False), DDNM())


def looked_up(x, t, table, labels):
    return 0.1 * x + table[labels].reshape(-1, 1, 1, 1)


def test_an_argument_without_rows_of_images_is_shared():
    table = torch.linspace(-0.1, 0.1, 7)
    own = Denoiser(looked_up, VP(), network_kwargs={"table": table, "labels": LABELS})
    want = restored(Denoiser(by_hand(lambda x, t, labels: looked_up(x, t, table, labels)), VP()), DDNM())
    for together in (True, False):
        got = restored(own.guided(SCALE, {"labels": NONE}, together=together), DDNM())
        assert relative_error(got, want) < 10 * EQUAL
    with pytest.raises(ValueError, match="unconditional: table must have one row, or one for each of 3 images, to sha"):
        restored(own.guided(SCALE, {"labels": NONE, "table": table.clone()}), DDNM())
    restored(own.guided(SCALE, {"labels": NONE, "table": table.clone()}, together=False), DDNM())
