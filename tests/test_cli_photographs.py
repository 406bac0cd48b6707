"""What the command line makes of blurred, noisy, compressed and small photographs, with the bundled prior.

The photographs are held out, and the rivals are those that a user has at hand.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from cli_calls import run
from PIL import Image
from skimage.restoration import richardson_lucy, wiener

from ccfast.app.blur_kernels import disk_kernel, gaussian_kernel, line_kernel, read_kernel
from ccfast.app.jpeg_rounding import Rounding
from ccfast.app.noise_estimate import estimate_noise
from ccfast.operators import Blur
from ccfast.priors import heldout

SIDE = 64
BLURS = {
    "blur:1.6": gaussian_kernel(1.6),
    "motion:7,30": line_kernel(7, 30),
    "defocus:2.5": disk_kernel(2.5),
    "kernel": torch.tensor([[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 3.0, 0.0], [4.0, 0.0, 2.0, 0.0]], dtype=torch.float64)
    / 12,
}


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """A part of a photograph with much detail, with room for a blur around its centre, (88, 88, 3) of 8 bits."""
    part = heldout.square("astronaut")[:, 20:108, 84:172]
    return ((part.permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def rivals(y: np.ndarray, kernel: np.ndarray) -> dict[str, np.ndarray]:
    """Richardson-Lucy and Wiener's filter with reflected borders, as a user of scikit-image calls them."""
    around = 12
    found = {}
    planes = [np.pad(plane, around, mode="symmetric") / 255.0 for plane in y.transpose(2, 0, 1)]
    calls = {f"Richardson-Lucy {n}": lambda plane, n=n: richardson_lucy(plane, kernel, n, clip=False) for n in (10, 30)}
    calls |= {f"Wiener {b}": lambda plane, b=b: wiener(plane, kernel, b, clip=False) for b in (1e-3, 1e-2, 0.1)}
    for name, call in calls.items():
        inner = [call(plane)[around:-around, around:-around] for plane in planes]
        found[name] = (255 * np.stack(inner, 2)).clip(0, 255)
    return found


@pytest.mark.parametrize("noise", [0.0, 2.0])
@pytest.mark.parametrize("word", BLURS)
def test_blur_of_a_scene_that_goes_on_is_undone_better_than_by_rivals(tmp_path, photograph, word, noise):
    """Borders included; the level of the noise is estimated, rounding being all of it in one case."""
    taps = BLURS[word]
    scene = torch.from_numpy(photograph).permute(2, 0, 1)[None].double()
    exact = Blur((3, *scene.shape[-2:]), taps, "valid", 0.0, convention="convolution")
    blurred = exact.forward(scene)[0].permute(1, 2, 0)
    drawn = np.random.default_rng(0).standard_normal(blurred.shape)
    y = (blurred.numpy() + noise * drawn).round().clip(0, 255).astype(np.uint8)
    top, left = (n - 1 - n // 2 for n in taps.shape)
    truth = photograph[top : top + y.shape[0], left : left + y.shape[1]]
    Image.fromarray(y).save(tmp_path / "y.png")
    if word == "kernel":
        np.save(tmp_path / "k.npy", 7 * taps.numpy())
        word = f"kernel:{tmp_path}/k.npy"
    assert run("restore", tmp_path / "y.png", "-o", tmp_path / "x.png", "--operator", word) == 0
    ours = psnr(np.array(Image.open(tmp_path / "x.png")), truth)
    others = {name: psnr(image, truth) for name, image in rivals(y, taps.numpy()).items()}
    assert ours > max(psnr(y, truth), *others.values()) + 0.5, (ours, psnr(y, truth), others)


def test_kernels_are_read_from_files_and_flipped_for_correlations(tmp_path):
    taps = np.zeros((7, 9))
    taps[2:5, 3:7] = np.arange(12).reshape(3, 4)
    np.save(tmp_path / "k.npy", taps.astype(np.float32))
    Image.fromarray(taps.astype(np.uint8)).save(tmp_path / "k.png")
    Image.fromarray((taps * 1000).astype(np.uint16)).save(tmp_path / "k.tiff")
    expected = taps[2:5, 2:7] / taps.sum()  # The zeros go in pairs.
    for name in ("k.npy", "k.png", "k.tiff"):
        assert np.allclose(read_kernel(tmp_path / name).numpy()[:, :], expected[:, :], atol=1e-6), name
    np.save(tmp_path / "zero.npy", np.zeros((3, 3)))
    np.save(tmp_path / "three.npy", np.ones((3, 3, 3)))
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "text.png").write_text("no image")
    for name, message in (
        ("zero.npy", "kernel: must have a positive sum"),
        ("three.npy", r"kernel: must be finite real numbers of shape \(kh, kw\)"),
        ("object.npy", "kernel: must be a readable array"),
        ("missing.npy", "kernel: must be a readable array"),
        ("text.png", "path: must be a readable image"),
    ):
        with pytest.raises(ValueError, match=message):
            read_kernel(tmp_path / name)


