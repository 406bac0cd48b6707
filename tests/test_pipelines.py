"""A pipeline that is called as those of diffusers.

On the other side are people with pictures and code written for diffusers. What they do that we would not, each a row or
a test here: Pillow images of every mode, palettes, 16 bits and alpha among them; arrays with channels last and tensors
with channels first, or the other way round; bytes, floats in [0, 1], in [-1, 1] and in [0, 255]; lists, of one size or
of several; masks whose white is repainted, of booleans, bytes or integers, with three channels or none, one for a whole
batch; an image under the mask that is not black; a list of generators; a callback that returns new latents, or nothing,
or sets ``_interrupt``, or is an object with ``tensor_inputs``; results by ``.images``, ``[0]`` and ``["images"]``; half
precision by ``.to``; a pipeline made of another one; progress bars turned off.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ccfast
from ccfast import Denoiser, Sampler
from ccfast.operators import AveragePooling, Denoising, Grayscale, Hadamard, Inpainting
from ccfast.pipelines import RestorationPipeline
from ccfast.pipelines.conversions import batch_of, converted, mask_of
from ccfast.schedules import VP
from ccfast.solvers import DDIM, DDNM, DPMSolverPP
from ccfast.testing import relative_error

SHAPE = (3, 8, 12)


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


RGB, SMALL = pixels(8, 12, 3), pixels(4, 6, 3)
UNIT = torch.from_numpy(RGB).permute(2, 0, 1)[None].float() / 255


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x, t):
        return torch.tanh(self.mix(x))


@pytest.fixture(scope="module")
def denoiser():
    return Denoiser(Network().requires_grad_(False).eval(), VP())


@pytest.fixture
def pipe(denoiser):
    made = RestorationPipeline(denoiser, AveragePooling(SHAPE, 2), DDNM())
    made.set_progress_bar_config(disable=True)
    return made


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------------ what comes in
GREY = Image.fromarray(RGB[..., 0])
PILLOW = {
    "RGB": (Image.fromarray(RGB), UNIT),
    "L": (GREY, UNIT[:, :1].expand(-1, 3, -1, -1)),
    "1": (GREY.point(lambda v: 255 * (v > 99)).convert("1"), (UNIT[:, :1] > 99.5 / 255).float().expand(-1, 3, -1, -1)),
    "LA": (GREY.convert("LA"), UNIT[:, :1].expand(-1, 3, -1, -1)),
    "P": (GREY.convert("P"), UNIT[:, :1].expand(-1, 3, -1, -1)),
    "RGBA": (Image.fromarray(RGB).convert("RGBA"), UNIT),
    "I;16": (Image.fromarray(RGB[..., 0].astype(np.uint16) * 257), UNIT[:, :1].expand(-1, 3, -1, -1)),
}
ARRAYS = {
    "uint8": (RGB, UNIT),
    "floats": (RGB / 255, UNIT),
    "float32": ((RGB / 255).astype(np.float32), UNIT),
    "float16": (np.round(RGB / 255, 1).astype(np.float16), None),
    "uint16": (RGB.astype(np.uint16) * 257, UNIT),
    "a batch": (np.stack([RGB, RGB[::-1]]), torch.cat([UNIT, UNIT.flip(2)])),
    "a view that runs backwards": (RGB[:, ::-1], UNIT.flip(3)),
    "grey": (RGB[..., 0], UNIT[:, :1].expand(-1, 3, -1, -1)),
    "grey with a channel": (RGB[..., :1], UNIT[:, :1].expand(-1, 3, -1, -1)),
}
TENSORS = {
    "bytes": (torch.from_numpy(RGB).permute(2, 0, 1), UNIT),
    "floats": (UNIT[0], UNIT),
    "doubles": (UNIT.double(), UNIT),
    "grey": (UNIT[0, 0], UNIT[:, :1].expand(-1, 3, -1, -1)),
    "requires grad": (UNIT.clone().requires_grad_(), UNIT),
}
LISTS = {
    "Pillow": ([Image.fromarray(RGB), GREY], torch.cat([UNIT, UNIT[:, :1].expand(-1, 3, -1, -1)])),
    "mixed": ([RGB, UNIT[0], UNIT], UNIT.repeat(3, 1, 1, 1)),
    "a tuple": ((RGB,), UNIT),
}
KINDS = {"Pillow": PILLOW, "array": ARRAYS, "tensor": TENSORS, "list of": LISTS}
GIVEN = [(f"{kind} {name}", *row) for kind, rows in KINDS.items() for name, row in rows.items()]


@pytest.mark.parametrize(("name", "given", "expected"), GIVEN, ids=[row[0] for row in GIVEN])
def test_images_of_every_kind(name, given, expected):
    got = batch_of("image", given, 3)
    assert got.dtype == torch.float32
    assert not got.requires_grad
    if expected is not None:
        assert relative_error(got, expected) < 1e-6


TRANSPARENT = Image.fromarray(np.dstack([RGB, RGB[..., 0]]))
WRONG = {
    "a path": ("image.png", TypeError, "must be a Pillow image, a NumPy array, a torch tensor or a list .* got str"),
    "None": (None, TypeError, "got NoneType"),
    "an empty list": ([], ValueError, "must hold at least one image, got an empty list"),
    "sizes": ([RGB, SMALL], ValueError, r"must be images of one size, got \(3, 4, 6\) and \(3, 8, 12\)"),
    "CMYK": (Image.fromarray(RGB).convert("CMYK"), ValueError, "got mode CMYK; convert it first"),
    "floats of Pillow": (GREY.convert("F"), ValueError, "got mode F; convert it first"),
    "transparent": (TRANSPARENT, ValueError, "must be opaque, got an image of mode RGBA"),
    "channels first": (RGB.transpose(2, 0, 1), ValueError, r"has its channels last, .*, got shape \(3, 8, 12\)"),
    "channels last": (torch.from_numpy(RGB), ValueError, r"has its channels first, .*, got shape \(8, 12, 3\)"),
    "long integers": (RGB.astype(np.int64), ValueError, "floats in .0, 1., uint8 or uint16, got int64"),
    "integers of torch": (UNIT.long(), ValueError, "floats in .0, 1. or uint8, got torch.int64"),
    "NaN": (UNIT / 0 * 0, ValueError, "must be finite, got 288 values"),
    "dimensions": (RGB[None, None], ValueError, r"got shape \(1, 1, 8, 12, 3\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_images_are_refused_by_name(name):
    given, error, words = WRONG[name]
    with pytest.raises(error, match=f"image.*: .*{words}"):
        batch_of("image", given, 3)


MASK = pixels(8, 12, seed=1) > 127
MASKS = {
    "Pillow L": Image.fromarray(MASK.astype(np.uint8) * 255),
    "Pillow 1": Image.fromarray(MASK.astype(np.uint8) * 255).convert("1"),
    "Pillow RGB": Image.fromarray(MASK.astype(np.uint8) * 255).convert("RGB"),
    "Pillow RGBA": Image.fromarray(MASK.astype(np.uint8) * 255).convert("RGBA"),
    "bytes": MASK.astype(np.uint8) * 255,
    "bytes of 0 and 1": MASK.astype(np.uint8),
    "booleans": MASK,
    "integers": MASK.astype(np.int64),
    "floats": MASK * 0.8,
    "floats to 255": MASK * 255.0,
    "a channel": MASK[..., None],
    "a batch": MASK[None],
    "a tensor": torch.from_numpy(MASK),
    "a tensor of bytes": torch.from_numpy(MASK.astype(np.uint8) * 255)[None],
    "a tensor with a channel": torch.from_numpy(MASK)[None, None].float(),
    "a list": [Image.fromarray(MASK.astype(np.uint8) * 255)],
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_every_kind(name):
    got = mask_of("mask_image", MASKS[name])
    assert got.dtype == torch.bool
    assert torch.equal(got, torch.from_numpy(MASK)[None, None])


def test_masks_are_refused_by_name(denoiser):
    with pytest.raises(ValueError, match=r"mask_image: must lie in \[0, 1\], or in \[0, 255\], .* got -1 to"):
        mask_of("mask_image", MASK * 2.0 - 1.0)
    pipe = RestorationPipeline(denoiser)
    with pytest.raises(ValueError, match=r"mask_image: must be of the size of the image, \(8, 12\) .* got \(4, 6\)"):
        pipe(RGB, mask_image=MASK[::2, ::2])
    with pytest.raises(ValueError, match="mask_image: must be one, or one for each of 3 images, got 2"):
        pipe([RGB] * 3, mask_image=[MASK] * 2)
    with pytest.raises(ValueError, match="mask_image: takes the place of an operator, got both"):
        pipe(RGB, mask_image=MASK, operator=Denoising(SHAPE))
    with pytest.raises(ValueError, match=r"operator: must be given to the pipeline or the call, .* got None"):
        pipe(RGB)


# ------------------------------------------------------------------------------------------------ what a call does
def test_a_call_is_that_of_a_sampler(pipe, denoiser):
    y = torch.from_numpy(SMALL).permute(2, 0, 1)[None].float() / 127.5 - 1
    seed = int(torch.randint(2**63 - 1, (), dtype=torch.int64, generator=seeded(4)))
    expected = Sampler(denoiser, pipe.operator, DDNM(), steps=4)(y, seed=seed)
    call = {"image": SMALL, "num_inference_steps": 4}
    images = pipe(**call, generator=seeded(4), output_type="pt").images
    assert relative_error(images, (expected / 2 + 0.5).clamp(0, 1)) < 1e-5
    assert relative_error(pipe(**call, generator=seeded(4), output_type="latent").images, expected) < 1e-5
    array = pipe(**call, generator=seeded(4), output_type="np").images
    assert array.shape == (1, 8, 12, 3)
    assert relative_error(torch.from_numpy(array).permute(0, 3, 1, 2), images) < 1e-6
    output = pipe(**call, generator=seeded(4))
    assert np.array_equal(np.asarray(output.images[0]), (array[0] * 255).round().astype(np.uint8))
    assert output[0] is output["images"] is output.images
    assert output.to_tuple() == (output.images,)
    assert list(output.keys()) == ["images"]
    (alone,) = pipe(**call, generator=seeded(4), return_dict=False)
    assert np.array_equal(np.asarray(alone[0]), np.asarray(output.images[0]))
    assert pipe.num_timesteps == 4


def test_generators_of_every_image(pipe):
    both = pipe([SMALL, SMALL[::-1]], generator=[seeded(1), seeded(2)], output_type="pt").images
    for k, small in enumerate((SMALL, SMALL[::-1])):
        alone = pipe(small, generator=[seeded(k + 1)], output_type="pt").images
        assert relative_error(both[k : k + 1], alone) < 1e-5
    with pytest.raises(ValueError, match="generator: must be one, or one for each of the 2 images, got 3"):
        pipe([SMALL] * 2, generator=[seeded()] * 3)
    with pytest.raises(TypeError, match=r"generator: must be a torch\.Generator, a list of them or None, got 7"):
        pipe(SMALL, generator=7)


def test_the_scale_of_measurements(denoiser):
    """An operator that keeps no constant, a grey one, and values in [-1, 1] restore as the sampler does."""
    x = 2 * UNIT - 1
    half = Grayscale(SHAPE, [0.2, 0.3, 0.1])
    pipe = RestorationPipeline(denoiser, half, DDIM())
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(half.forward(x), generator=seeded(), output_type="pt", data_range=(-1, 1)).images
    for given in (half.forward(UNIT), half.forward(UNIT)[0, 0].numpy()):
        assert relative_error(pipe(given, generator=seeded(), output_type="pt").images, expected) < 1e-5
    with pytest.raises(ValueError, match=r"image: floats must lie in \[0, 1\] \(bytes are uint8\), got values"):
        pipe(255.0 * half.forward(UNIT))
    with pytest.raises(ValueError, match=r"data_range: must be \(0, 1\), \(-1, 1\) or None, got \(0, 255\)"):
        pipe(half.forward(UNIT), data_range=(0, 255))
    with pytest.raises(ValueError, match=r"image: must be of the size that the operator measures, \(1, 8, 12\)"):
        pipe(SMALL)
    noisy = RestorationPipeline(denoiser, Denoising(SHAPE), DDIM(), noise_std=0.1)
    with pytest.raises(ValueError, match=r"data_range: must be \(0, 1\) or \(-1, 1\) where noise or the operator can"):
        noisy(x)
    coded = RestorationPipeline(denoiser, Hadamard((3, 8, 8), [0, 3, 9]), DDIM())
    coded.set_progress_bar_config(disable=True)
    with pytest.raises(ValueError, match=r"data_range: must be \(0, 1\) or \(-1, 1\) where noise or the operator can"):
        coded(-torch.ones(3, 3))
    assert coded(torch.ones(2, 3, 3), output_type="pt", data_range=(-1, 1)).images.shape == (2, 3, 8, 8)
    with pytest.raises(TypeError, match=r"image: must be a tensor of 2 dimensions and a batch .* got ndarray"):
        coded(RGB)


def test_white_is_repainted_and_black_is_kept(denoiser):
    """What lies under the mask does not matter, and one sampler serves all masks."""
    pipe = RestorationPipeline(denoiser, solver=DDNM(), hard_consistency=True)
    pipe.set_progress_bar_config(disable=True)
    repainted = torch.from_numpy(MASK)
    result = pipe(RGB, mask_image=MASKS["Pillow L"], generator=seeded(), output_type="pt").images
    assert torch.allclose(result[0][:, ~repainted], UNIT[0][:, ~repainted], atol=1e-6)
    assert not torch.allclose(result[0][:, repainted], UNIT[0][:, repainted], atol=1e-2)
    other = np.where(MASK[..., None], 255 - RGB, RGB)
    again = pipe(other, mask_image=MASKS["booleans"], generator=seeded(), output_type="pt").images
    assert relative_error(again, result) < 1e-6
    inverted = pipe(RGB, mask_image=~MASK, generator=seeded(), output_type="pt").images
    assert torch.allclose(inverted[0][:, repainted], UNIT[0][:, repainted], atol=1e-6)
    assert len(pipe._samplers) == 1
    sampler = Sampler(denoiser, Inpainting(~repainted[None], SHAPE), DDNM(), hard_consistency=True)
    direct = sampler((2 * UNIT - 1) * ~repainted, seed=seeded())
    assert relative_error(result, (direct / 2 + 0.5).clamp(0, 1)) < 1e-5
    two = pipe([RGB, RGB], mask_image=[MASK, ~MASK], generator=[seeded(), seeded()], output_type="pt").images
    assert relative_error(two, torch.cat([result, inverted])) < 1e-5
    pipe([RGB, RGB], mask_image=MASK)


# ------------------------------------------------------------------------------------------------ callbacks
def test_callbacks_see_the_state_of_every_step(pipe, denoiser):
    seen = []

    def look(given, step, timestep, kwargs):
        assert given is pipe
        seen.append((step, timestep, kwargs["latents"].clone(), kwargs["pred_original_sample"].clone()))
        return {}

    wanted = ["latents", "pred_original_sample"]
    call = {"image": SMALL, "num_inference_steps": 3, "output_type": "latent"}
    result = pipe(**call, generator=seeded(), callback_on_step_end=look, callback_on_step_end_tensor_inputs=wanted)
    assert [row[0] for row in seen] == [0, 1, 2]
    times = [step.network_time for step in Sampler(denoiser, pipe.operator, DDNM(), steps=3).plan.steps]
    assert [row[1] for row in seen] == pytest.approx(times)
    assert torch.equal(seen[-1][2], result.images)
    assert torch.equal(pipe(**call, generator=seeded()).images, result.images)

    class Object:
        tensor_inputs = ("pred_original_sample",)

        def __call__(self, given, step, timestep, kwargs):
            assert list(kwargs) == ["pred_original_sample"]

    assert torch.equal(pipe(**call, generator=seeded(), callback_on_step_end=Object()).images, result.images)
    for wrong, error, words in [
        (
            {"callback_on_step_end_tensor_inputs": ["prompt_embeds"]},
            ValueError,
            "must be among latents, pred_",
        ),
        ({"callback_on_step_end": 3}, TypeError, "callback_on_step_end: must be a function or None, got int"),
        (
            {"callback_on_step_end": lambda *args: 3},
            TypeError,
            "must return a dictionary or None",
        ),
        ({"callback_on_step_end": lambda *args: {"latents": 3}}, TypeError, "latents must be a tensor, got a int"),
        ({"callback_on_step_end": lambda *args: {"latents": UNIT[:, :, :4]}}, ValueError, "latents must have shape"),
    ]:
        with pytest.raises(error, match=words):
            pipe(SMALL, **wrong)


@pytest.mark.parametrize("solver", [DDIM(), DPMSolverPP()], ids=repr)
def test_a_callback_may_change_the_state(solver, denoiser):
    """New latents after step k are where a run from there goes on."""
    blind = RestorationPipeline(denoiser, Denoising(SHAPE), solver, start=0.4, end=0.1)
    blind.set_progress_bar_config(disable=True)
    other = torch.randn(1, *SHAPE, generator=seeded(9))

    def change(pipe, step, timestep, kwargs):
        if step == 0:
            kwargs["latents"].fill_(7.0)  # It is a copy, which only counts where it is returned.
        return {"latents": other} if step == 1 else None

    got = blind(RGB, 4, output_type="latent", callback_on_step_end=change, generator=seeded()).images
    if isinstance(solver, DDIM):
        times = np.linspace(0.4, 0.1, 5)[2:]
        expected = Sampler(denoiser, Denoising(SHAPE), solver, times=times)(torch.zeros(1, *SHAPE), x_init=other)
        assert relative_error(got, expected) < 1e-5
    plain = blind(RGB, 4, output_type="latent", generator=seeded()).images
    assert relative_error(got, plain) > 0.1
    again = blind(RGB, 4, output_type="latent", callback_on_step_end=lambda *args: None, generator=seeded()).images
    assert relative_error(again, plain) < 1e-6


def test_an_interrupted_run_ends_with_its_present_state(pipe, denoiser):
    states, calls = [], []

    def stop(given, step, timestep, kwargs):
        states.append(kwargs["latents"])
        given._interrupt = step == 1
        return kwargs

    hook = denoiser.network.register_forward_hook(lambda *args: calls.append(1))
    images = pipe(SMALL, 5, output_type="latent", callback_on_step_end=stop).images
    hook.remove()
    assert len(states) == len(calls) == 2
    assert torch.equal(images, states[-1])
    pipe(SMALL, 5, output_type="latent", callback_on_step_end=stop)
    assert len(states) == 4  # An interruption ends with its call.


def test_the_progress_bar(pipe, capsys):
    pipe(SMALL, 3)
    assert capsys.readouterr().err == ""
    pipe.set_progress_bar_config(desc="restoring", ascii=True)
    pipe(SMALL, 3)
    assert "restoring: 100%" in capsys.readouterr().err
    assert list(pipe.progress_bar([1, 2])) == [1, 2]
    with pytest.raises(ValueError, match="total: either total or iterable must be given"):
        pipe.progress_bar()


# ------------------------------------------------------------------------------------------------ pipelines of others
def test_moving_a_pipeline():
    network = Network()
    pipe = RestorationPipeline(Denoiser(network, VP()), AveragePooling(SHAPE, 2), DDNM())
    pipe.set_progress_bar_config(disable=True)
    before = pipe(SMALL, generator=seeded(), output_type="pt").images
    for args, kwargs, dtype in [
        ((), {"device": torch.device("cpu"), "dtype": torch.float64}, torch.float64),
        ((torch.float32,), {}, torch.float32),
        (("cpu",), {}, torch.float32),
        (("cpu", torch.bfloat16), {}, torch.bfloat16),
    ]:
        assert pipe.to(*args, **kwargs) is pipe
        assert pipe.dtype == next(network.parameters()).dtype == dtype
        assert pipe.device == torch.device("cpu")
        image = pipe(SMALL, generator=seeded(), output_type="pt").images
        assert image.dtype == torch.float32
        assert relative_error(image, before) < (3e-2 if dtype == torch.bfloat16 else 1e-5)
    with pytest.raises(TypeError, match=r"to: must be given a device or a dtype of floats, got torch\.int64"):
        pipe.to(torch.int64)
    with pytest.raises(TypeError, match="to: takes a device and a dtype, got memory"):
        pipe.to("cpu", memory=1)
    bare = RestorationPipeline(Denoiser(lambda x, t: x, VP())).to("cpu")
    assert (bare.device, bare.dtype) == (torch.device("cpu"), torch.float32)


def test_arguments_of_a_pipeline_are_refused_by_name(denoiser):
    for arguments, words in [
        ({"denoiser": denoiser.network}, "denoiser: must be a ccfast Denoiser, got Network"),
        ({"operator": 3}, "operator: must be a ccfast Operator or None, got int"),
        ({"steps": 3}, "steps: is not an argument of RestorationPipeline; calls have num_inference_steps"),
    ]:
        with pytest.raises(TypeError, match=words):
            RestorationPipeline(**{"denoiser": denoiser, **arguments})
    with pytest.raises(TypeError, match="pipe: must have a scheduler and a unet or transformer, got Network"):
        RestorationPipeline.from_pipe(denoiser.network)
    pipe = RestorationPipeline(denoiser, AveragePooling(SHAPE, 2))
    with pytest.raises(ValueError, match="output_type: must be one of pil, np, pt, latent, got 'jpg'"):
        pipe(SMALL, output_type="jpg")
    with pytest.raises(ValueError, match="output_type: 'pil' needs images of 1, 3 or 4 channels, got 2"):
        converted(torch.zeros(1, 2, 4, 4), "pil")


def test_a_pipeline_made_of_another():
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "norm_num_groups": 4}
    unet = diffusers.UNet2DModel(sample_size=8, block_out_channels=(8,), **blocks).eval()
    theirs = diffusers.DDPMPipeline(unet, diffusers.DDIMScheduler())
    pipe = RestorationPipeline.from_pipe(theirs, AveragePooling(SHAPE, 2), DDNM())
    pipe.set_progress_bar_config(disable=True)
    assert pipe.denoiser.network.network is unet
    again = RestorationPipeline.from_pipe(pipe, hard_consistency=True)
    assert again.components == pipe.components
    again.set_progress_bar_config(disable=True)
    result = again(Image.fromarray(SMALL), generator=seeded(), output_type="pt").images
    assert result.shape == (1, *SHAPE)
    images = pipe.operator.forward(result)
    assert relative_error(images, torch.from_numpy(SMALL).permute(2, 0, 1)[None] / 255) < 0.2  # Clamped to [0, 1].


def test_a_pipeline_of_latents():
    """From the parts of a latent-diffusion pipeline: images of any size, and latents where they are asked for."""
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "norm_num_groups": 4}
    unet = diffusers.UNet2DModel(sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8,), **blocks).eval()
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = diffusers.AutoencoderKL(**kinds, block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4)

    class LatentPipeline:
        scheduler = diffusers.LCMScheduler()

    LatentPipeline.unet, LatentPipeline.vae = unet, vae
    pipe = RestorationPipeline.from_pipe(LatentPipeline(), hard_consistency=True)
    pipe.set_progress_bar_config(disable=True)
    picture, mask = Image.fromarray(pixels(9, 13, seed=3)), pixels(9, 13, seed=4) > 127  # grey, and of odd sides
    image = pipe(picture, 4, mask_image=mask, generator=seeded(), output_type="pt").images
    assert image.shape == (1, 3, 9, 13)
    kept = torch.from_numpy(np.asarray(picture) / 255.0).float()[~torch.from_numpy(mask)].expand(3, -1)
    assert torch.allclose(image[0][:, ~torch.from_numpy(mask)], kept, atol=1e-5)
    plain = RestorationPipeline.from_pipe(LatentPipeline())
    plain.set_progress_bar_config(disable=True)
    states = []

    def look(given, step, timestep, kwargs):
        states.append(kwargs["latents"])

    call = {"image": picture, "num_inference_steps": 4, "mask_image": mask}
    z = plain(**call, generator=seeded(), output_type="latent", callback_on_step_end=look).images
    assert z.shape == (1, 4, 5, 7)
    assert torch.equal(states[-1], z)
    decoded = plain(**call, generator=seeded(), output_type="pt").images
    shown = (plain.denoiser.decode(z, (3, 9, 13)) / 2 + 0.5).clamp(0, 1)
    assert relative_error(decoded, shown) < 1e-5
    assert plain.to(dtype=torch.float64).dtype == next(vae.parameters()).dtype == torch.float64


def test_conditions_and_first_states_of_a_call():
    network = lambda x, t, c: c.reshape(-1, 1, 1, 1) * x  # noqa: E731
    pipe = RestorationPipeline(Denoiser(network, VP()), AveragePooling(SHAPE, 2), DDIM())
    pipe.set_progress_bar_config(disable=True)
    first, c = torch.randn(2, *SHAPE, generator=seeded()), torch.tensor([0.1, 0.3])
    got = pipe([SMALL] * 2, latents=first, condition={"c": c}, output_type="latent").images
    y = torch.from_numpy(SMALL).permute(2, 0, 1)[None].float().repeat(2, 1, 1, 1) / 127.5 - 1
    expected = Sampler(Denoiser(network, VP()), pipe.operator, DDIM())(y, x_init=first, condition={"c": c})
    assert relative_error(got, expected) < 1e-5
    assert ccfast.pipelines.RestorationPipeline is RestorationPipeline
