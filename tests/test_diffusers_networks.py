"""Networks of diffusers: each class called by hand, as its pipeline does, is its Denoiser.

What they do that we would not, each a row or a test here: the time is the second argument, or a keyword behind the
text; it is the timestep, a thousandth of it, a multiple from the config, or N less it; the output is a tuple, twice as
many channels, or has the other sign; images are tokens of 2 x 2 pixels, with tables of their places; a distilled
network must be told its guidance, and another is evaluated twice.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from extras import extra

import ccfast
from ccfast.adapters import from_diffusers
from ccfast.adapters._diffusers_networks import CONVENTIONS
from ccfast.operators import AveragePooling
from ccfast.solvers import DDNM, Conjugate
from ccfast.testing import relative_error

D = extra("diffusers", "diffusers")
N, B = 1000, 2


def text(width: int, length: int = 5, seed: int = 3) -> torch.Tensor:
    return torch.randn(B, length, width, generator=torch.Generator().manual_seed(seed))


@dataclass
class Row:
    """A network, its conditions, and a call by hand.

    Attributes:
        make: makes the network.
        kwargs: what the user gives as ``network_kwargs``.
        shape: of one image.
        flow: whether its pipeline has flow matching, else a table of betas.
        call: network, x, timestep (B,), kwargs to output; None: with the keyword timestep.
        options: other arguments of ``from_diffusers``.
    """

    make: Callable[[], torch.nn.Module]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (4, 8, 8)
    flow: bool = False
    call: Callable[..., torch.Tensor] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def plain(network, x, t, **kwargs):
    """The time by its keyword, as the scheduler counts it."""
    return network(x, timestep=t, return_dict=False, **kwargs)[0]


def scaled(factor):
    return lambda network, x, t, **kwargs: plain(network, x, t * factor, **kwargs)


def lumina(network, x, t, **kwargs):
    return -plain(network, x, 1 - t / N, **kwargs)


def packed(network, x, t, **kwargs):
    """FluxPipeline._pack_latents, its places of tokens, and _unpack_latents, element by element."""
    batch, channels, height, width = x.shape
    tokens, places = torch.zeros(batch, height * width // 4, 4 * channels), torch.zeros(height * width // 4, 3)
    for i in range(height // 2):
        for j in range(width // 2):
            tokens[:, i * (width // 2) + j] = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten(1)
            places[i * (width // 2) + j] = torch.tensor([0.0, i, j])
    if isinstance(network, D.QwenImageTransformer2DModel):
        kwargs["img_shapes"] = [[(1, height // 2, width // 2)]] * batch
    else:
        kwargs |= {"img_ids": places, "txt_ids": torch.zeros(kwargs["encoder_hidden_states"].shape[1], 3)}
    output = network(tokens, timestep=t / 1000, return_dict=False, **kwargs)[0]
    image = torch.zeros_like(x)
    for i in range(height // 2):
        for j in range(width // 2):
            token = output[:, i * (width // 2) + j].view(batch, channels, 2, 2)
            image[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = token
    return image


def flux2(network, x, t, encoder_hidden_states):
    """Flux2Pipeline's _pack_latents and its places of four numbers, for every image."""
    batch, _, height, width = x.shape
    tokens = torch.stack([x[:, :, i, j] for i in range(height) for j in range(width)], dim=1)
    places = torch.tensor([[0.0, i, j, 0] for i in range(height) for j in range(width)]).repeat(batch, 1, 1)
    words = torch.tensor([[0.0, 0, 0, k] for k in range(encoder_hidden_states.shape[1])]).repeat(batch, 1, 1)
    output = network(
        tokens, encoder_hidden_states, timestep=t / 1000, img_ids=places, txt_ids=words,
        guidance=torch.full((batch,), 4.0), return_dict=False,
    )[0]  # fmt: skip
    return output.transpose(1, 2).reshape(x.shape)


def unet(**config):
    return D.UNet2DModel(
        sample_size=16, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, **config,
    )  # fmt: skip


def conditional(**config):
    return D.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, cross_attention_dim=8,
        attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), **config,
    )  # fmt: skip


def pixart():
    return D.PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=8,
        cross_attention_dim=16, caption_channels=8, patch_size=2, norm_num_groups=4,
    )  # fmt: skip


def flux(**config):
    return D.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(4, 4, 8), **config,
    )  # fmt: skip


