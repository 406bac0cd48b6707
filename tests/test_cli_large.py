"""Large pictures: tiles that are restored as in the whole picture, and refusals that say what is needed."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from cli_calls import prior, run  # noqa: F401
from PIL import Image

import ccfast
from ccfast.app import memory_need
from ccfast.app.noise_field import noise_field
from ccfast.app.tiles import Box, join_tiles, plan_tiles
from ccfast.priors import load_prior as load_bundled


@pytest.mark.parametrize("hw", [(64, 64), (200, 131), (65, 400), (1, 300), (129, 127)])
@pytest.mark.parametrize("margin", [0, 8, 24, 64])
def test_tiles_cover_begin_at_cells_and_are_joined_without_a_seam(hw, margin):
    boxes = plan_tiles(hw, 64, margin)
    image = torch.rand(3, *hw)
    joined, seen = torch.full((3, *hw), torch.nan), []

    def restore(box: Box) -> torch.Tensor:
        """The part of the image, but spoilt where the whole picture goes on and the box does not see enough."""
        seen.append(box)
        part = image[:, box.top : box.bottom, box.left : box.right].clone()
        reach = min(margin, 24) // 2
        spoilt = torch.zeros(box.hw, dtype=torch.bool)
        spoilt[: reach if box.top else 0] = spoilt[:, : reach if box.left else 0] = True
        spoilt[len(spoilt) - (reach if box.bottom < hw[0] else 0) :] = True
        spoilt[:, spoilt.shape[1] - (reach if box.right < hw[1] else 0) :] = True
        return part.masked_fill(spoilt, 9.0)

    def write(box: Box, part: torch.Tensor, weight: torch.Tensor) -> None:
        old = joined[:, box.top : box.bottom, box.left : box.right]
        old.copy_(torch.where(weight == 1, part, torch.lerp(old, part, weight)))

    join_tiles(boxes, 1, restore, write)
    assert seen == boxes
    assert torch.allclose(joined, image, atol=1e-5)
    for box in boxes:
        assert box.top % 8 == box.left % 8 == 0
        assert max(box.hw) <= 64
    if max(hw) > 64 and margin:
        assert len(boxes) > 1
    assert plan_tiles(hw, None, margin) == [Box(0, 0, *hw)]


def smooth(side: tuple[int, int]) -> np.ndarray:
    rows, columns = np.mgrid[: side[0], : side[1]]
    texture = np.sin(rows / 2.5) * np.cos(columns / 3.1) + 0.5 * np.sin((rows + 2 * columns) / 9)
    return (np.stack([texture, texture * 0.6, -texture], 2) * 60 + 128).astype(np.uint8)


PICTURES = {"textured": smooth((104, 136)), "flat": np.full((104, 136, 3), (40, 90, 200), np.uint8)}


@pytest.fixture
def tiled(monkeypatch):
    """Let ``--max-memory 1G`` stand for tiles of 80 pixels."""
    monkeypatch.setattr(memory_need, "LEAST_TILE", 80)
    monkeypatch.setattr(memory_need, "whole_need", lambda header, operator: 2 * memory_need.GIB)
    monkeypatch.setattr(memory_need, "kept_bytes", lambda header, factor: 0)
    monkeypatch.setattr(memory_need, "per_pixel", lambda operator: (memory_need.GIB - memory_need.BASE) / 80.5**2)


def both(tmp_path, picture: str, word: str) -> float:
    """The largest difference, in 1/255, between a picture that is restored in tiles and as a whole."""
    Image.fromarray(PICTURES[picture]).save(tmp_path / "a.png")
    if word == "mask":
        hidden = np.full(PICTURES[picture].shape[:2], 255, np.uint8)
        hidden[::7] = hidden[:, ::9] = 0
        Image.fromarray(hidden).save(tmp_path / "mask.png")
        word = f"mask:{tmp_path}/mask.png"
    # Noise that steps draw does not belong to places, and this solver draws none.
    options = ("--steps", 3, *(() if word.startswith(("blur", "denoise", "jpeg")) else ("--solver", "DDNM(eta=0)")))
    command = ("restore", tmp_path / "a.png", "--operator", word, *options, "-o")
    assert run(*command, tmp_path / "tiles.png", "--max-memory", "1G") == 0
    assert run(*command, tmp_path / "whole.png", "--max-memory", "3G") == 0
    tiles, whole = (np.array(Image.open(tmp_path / f"{name}.png")).astype(float) for name in ("tiles", "whole"))
    return float(np.abs(tiles - whole).max())


WORDS = ("mask", "inpaint:0.5", "pool:2", "bicubic:2", "upscale:2", "denoise:10/255", "jpeg:30")


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("word", WORDS)
def test_tiles_are_the_whole_picture(tmp_path, tiled, word, picture):
    """The network works pixel by pixel here, so that operators, noise and joints are what is compared: within 1e-2."""
    assert both(tmp_path, picture, word) <= 2.55


@pytest.mark.parametrize("word", ["mask", "blur:1.5"])
def test_tiles_see_as_far_as_the_network(tmp_path, monkeypatch, tiled, word):
    monkeypatch.setattr(ccfast, "load_prior", load_bundled)
    assert both(tmp_path, "textured", word) <= 2.55


def test_a_large_picture_is_refused_at_once_with_what_it_needs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ccfast, "load_prior", lambda name: pytest.fail("the prior was loaded"))
    Image.new("L", (6000, 4000)).save(tmp_path / "large.png")
    Image.new("L", (8, 8)).save(tmp_path / "small.png")
    command = ("restore", tmp_path / "small.png", tmp_path / "large.png", "-o", tmp_path / "out", "--operator", "gray")
    started = time.perf_counter()
    assert run(*command) == 2
    assert time.perf_counter() - started < 60  # It takes a few milliseconds, and no machine is that slow.
    error = capsys.readouterr().err
    assert "large.png, 6000 x 4000 pixels, needs about 6" in error
    assert "--max-memory 2G restores it in tiles" in error
    assert run(*command, "--max-memory", "100M") == 2
    assert "max-memory: must be at least " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("operator", ["inpaint:0.5", "denoise", "upscale:4", "blur:3"])
@pytest.mark.parametrize("limit", ["1G", "2G", "4G"])
def test_tiles_fill_the_limit_and_no_more(operator, limit):
    from ccfast.app.levels import parse_memory

    header = memory_need.Header((4000, 6000), 3, 8, "PNG")
    factor, limit = memory_need.factor_of(operator), parse_memory(limit)
    if factor > 1:
        header = header._replace(hw=(1000, 1500))
    try:
        side = memory_need.tile_side(header, operator, limit)
    except ValueError:
        pytest.fail("24 megapixels have tiles in a gibibyte")
    assert side is not None
    used = memory_need.BASE + memory_need.kept_bytes(header, factor) + memory_need.per_pixel(operator) * side**2
    assert 0.8 * limit < used <= limit
    assert memory_need.tile_side(header, operator, 1 << 40) is None


def test_the_memory_that_is_free_is_known():
    assert 1 << 20 < memory_need.available_memory() <= 1 << 62


def test_noise_belongs_to_places():
    whole = noise_field(Box(0, 0, 150, 200), 3)
    assert torch.equal(noise_field(Box(40, 72, 140, 190), 3), whole[:, :, 40:140, 72:190])
    assert not torch.equal(noise_field(Box(0, 0, 150, 200), 4), whole)
    assert abs(float(whole.mean())) < 0.02
    assert abs(float(whole.std()) - 1) < 0.02
    assert len(whole.unique()) > 0.99 * whole.numel()
