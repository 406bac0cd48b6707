"""Clipping of x0hat and dynamic thresholding: the published loops, the derivative by autograd, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from row_shorthand import columns

from ccfast import Denoiser, Sampler
from ccfast.engine.backends import BACKENDS, can_run
from ccfast.engine.clipping import DynamicThreshold, EstimateOnly, dynamic_threshold
from ccfast.kernels import reference
from ccfast.operators import AveragePooling, Inpainting
from ccfast.schedules import EDM, VE, VP, Flow
from ccfast.solvers import BDIA, DDIM, DDNM, DPS, Conjugate, DPMSolverPP, PiGDM
from ccfast.testing import relative_error

SHAPE = (1, 6, 8)
OPERATOR = AveragePooling(SHAPE, 2)
CLIPS = [(-0.5, 0.4), "dynamic", DynamicThreshold(0.9, sample_max_value=1.3)]
SCHEDULES = {
    "vp": (VP(), 0.8, 0.05),
    "ve": (VE(0.01, 50), 5.0, 0.1),
    "edm": (EDM(), 5.0, 0.1),
    "flow": (Flow(), 0.3, 0.9),
}
PREDICTIONS = ["epsilon", "sample", "v_prediction", "velocity"]


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def estimate(x, mu, sigma):
    """x0hat of a network that overshoots, as untrained and guided ones do; its Jacobian is not symmetric."""
    u = x / (mu + sigma)
    return 1.5 * torch.tanh(u + 0.4 * u.roll(1, -1)) + 0.3 * u.roll(1, -2) ** 2


def denoiser(schedule, prediction):
    def network(x, t):
        mu, sigma = (float(f(float(t[0]))) for f in (schedule.mean, schedule.std))
        x0 = estimate(x, mu, sigma)
        eps = (x - mu * x0) / sigma
        return {"epsilon": eps, "sample": x0, "v_prediction": mu * eps - sigma * x0, "velocity": x0 - eps}[prediction]

    return Denoiser(network, schedule, prediction, time_map=float)


def limit(x0, clip):
    """The threshold as published, with torch's quantile."""
    if not isinstance(clip, tuple):
        ratio, most = (0.995, None) if clip == "dynamic" else (clip.ratio, clip.sample_max_value)
        s = torch.quantile(x0.flatten(1).abs(), ratio, dim=1).clamp(1.0, most)[:, None, None, None]
        return torch.maximum(torch.minimum(x0, s), -s) / s
    return x0.clamp(*clip)


@pytest.mark.parametrize("clip", CLIPS, ids=str)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_clipped_loop_is_the_published_one(name, prediction, clip):
    schedule, start, end = SCHEDULES[name]
    times = np.linspace(start, end, 6)
    mu, sigma = schedule.mean(times), schedule.std(times)
    y, x = OPERATOR.forward(normal(2, *SHAPE, seed=1)), 2.0 * normal(2, *SHAPE) * sigma[0]
    sampler = Sampler(denoiser(schedule, prediction), OPERATOR, DDNM(eta=0.0), times=times, clip=clip)
    if name == "flow":
        sampler = Sampler(denoiser(schedule, prediction), OPERATOR, DDIM(), times=times, clip=clip)
    seen = []
    got = sampler(y, x_init=x, callback=lambda k, x0: seen.append(x0))
    cut = []
    for k in range(5):
        raw = estimate(x, mu[k], sigma[k])
        x0 = limit(raw, clip)
        cut.append(float((x0 != raw).double().mean()))
        assert relative_error(seen[k], x0) < 1e-11
        eps = (x - mu[k] * x0) / sigma[k]
        x0 = x0 if name == "flow" else x0 + OPERATOR.pinv(y) - OPERATOR.project(x0)
        x = mu[k + 1] * x0 + sigma[k + 1] * eps
    assert relative_error(got, x) < 1e-11
    assert max(cut) > 0.1