def sd3():
    return D.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=8, caption_projection_dim=16, pooled_projection_dim=8,
        pos_embed_max_size=8,
    )  # fmt: skip


SIZES = ("original_size", "target_size", "crop_coords")
POOLED = text(8, 1, seed=4)[:, 0]
ROWS = {
    "UNet2DModel": Row(unet, shape=(3, 16, 16), call=lambda network, x, t: network(x, t).sample),
    "UNet2DModel, class labels": Row(
        lambda: unet(num_class_embeds=5), {"class_labels": torch.tensor([1, 4])}, shape=(3, 16, 16)
    ),
    "UNet2DModel, learned variance": Row(
        lambda: unet(out_channels=6), shape=(3, 16, 16), call=lambda *a, **k: plain(*a, **k)[:, :3]
    ),
    "UNet1DModel": Row(
        lambda: D.UNet1DModel(
            sample_size=16, in_channels=2, out_channels=2, block_out_channels=(32, 32, 32), extra_in_channels=32,
            down_block_types=("DownBlock1DNoSkip", "DownBlock1D", "AttnDownBlock1D"),
            up_block_types=("AttnUpBlock1D", "UpBlock1D", "UpBlock1DNoSkip"), time_embedding_type="positional",
            flip_sin_to_cos=True, use_timestep_embedding=False,
        ),
        shape=(2, 32),
    ),
    "UNet2DConditionModel": Row(conditional, {"encoder_hidden_states": text(8)}),
    "UNet2DConditionModel, SDXL": Row(
        lambda: conditional(
            addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=32
        ),
        {
            "encoder_hidden_states": text(8),
            "added_cond_kwargs": {"text_embeds": POOLED, "time_ids": torch.tensor([[8.0, 8, 0, 0, 8, 8]]).expand(B, 6)},
        },
    ),
    "DiTTransformer2DModel": Row(
        lambda: D.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=8,
            patch_size=2, num_embeds_ada_norm=N, norm_num_groups=4,
        ),
        {"class_labels": torch.tensor([1, 7])},
        call=lambda network, x, t, **kwargs: plain(network, x, t, **kwargs)[:, :4],
    ),
    "PixArtTransformer2DModel": Row(
        pixart,
        {"encoder_hidden_states": text(8), "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}},
        call=lambda network, x, t, **kwargs: plain(network, x, t, **kwargs).chunk(2, dim=1)[0],
    ),
    "SD3Transformer2DModel": Row(sd3, {"encoder_hidden_states": text(8), "pooled_projections": POOLED}, flow=True),
    "SanaTransformer2DModel": Row(
        lambda: D.SanaTransformer2DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1,
            num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=8,
            sample_size=8, patch_size=1, timestep_scale=0.25,
        ),
        {"encoder_hidden_states": text(8), "encoder_attention_mask": torch.ones(B, 5)},
        flow=True,
        call=scaled(0.25),
    ),
    "AuraFlowTransformer2DModel": Row(
        lambda: D.AuraFlowTransformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, num_mmdit_layers=1, num_single_dit_layers=1,
            attention_head_dim=8, num_attention_heads=2, joint_attention_dim=8, caption_projection_dim=16,
            out_channels=4, pos_embed_max_size=16,
        ),
        {"encoder_hidden_states": text(8)},
        flow=True,
        call=scaled(1e-3),
    ),
    "FluxTransformer2DModel": Row(
        flux, {"encoder_hidden_states": text(8), "pooled_projections": POOLED}, flow=True, call=packed
    ),
    "FluxTransformer2DModel, not square": Row(
        flux,
        {"encoder_hidden_states": text(8), "pooled_projections": POOLED},
        shape=(4, 6, 12),
        flow=True,
        call=packed,
    ),
    "FluxTransformer2DModel, distilled": Row(
        lambda: flux(guidance_embeds=True),
        {"encoder_hidden_states": text(8), "pooled_projections": POOLED},
        flow=True,
        call=lambda network, x, t, **kwargs: packed(network, x, t, guidance=torch.full((B,), 3.5), **kwargs),
        options={"guidance": 3.5},
    ),
    "Flux2Transformer2DModel": Row(
        lambda: D.Flux2Transformer2DModel(
            in_channels=8, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=8, timestep_guidance_channels=8, axes_dims_rope=(4, 4, 4, 4),
        ),
        {"encoder_hidden_states": text(8)},
        shape=(8, 3, 5),
        flow=True,
        call=flux2,
        options={"guidance": 4.0},
    ),
    "ChromaTransformer2DModel": Row(
        lambda: D.ChromaTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=8, axes_dims_rope=(4, 4, 8), approximator_num_channels=8,
            approximator_hidden_dim=8, approximator_layers=1,
        ),
        {"encoder_hidden_states": text(8)},
        flow=True,
        call=packed,
    ),
    "QwenImageTransformer2DModel": Row(
        lambda: D.QwenImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=8, axes_dims_rope=(4, 4, 8),
        ),
        {"encoder_hidden_states": text(8), "encoder_hidden_states_mask": torch.ones(B, 5, dtype=torch.long)},
        flow=True,
        call=packed,
    ),
    "PRXTransformer2DModel": Row(
        lambda: D.PRXTransformer2DModel(
            in_channels=4, patch_size=2, context_in_dim=8, hidden_size=32, num_heads=2, depth=1, axes_dim=[8, 8],
        ),
        {"encoder_hidden_states": text(8)},
        flow=True,
        call=scaled(1e-3),
    ),
    "HunyuanDiT2DModel": Row(
        lambda: D.HunyuanDiT2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, patch_size=2, sample_size=8, hidden_size=16,
            num_layers=2, cross_attention_dim=8, cross_attention_dim_t5=8, pooled_projection_dim=8, text_len=5,
            text_len_t5=5, learn_sigma=True,
        ),
        {
            "encoder_hidden_states": text(8),
            "text_embedding_mask": torch.ones(B, 5),
            "encoder_hidden_states_t5": text(8, seed=5),
            "text_embedding_mask_t5": torch.ones(B, 5),
            "image_meta_size": torch.tensor([[64.0, 64, 64, 64, 0, 0]]).repeat(B, 1),
            "style": torch.zeros(B, dtype=torch.long),
            "image_rotary_emb": (torch.ones(16, 8), torch.zeros(16, 8)),
        },
        call=lambda network, x, t, **kwargs: plain(network, x, t, **kwargs).chunk(2, dim=1)[0],
    ),
    "CogView3PlusTransformer2DModel": Row(
        lambda: D.CogView3PlusTransformer2DModel(
            patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
            text_embed_dim=8, time_embed_dim=8, condition_dim=4, pos_embed_max_size=8, sample_size=8,
        ),
        {
            "encoder_hidden_states": text(8),
            **{name: torch.tensor([[64.0, 64.0]]).expand(B, 2) for name in SIZES},
        },
    ),
    "CogView4Transformer2DModel": Row(
        lambda: D.CogView4Transformer2DModel(
            patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
            text_embed_dim=8, time_embed_dim=8, condition_dim=4, pos_embed_max_size=8, sample_size=8,
        ),
        {
            "encoder_hidden_states": text(8),
            **{name: torch.tensor([[64.0, 64.0]]).expand(B, 2) for name in SIZES},
        },
        flow=True,
    ),
    "Lumina2Transformer2DModel": Row(
        lambda: D.Lumina2Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, hidden_size=24, num_layers=1, num_refiner_layers=1,
            num_attention_heads=1, num_kv_heads=1, multiple_of=8, axes_dim_rope=(8, 8, 8), axes_lens=(16, 16, 16),
            cap_feat_dim=8,
        ),
        {"encoder_hidden_states": text(8), "encoder_attention_mask": torch.ones(B, 5, dtype=torch.bool)},
        flow=True,
        call=lumina,
    ),
}  # fmt: skip


