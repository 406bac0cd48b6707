"""Tests of image files and tensors: ccfast.app.images, ccfast.metrics and ccfast.app.gallery."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ccfast.app.gallery import Panel, Row, draw_gallery
from ccfast.app.images import load_image, save_image
from ccfast.metrics import psnr, ssim
from ccfast.priors.padding import crop, pad_to_multiple


def write_deep_png(path: Path, colour_type: int, channels: int) -> None:
    """Write a 16-bit PNG of unfiltered rows, all alike, which Pillow cannot do."""
    rows = b"".join(b"\0" + bytes(range(5 * channels * 2)) for _ in range(4))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 16, colour_type, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1


# ------------------------------------------------------------------------------------------------ reading
def test_load_maps_0_and_255_to_the_ends_and_keeps_rows_and_columns(tmp_path, pixels):
    pixels[0, 0], pixels[0, 1] = 0, 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    x = load_image(tmp_path / "a.png")
    assert x.dtype == torch.float32
    assert x.shape == (3, 5, 7)
    assert x.is_contiguous()
    assert x[:, 0, 0].tolist() == [-1.0] * 3
    assert x[:, 0, 1].tolist() == [1.0] * 3
    assert torch.allclose(x, torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1)


def test_load_does_not_depend_on_the_default_dtype(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    x = load_image(tmp_path / "a.png")
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(load_image(tmp_path / "a.png"), x)
        assert load_image(tmp_path / "a.png").dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_load_converts_8_bit_modes_to_rgb(tmp_path, pixels, mode, suffix):
    converted = Image.fromarray(pixels).convert(mode)  # An alpha channel is opaque.
    try:
        converted.save(tmp_path / f"a{suffix}")
    except OSError:
        # Builds of Pillow differ in the pairs of mode and suffix that they write.
        pytest.skip(f"Pillow does not write {mode} as {suffix}")
    expected = torch.from_numpy(np.array(converted.convert("RGB"))).permute(2, 0, 1) / 127.5 - 1
    assert torch.allclose(load_image(tmp_path / f"a{suffix}"), expected)


def test_load_applies_the_exif_orientation(tmp_path, pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # 6 means that the image is to be rotated by 90 degrees clockwise.
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    expected = torch.from_numpy(np.rot90(pixels, -1).copy()).permute(2, 0, 1) / 127.5 - 1
    assert torch.allclose(load_image(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("form", ["RGBA", "palette", "greyscale key"])
def test_load_refuses_transparency_unless_it_is_dropped(tmp_path, pixels, form):
    path = tmp_path / "a.png"
    if form == "RGBA":
        Image.fromarray(np.concatenate([pixels, np.full((5, 7, 1), 254, np.uint8)], axis=2)).save(path)
    elif form == "palette":
        Image.fromarray(pixels).convert("P").save(path, transparency=bytes([0] * 256))
    else:
        Image.fromarray(np.zeros((5, 7), np.uint8)).save(path, transparency=0)
    with pytest.raises(ValueError, match=r"path: every pixel must be opaque.*a\.png.*100\.0%"):
        load_image(path)
    assert load_image(path, alpha="drop").shape == (3, 5, 7)
    if form == "RGBA":
        assert torch.allclose(load_image(path, alpha="drop"), torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1)
    with pytest.raises(ValueError, match="alpha: must be 'refuse' or 'drop', got 'keep'"):
        load_image(path, alpha="keep")


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_load_takes_both_bytes_of_16_bit_png(tmp_path, colour_type, channels):
    write_deep_png(tmp_path / "a.png", colour_type, channels)
    row = np.frombuffer(bytes(range(5 * channels * 2)), ">u2").reshape(1, 5, channels).astype(np.float64)
    colours = row[..., : 1 if channels < 3 else 3]
    loaded = load_image(tmp_path / "a.png", alpha="drop")
    expected = np.broadcast_to(colours / 32767.5 - 1, (4, 5, 3)).transpose(2, 0, 1)
    assert np.abs(loaded.numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("mode", ["I", "F"])
def test_load_refuses_32_bit_tiff(tmp_path, mode):
    Image.new(mode, (7, 5)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=r"path: must have 8 or 16 bits a sample, got .* with 32"):
        load_image(tmp_path / "a.tiff")


def test_load_refuses_16_bit_ppm(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 2 2 65535\n" + bytes(24))
    with pytest.raises(ValueError, match="path: must have 8 bits a sample in this format"):
        load_image(tmp_path / "a.ppm")
    (tmp_path / "b.ppm").write_bytes(b"P6 2 2 255\n" + bytes(12))
    assert load_image(tmp_path / "b.ppm").shape == (3, 2, 2)


@pytest.mark.parametrize(("mode", "suffix"), [("CMYK", ".jpg"), ("CMYK", ".tiff"), ("LAB", ".tiff")])
def test_load_refuses_other_colour_spaces(tmp_path, mode, suffix):
    Image.new(mode, (7, 5)).save(tmp_path / f"a{suffix}")
    with pytest.raises(ValueError, match=f"path: must be RGB, greyscale or palette, got .* mode {mode}; --to-rgb"):
        load_image(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".gif", ".png", ".tiff", ".webp"])
def test_load_refuses_several_frames(tmp_path, pixels, suffix):
    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"path: must hold one image, got .* with 2 frames"):
        load_image(tmp_path / f"a{suffix}")


def test_load_takes_the_photograph_of_a_camera_file_with_a_preview(tmp_path, pixels):
    Image.fromarray(pixels).save(
        tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[Image.new("RGB", (2, 2))]
    )
    assert load_image(tmp_path / "a.jpg").shape == (3, 5, 7)


def test_load_names_a_file_that_cannot_be_read(tmp_path, pixels):
    buffer = io.BytesIO()
    Image.fromarray(np.tile(pixels, (20, 20, 1))).save(buffer, "PNG")
    (tmp_path / "truncated.png").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    for name in ("truncated", "text", "empty", "folder", "missing"):
        with pytest.raises(ValueError, match=rf"path: must be a readable image .*{name}\.png"):
            load_image(tmp_path / f"{name}.png")


# ------------------------------------------------------------------------------------------------ writing
@pytest.mark.parametrize("channels", [1, 3])
def test_png_brings_every_8_bit_value_back(tmp_path, channels):
    values = torch.arange(256, dtype=torch.float32).reshape(1, 16, 16).repeat(channels, 1, 1) / 127.5 - 1
    save_image(values, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == ("L" if channels == 1 else "RGB")
    loaded = load_image(tmp_path / "a.png")
    assert loaded.abs().max() == 1
    assert torch.allclose(loaded[:channels], values, rtol=0, atol=1e-6)


def test_save_clamps_and_rounds(tmp_path):
    save_image(torch.tensor([-9.0, 9.0, 0.6 / 127.5 - 1, 0.4 / 127.5 - 1]).expand(3, 1, 4), tmp_path / "a.png")
    assert np.array(Image.open(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 255, 1, 0]


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG"])
def test_save_writes_jpeg(tmp_path, suffix):
    save_image(torch.zeros(3, 16, 16), tmp_path / f"a{suffix}")
    assert Image.open(tmp_path / f"a{suffix}").format == "JPEG"
    assert load_image(tmp_path / f"a{suffix}").abs().max() < 0.02


def test_save_refuses_an_existing_path_and_loses_nothing(tmp_path, image):
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=r"path: must not exist.*a\.png"):
        save_image(image, path)
    assert path.read_bytes() == b"precious"
    save_image(image, path, overwrite=True)
    assert load_image(path).shape == image.shape
    assert os.listdir(tmp_path) == ["a.png"]
    (tmp_path / "b.png").mkdir()
    with pytest.raises(IsADirectoryError, match="path: must be a file"):
        save_image(image, tmp_path / "b.png", overwrite=True)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, image, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        save_image(image, path, overwrite=True)
    assert path.read_bytes() == b"precious"
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(2, 4, 4), r"image: must have shape \(3, H, W\) or \(1, H, W\), got \(2, 4, 4\)"),
        (torch.zeros(1, 3, 4, 4), "image: must have shape"),
        (torch.zeros(3, 0, 4), "image: must have shape"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), r"image: must be floating point in \[-1, 1\], got torch.uint8"),
        (torch.full((3, 1, 1), torch.nan), "image: must be finite, got 3 values of NaN or Inf"),
    ],
)
def test_save_refuses_what_is_no_image(tmp_path, bad, message):
    with pytest.raises(ValueError, match=message):
        save_image(bad, tmp_path / "a.png")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["a.gif", "a", "a.png.txt"])
def test_save_refuses_other_suffixes(tmp_path, image, name):
    with pytest.raises(ValueError, match=rf"path: must end in \.png, \.jpg, \.jpeg, .*, got .*{name}"):
        save_image(image, tmp_path / name)


# ------------------------------------------------------------------------------------------------ padding
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (8, 16), (63, 60), (9, 3)])
def test_padding_reaches_the_multiple_and_is_cropped_back(height, width):
    x = torch.rand(2, 3, height, width)
    padded, hw = pad_to_multiple(x, 8)
    assert padded.shape[-2] % 8 == padded.shape[-1] % 8 == 0
    assert padded.shape[-2] - height < 8
    assert padded.shape[-1] - width < 8
    assert torch.equal(crop(padded, hw), x)


def test_padding_reflects_where_it_can_and_repeats_the_edge_where_not():
    x = torch.arange(6.0).reshape(1, 1, 6).expand(1, 2, 6)
    # Of 6 columns 2 can be reflected, but of 2 rows 6 cannot be.
    padded, _ = pad_to_multiple(x, 8)
    assert padded[0, 0].tolist() == [0, 1, 2, 3, 4, 5, 4, 3]
    assert torch.equal(padded[0], padded[0, :1].expand(8, 8))
    assert pad_to_multiple(x, 1)[0] is x


def test_padding_refuses_bad_arguments():
    with pytest.raises(ValueError, match="multiple: must be at least 1, got 0"):
        pad_to_multiple(torch.zeros(3, 4, 4), 0)
    with pytest.raises(ValueError, match=r"x: must have shape .* got \(3, 0, 4\)"):
        pad_to_multiple(torch.zeros(3, 0, 4), 8)
    with pytest.raises(ValueError, match=r"hw: must be at most .*\(4, 4\), got \(5, 4\)"):
        crop(torch.zeros(3, 4, 4), (5, 4))


# ------------------------------------------------------------------------------------------------ metrics
def test_psnr_is_its_definition_for_each_image():
    a, b = torch.rand(2, 4, 3, 16, 16) * 2 - 1
    expected = 10 * torch.log10(4 / (a.double() - b.double()).square().mean((1, 2, 3)))
    assert psnr(a, b).dtype == torch.float64
    assert torch.allclose(psnr(a, b), expected)
    assert psnr(a[0], b[0]).shape == ()
    assert psnr(a[:0], b[:0]).shape == (0,)
    assert psnr(a, a).tolist() == [torch.inf] * 4


def test_ssim_is_one_for_equal_images_and_falls_with_noise():
    grid = torch.linspace(-1, 1, 32)
    a = (grid[:, None] * grid).expand(2, 3, 32, 32)
    noise = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert ssim(a, a).tolist() == [1.0, 1.0]
    assert (ssim(a, a + 0.01 * noise) > ssim(a, a + 0.1 * noise)).all()


def test_metrics_refuse_bad_shapes():
    with pytest.raises(ValueError, match=r"a, b: must have one shape .* got \(3, 16, 16\) and \(1, 16, 16\)"):
        psnr(torch.zeros(3, 16, 16), torch.zeros(1, 16, 16))
    with pytest.raises(ValueError, match=r"a: sides must be at least 11"):
        ssim(torch.zeros(3, 10, 16), torch.zeros(3, 10, 16))


def test_metrics_name_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ImportError, match=r"pip install 'ccfast\[demo\]'"):
        psnr(torch.zeros(3, 16, 16), torch.zeros(3, 16, 16))


# ------------------------------------------------------------------------------------------------ gallery
def test_gallery_shows_small_measurements_as_large_as_the_truth():
    truth, small = torch.full((3, 200, 240), -1.0), torch.full((1, 50, 60), 1.0)
    row = Row("a task", "a note", (Panel(truth, "truth"), Panel(small, "measurement")))
    picture = np.array(draw_gallery([row, row]))
    black = (picture == 0).all(2)
    assert picture.shape[2] == 3
    assert black.sum() == 2 * 200 * 240
    rows, columns = np.nonzero(black)
    assert columns.max() - columns.min() + 1 == 240
    assert picture.shape[1] > 2 * 240
    below = picture[rows.max() + 1 :]
    assert (below < 128).any()  # The captions are dark.


def test_gallery_enlarges_tiny_rows_and_refuses_empty_ones():
    tiny = Row("t", "n", (Panel(torch.full((3, 8, 8), -1.0), "c"),))
    assert (np.array(draw_gallery([tiny])) == 0).all(2).sum() == 192 * 192
    with pytest.raises(ValueError, match=r"rows: must be at least one, each with a panel, got \[0\]"):
        draw_gallery([Row("t", "n", ())])