@pytest.mark.parametrize("clip", CLIPS, ids=str)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("solver", [PiGDM(2.0), Conjugate(3.0), DPS(0.5, eta=0.0)], ids=repr)
def test_guidance_is_the_derivative_of_what_is_clipped(solver, name, prediction, clip):
    """One step has the gradient by autograd of the clipped estimate, also through a threshold that is dynamic."""
    schedule, start, end = SCHEDULES[name]
    times = [start, start + 0.2 * (end - start)]
    mu, sigma = (float(v[0]) for v in (schedule.mean(times), schedule.std(times)))
    y, x = OPERATOR.forward(normal(2, *SHAPE, seed=1)), 2.0 * normal(2, *SHAPE) * sigma
    sampler = Sampler(denoiser(schedule, prediction), OPERATOR, solver, times=times, clip=clip)
    got = sampler(y, x_init=x, seed=0)
    leaf = x.clone().requires_grad_()
    x0 = limit(estimate(leaf, mu, sigma), clip)
    assert float((x0.detach() != estimate(x, mu, sigma)).double().mean()) > 0.02
    if isinstance(solver, DPS):
        misfit = OPERATOR.forward(x0.detach()) - y
        norm = torch.linalg.vector_norm(misfit.flatten(1), dim=1)
        r = -OPERATOR.adjoint(misfit) / norm[:, None, None, None]
    else:
        r = OPERATOR.pinv(y) - OPERATOR.project(x0.detach())
    (pull,) = torch.autograd.grad((x0 * r).sum(), leaf)  # This is (dx0/dx)^T r.
    p, q = (float(v[0]) for v in denoiser(schedule, prediction).coefficients(np.array(times[:1]))[1:3])
    parts = {"x": x, "F": (x0.detach() - p * x) / q, "r": r, "h": (pull - p * r) / q}
    parts |= {f"P{name}": OPERATOR.project(part) for name, part in parts.items()} | {"ybar": OPERATOR.pinv(y)}
    rows = columns(sampler.plan)
    expected = sum(float(column[0]) * parts[name] for name, column in rows.items() if name != "z")
    assert "h" in rows
    assert relative_error(got, expected) < 1e-10


@pytest.mark.parametrize("clip", CLIPS, ids=str)
@pytest.mark.parametrize("product", ["forward", "finite_difference"])
def test_other_products_are_of_the_clipped_estimate_too(product, clip):
    """For a network with a symmetric Jacobian the other products equal the reverse product."""
    network = lambda x, t: 2.0 * torch.tanh(1.5 * x)  # noqa: E731
    y, x = OPERATOR.forward(normal(2, *SHAPE, seed=1)), normal(2, *SHAPE)
    reverse, other = (
        Sampler(Denoiser(network, VP(), "sample"), OPERATOR, Conjugate(3.0, product=p), times=[0.5, 0.3], clip=clip)(
            y, x_init=x
        )
        for p in ("reverse", product)
    )
    assert relative_error(other, reverse) < (1e-11 if product == "forward" else 1e-2)


def test_a_range_that_holds_everything_changes_nothing():
    y, x = OPERATOR.forward(normal(2, *SHAPE, seed=1)), normal(2, *SHAPE)
    for solver in (Conjugate(3.0, order=2), DPMSolverPP(3), PiGDM()):
        plain, wide = (
            Sampler(denoiser(VP(), "epsilon"), OPERATOR, solver, start=0.8, clip=clip)(y, x_init=x, seed=0)
            for clip in (None, (-1e6, 1e6))
        )
        assert torch.equal(plain, wide)


@pytest.mark.parametrize("clip", CLIPS, ids=str)
@pytest.mark.parametrize("solver", [Conjugate(3.0), DPMSolverPP(3), PiGDM(), DDNM()], ids=repr)
def test_backends_and_batches_agree(solver, clip):
    schedule = VP()
    names = [name for name in BACKENDS if can_run(name)]
    y, x = OPERATOR.forward(normal(3, *SHAPE, seed=1)).float(), (2 * normal(3, *SHAPE)).float()
    results = []
    for name in names:
        sampler = Sampler(denoiser(schedule, "epsilon"), OPERATOR, solver, start=0.8, backend=name, clip=clip)
        results.append(sampler(y, x_init=x, seed=[1, 2, 3]))
        assert "x0hat clipped" in sampler.plan.explain()
        assert relative_error(sampler(y[1:2], x_init=x[1:2], seed=[2]), results[-1][1:2]) < 1e-5
    for result in results:
        assert relative_error(result, results[0]) < 1e-4


@pytest.mark.parametrize("count", [1, 2, 3, 200, 1001])
def test_the_threshold_is_the_quantile(count):
    x = 3.0 * normal(4, 1, 1, count)
    x[0] *= 0.01
    threshold, place, share = dynamic_threshold(x)
    expected = torch.quantile(x.flatten(1).abs(), 0.995, dim=1).clamp_min(1.0)
    assert threshold == pytest.approx(expected, rel=1e-12)
    between = (x.flatten(1).abs().gather(1, place) * share).sum(1)
    assert between[1:] == pytest.approx(torch.where(expected > 1, expected, 0.0)[1:], rel=1e-12)
    assert float(between[0]) == 0.0


@pytest.mark.parametrize("most", [0.7, 1.0, 1.5, 100.0])
@pytest.mark.parametrize("ratio", [0.5, 0.995, 1.0])
def test_the_threshold_has_a_largest_value(ratio, most):
    """diffusers' ``sample_max_value``: the quantile is clamped to [1, most], and moves with nothing at either end."""
    x = 2.0 * normal(4, 1, 1, 200) * torch.tensor([0.1, 0.5, 1.0, 4.0])[:, None, None, None]
    threshold, _, share = dynamic_threshold(x, DynamicThreshold(ratio, most))
    quantile = torch.quantile(x.flatten(1).abs(), ratio, dim=1)
    assert threshold == pytest.approx(torch.clamp(quantile, min=1.0, max=most), rel=1e-12)
    assert torch.equal(share.sum(1) > 0.5, (quantile > 1.0) & (quantile < most))