@cache
def built(name: str) -> torch.nn.Module:
    """The network with random weights everywhere: published ones end in a layer that begins as zero."""
    torch.manual_seed(0)
    network = ROWS[name].make().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            if not weight.any():
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return network


def images(row: Row, seed: int = 2) -> torch.Tensor:
    return torch.randn(B, *row.shape, generator=torch.Generator().manual_seed(seed))


def scheduler_of(row: Row):
    return D.FlowMatchEulerDiscreteScheduler(shift=3.0) if row.flow else D.DDPMScheduler(clip_sample=False)


@pytest.mark.parametrize("name", ROWS)
def test_a_call_by_hand_is_the_denoiser(name):
    row = ROWS[name]
    network, x = built(name), images(row)
    denoiser = from_diffusers(network, scheduler_of(row), network_kwargs=row.kwargs, **row.options)
    by_hand = row.call or plain
    for timestep in (150, 840):
        with torch.no_grad():
            output = by_hand(network, x, torch.full((B,), float(timestep)), **row.kwargs)
            got = denoiser(x, 1 - timestep / N if row.flow else timestep / (N - 1))
        assert float(output.std()) > 1e-3
        if row.flow:
            expected = x - timestep / N * output  # x = (1 - s) x0 + s n, the output is n - x0
        else:
            alphabar = float(scheduler_of(row).alphas_cumprod[timestep])
            expected = (x - (1 - alphabar) ** 0.5 * output) / alphabar**0.5
        assert relative_error(got, expected) < 1e-5


