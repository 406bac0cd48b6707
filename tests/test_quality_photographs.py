"""The study of photographs, on a network of one line: rows, resumption, the sweep, and the edge network's score."""

from __future__ import annotations

import pytest
import torch

import ccfast
from bench.quality import perceptual, photographs, tuning
from bench.quality.methods import BASELINES
from bench.quality.photographs import Study, scores
from bench.quality.record import Record
from ccfast.app.degradations import parse_operator
from ccfast.schedules import VP

TASK = ("pool:4", 0.05)


@pytest.fixture
def denoiser():
    """The denoiser of a unit Gaussian prior, which predicts eps."""
    schedule = VP()
    return ccfast.Denoiser(
        lambda x, t: x * torch.as_tensor(schedule.std(t.double().cpu().numpy() / 999.0)).to(x)[:, None, None, None],
        schedule,
        name="photo",
    )


class Training:
    """A stand-in for the training photographs."""

    truth = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) - 0.5
    problem = tuning.TrainingSet.problem


@pytest.fixture
def study(denoiser, tmp_path, monkeypatch):
    monkeypatch.setattr(photographs, "TUNED_STEPS", (3,))
    truth = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2)) - 0.5
    record = Record(tmp_path / "rows.json", "command", {})
    return Study(record, denoiser, truth, Training())


def test_a_study_writes_every_row_once_and_takes_up_where_it_stopped(study):
    study.main_rows(TASK)
    rows = study.record.data["rows"]
    names = {row["method"] for row in rows}
    assert {"H+ y", "preset", "untuned", "Conjugate none", "product forward", *(m.name for m in BASELINES)} <= names
    assert any(name.startswith("preset, mean of 16") for name in names)
    assert not any(row["failed"] for row in rows)
    assert all(len(row["psnr"]) == (1 if "draws" in row else 2) for row in rows)
    by_name = {(row["method"], row["steps"]): row for row in rows}
    assert by_name["preset", 5]["evaluations"] == 5
    assert by_name["preset, mean of 16", 5]["evaluations"] == 80
    assert by_name["product finite_difference", 5]["evaluations"] == 10
    again = Study(Record(study.record.path, "command", {}), study.denoiser, study.truth, study.training)
    again.main_rows(TASK)
    assert len(again.record.data["rows"]) == len(rows)
    assert len(again.record.data["sweep"]) == len(study.record.data["sweep"])


def test_a_tuned_row_beats_or_equals_its_first_candidate(study):
    method = next(m for m in BASELINES if m.name == "DDRM")
    place, start, end, value = study.tuned(method, TASK, 3)
    operator, y = study.training.problem(TASK)
    solver = method.candidates(3, TASK[1], 3 * 32 * 32)[tuning.FIRST]
    sampler = ccfast.Sampler(study.denoiser, operator, solver, 3, start, end, noise_std=TASK[1])
    assert value >= float(tuning.score(sampler(y, seed=1000), study.training.truth)) - 1e-3
    assert 0 <= place < 6


def test_scores_of_the_truth_itself():
    truth = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    operator = parse_operator("pool:4", (3, 32, 32))
    values = scores(truth, truth, operator, operator.forward(truth) + 0.1)
    assert values["ssim"] == pytest.approx([1.0, 1.0])
    assert values["energy"] == pytest.approx([1.0, 1.0])
    assert values["residual"] == pytest.approx([0.1, 0.1], rel=1e-4)


def test_the_hidden_box_of_the_sweep_has_the_size_of_the_report():
    hidden = [
        float((1 - tuning.measure((word, 0.0), torch.zeros(1, 3, side, side), 0)[0].singular_values[0]).sum())
        for word, side in (("box:0.25", 128), ("box:0.5", 64))
    ]
    assert hidden[0] == hidden[1]


@pytest.mark.skipif(perceptual.edge_vgg_missing() is not None, reason=perceptual.edge_vgg_missing() or "")
def test_edge_vgg_sees_blur_more_than_a_change_of_brightness():
    from ccfast.priors import heldout

    x = heldout.square("coffee", 128)[None]
    blurred = torch.nn.functional.avg_pool2d(x, 5, 1, 2)
    assert float(perceptual.edge_vgg(x, x)) == 0.0
    assert float(perceptual.edge_vgg(blurred, x)) > 50 * float(perceptual.edge_vgg(0.95 * x, x)) > 0