@pytest.mark.parametrize("shape", [(3, 4), (4, 5), (3, 3)])
def test_a_correlation_is_the_convolution_with_the_flipped_kernel(tmp_path, shape):
    from ccfast.app.degradations import parse_operator

    taps = np.random.default_rng(1).random(shape)
    np.save(tmp_path / "k.npy", taps)
    x = torch.rand(1, 3, 12, 10, dtype=torch.float64)
    operator = Blur((3, 12, 10), taps / taps.sum(), convention="correlation")
    got = parse_operator(f"kernel:{tmp_path}/k.npy,correlation", (3, 12, 10)).forward(x)
    assert (got - operator.forward(x)).abs().max() < 1e-12


def test_disks_have_their_radius():
    for radius in (0.5, 2.5, 4.0):
        taps = disk_kernel(radius)
        place = torch.arange(len(taps), dtype=torch.float64) - len(taps) // 2
        assert abs(float(taps.sum()) - 1) < 1e-12
        # The mean square distance from the centre of a disk is half of its radius squared; a pixel adds 1/6.
        assert abs(float((taps * (place[:, None] ** 2 + place**2)).sum()) - radius**2 / 2) < 0.25
        assert torch.equal(taps, taps.flip(0).mT)


@pytest.mark.parametrize("level", [10, 25, 50])
def test_the_level_of_noise_is_estimated(photograph, level):
    drawn = level * np.random.default_rng(2).standard_normal(photograph.shape)
    noisy = (photograph + drawn).round().clip(0, 255).astype(np.uint8)
    assert abs(estimate_noise(noisy) / level - 1) < 0.25
    assert estimate_noise(np.full((40, 40, 1), 90, np.uint8)) == 0
    assert estimate_noise(noisy[:2, :1]) == 0


def test_noise_is_removed_at_a_level_that_is_given_or_estimated(tmp_path, photograph, capsys):
    noisy = photograph + 25 * np.random.default_rng(3).standard_normal(photograph.shape)
    noisy = noisy.round().clip(0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "y.png")
    said = {}
    for name, options in {
        "estimated": ("denoise",),
        "word": ("denoise:25/255",),
        "option": ("denoise", "--noise-std", "25@255"),
    }.items():
        out = tmp_path / f"{name}.png"
        assert run("restore", tmp_path / "y.png", "-o", out, "--operator", *options) == 0
        said[name] = capsys.readouterr().err
        assert psnr(np.array(Image.open(out)), photograph) > psnr(noisy, photograph) + 6
    assert (tmp_path / "word.png").read_bytes() == (tmp_path / "option.png").read_bytes()
    assert "as estimated" in said["estimated"]
    assert "25 of 255 (0.098 of the range from black to white), as given" in said["option"]


@pytest.mark.parametrize(("quality", "sampling", "gain"), [(20, 2, 0.5), (20, 0, 0.5), (60, 2, 0.3)])
def test_jpegs_gain_by_their_tables(tmp_path, photograph, quality, sampling, gain):
    Image.fromarray(photograph).save(tmp_path / "y.jpg", quality=quality, subsampling=sampling)
    assert run("restore", tmp_path / "y.jpg", "-o", tmp_path / "x.png", "--operator", "jpeg") == 0
    y, x = (np.array(Image.open(tmp_path / name)) for name in ("y.jpg", "x.png"))
    assert psnr(x, photograph) > psnr(y, photograph) + gain
    # Pixels that were saved as PNG are restored by the same tables, once their quality is known.
    Image.fromarray(y).save(tmp_path / "y.png")
    command = ("restore", tmp_path / "y.png", "-o", tmp_path / "again.png", "--operator")
    assert run(*command, f"jpeg:{quality}") == 0
    assert np.array_equal(np.array(Image.open(tmp_path / "again.png")), x)
    assert run(*command, "jpeg", "--force") == 1


def test_an_image_that_explains_a_jpeg_stays(photograph):
    """The original does, and so it is not moved; what is moved has the coefficients of the file afterwards."""
    grey = photograph[..., :1]
    buffer = io.BytesIO()
    Image.fromarray(grey[..., 0]).save(buffer, "JPEG", quality=30)
    file = Image.open(buffer)
    rounding = Rounding(np.array(file.quantization[0], float).reshape(8, 8))
    samples = np.array(file)[..., None]
    assert np.abs(rounding.explained(grey.astype(float), samples) - grey).max() < 1.0
    assert np.abs(rounding.explained(samples * 1.0, samples) - samples).max() < 1.0
    moved = rounding.explained(np.full(grey.shape, 128.0), samples)
    assert psnr(moved, samples) > psnr(np.full(grey.shape, 128.0), samples) + 3


def test_images_that_other_tools_made_smaller(tmp_path, photograph):
    """The model is that of the tool, so that the result made smaller again by it is the input."""
    for name, resample in (("bicubic", Image.Resampling.BICUBIC), ("lanczos", Image.Resampling.LANCZOS)):
        small = Image.fromarray(photograph[:64, :64]).resize((16, 16), resample)
        small.save(tmp_path / "y.png")
        command = ("restore", tmp_path / "y.png", "-o", tmp_path / "x.png", "--force", "--hard-consistency")
        assert run(*command, "--operator", f"upscale:4,{name}") == 0
        x = Image.open(tmp_path / "x.png")
        assert x.size == (64, 64)
        again = np.array(x.resize((16, 16), resample)).astype(int)
        assert np.abs(again - np.array(small)).mean() < 1.5
    assert run(*command, "--operator", "upscale:4,sharp") == 2
