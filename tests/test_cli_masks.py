"""Tests of masks on the command line: files of any kind, and observed pixels that stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cli_calls import prior, run  # noqa: F401
from PIL import Image

from ccfast.app.mask_files import MaskOptions, read_mask

PIXELS = np.random.default_rng(5).integers(0, 256, (20, 28, 3), dtype=np.uint8)
HIDDEN = np.zeros((20, 28), bool)
HIDDEN[3:9, 4:20] = True
GREY = np.where(HIDDEN, 0, 255).astype(np.uint8)


def of_alpha(mode: str) -> Image.Image:
    """A picture of other colours, opaque where the mask observes."""
    return Image.merge("RGBA", [*Image.fromarray(255 - PIXELS).split(), Image.fromarray(GREY)]).convert(mode)


KINDS = {
    "8 bits": lambda: Image.fromarray(GREY),
    "1 bit": lambda: Image.fromarray(GREY).convert("1"),
    "16 bits": lambda: Image.fromarray(GREY.astype(np.uint16) * 257),
    "colours": lambda: Image.fromarray(np.stack([GREY] * 3, 2)),
    "palette": lambda: Image.fromarray(np.stack([GREY] * 3, 2)).convert("P"),
    "opaque": lambda: Image.fromarray(np.stack([GREY] * 3, 2)).convert("RGBA"),
    "alpha": lambda: of_alpha("RGBA"),
    "grey with alpha": lambda: of_alpha("LA"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_every_kind_are_one_mask(tmp_path, kind):
    KINDS[kind]().save(tmp_path / "mask.png")
    mask, notes = read_mask(tmp_path / "mask.png")
    assert np.array_equal(mask.numpy(), np.broadcast_to(~HIDDEN, (3, 20, 28)))
    assert len(notes) == ("alpha" in kind)
    inverted, notes = read_mask(tmp_path / "mask.png", MaskOptions(invert=True))
    assert torch.equal(inverted, ~mask)
    assert "warning: mask" in notes[-1]
    assert "82.9% of the pixels" in notes[-1]
    assert "without --invert" in notes[-1]


def test_the_upright_mask_is_that_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(GREY).copy()).save(tmp_path / "mask.png", exif=exif)
    assert np.array_equal(read_mask(tmp_path / "mask.png")[0][0].numpy(), ~HIDDEN)


def test_soft_edges_have_a_threshold(tmp_path):
    soft = GREY.copy()
    soft[2, 4:10] = 100
    soft[9, 4:10] = 200
    Image.fromarray(soft).save(tmp_path / "mask.png")
    for threshold, hidden in ((0.5, 6), (0.8, 12), (0.3, 0)):
        mask, notes = read_mask(tmp_path / "mask.png", MaskOptions(threshold))
        assert int((~mask[0]).sum()) == HIDDEN.sum() + hidden
        assert "12 pixels are neither black nor white" in notes[0]


def test_each_colour_may_have_its_own_mask(tmp_path):
    Image.merge("RGB", [Image.fromarray(GREY), *[Image.new("L", (28, 20), 255)] * 2]).save(tmp_path / "mask.png")
    mask, notes = read_mask(tmp_path / "mask.png")
    assert mask[1:].all()
    assert np.array_equal(mask[0].numpy(), ~HIDDEN)
    assert "each hides its own colour" in notes[0]


def test_masks_that_hide_all_are_refused_and_most_is_a_warning(tmp_path, capsys):
    Image.new("L", (28, 20), 0).save(tmp_path / "black.png")
    with pytest.raises(ValueError, match=r"mask: must leave pixels observed .*black\.png.*--invert it is the other"):
        read_mask(tmp_path / "black.png")
    Image.fromarray(255 - GREY).save(tmp_path / "most.png")
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    command = ("restore", tmp_path / "a.png", "-o", tmp_path / "x.png", "--operator", f"mask:{tmp_path}/most.png")
    assert run(*command, "--steps", 1) == 0
    assert "warning: mask" in capsys.readouterr().err
    assert run(*command, "--steps", 1, "--force", "--invert") == 0
    assert "warning" not in capsys.readouterr().err


def deep(samples: np.ndarray) -> np.ndarray:
    """Samples of 16 bits whose low bytes are not their high ones."""
    return samples.astype(np.uint16) * 257 ^ 0x5A


@pytest.mark.parametrize("kind", ["colour", "grey", "16 bits", "transparent", "own alpha"])
def test_observed_pixels_are_untouched(tmp_path, kind):
    """Not one sample of the file differs where the mask observes, and hidden ones are restored."""
    given = {"grey": PIXELS[..., 0], "16 bits": deep(PIXELS[..., 0])}.get(kind, PIXELS)
    picture = Image.fromarray(given)
    if kind in ("transparent", "own alpha"):
        picture.putalpha(Image.fromarray(GREY))
    picture.save(tmp_path / "a.png")
    Image.fromarray(GREY).save(tmp_path / "mask.png")
    mask = "alpha" if kind == "own alpha" else f"{tmp_path}/mask.png"
    options = ["--keep-alpha"] if kind == "transparent" else []
    command = ("restore", tmp_path / "a.png", "-o", tmp_path / "x.png", "--operator", f"mask:{mask}", *options)
    assert run(*command) == 0
    restored = np.array(Image.open(tmp_path / "x.png"))
    if kind == "transparent":
        assert np.array_equal(restored[..., 3], GREY)
        restored = restored[..., :3]
    assert restored.dtype == given.dtype
    assert restored.shape == given.shape
    assert np.array_equal(restored[~HIDDEN], given[~HIDDEN])
    assert (restored != given)[HIDDEN].mean() > 0.9


def test_noise_makes_observed_pixels_uncertain(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    Image.fromarray(GREY).save(tmp_path / "mask.png")
    command = ("restore", tmp_path / "a.png", "-o", tmp_path / "x.png", "--operator", f"mask:{tmp_path}/mask.png")
    assert run(*command, "--noise-std", "25/255") == 0
    assert (np.array(Image.open(tmp_path / "x.png")) != PIXELS)[~HIDDEN].mean() > 0.5


def test_a_mask_of_another_size_and_one_that_is_not_there_are_refused(tmp_path, capsys):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    Image.fromarray(GREY[:, :8]).save(tmp_path / "mask.png")
    command = ("restore", tmp_path / "a.png", "-o", tmp_path / "x.png", "--operator")
    assert run(*command, f"mask:{tmp_path}/mask.png") == 1
    assert "mask: must be as large as the image, 28 x 20, got" in capsys.readouterr().err
    assert run(*command, "mask:alpha") == 1
    assert "path: must have transparency for the mask 'alpha'" in capsys.readouterr().err
    for threshold in ("0", "2", "dark", "300/255"):
        assert run(*command, f"mask:{tmp_path}/mask.png", "--threshold", threshold) == 2
        assert "threshold: must be in (0, 1]" in capsys.readouterr().err