def test_the_denoiser_s_own_clip_holds_unless_another_is_given():
    y, x = OPERATOR.forward(normal(2, *SHAPE, seed=1)), normal(2, *SHAPE)
    own = denoiser(VP(), "epsilon")
    clipping = Denoiser(own.network, VP(), "epsilon", time_map=float, clip=(-0.5, 0.4))
    assert clipping.clip == (-0.5, 0.4)
    assert torch.equal(clipping(x, 0.5), own(x, 0.5).clamp(-0.5, 0.4))
    make = lambda which, **kwargs: Sampler(which, OPERATOR, DDNM(), start=0.8, **kwargs)(y, x_init=x, seed=0)  # noqa: E731
    assert torch.equal(make(clipping), make(own, clip=(-0.5, 0.4)))
    assert torch.equal(make(clipping, clip=None), make(own))
    assert torch.equal(make(clipping, clip="dynamic"), make(own, clip="dynamic"))
    with pytest.raises(ValueError, match="clip: must be None, 'dynamic' or"):
        Denoiser(own.network, VP(), clip="auto")
    with pytest.raises(ValueError, match=r"ratio: must lie in \(0, 1\], got 0"):
        DynamicThreshold(0)
    with pytest.raises(ValueError, match=r"limits: must be .*, got None"):
        EstimateOnly(None)
    with pytest.raises(ValueError, match="sample_max_value: must be a number > 0, got -1"):
        DynamicThreshold(sample_max_value=-1)


@pytest.mark.parametrize("eta", [0.0, 0.6])
@pytest.mark.parametrize("clip", CLIPS, ids=str)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_eps_can_stay_that_of_the_network(name, prediction, clip, eta, monkeypatch):
    """x' = mu' C(x0hat) + direction eps, as diffusers' DDIM has it; the callback sees C(x0hat)."""
    schedule, start, end = SCHEDULES[name]
    times = np.linspace(start, end, 6)
    mu, sigma = schedule.mean(times), schedule.std(times)
    y, x = OPERATOR.forward(normal(2, *SHAPE, seed=1)), 2.0 * normal(2, *SHAPE) * sigma[0]
    monkeypatch.setattr(reference, "normal", lambda out, *words: out.copy_(normal(*out.shape, seed=7)))
    arguments, seen = (denoiser(schedule, prediction), OPERATOR, DDIM(eta)), []
    sampler = Sampler(*arguments, times=times, clip=EstimateOnly(clip), backend="reference")
    got = sampler(y, x_init=x, callback=lambda k, x0: seen.append(x0))
    other = Sampler(*arguments, times=times, clip=clip, backend="reference")(y, x_init=x)
    for k in range(5):
        raw = estimate(x, mu[k], sigma[k])
        s = eta * sigma[k + 1] * np.sqrt(1 - (sigma[k + 1] / mu[k + 1] * mu[k] / sigma[k]) ** 2)
        eps, z = (x - mu[k] * raw) / sigma[k], normal(2, *SHAPE, seed=7)
        x = mu[k + 1] * limit(raw, clip) + np.sqrt(sigma[k + 1] ** 2 - s**2) * eps + s * z
        assert relative_error(seen[k], limit(raw, clip)) < 1e-10
    assert relative_error(got, x) < 1e-10
    assert relative_error(got, other) > 1e-3


def test_a_clipped_run_can_be_taken_back():
    y, x = OPERATOR.forward(normal(1, *SHAPE, seed=1)), normal(1, *SHAPE)
    sampler = Sampler(denoiser(VP(), "epsilon"), OPERATOR, BDIA(), steps=8, start=0.6, clip=(-0.5, 0.5))
    end = sampler(y, x_init=x)
    assert relative_error(sampler(y, x_init=sampler.invert(end)), end) < 1e-10


def test_what_is_clipped_is_the_last_state_where_the_run_ends_clean():
    operator = Inpainting(torch.zeros(1, 1, 1).expand(SHAPE).clone().index_fill(1, torch.tensor([0]), 1.0))
    y = operator.forward(0.3 * torch.ones(2, *SHAPE, dtype=torch.float64))
    sampler = Sampler(denoiser(VP(), "epsilon"), operator, DDNM(), start=0.9, end=0.0, clip=(-1.0, 1.0))
    assert float(sampler(y, seed=0).abs().max()) <= 1.0 + 1e-9


@pytest.mark.parametrize(
    "clip", [True, "static", (1.0, -1.0), (0.0, 0.0), (-1.0,), (-1.0, float("inf")), 1.0, ("a", "b"), (False, True)]
)
def test_errors(clip):
    with pytest.raises(ValueError, match=r"clip: must be None, 'dynamic' or two finite numbers .*, got"):
        Sampler(denoiser(VP(), "epsilon"), OPERATOR, DDIM(), clip=clip)
