"""The report: the signs of its claims, missing results, the block of docs/results.md, and the committed page."""

from __future__ import annotations

import pytest

from bench.page_block import PAGE
from bench.report import (
    page,
    results_pictures,
    section_peers,
    section_photographs,
    section_posterior,
    section_speed,
)

SECTIONS = {
    "speed": section_speed,
    "peers": section_peers,
    "posterior": section_posterior,
    "photographs": section_photographs,
}


def row(method, steps, psnr, gmsd, task="pool:4", noise=0.0):
    return {
        "task": task, "noise": noise, "method": method, "steps": steps, "evaluations": steps, "seconds": 0.1,
        "failed": False, "psnr": psnr, "gmsd": gmsd, "residual": [0.0] * len(psnr),
    }  # fmt: skip


RESULT = {
    "rows": [
        row("preset", 5, [30.0, 32.0], [0.10, 0.10]),
        row("DDRM", 20, [29.0, 31.0], [0.05, 0.05]),
        row("DDNM", 20, [28.0, 31.5], [0.20, 0.20]),
        row("DPS", 1000, [33.0], [0.30]),
    ]
}


def test_the_claim_is_held_against_the_best_baseline_of_each_measure():
    text = section_photographs.claim(RESULT)
    assert "| pool:4 | 0 | +1 (DDRM) | **-0.05** (DDRM) | -3, +0.2 |" in text
    assert "PSNR, dB 1 of 1, GMSD 0 of 1 tasks" in text


def test_a_row_of_fewer_pictures_is_compared_on_those():
    value, bar = section_photographs.paired(RESULT, ("pool:4", 0.0), RESULT["rows"][3], "psnr")
    # The preset's mean is 31, and on the first picture the difference is 33 - 30.
    assert value == pytest.approx(31.0 + 3.0)
    assert bar == 0.0
    value, bar = section_photographs.paired(RESULT, ("pool:4", 0.0), RESULT["rows"][2], "psnr")
    assert value == pytest.approx(29.75)
    assert bar == pytest.approx(0.75)


def test_a_result_that_is_not_there_is_said_to_be_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    for section in (section_posterior, section_photographs, section_peers):
        monkeypatch.setattr(section, "RESULTS", tmp_path, raising=False)
        assert section.section() == page.missing(section.COMMAND)
    assert section_speed.section() == page.missing(section_speed.COMMAND)


def test_the_page_shows_the_pictures_that_exist(monkeypatch, tmp_path):
    monkeypatch.setattr(results_pictures, "DOCS", tmp_path)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "posterior.png").write_bytes(b"")
    text = results_pictures.render()
    assert "(report/posterior.png)" in text
    assert "photographs_photo" not in text


def test_the_page_is_up_to_date():
    assert results_pictures.BLOCK.inside(PAGE.read_text()) == results_pictures.render()


def test_statistics():
    assert page.mean([1.0, 3.0]) == 2.0
    assert page.error([1.0, 3.0]) == pytest.approx(1.0)
    assert page.error([1.0]) == 0.0
    assert page.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"


@pytest.mark.parametrize("name", ["speed", "peers", "posterior", "photographs"])
def test_a_section_of_the_page_from_the_committed_results(monkeypatch, tmp_path, name):
    matplotlib = pytest.importorskip("matplotlib", reason="pictures are drawn with it (extra report)")
    matplotlib.use("Agg")
    monkeypatch.setattr(page, "DOCS", tmp_path)
    text = SECTIONS[name].section()
    for picture in (word.split(")")[0] for word in text.split("](report/")[1:]):
        assert (tmp_path / "report" / picture).stat().st_size > 5000
    assert "nan" not in text
