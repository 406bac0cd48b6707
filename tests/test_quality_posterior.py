"""The exact posteriors of bench.quality against Bayes' rule in dense algebra, and the distances on exact draws."""

from __future__ import annotations

import math

import pytest
import torch

from bench.quality.distances import Reference, compare
from bench.quality.exact_posteriors import PROBLEMS, Posterior
from bench.quality.methods import BASELINES, CONJUGATE
from bench.quality.posterior import Measured
from bench.quality.record import Record
from ccfast.solvers import Conjugate

NOISY = [problem for problem in PROBLEMS if problem.noise_std]


def dense(operator) -> torch.Tensor:
    pixels = math.prod(operator.shape)
    eye = torch.eye(pixels, dtype=torch.float64).reshape(pixels, *operator.shape)
    return operator.forward(eye).reshape(pixels, -1).mT


@pytest.mark.parametrize("problem", NOISY, ids=lambda problem: problem.name)
def test_posterior_is_bayes_rule_in_information_form(problem):
    y = problem.draw(1, seed=3)[0]
    H, precision = dense(problem.operator), problem.noise_std**-2
    posterior, logs = problem.posterior(y), []
    prior = zip(problem.prior.weights, problem.prior.means, problem.prior.covariances, strict=True)
    for k, (weight, m, covariance) in enumerate(prior):
        inverse = torch.linalg.inv(covariance)
        exact = torch.linalg.inv(inverse + precision * H.mT @ H)
        mean = exact @ (inverse @ m + precision * H.mT @ y.flatten())
        assert torch.allclose(posterior.means[k], mean, atol=1e-8)
        assert torch.allclose(posterior.roots[k] @ posterior.roots[k].mT, exact, atol=1e-8)
        # Bayes' rule gives p(y) = p(x) p(y | x)/p(x | y) at x = mean.
        misfit, offset = y.flatten() - H @ mean, mean - m
        logs.append(
            weight.log()
            - 0.5 * (precision * misfit @ misfit + offset @ inverse @ offset)
            + 0.5 * (torch.logdet(exact) - torch.logdet(covariance))
        )
    assert torch.allclose(posterior.weights, torch.softmax(torch.stack(logs), 0), atol=1e-8)


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if not p.noise_std], ids=lambda problem: problem.name)
def test_without_noise_every_draw_meets_the_measurement(problem):
    y = problem.draw(1, seed=4)
    x = problem.posterior(y[0]).sample(50, torch.Generator().manual_seed(0)).reshape(50, *problem.prior.shape)
    assert (problem.operator.forward(x) - y).abs().max() < 1e-6


def test_distances_of_exact_draws_vanish_and_those_of_a_point_do_not():
    problem = PROBLEMS[4]
    posterior = problem.posterior(problem.draw(1, seed=5)[0])
    reference = Reference(posterior, 4096, seed=0)
    near = compare(reference.own, reference)
    assert near["sliced_wasserstein"] < 0.06
    assert near["mean_error"] < 0.05
    assert near["covariance_error"] < 0.1  # About sqrt(D/N) = 0.06 is expected.
    assert near["spread"] == pytest.approx(1.0, abs=0.03)
    assert near["coverage_50"] == pytest.approx(0.5, abs=0.02)
    assert near["coverage_90"] == pytest.approx(0.9, abs=0.01)
    point = compare(posterior.mean.expand(64, -1), Reference(posterior, 64, seed=0))
    assert point["spread"] < 1e-6
    assert point["coverage_90"] < 1e-3
    assert point["sliced_wasserstein"] == pytest.approx(1.0, abs=0.15)  # All of the spread is missing.
    assert point["mean_error"] < 1e-6


def test_mass_and_moments_of_a_mixture_are_those_of_its_draws():
    posterior = Posterior(
        torch.tensor([0.3, 0.7], dtype=torch.float64),
        torch.tensor([[1.0, 0.0], [-1.0, 2.0]], dtype=torch.float64),
        torch.stack([0.5 * torch.eye(2, dtype=torch.float64), torch.tensor([[1.0, 0.0], [0.8, 0.1]]).double()]),
    )
    x = posterior.sample(200_000, torch.Generator().manual_seed(1))
    assert torch.allclose(x.mean(0), posterior.mean, atol=0.01)
    assert torch.allclose(torch.cov(x.mT), posterior.covariance, atol=0.02)
    u = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    inside = ((x @ u[0] > -0.5) & (x @ u[0] < 1.0)).double().mean()
    low, high = torch.tensor([-0.5]).double(), torch.tensor([1.0]).double()
    assert float(posterior.mass(u, low, high)) == pytest.approx(float(inside), abs=0.005)


def test_a_good_sampler_is_near_the_posterior_of_a_gaussian_prior():
    measured = Measured(PROBLEMS[0], seeds=(0, 1), samples=256)
    x, sampler = measured.restore(Conjugate("bayes"), 0.95, 100)
    scores = measured.score(x)
    assert sampler.stats()["network_evaluations"] == 100
    assert all(score and score["coverage_90"] > 0.5 for score in scores)
    broken = measured.score(x.clone().fill_(torch.nan))
    assert broken == [None, None]


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_every_method_has_six_candidates(noise):
    for method in (*CONJUGATE, *BASELINES):
        solvers = method.candidates(20, noise, 64)
        assert len(set(map(repr, solvers))) == 6, method.name


def test_record_takes_up_where_it_stopped_and_refuses_other_settings(tmp_path):
    path = tmp_path / "r.json"
    first = Record(path, "command", {"seed": 1})
    first.add("rows", {"a": 1, "b": 2.5}, {"a": 2, "b": 3.5})
    again = Record(path, "command", {"seed": 1})
    assert again.find("rows", a=2) == {"a": 2, "b": 3.5}
    assert again.find("rows", a=3) is None
    with pytest.raises(ValueError, match="other settings"):
        Record(path, "command", {"seed": 2})
    assert Record(path, "command", {"seed": 2}, again=True).find("rows", a=1) is None
