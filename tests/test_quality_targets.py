"""The quality targets of the bundled priors: baselines, scores, judgement, and the committed results."""

from __future__ import annotations

import json

import pytest
import torch

import ccfast
from bench.page_block import PAGE
from bench.quality_targets import __main__ as command
from bench.quality_targets import quality_table
from bench.quality_targets.baselines import STEPS, TUNED, harmonic_fill, methods, wiener
from bench.quality_targets.scores import TASKS, denoising, scores
from bench.quality_targets.targets import judge
from ccfast.operators import GaussianBlur, Inpainting
from ccfast.priors import PRIORS


def test_harmonic_fill_continues_a_plane():
    ramp = torch.linspace(-1, 1, 24)[None, None, :, None] + 0.5 * torch.linspace(-1, 1, 16)[None, None, None, :]
    ramp = ramp.expand(1, 3, 24, 16).contiguous()
    mask = torch.ones(3, 24, 16)
    mask[:, 8:15, 5:11] = 0
    torch.testing.assert_close(harmonic_fill(ramp * mask, mask), ramp, rtol=0, atol=1e-5)


def test_wiener_is_tikhonov():
    operator = GaussianBlur((1, 16, 12), std=1.0)
    y = operator.forward(torch.rand(2, 1, 16, 12, dtype=torch.float64))
    torch.testing.assert_close(wiener(operator, y, 0.0), operator.pinv(y))
    ratio = 0.1
    x = wiener(operator, y, ratio)
    # The normal equations hold in float64 to rounding.
    torch.testing.assert_close(
        operator.adjoint(operator.forward(x)) + ratio * x, operator.adjoint(y), rtol=0, atol=1e-12
    )


def test_scores_of_the_truth_and_of_a_smooth_copy():
    truth = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    same, smooth = scores(truth, truth), scores(torch.nn.functional.avg_pool2d(truth, 3, 1, 1), truth)
    assert (same["gmsd"], same["laplacian"], same["ssim"]) == (0, 1, 1)
    assert smooth["laplacian"] < 0.2
    assert smooth["gmsd"] > 0


def test_a_perfect_denoiser_has_the_largest_psnr():
    truth = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for prediction, schedule in (("sample", ccfast.schedules.VP()), ("sample", ccfast.schedules.Flow())):
        perfect = ccfast.Denoiser(lambda x, t: truth, schedule, prediction)
        found = denoising(perfect, truth)
        assert min(found.values()) > 60
        nothing = denoising(ccfast.Denoiser(lambda x, t: 0 * x, schedule, prediction), truth)
        assert max(nothing.values()) < 11


def row(task, method, psnr, ssim=0.9, gmsd=0.1, laplacian=0.6):
    return {"task": task, "method": method, "psnr": psnr, "ssim": ssim, "gmsd": gmsd, "laplacian": laplacian}


def test_the_judge():
    rivals = [row("bicubic:4", f"{name}, {STEPS} steps", 26.0) for name in ("PiGDM", "DDNM")]
    rows = [
        row("bicubic:4", "H+ y", 27.0),
        row("bicubic:4", "ccfast, 5 steps", 25.9, gmsd=0.05, laplacian=0.4),
        row("bicubic:4", "ccfast, 5 steps, mean of 16", 27.31),
        *rivals,
    ]
    found = {target.what: target for target in judge(rows)}
    assert not found["PSNR over H+ y"].met
    assert found["GMSD under H+ y"].met
    assert not found["Laplacian energy"].met
    assert found["PSNR of the mean over H+ y"].met
    assert not found["PSNR over DDNM at 20"].met
    assert found["GMSD under PiGDM at 20"].met
    assert str(found["Laplacian energy"]).startswith("MISSED  bicubic:4")


def test_one_task_end_to_end():
    """The rows of one task are made with two steps on two small crops."""
    denoiser = ccfast.load_prior("photo")
    rows = command.evaluate(denoiser, "two", torch.rand(2, 3, 32, 32) * 2 - 1, 2, ("box:0.25",))
    assert [r["method"] for r in rows] == [
        "H+ y",
        "harmonic fill",
        "ccfast, 5 steps",
        "ccfast, 5 steps, mean of 2",
        "PiGDM, 20 steps",
        "DDNM, 20 steps",
    ]
    assert len(list(judge(rows))) == 7


@pytest.mark.parametrize("prior", PRIORS)
def test_the_committed_results_are_whole(prior):
    """Every task has its tuned baselines and its rows, and the judgement of the targets follows from the rows."""
    assert set(json.loads(TUNED.read_text())[prior]) == set(TASKS)
    record = json.loads((command.RESULTS / f"quality_{prior}.json").read_text())
    denoiser, operator = ccfast.load_prior(prior), Inpainting(torch.ones(3, 8, 8))
    assert {r["method"] for r in record["rows"]} >= {name for name, _ in methods(denoiser, TASKS[0], operator, 16)}
    for name, targets in record["targets"].items():
        rows = [r for r in record["rows"] if r["set"] == name]
        assert {r["task"] for r in rows} == set(TASKS)
        assert [target._asdict() for target in judge(rows)] == targets


def test_the_page_shows_the_results():
    assert quality_table.BLOCK.inside(PAGE.read_text()) == quality_table.render()
