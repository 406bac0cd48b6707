"""Tests of the command line, of its parts (degradations, files, demo), and of the padding of the network."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_calls import files, prior, run  # noqa: F401
from PIL import Image

import ccfast
from ccfast import priors
from ccfast.app.degradations import _READERS as READERS
from ccfast.app.degradations import line_kernel, parse_degradation, parse_operator
from ccfast.app.gallery import draw_gallery
from ccfast.app.images import load_image, save_image
from ccfast.app.noise_field import noise_field
from ccfast.app.tiles import Box
from ccfast.app.words import word_list
from ccfast.operators.proximal import proximal
from ccfast.priors.padding import any_size, crop, pad_to_multiple
from ccfast.schedules import VP

WORDS = ("inpaint:0.5", "box:0.25", "pool:4", "bicubic:2", "upscale:4,lanczos", "gray", "colorize")
BLURS = ("blur:1.0", "motion:5,30", "defocus:2")


@pytest.fixture
def photo(tmp_path) -> Path:
    """A smooth image with odd sides, of which blurs lose little."""
    rows, columns = np.mgrid[0:37, 0:45] / 40
    pixels = np.stack([rows, columns, (rows + columns) / 2], axis=2)
    Image.fromarray((pixels * 200 + 20).astype(np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def restored_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


# ------------------------------------------------------------------------------------------------ words
@pytest.mark.parametrize("word", [*WORDS, *BLURS, "denoise", "denoise:25/255", "jpeg", "jpeg:20"])
def test_every_word_builds_an_operator_of_the_shape(word):
    shape = (3, 40, 48)
    operator = parse_operator(word, shape, seed=3)
    assert operator.shape == shape
    assert parse_degradation(word).image_shape(operator.measurement_shape) == shape
    assert parse_degradation(word).channels == operator.measurement_shape[0]


def test_every_word_that_help_shows_can_be_read(tmp_path, capsys):
    """Every example in the list of words can be read, and the help of the commands shows that list."""
    save_image(torch.ones(3, 40, 48), tmp_path / "mask.png")
    examples = [line.split()[0] for line in word_list().splitlines() if line[2] != " "]
    assert {example.partition(":")[0] for example in examples} == set(READERS)
    for example in examples:
        word = example.replace("FILE", str(tmp_path / "mask.png"))
        assert parse_operator(word, (3, 40, 48)).shape == (3, 40, 48)
    for command in ("restore", "degrade"):
        assert run(command, "--help") == 0
        shown = {line.strip() for line in capsys.readouterr().out.splitlines()}
        assert {line.strip() for line in word_list().splitlines()} <= shown


def test_words_give_their_arguments_to_the_operators():
    x = torch.rand(1, 3, 40, 48)
    for word, operator in (
        ("pool:4", ccfast.operators.AveragePooling((3, 40, 48), 4)),
        ("bicubic:2", ccfast.operators.Bicubic((3, 40, 48), 2)),
        ("blur:3.0", ccfast.operators.GaussianBlur((3, 40, 48))),
        ("gray", ccfast.operators.Grayscale((3, 40, 48))),
        ("motion:5,30", ccfast.operators.FourierBlur((3, 40, 48), line_kernel(5, 30))),
    ):
        assert torch.equal(parse_operator(word, (3, 40, 48)).forward(x), operator.forward(x))


def test_random_masks_follow_from_seed_and_size():
    ones = torch.ones(1, 3, 64, 64)
    mask = parse_operator("inpaint:0.3", (3, 64, 64), seed=1).forward(ones)
    assert torch.equal(mask, parse_operator("inpaint:0.3", (3, 64, 64), seed=1).forward(ones))
    assert not torch.equal(mask, parse_operator("inpaint:0.3", (3, 64, 64), seed=2).forward(ones))
    assert torch.equal(mask, mask[:, :1].expand(1, 3, 64, 64))  # The mask is the same in all colours.
    assert abs(mask.mean().item() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 4096)


def test_the_box_is_in_the_centre():
    mask = parse_operator("box:0.5", (3, 8, 12)).forward(torch.ones(1, 3, 8, 12))
    hidden = torch.zeros(8, 12)
    hidden[2:6, 3:9] = 1
    assert torch.equal(mask[0], (1 - hidden).expand(3, 8, 12))


def test_blurs_go_through_both_commands(tmp_path, photo):
    """What is made with a reflected border is a view of a larger scene, and is restored as such."""
    for word in BLURS:
        assert run("degrade", photo, "-o", tmp_path / "y.png", "--operator", word, "--force") == 0
        assert run("restore", tmp_path / "y.png", "-o", tmp_path / "x.png", "--operator", word, "--force") == 0
        x, y = load_image(tmp_path / "x.png"), load_image(tmp_path / "y.png")
        again = parse_operator(word, tuple(x.shape)).forward(x[None])[0]
        assert (again - y)[:, 8:-8, 8:-8].abs().max() < 0.05  # Farther from the border nothing beyond it is seen.


@pytest.mark.parametrize(("length", "angle"), [(1, 30), (5, 0), (15, 30), (7.5, 90), (20, -45)])
def test_motion_kernels_are_lines_of_sum_one(length, angle):
    kernel = line_kernel(length, angle)
    assert kernel.dtype == torch.float64
    assert kernel.shape[0] == kernel.shape[1]
    assert kernel.shape[0] % 2 == 1
    assert kernel.min() >= 0
    assert abs(kernel.sum().item() - 1) < 1e-12
    assert torch.allclose(kernel, kernel.flip(0, 1))
    place = torch.arange(kernel.shape[0], dtype=torch.float64) - kernel.shape[0] // 2
    along = math.cos(math.radians(angle)) * place - math.sin(math.radians(angle)) * place[:, None]
    across = math.sin(math.radians(angle)) * place + math.cos(math.radians(angle)) * place[:, None]
    # Bilinear weights spread a point by at most 1/4 in each direction.
    assert (kernel * across.square()).sum() < 0.5
    assert abs((kernel * along.square()).sum() - (length - 1) ** 2 / 12) < 0.5 + 0.02 * length**2


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sharpen", "operator: must be one of inpaint:0.5, box:0.25, .*motion:15,30, .*, got 'sharpen'"),
        ("", "operator: must be one of"),
        ("inpaint", "operator: must look like 'inpaint:0.5', got 'inpaint'"),
        ("gray:2", "operator: must look like 'gray', got 'gray:2'"),
        ("inpaint:0", "operator: inpaint takes the fraction of pixels observed.*got 'inpaint:0'"),
        ("inpaint:1.5", "operator: inpaint takes the fraction"),
        ("box:1", "operator: box takes the hidden fraction"),
        ("pool:1", "operator: pool takes the factor, a whole number from 2 to 64, got 'pool:1'"),
        ("pool:2.5", "operator: pool takes the factor"),
        ("bicubic:x", "operator: bicubic takes the factor"),
        ("blur:-1", "operator: blur takes the standard deviation"),
        ("blur:nan", "operator: blur takes the standard deviation"),
        ("motion:5", "operator: must look like 'motion:15,30'"),
        ("motion:0,30", "operator: motion takes the length"),
        ("motion:5,north", "operator: motion takes the angle"),
        ("defocus:0", "operator: defocus takes the radius"),
        ("denoise:", "operator: must look like 'denoise', got 'denoise:'"),
        ("denoise:25", "noise-std: must be a number .* for 8-bit values write 25/255"),
        ("jpeg:0", "operator: jpeg takes the quality"),
        ("upscale:2,sharp", "operator: upscale takes a factor and one of bicubic, lanczos"),
        ("kernel:missing.npy", "kernel: must be a readable array"),
        ("mask:missing.png", "path: must be a readable image .*missing.png"),
        ("mask:alpha", "'mask:alpha' is the alpha channel of each image, and works with ccfast restore alone"),
    ],
)
def test_bad_words_are_refused(word, message):
    with pytest.raises(ValueError, match=message):
        parse_operator(word, (3, 40, 48))


def test_masks_are_checked(tmp_path):
    pixels = np.zeros((8, 12), np.uint8)
    pixels[:, 6:] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    operator = parse_operator(f"mask:{tmp_path}/mask.png", (3, 8, 12))
    assert torch.equal(operator.forward(torch.ones(1, 3, 8, 12))[0, 0], torch.from_numpy(pixels / 255).float())
    with pytest.raises(ValueError, match=r"mask: must be as large as the image, 8 x 8, got .* with 12 x 8"):
        parse_operator(f"mask:{tmp_path}/mask.png", (3, 8, 8))


def test_operators_are_for_colour_images():
    with pytest.raises(ValueError, match=r"shape: must be \(3, H, W\), got \(1, 8, 8\)"):
        parse_operator("gray", (1, 8, 8))


# ------------------------------------------------------------------------------------------------ any size
@pytest.mark.elsewhere
def test_any_size_pads_inside_the_network_and_is_differentiable():
    denoiser = ccfast.load_prior("photo")
    padded = any_size(denoiser, 8)
    x = torch.randn(2, 3, 5, 13, requires_grad=True)
    time = torch.tensor([300.0, 500.0])
    output = padded.network(x, time)
    expected = denoiser.network(torch.nn.functional.pad(x, (0, 3, 0, 3)), time)[..., :5, :13]
    assert torch.equal(output, expected)  # The stub works pixel by pixel, so padding changes nothing.
    (gradient,) = torch.autograd.grad(output.sum(), x)
    assert gradient.shape == x.shape
    assert (gradient > 0).all()
    assert (padded.name, padded.schedule, padded.prediction) == (denoiser.name, denoiser.schedule, denoiser.prediction)


# ------------------------------------------------------------------------------------------------ degrade, restore
def as_the_command(sampler: ccfast.Sampler, y: torch.Tensor, seed: int) -> torch.Tensor:
    """What a sampler makes of y from a first state whose noise belongs to the places of the picture."""
    operator, start = sampler.operator, sampler.plan.times[0]
    mean = proximal(operator, y, torch.zeros(1, *operator.shape), sampler.plan.noise_std**2)
    noise = sampler.start_noise * noise_field(Box(0, 0, *operator.shape[1:]), seed)
    return sampler(y, x_init=(VP().mean(start) * mean + VP().std(start) * noise).float(), seed=seed)[0]


@pytest.mark.parametrize("word", WORDS)
def test_degrade_and_restore_an_image_of_odd_sides(tmp_path, photo, word, capsys):
    y_path, x_path = tmp_path / "y.png", tmp_path / "x.png"
    assert run("degrade", photo, "-o", y_path, "--operator", word, "--seed", 3) == 0
    assert run("restore", y_path, "-o", x_path, "--operator", word, "--seed", 3, "--steps", 2) == 0
    assert capsys.readouterr().out.splitlines() == [str(y_path), str(x_path)]
    truth, x, y = load_image(photo), load_image(x_path), load_image(y_path)
    degradation = parse_degradation(word)
    factor, channels = degradation.factor, degradation.channels
    padded, hw = pad_to_multiple(truth, factor)
    assert y.shape[1:] == (-(-37 // factor), -(-45 // factor))
    assert x.shape == truth.shape
    operator = parse_operator(word, tuple(padded.shape), seed=3)
    half = 0.5 / 127.5 + 1e-5  # Rounding to 8 bits changes no more than this.
    assert (y[:channels] - operator.forward(padded[None])[0].clamp(-1, 1)).abs().max() < half
    chosen = operator if degradation.like is None else degradation.like(tuple(padded.shape), 3)
    chosen = ccfast.Sampler(any_size(ccfast.load_prior("photo"), 8), chosen, steps=2, goal="faithful")
    options = {"times": chosen.plan.times, "start_noise": chosen.start_noise}
    sampler = ccfast.Sampler(chosen.denoiser, operator, chosen.solver, **options)
    expected = crop(as_the_command(sampler, y[None, :channels].contiguous(), seed=3), hw)
    if operator.kind == "mask":  # Observed pixels stay as they are.
        expected = torch.where(operator.singular_values.bool(), y, expected)
    assert (x - expected.clamp(-1, 1)).abs().max() < half


def test_mask_files_go_through_both_commands(tmp_path, photo):
    mask = np.full((37, 45), 255, np.uint8)
    mask[10:20, 10:30] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    word = f"mask:{tmp_path / 'mask.png'}"
    assert run("degrade", photo, "-o", tmp_path / "y.png", "--operator", word) == 0
    assert (load_image(tmp_path / "y.png")[:, 10:20, 10:30].abs() < 0.01).all()
    assert run("restore", tmp_path / "y.png", "-o", tmp_path / "x.jpg", "--operator", word) == 0
    assert Image.open(tmp_path / "x.jpg").format == "JPEG"


def test_a_measurement_without_a_record_is_restored_whole(tmp_path):
    save_image(torch.zeros(3, 5, 6), tmp_path / "small.jpg")
    assert run("restore", tmp_path / "small.jpg", "-o", tmp_path / "x.png", "--operator", "pool:3") == 0
    assert load_image(tmp_path / "x.png").shape == (3, 15, 18)


def test_results_follow_from_the_seed(tmp_path, photo):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.png"
        assert run("degrade", photo, "-o", out, "--operator", "pool:4", "--noise-std", 0.1, "--seed", seed) == 0
        assert run("restore", out, "-o", tmp_path / f"x{name}.png", "--operator", "pool:4", "--seed", seed) == 0
    for a, b, c in (("a.png", "b.png", "c.png"), ("xa.png", "xb.png", "xc.png")):
        assert (tmp_path / a).read_bytes() == (tmp_path / b).read_bytes() != (tmp_path / c).read_bytes()


def test_noise_has_its_standard_deviation(tmp_path):
    save_image(torch.zeros(3, 64, 64), tmp_path / "grey.png")
    run("degrade", tmp_path / "grey.png", "-o", tmp_path / "y.png", "--operator", "inpaint:1", "--noise-std", 0.1)
    assert abs(load_image(tmp_path / "y.png").std().item() - 0.2) < 0.01


def test_restore_knows_of_the_noise(tmp_path):
    save_image(torch.zeros(3, 64, 64), tmp_path / "grey.png")
    noise = ("--operator", "inpaint:1", "--noise-std", "0.2@2")
    run("degrade", tmp_path / "grey.png", "-o", tmp_path / "y.png", *noise)
    assert run("restore", tmp_path / "y.png", "-o", tmp_path / "told.png", *noise) == 0
    operator = parse_operator("inpaint:1", (3, 64, 64), seed=0)
    y = load_image(tmp_path / "y.png")[None]
    told, untold = (
        as_the_command(
            ccfast.Sampler(ccfast.load_prior("photo"), operator, noise_std=std, goal="faithful"), y, seed=0
        ).clamp(-1, 1)
        for std in (0.2, 0.0)
    )
    restored = load_image(tmp_path / "told.png")
    assert (restored - told).abs().max() < 0.5 / 127.5 + 1e-5  # Both are rounded to 8 bits.
    assert (restored - untold).abs().max() > 0.1


def test_samples_are_numbered_and_differ(tmp_path, photo):
    assert run("degrade", photo, "-o", tmp_path / "y.png", "--operator", "pool:4") == 0
    options = ("--operator", "pool:4", "--steps", 2)
    assert run("restore", tmp_path / "y.png", "-o", tmp_path / "x.png", "--samples", 2, *options) == 0
    options = (*options, "--goal", "sharp")  # Where there are several samples, this is the default.
    assert run("restore", tmp_path / "y.png", "-o", tmp_path / "one.png", *options, "--seed", 1) == 0
    first, second = ((tmp_path / f"x-{k}.png").read_bytes() for k in (0, 1))
    assert first != second == (tmp_path / "one.png").read_bytes()
    assert not (tmp_path / "x.png").exists()


def test_a_goal_is_faithful_or_sharp(tmp_path, photo, capsys):
    """A faithful result does not depend on the seed here, as a sharp one does; a mean is one of sharp samples."""
    assert run("degrade", photo, "-o", tmp_path / "y.png", "--operator", "pool:2") == 0

    def restored(*options):
        asked = ("--operator", "pool:2", "--steps", 1, "--force", *options)
        assert run("restore", tmp_path / "y.png", "-o", tmp_path / "x.png", *asked) == 0
        return load_image(tmp_path / "x.png")

    faithful, again, sharp, other, mean = (
        restored(*options.split())
        for options in ("--seed 0", "--seed 1", "--goal sharp", "--goal sharp --seed 1", "--mean 2")
    )
    assert torch.equal(faithful, again)
    assert not torch.equal(sharp, other)
    inside = (sharp.abs() < 1) & (other.abs() < 1)  # What is written is clamped.
    assert (mean - (sharp + other) / 2)[inside].abs().max() < 1.5 / 127.5
    capsys.readouterr()
    wrong = ("--operator", "pool:2", "--goal", "nice")
    assert run("restore", tmp_path / "y.png", "-o", tmp_path / "z.png", *wrong) == 2
    assert "nice" in capsys.readouterr().err


def test_many_files_fail_one_by_one(tmp_path, photo, capsys):
    (tmp_path / "broken.png").write_bytes(photo.read_bytes()[:100])
    save_image(torch.zeros(1, 16, 24), tmp_path / "grey.jpg")
    sources = (tmp_path / "broken.png", photo, tmp_path / "missing.png", tmp_path / "grey.jpg")
    for command in ("degrade", "restore"):
        out = tmp_path / command
        assert run(command, *sources, "-o", out, "--operator", "bicubic:2") == 1
        assert files(out) == {"photo.png", "grey.png" if command == "degrade" else "grey.jpg"}
        errors = capsys.readouterr().err.strip().splitlines()
        assert [line.split(": ")[2] for line in errors] == [str(sources[0]), str(sources[2])]
    alone = tmp_path / "alone.png"
    run("restore", tmp_path / "grey.jpg", "-o", alone, "--operator", "bicubic:2")
    assert (
        run("restore", tmp_path / "grey.jpg", "-o", f"{tmp_path}/png/", "--suffix", ".png", "--operator", "bicubic:2")
        == 0
    )
    assert alone.read_bytes() == (tmp_path / "png" / "grey.png").read_bytes()


def test_one_input_may_go_to_a_folder(tmp_path, photo):
    assert run("degrade", photo, "-o", f"{tmp_path}/new/", "--operator", "gray") == 0
    assert (tmp_path / "new" / "photo.png").is_file()


def test_nothing_is_made_where_every_file_fails(tmp_path, photo, capsys):
    (tmp_path / "broken.png").write_bytes(b"no image")
    before = files(tmp_path)
    out = tmp_path / "out"
    assert run("restore", tmp_path / "broken.png", tmp_path / "missing.png", "-o", out, "--operator", "bicubic:2") == 1
    assert run("restore", photo, "-o", tmp_path / "x.png", "--operator", "gray") == 1  # It needs a grey image.
    assert "must be a greyscale image" in capsys.readouterr().err
    assert files(tmp_path) == before
    assert not out.exists()


def test_transparent_images_are_refused_unless_alpha_is_dropped(tmp_path, capsys):
    Image.new("RGBA", (16, 16), (1, 2, 3, 128)).save(tmp_path / "a.png")
    command = ("degrade", tmp_path / "a.png", "-o", tmp_path / "y.png", "--operator", "gray")
    assert run(*command) == 1
    assert "every pixel must be opaque" in capsys.readouterr().err
    assert not (tmp_path / "y.png").exists()
    assert run(*command, "--drop-alpha") == 0


@pytest.mark.parametrize("command", ["degrade", "restore"])
def test_existing_outputs_are_refused_before_any_work(tmp_path, photo, command, capsys, monkeypatch):
    other = tmp_path / "other.png"
    save_image(torch.zeros(3, 16, 16), other)
    out = tmp_path / "out"
    out.mkdir()
    (out / "photo.png").write_bytes(b"precious")
    assert run(command, other, photo, "-o", out, "--operator", "bicubic:2") == 2
    assert files(out) == {"photo.png"}
    assert (out / "photo.png").read_bytes() == b"precious"
    assert "path: must not exist" in capsys.readouterr().err
    assert run(command, other, photo, "-o", out, "--operator", "bicubic:2", "--force") == 0
    assert files(out) == {"photo.png", "other.png"}
    assert load_image(out / "photo.png").shape == ((3, 19, 23) if command == "degrade" else (3, 74, 90))


def test_refusals_before_anything_is_written(tmp_path, photo, capsys):
    before = files(tmp_path)
    (tmp_path / "sub").mkdir()
    twin = tmp_path / "sub" / "photo.jpg"
    save_image(torch.zeros(3, 16, 16), twin)
    good = ("--operator", "pool:4")
    for command, message in (
        (("restore", photo, "-o", tmp_path / "x.png", "--operator", "sharpen"), "operator: must be one of"),
        (("restore", photo, "-o", tmp_path / "x.png"), "--operator"),
        (("restore", photo, *good), "output: must be a file or a folder (-o OUT)"),
        (("restore", photo, "-o", tmp_path / "x.gif", *good), "path: must end in .png, .jpg, .jpeg"),
        (("degrade", photo, "-o", tmp_path / "x.jpg", *good), "output: a measurement must be a .png"),
        (("restore", photo, "-o", tmp_path / "no" / "x.png", *good), "output: its folder must exist"),
        (("degrade", photo, twin, "-o", tmp_path / "out", *good), "output: must differ for every input"),
        (("restore", photo, twin, "-o", photo, *good), "output: must be a folder for 2 inputs"),
        (("restore", photo, "-o", photo, *good, "--force"), "output: must not replace an input"),
        (("restore", photo, "-o", tmp_path, *good, "--force"), "output: must not replace an input"),
        (("restore", photo, "-o", tmp_path / "x.png", *good, "--prior", "cats"), "name: must be 'photo', got 'cats'"),
        (("restore", photo, "-o", tmp_path / "x.png", *good, "--steps", 0), "'--steps'"),
        (("restore", photo, "-o", tmp_path / "x.png", *good, "--seed", -1), "'--seed'"),
        (("restore", photo, "-o", tmp_path / "x.png", *good, "--threads", "two"), "'--threads'"),
        (("restore", photo, "-o", tmp_path / "x.png", *good, "--device", "abacus"), "must be a device"),
        (("degrade", photo, "-o", tmp_path / "x.png", *good, "--noise-std", "nan"), "noise-std: must be a number"),
        (("paint",), "No such command 'paint'"),
        ((), "Missing command"),
    ):
        assert run(*command) == 2, command
        error = capsys.readouterr().err
        assert message in error, error
        assert "Traceback" not in error, error
    assert files(tmp_path) == before | {"sub/photo.jpg"}


def test_threads_are_set(tmp_path, photo, restored_threads):
    more = torch.get_num_threads() + 1
    assert run("restore", photo, "-o", tmp_path / "x.png", "--operator", "bicubic:2", "--threads", more) == 0
    assert torch.get_num_threads() == more


def test_progress_goes_to_a_terminal_only(tmp_path, photo, capsys, monkeypatch):
    run("restore", photo, "-o", tmp_path / "a.png", "--operator", "bicubic:2")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)
    run("restore", photo, "-o", tmp_path / "b.png", "--operator", "bicubic:2")
    assert "/5" in capsys.readouterr().err
    # The progress bar changes no result.
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_an_interrupt_leaves_no_traceback(tmp_path, photo, capsys, monkeypatch):
    monkeypatch.setattr(
        "ccfast.app.restore_files.read_picture", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    assert run("degrade", photo, "-o", tmp_path / "y.png", "--operator", "gray") == 130
    assert capsys.readouterr().err == "ccfast degrade: interrupted\n"
    assert not (tmp_path / "y.png").exists()


# ------------------------------------------------------------------------------------------------ demo, config
def test_demo_draws_a_gallery(tmp_path, capsys):
    out = tmp_path / "gallery.png"
    assert run("demo", "--out", out, "--size", 64, "--steps", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[-1] == f"gallery: {out}"
    assert [line.split()[-2] for line in lines[1:-1]] == ["2"] * 4  # The column counts network evaluations.
    assert Image.open(out).size > (5 * 192, 4 * 192)
    before = out.read_bytes()
    assert run("demo", "--out", out, "--size", 64) == 2
    assert out.read_bytes() == before


def test_demo_says_what_is_missing(tmp_path, capsys, monkeypatch):
    assert run("demo", "--out", tmp_path / "g.png", "--size", 100) == 2
    assert "size: must be a multiple of 8 from 32 to 296, got 100" in capsys.readouterr().err
    assert run("demo", "--out", tmp_path / "no" / "g.png") == 2
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert run("demo", "--out", tmp_path / "g.png", "--size", 64) == 2
    assert "pip install 'ccfast[demo]'" in capsys.readouterr().err
    assert files(tmp_path) == set()


def test_demo_scores_itself_right():
    from ccfast.app.demo import error_map, restore_tasks

    first = next(restore_tasks(ccfast.load_prior("photo"), steps=1, seed=0, size=64))
    expected = [10 * math.log10(4 / (x - first.truth).square().mean()) for x in (first.pinv, first.restored)]
    assert first.psnr == pytest.approx(expected, abs=1e-3)
    assert first.measurement.shape == (3, 64, 64)
    assert first.network_evaluations == 1
    assert first.seconds > 0
    assert 0 < first.residual < 1
    errors = error_map(first.restored, first.truth)
    assert errors.max() <= 1
    assert float(error_map(first.truth, first.truth).max()) == -1
    assert len(first.row().panels) == 5


@pytest.mark.skipif(not list(priors.WEIGHTS.glob("photo.*")), reason="the weights of the photo prior are not here")
def test_demo_with_the_real_prior(tmp_path, monkeypatch, restored_threads):
    monkeypatch.setattr(ccfast, "load_prior", priors.load_prior)
    results = []
    monkeypatch.setattr("ccfast.app.commands.draw_gallery", lambda rows: results.extend(rows) or draw_gallery(rows))
    # One thread is used, because threads that wait for each other on busy cores take fifty times longer.
    assert run("demo", "--out", tmp_path / "gallery.png", "--size", 64, "--threads", 1) == 0
    # The captions of random inpainting show PSNR in dB.
    before, after = (float(panel.caption.split()[-4]) for panel in results[0].panels[2:4])
    assert after > before + 3


def test_config_says_what_can_run(capsys):
    assert run("config") == 0
    out = capsys.readouterr().out
    assert out.count("ccfast ") == 1
    assert torch.__version__ in out
    assert "backend reference: yes" in out


def test_python_m_ccfast_and_help():
    done = subprocess.run([sys.executable, "-m", "ccfast", "restore", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "inpaint:0.5" in done.stdout
    assert "Exit codes" in done.stdout
    assert run() == 2
