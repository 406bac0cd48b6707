"""Files of other tools: what they hold stays, what cannot be taken is refused, and work that was stopped goes on.

Cameras turn pictures by a tag, phones add profiles and second frames, scanners write 16 bits and a resolution, printers
CMYK, browsers transparency and animations, shells close pipes and repeat commands, cron kills them, and disks fill up.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_calls import files, prior, run  # noqa: F401
from PIL import Image, ImageCms

from ccfast.app.levels import parse_level, parse_memory
from ccfast.app.manifest import NAME
from ccfast.app.picture_files import encode
from ccfast.app.pictures import Picture, read_picture
from ccfast.app.solver_words import parse_solver
from ccfast.solvers import DDNM, Conjugate

PIXELS = np.random.default_rng(7).integers(0, 256, (12, 20, 3), dtype=np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
DEEP = np.random.default_rng(8).integers(0, 65536, (12, 20, 4), dtype=np.uint16)
WORD = ("--operator", "inpaint:1")
"""All pixels are observed, so that the result has the samples of the input."""


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "a camera"
    exif.get_ifd(0x8769)[0x829A] = 0.25
    return exif


# ------------------------------------------------------------------------------------------------ what a file holds
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".webp"])
def test_profile_exif_and_resolution_are_kept_and_the_picture_is_upright(tmp_path, suffix):
    source, target = tmp_path / f"a{suffix}", tmp_path / f"x{suffix}"
    options = {"lossless": True} if suffix == ".webp" else {"dpi": (300, 300)}
    Image.fromarray(PIXELS).save(source, icc_profile=PROFILE, exif=exif_of(6), **options)
    assert run("restore", source, "-o", target, *WORD) == 0
    given, got = Image.open(source), Image.open(target)
    assert got.size == (12, 20)
    assert got.info["icc_profile"] == PROFILE
    assert got.getexif().get(0x0112, 1) == 1
    assert got.getexif()[0x010F] == "a camera"
    assert got.getexif().get_ifd(0x8769) == given.getexif().get_ifd(0x8769)
    if "dpi" in options:
        assert got.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    if suffix == ".jpg":
        assert got.quantization == given.quantization
    else:
        pixels = np.array(given)
        turned = suffix == ".tiff"  # Pillow turns these itself.
        assert np.array_equal(np.array(got), pixels if turned else np.rot90(pixels, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_that_of_pillow(tmp_path, orientation):
    from PIL import ImageOps

    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif_of(orientation))
    expected = np.array(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    assert np.array_equal(read_picture(tmp_path / "a.png").pixels, expected)


@pytest.mark.parametrize(("quality", "subsampling"), [(30, 2), (90, 0), (75, 1)])
def test_the_quality_of_a_jpeg_is_kept(tmp_path, quality, subsampling):
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", quality=quality, subsampling=subsampling)
    assert run("restore", tmp_path / "a.jpg", "-o", f"{tmp_path}/out/", *WORD) == 0
    given, got = Image.open(tmp_path / "a.jpg"), Image.open(tmp_path / "out" / "a.jpg")
    assert got.quantization == given.quantization
    assert got.layer == given.layer


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_go_in_and_out(tmp_path, suffix, channels):
    pixels = DEEP[..., : channels - (channels % 2 == 0)]
    alpha = None if channels % 2 else DEEP[..., 3]
    written = encode(Picture(pixels, alpha, PROFILE, exif_of(1).tobytes(), (200, 100)), suffix)
    (tmp_path / f"a{suffix}").write_bytes(written)
    read = read_picture(tmp_path / f"a{suffix}")
    if channels == 2 and suffix == ".tiff":  # Pillow reads no grey with alpha of 16 bits.
        pixels = pixels.repeat(3, 2)
    assert np.array_equal(read.pixels, pixels)
    assert (read.alpha is None) == (alpha is None)
    assert alpha is None or np.array_equal(read.alpha, alpha)
    assert read.profile == PROFILE
    assert read.dpi == pytest.approx((200, 100), abs=0.1)
    assert b"a camera" in (read.exif or b"")
    options = [] if alpha is None else ["--keep-alpha"]
    assert run("restore", tmp_path / f"a{suffix}", "-o", tmp_path / f"x{suffix}", *WORD, *options) == 0
    restored = read_picture(tmp_path / f"x{suffix}")
    assert np.array_equal(restored.pixels, pixels)
    assert alpha is None or np.array_equal(restored.alpha, alpha)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiffs_are_read(tmp_path, compression):
    skimage = pytest.importorskip("tifffile")
    kinds = {None: None, "tiff_lzw": "lzw", "tiff_adobe_deflate": "zlib", "packbits": "packbits"}
    for order in "<>":
        try:
            skimage.imwrite(
                tmp_path / "a.tiff", DEEP[..., :3], photometric="rgb", compression=kinds[compression], byteorder=order
            )
        except (KeyError, ValueError, ImportError):
            pytest.skip("tifffile needs imagecodecs for this")
        assert np.array_equal(read_picture(tmp_path / "a.tiff").pixels, DEEP[..., :3])


@pytest.mark.parametrize("mode", ["L", "1", "16 bits", "RGB of equal colours"])
@pytest.mark.parametrize("word", ["pool:2", "blur:1.0", "denoise:20/255"])
def test_grey_stays_grey(tmp_path, mode, word):
    grey = Image.fromarray(PIXELS[..., 0])
    picture = {
        "L": grey,
        "1": grey.convert("1"),
        "16 bits": Image.fromarray(DEEP[..., 0]),
        "RGB of equal colours": grey.convert("RGB"),
    }[mode]
    picture.save(tmp_path / "a.png")
    assert run("restore", tmp_path / "a.png", "-o", tmp_path / "x.png", "--operator", word) == 0
    restored = Image.open(tmp_path / "x.png")
    pixels = np.array(restored)
    if mode.startswith("RGB"):
        assert (pixels == pixels[..., :1]).all()
    else:
        assert pixels.ndim == 2
        assert restored.mode == ("I;16" if mode == "16 bits" else "L")


def test_alpha_is_kept_where_it_is_asked_for_also_in_larger_results(tmp_path, capsys):
    alpha = np.repeat(np.linspace(0, 255, 20).astype(np.uint8)[None], 12, 0)
    Image.fromarray(np.dstack([PIXELS, alpha])).save(tmp_path / "a.png")
    command = ("restore", tmp_path / "a.png", "-o", tmp_path / "x.png", "--operator", "pool:2")
    assert run(*command) == 1
    assert "--keep-alpha" in capsys.readouterr().err
    assert run(*command, "--keep-alpha", "--drop-alpha") == 2
    assert run(*command, "--keep-alpha") == 0
    restored = Image.open(tmp_path / "x.png")
    assert (restored.mode, restored.size) == ("RGBA", (40, 24))
    assert np.abs(np.array(restored)[::2, ::2, 3].astype(int) - alpha).max() <= 7
    assert run(*command, "--drop-alpha", "--force") == 0
    assert Image.open(tmp_path / "x.png").mode == "RGB"


@pytest.mark.parametrize("suffix", [".jpg", ".tiff"])
def test_cmyk_is_refused_with_the_option_that_converts_it(tmp_path, suffix, capsys):
    Image.fromarray(PIXELS).convert("CMYK").save(tmp_path / f"a{suffix}")
    command = ("restore", tmp_path / f"a{suffix}", "-o", tmp_path / "x.png", *WORD)
    assert run(*command) == 1
    assert "--to-rgb converts it" in capsys.readouterr().err
    assert run(*command, "--to-rgb") == 0
    assert np.abs(np.array(Image.open(tmp_path / "x.png")).astype(int) - PIXELS).mean() < (
        20 if suffix == ".jpg" else 2
    )


def test_a_palette_keeps_its_colours_and_gif_becomes_png(tmp_path):
    Image.fromarray(PIXELS).quantize(16).save(tmp_path / "a.gif")
    assert run("restore", tmp_path / "a.gif", "-o", f"{tmp_path}/out/", *WORD) == 0
    expected = np.array(Image.open(tmp_path / "a.gif").convert("RGB"))
    assert np.array_equal(np.array(Image.open(tmp_path / "out" / "a.png")), expected)


# ------------------------------------------------------------------------------------------------ names and folders
def test_results_lie_in_folders_or_beside_their_inputs(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("b.PNG", "a.jpg", ".hidden.png"):
        Image.fromarray(PIXELS).save(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    assert run("restore", tmp_path / "in", "-o", tmp_path / "out", *WORD) == 0
    assert files(tmp_path / "out") == {"a.jpg", "b.PNG"}
    assert run("restore", tmp_path / "in" / "b.PNG", "--suffix=-new", *WORD) == 0
    assert run("restore", tmp_path / "in" / "a.jpg", "--suffix=-new.png", *WORD) == 0
    assert {"b-new.PNG", "a-new.png"} < files(tmp_path / "in")
    for options, message in (
        ([], "output: must be a file or a folder"),
        (["--suffix", ".png"], "output: must be a file or a folder"),
        (["--suffix", "../x"], "suffix: is added to the names of files and may hold no slash"),
    ):
        assert run("restore", tmp_path / "in" / "a.jpg", *options, *WORD) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run("restore", tmp_path / "empty", "-o", tmp_path / "out", *WORD) == 2
    assert "inputs: a folder must hold images" in capsys.readouterr().err


def test_names_that_are_no_text_are_written_and_shown(tmp_path, capsys):
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff -x.png"))
    Image.fromarray(PIXELS).save(source)
    assert run("restore", source, "-o", f"{tmp_path}/out/", *WORD) == 0
    assert (tmp_path / "out" / source.name).is_file()
    assert "-x.png" in capsys.readouterr().out
    assert run("restore", source, "-o", f"{tmp_path}/out/", *WORD, "--resume") == 0
    assert "1 of 1 inputs were done" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ numbers and solvers
@pytest.mark.parametrize(
    ("text", "share"),
    [
        *(("25/255", 25 / 255), ("25@255", 25 / 255), (" 25 / 255 ", 25 / 255), ("257/65535", 1 / 255)),
        *(("0.1", 0.1), ("0.1@1", 0.1), ("10%", 0.1), ("0.2@2", 0.1), ("0", 0.0), ("1e-2", 0.01)),
    ],
)
def test_levels_are_read_by_their_scale(text, share):
    level = parse_level(text)
    assert level.share == pytest.approx(share)
    assert level.std == pytest.approx(2 * share)
    assert f"{255 * share:.3g} of 255" in str(level)


@pytest.mark.parametrize(
    "text", ["", "-1", "25", "inf", "nan", "25/256", "300/255", "a/255", "25//255", "101%", "@255"]
)
def test_levels_without_a_meaning_are_refused(text):
    with pytest.raises(ValueError, match=r"noise-std: must be a number .* with its scale, such as 25/255"):
        parse_level(text)


def test_amounts_of_memory():
    assert parse_memory("2G") == parse_memory("2 GiB") == parse_memory("2048m") == 1 << 31
    assert parse_memory("1.5k") == 1536
    for text in ("", "0", "many", "2P", "-1G", "1..5G"):
        with pytest.raises(ValueError, match="max-memory: must be an amount such as 2G or 800M, got"):
            parse_memory(text)


def test_solvers_are_read_and_used(tmp_path, capsys):
    assert parse_solver(None) is None
    assert parse_solver("ddnm") == parse_solver("DDNM()") == DDNM()
    assert parse_solver("Conjugate(10, jacobian='none')") == Conjugate(10, jacobian="none")
    for text in ("Solver", "cats", "DDNM(", "__import__('os')", "DDNM(eta=open('x'))", "DDNM().__class__"):
        with pytest.raises(ValueError, match=r"solver: must be one of .*DDNM.*, got"):
            parse_solver(text)
    with pytest.raises(ValueError, match="solver: DDNM refuses its arguments"):
        parse_solver("DDNM(eta=2)")
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    command = ("restore", tmp_path / "a.png", "--operator", "inpaint:0.5", "--steps", 2, "-f", "-o")
    made = {}
    for name, options in {
        "preset": (),
        "solver": ("--solver", "ddnm"),
        "other": ("--seed", 1, "--solver", "ddnm"),
        "mean": ("--mean", 2, "--solver", "ddnm"),
    }.items():
        assert run(*command, tmp_path / f"{name}.png", *options) == 0
        made[name] = np.array(Image.open(tmp_path / f"{name}.png")).astype(float)
    assert not np.array_equal(made["preset"], made["solver"])
    if Image.open(tmp_path / "a.png").size:  # The mean of the samples with the seeds 0 and 1, whose mask is the same.
        assert run(*command, tmp_path / "x.png", "--samples", 2, "--solver", "ddnm") == 0
        both = [np.array(Image.open(tmp_path / f"x-{k}.png")).astype(float) for k in (0, 1)]
        inner = ((both[0] > 0) & (both[0] < 255) & (both[1] > 0) & (both[1] < 255)).nonzero()
        assert np.abs(made["mean"] - np.mean(both, 0))[inner].max() <= 1.01


# ------------------------------------------------------------------------------------------------ work that is stopped
def sources(folder: Path, count: int = 3) -> list[Path]:
    paths = [folder / f"{k}.png" for k in range(count)]
    for k, path in enumerate(paths):
        Image.fromarray(np.roll(PIXELS, k, 0)).save(path)
    return paths


def test_resume_does_what_is_left_and_what_was_damaged(tmp_path, monkeypatch, capsys):
    paths, out = sources(tmp_path), tmp_path / "out"
    command = ("restore", *paths, "-o", out, *WORD)
    from ccfast.app import restore_files

    read, stopped = restore_files.read_picture, []

    def read_until(path, **options):
        if path.name == "1.png" and not stopped:
            stopped.append(path)
            os.kill(os.getpid(), signal.SIGTERM)
        return read(path, **options)

    monkeypatch.setattr(restore_files, "read_picture", read_until)
    assert run(*command) == 143
    assert capsys.readouterr().err.endswith("ccfast restore: ended\n")
    assert files(out) == {"0.png"}
    first = (out / "0.png").stat().st_mtime_ns
    assert run(*command) == 2  # Without --resume, what exists is refused.
    capsys.readouterr()
    assert run(*command, "--resume") == 0
    assert capsys.readouterr().out.splitlines() == [str(out / "1.png"), str(out / "2.png")]
    assert (out / "0.png").stat().st_mtime_ns == first
    whole = {path.name: path.read_bytes() for path in out.glob("*.png")}
    # A result that was damaged, one that is gone, one whose source is another now, and all when options differ.
    (out / "0.png").write_bytes(whole["0.png"][:-20])
    (out / "1.png").unlink()
    Image.fromarray(255 - PIXELS).save(paths[2])
    assert run(*command, "--resume") == 0
    assert "0 of 3 inputs were done" in capsys.readouterr().err
    assert (out / "0.png").read_bytes() == whole["0.png"]
    assert (out / "1.png").read_bytes() == whole["1.png"]
    assert (out / "2.png").read_bytes() != whole["2.png"]
    assert run(*command, "--resume") == 0
    assert "3 of 3 inputs were done" in capsys.readouterr().err
    assert run(*command, "--resume", "--seed", 1) == 0
    assert "0 of 3 inputs were done" in capsys.readouterr().err


def test_resume_replaces_no_file_that_is_not_ours(tmp_path, capsys):
    paths, out = sources(tmp_path), tmp_path / "out"
    out.mkdir()
    (out / "1.png").write_bytes(b"precious")
    assert run("restore", *paths, "-o", out, *WORD, "--resume") == 2
    assert (out / "1.png").read_bytes() == b"precious"
    assert "path: must not exist" in capsys.readouterr().err


def test_what_a_killed_process_left_is_removed_and_a_cut_manifest_is_read(tmp_path):
    paths, out = sources(tmp_path), tmp_path / "out"
    assert run("restore", paths[0], "-o", f"{out}/", *WORD) == 0
    with open(out / NAME, "ab") as file:
        file.write(b'{"name": "1.png", "resu')
    (out / ".1.png.999999999.part").write_bytes(b"half")
    (out / f".2.png.{os.getppid()}.part").write_bytes(b"of a process that lives")
    (out / ".other.999999999.part").write_bytes(b"of somebody else")
    assert run("restore", *paths, "-o", out, *WORD, "--resume") == 0
    assert {name for name in files(out) if name.endswith(".part")} == {
        f".2.png.{os.getppid()}.part",
        ".other.999999999.part",
    }


def test_an_option_of_speed_leaves_results_done(tmp_path, capsys):
    paths, out = sources(tmp_path), tmp_path / "out"
    assert run("restore", *paths, "-o", out, *WORD) == 0
    assert run("restore", *paths, "-o", out, *WORD, "--resume", "--max-memory", "4G") == 0
    assert "3 of 3 inputs were done" in capsys.readouterr().err


def test_a_full_disk_fails_one_file_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    paths, out = sources(tmp_path), tmp_path / "out"
    fsync, calls = os.fsync, []

    def full(descriptor):
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if name.endswith(".part") and "1.png" in name:
            raise OSError(28, "No space left on device")
        calls.append(name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert run("restore", *paths, "-o", out, *WORD) == 1
    assert files(out) == {"0.png", "2.png"}
    assert "No space left" in capsys.readouterr().err
    assert any(name.endswith(".part") for name in calls)  # Data reach the disk before the name does,
    assert str(out) in calls  # and then the name.


class Broken(io.StringIO):
    """A pipe whose reader has gone, or a full disk."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("stream", [Broken(), None])
def test_nobody_listens_and_the_work_is_done(tmp_path, monkeypatch, stream):
    paths, out = sources(tmp_path), tmp_path / "out"
    monkeypatch.setattr(sys, "stdout", stream)
    assert run("restore", *paths, "-o", out, *WORD) == 0
    assert files(out) == {"0.png", "1.png", "2.png"}


def test_a_mistake_in_one_file_spoils_no_other(tmp_path, monkeypatch, capsys):
    """An error of a kind that nobody foresaw is shown with its place, and the next file is restored."""
    from ccfast.app import restore_files

    paths, out = sources(tmp_path), tmp_path / "out"
    read = restore_files.read_picture

    def fails(path, **options):
        return {}["nothing"] if path.name == "0.png" else read(path, **options)

    monkeypatch.setattr(restore_files, "read_picture", fails)
    assert run("restore", *paths, "-o", out, *WORD) == 1
    assert files(out) == {"1.png", "2.png"}
    assert "KeyError" in capsys.readouterr().err