def test_the_table_has_every_class():
    assert {type(built(name)).__name__ for name in ROWS} == set(CONVENTIONS)


@pytest.mark.parametrize("name", ["UNet2DConditionModel", "PixArtTransformer2DModel", "FluxTransformer2DModel"])
def test_a_sampler_runs_and_a_condition_of_one_row_serves_all(name):
    """The derivative, copies of the measurements and a batch whose conditions are the same row."""
    row = ROWS[name]
    network, operator = built(name), AveragePooling(row.shape, 4)
    y, scheduler = operator.forward(images(row)), scheduler_of(row)
    one = {key: value[:1] if isinstance(value, torch.Tensor) else value for key, value in row.kwargs.items()}
    two = {key: torch.cat([value, value]) if isinstance(value, torch.Tensor) else value for key, value in one.items()}
    solver, several = Conjugate(2.0, product="reverse"), []
    for kwargs in (one, two):
        denoiser = from_diffusers(network, scheduler, network_kwargs=kwargs)
        sampler = ccfast.Sampler(pickle.loads(pickle.dumps(denoiser)), operator, solver, steps=2)
        several.append(sampler(y, seed=0))
        assert torch.isfinite(several[-1]).all()
        assert relative_error(sampler.sample(y, 2, seed=0, together=2)[0], several[-1]) < 1e-4
        assert denoiser(images(row), 0.5).shape == images(row).shape
    assert relative_error(several[0], several[1]) < 1e-5
    each = from_diffusers(network, scheduler, network_kwargs=row.kwargs)
    assert relative_error(ccfast.Sampler(each, operator, solver, steps=2)(y, seed=0), several[0]) > 1e-4


@pytest.mark.parametrize("name", ["UNet2DConditionModel", "DiTTransformer2DModel", "FluxTransformer2DModel"])
def test_guidance_is_of_two_calls(name):
    """A learned variance is not guided: it is that of the call with the condition."""
    row = ROWS[name]
    network, x, scheduler = built(name), images(row), scheduler_of(row)
    negative = {"class_labels": torch.tensor([999])} if "DiT" in name else {"encoder_hidden_states": text(8, seed=9)}
    other, t = {**row.kwargs, **negative}, 0.4
    if "class_labels" in other:
        other["class_labels"] = other["class_labels"].expand(B)
    with torch.no_grad():
        plus, minus = (from_diffusers(network, scheduler, network_kwargs=k)(x, t) for k in (row.kwargs, other))
        guided = from_diffusers(network, scheduler, network_kwargs=row.kwargs, guidance=4.0, negative_kwargs=negative)
        got = guided(x, t)
    assert relative_error(plus, minus) > 1e-3
    assert relative_error(got, minus + 4.0 * (plus - minus)) < 1e-5  # x0hat is linear in the output
    sampler = ccfast.Sampler(guided, AveragePooling(row.shape, 4), DDNM(), steps=2)
    y = sampler.operator.forward(x)
    assert relative_error(sampler.sample(y, 2, seed=0, together=2)[0], sampler(y, seed=0)) < 1e-4
    if "DiT" in name:
        time = torch.full((B,), 400.0)
        whole = guided.network(x, time, **guided.network_kwargs)
        assert relative_error(whole[:, 4:], plain(network, x, time, **row.kwargs)[:, 4:]) < 1e-6


def test_half_precision_gets_whole_times():
    """bfloat16 holds whole numbers to 256; a thousandth is rounded by the network itself."""
    network, seen = copy.deepcopy(built("UNet2DModel")).to(torch.bfloat16), []
    denoiser = from_diffusers(network, scheduler_of(ROWS["UNet2DModel"]))
    network.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs["timestep"]), with_kwargs=True)
    denoiser(images(ROWS["UNet2DModel"]).bfloat16(), 999 / 999)
    denoiser(images(ROWS["UNet2DModel"]).bfloat16(), 421 / 999)
    assert [float(t[0]) for t in seen] == [999.0, 421.0]


