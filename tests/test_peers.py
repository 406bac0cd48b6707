"""Every sampler in bench.peers, ours and those of the packages that are installed, runs on a small problem.

Where the method is the same, so are the numbers."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

import ccfast
from bench.peers import peer_ccfast
from bench.peers.__main__ import PACKAGES, everyone
from bench.peers.case import Case, stand_in
from bench.quality.tuning import measure
from ccfast.schedules import VP
from ccfast.solvers import PiGDM
from ccfast.testing import relative_error


def case(word="inpaint:0.5", noise=0.05):
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(1, 3, 16, 16, generator=generator) - 0.5
    operator, y = measure((word, noise), truth, seed=0)
    return Case(stand_in(ccfast.Denoiser(lambda x, t: x, VP())), operator, y, noise, word, evaluations=4)


@pytest.mark.parametrize(("word", "noise"), [("inpaint:0.5", 0.0), ("inpaint:0.5", 0.05), ("pool:4", 0.05)])
@pytest.mark.filterwarnings("ignore")
def test_every_peer_restores_and_is_counted(word, noise):
    problem = case(word, noise)
    names = []
    for name, restore in everyone(problem):
        x, seconds, evaluations = problem.timed(restore)
        assert x.shape == (1, 3, 16, 16), name
        assert torch.isfinite(x).all(), name
        assert seconds >= 0
        assert 3 <= evaluations <= 5, name
        names.append(name)
    assert len(set(names)) == len(names)
    for package in PACKAGES:
        if find_spec(package) and (package != "diffusers" or (word.startswith("inpaint") and not noise)):
            assert any(name.startswith(package) for name in names)


def test_ours_count_their_evaluations():
    problem = case()
    counts = {name: problem.timed(restore)[2] for name, restore in peer_ccfast.peers(problem)}
    assert counts["ccfast Conjugate none, 5 steps"] == 5
    assert counts["ccfast DDRM"] == 4


def test_pigdm_of_azula_is_ours():
    pytest.importorskip("azula", reason="compared with the package itself where it is installed (extra bench-peers)")
    problem = case("pool:4", 0.0)
    from azula.guidance import PGDMSampler

    from ccfast.adapters import to_azula

    operator, x = problem.operator, torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    denoiser = problem.denoiser
    grid = {"start": 0.8, "stop": 0.001, "steps": 6, "silent": True}
    theirs = PGDMSampler(to_azula(denoiser), y=problem.y, A=operator.forward, A_inv=operator.pinv, **grid)(x)
    sampler = ccfast.Sampler(denoiser, operator, PiGDM(1.0, "constant", eta=0.0), steps=6, start=0.8, end=0.001)
    assert relative_error(sampler(problem.y, x_init=x), theirs) < 1e-4