class Mine(torch.nn.Module):
    """A network of somebody else, who names the time as they like."""

    def forward(self, image, condition, level=None):
        return image * condition + level[:, None, None, None]


def test_networks_of_others_by_their_own_names():
    scheduler, x = D.DDPMScheduler(clip_sample=False, prediction_type="sample"), torch.ones(2, 1, 4, 4)
    denoiser = from_diffusers(
        Mine(), scheduler, network_kwargs={"condition": 2.0}, time_argument="level", time_scale=0.5
    )
    assert torch.equal(denoiser(x, 400 / 999), 2.0 * x + 200.0)
    second = from_diffusers(lambda x, noise: x + noise[:, None, None, None], scheduler)
    assert torch.equal(second(x, 400 / 999), x + 400.0)
    named = from_diffusers(lambda x, mask=None, t=None: x + t[:, None, None, None], scheduler)
    assert torch.equal(named(x, 400 / 999), x + 400.0)
    flow = from_diffusers(lambda x, t: t[:, None, None, None].expand_as(x), D.FlowMatchEulerDiscreteScheduler())
    assert torch.allclose(flow(x, 0.25), x - 0.75 * 750.0)


class Compiled(torch.nn.Module):
    """What torch.compile makes of a module."""

    def __init__(self, network):
        super().__init__()
        self._orig_mod = network

    def forward(self, *args, **kwargs):
        return self._orig_mod(*args, **kwargs)


def test_a_compiled_network_is_known_by_what_it_wraps():
    for name in ("FluxTransformer2DModel, distilled", "SD3Transformer2DModel"):
        row, network = ROWS[name], built(name)
        made = [
            from_diffusers(n, scheduler_of(row), network_kwargs=row.kwargs, **row.options)
            for n in (network, Compiled(network))
        ]
        with torch.no_grad():
            assert torch.equal(made[0](images(row), 0.3), made[1](images(row), 0.3))


class Pipeline:
    scheduler = unet = None

    def __call__(self):
        """A pipeline is called without images."""


@pytest.mark.parametrize(
    ("network", "arguments", "error", "message"),
    [
        (lambda: 3, {}, TypeError, "network: must be a network, got int"),
        (Pipeline, {}, TypeError, "network: must be a network, got Pipeline; of a pipeline give pipe.unet"),
        (lambda: D.UNet3DConditionModel.__new__(D.UNet3DConditionModel), {}, ValueError, "UNet3DConditionModel is not"),
        (
            Mine,
            {"time_argument": "time"},
            ValueError,
            "time_argument: must be an argument of Mine, got 'time'; it has im",
        ),
        (Mine, {"time_scale": 0}, ValueError, "time_scale: must be a finite number > 0, got 0"),
        (Mine, {"guidance": 3.0}, ValueError, "guidance: needs negative_kwargs.*got guidance=3.0 alone"),
        (Mine, {"negative_kwargs": {}}, ValueError, "guidance: must be a number where negative_kwargs are given"),
        (Mine, {"guidance": float("nan")}, ValueError, "guidance: must be a finite number or None, got nan"),
        (lambda: flux(guidance_embeds=True), {}, ValueError, "guidance: must be given, since FluxTransformer2DModel"),
        (
            lambda: flux(guidance_embeds=True),
            {"guidance": 2.0, "negative_kwargs": {}},
            ValueError,
            "guidance: is that of negative_kwargs here",
        ),
    ],
)
def test_refusals(network, arguments, error, message):
    with pytest.raises(error, match=message):
        from_diffusers(network(), D.DDPMScheduler(), **arguments)


def test_packed_networks_say_what_images_they_take():
    row = ROWS["FluxTransformer2DModel"]
    denoiser = from_diffusers(built("FluxTransformer2DModel"), scheduler_of(row), network_kwargs=row.kwargs)
    for shape in ((2, 4, 7, 8), (2, 3, 8, 8)):
        with pytest.raises(ValueError, match=r"x: must have even sides and 4 channels, .*FluxTransformer2DModel, got"):
            denoiser(torch.zeros(shape), 0.5)
