"""The networks of public checkpoints, with random weights: names, shapes, sizes, dtypes and memory; the protocol."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

import ccfast
from bench.quality import published_protocol as protocol
from bench.quality.record import Record
from ccfast.adapters import guided_diffusion, rectified_flow
from ccfast.adapters.guided_diffusion import ADM, CONFIGS, Config
from ccfast.adapters.rectified_flow import NCSNpp, Shape
from ccfast.operators import AveragePooling
from ccfast.solvers import Conjugate
from ccfast.testing import relative_error

NOT_HERE = "compared with the package's copy of the original where it is installed (extra bench-peers)"
SMALL = Config(32, (1, 2), 1, (2,), head_channels=16)
SMALL_FLOW = Shape(16, (1, 2), 1, attention=(8,), side=16)


def randomised(network, seed=0):
    """Fill every parameter with random numbers, so that no branch is multiplied by an initial zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            scale = 1.0 / math.sqrt(max(1, parameter[0].numel())) if parameter.ndim > 1 else 0.3
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return network


def image(side=16, batch=2, seed=1):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------ guided-diffusion
@pytest.mark.parametrize(("name", "parameters"), [("imagenet256", 552_814_086), ("ffhq256", 93_563_910)])
def test_adm_has_the_names_shapes_and_size_of_the_public_checkpoints(name, parameters):
    with torch.device("meta"):
        network = ADM(CONFIGS[name])
        x = network(torch.empty(1, 3, 256, 256), torch.empty(1))
    assert x.shape == (1, 6, 256, 256)
    assert sum(p.numel() for p in network.parameters()) == parameters
    state = network.state_dict()
    width = CONFIGS[name].channels
    assert state["time_embed.0.weight"].shape == (4 * width, width)
    assert state["input_blocks.0.0.weight"].shape == (width, 3, 3, 3)
    assert state["input_blocks.1.0.emb_layers.1.weight"].shape == (2 * width, 4 * width)
    assert state["middle_block.1.qkv.weight"].shape == (12 * width, 4 * width, 1)
    assert state["out.2.weight"].shape == (6, width, 3, 3)
    assert "output_blocks.0.0.skip_connection.weight" in state


def test_adm_is_the_original_network():
    adm = pytest.importorskip("azula.plugins.adm", reason=NOT_HERE)
    original = adm.make_model(
        image_size=16, num_channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(8,),
        num_head_channels=16, resblock_updown=True, use_scale_shift_norm=True,
    ).backbone  # fmt: skip
    network = randomised(ADM(SMALL))
    original.load_state_dict(network.state_dict())
    x, t = image(), torch.tensor([3.0, 700.0])
    assert relative_error(network(x, t), original(x, t)) < 1e-5


def test_adm_half_precision_and_class_labels():
    network = randomised(ADM(SMALL)).bfloat16()
    x, t = image(), torch.tensor([3.0, 700.0])
    assert network(x.bfloat16(), t).dtype == torch.bfloat16
    assert relative_error(network(x.bfloat16(), t), randomised(ADM(SMALL))(x, t)) < 0.05
    labelled = randomised(ADM(SMALL._replace(classes=10)))
    labels = torch.tensor([1, 7])
    assert not torch.equal(labelled(x, t, y=labels), labelled(x, t, y=labels.flip(0)))
    with pytest.raises(ValueError, match="exactly for a class-conditional network"):
        labelled(x, t)


def test_adm_checkpoint_is_read_by_path_and_sampled(tmp_path, monkeypatch):
    monkeypatch.setitem(CONFIGS, "small", SMALL)
    network, path = randomised(ADM(SMALL)), tmp_path / "small.pt"
    torch.save(network.state_dict(), path)
    denoiser = guided_diffusion.load(path, "small")
    x = image()
    index = torch.full((2,), 400.0)
    assert torch.equal(denoiser.network(x, index), network(x, index))
    operator = AveragePooling((3, 16, 16), 4)
    sampler = ccfast.Sampler(denoiser, operator, Conjugate(6.0), steps=3)
    restored = sampler(operator.forward(x), seed=0)
    assert restored.shape == x.shape
    assert torch.isfinite(restored).all()
    estimate = sampler.memory_estimate(2)
    assert 0 < estimate.activations < 64 * 2**20
    with pytest.raises(ValueError, match="name: must be one of"):
        guided_diffusion.load(path, "other")
    torch.save({"a": torch.zeros(1), **network.state_dict()}, path)
    with pytest.raises(ValueError, match="another shape: a"):
        guided_diffusion.load(path, "small")


# ------------------------------------------------------------------------------------ rectified flow
def test_ncsnpp_has_the_names_and_size_of_the_public_checkpoints():
    with torch.device("meta"):
        network = NCSNpp(Shape())
        assert network(torch.empty(1, 3, 256, 256), torch.empty(1)).shape == (1, 3, 256, 256)
    state = network.state_dict()
    assert sum(p.numel() for p in network.parameters()) == 65_574_549
    assert state["all_modules.0.W"].shape == (128,)
    assert state["all_modules.1.weight"].shape == (512, 256)
    assert state["all_modules.4.GroupNorm_0.weight"].shape == (128,)
    assert state["all_modules.6.Conv_2.weight"].shape == (128, 128, 1, 1)  # This block goes down.
    assert state["all_modules.7.Conv.weight"].shape == (128, 3, 1, 1)


@pytest.mark.parametrize("change", ["up", "down"])
def test_resampling_is_zero_insertion_and_convolution(change):
    """As in upfirdn2d, up inserts zeros and pads 2 before and 1 after; down pads 1 and 1 and takes every second."""
    x = image(8)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8.0
    kernel = torch.outer(taps, taps).expand(3, 1, 4, 4)
    if change == "up":
        spread = torch.zeros(2, 3, 16, 16)
        spread[..., ::2, ::2] = x
        truth = functional.conv2d(functional.pad(spread, (2, 1, 2, 1)), 4.0 * kernel, groups=3)
    else:
        truth = functional.conv2d(functional.pad(x, (1, 1, 1, 1)), kernel, groups=3)[..., ::2, ::2]
    assert relative_error(rectified_flow.resample(x, change), truth) < 1e-6


def test_flow_attention_is_that_of_the_paper():
    block, x = randomised(rectified_flow.Attention(16)), image(4).mean(1, keepdim=True) * torch.ones(16, 1, 1)
    h = block.GroupNorm_0(x)

    def mix(m, v):
        return torch.einsum("bchw,co->bohw", v, m.W) + m.b[:, None, None]

    q, k, v = (mix(m, h) for m in (block.NIN_0, block.NIN_1, block.NIN_2))
    weight = torch.softmax(torch.einsum("bchw,bcij->bhwij", q, k).flatten(3) / 4.0, -1).unflatten(3, (4, 4))
    truth = (x + mix(block.NIN_3, torch.einsum("bhwij,bcij->bchw", weight, v))) / math.sqrt(2)
    assert relative_error(block(x), truth) < 1e-5


def test_flow_checkpoint_takes_the_averages_and_is_sampled(tmp_path):
    network, path = randomised(NCSNpp(SMALL_FLOW)), tmp_path / "flow.pth"
    averages = [p + 0.01 for p in network.parameters() if p.requires_grad]
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    checkpoint = {
        "model": {**state, "module.sigmas": torch.zeros(5)},
        "ema": {"decay": 0.999, "num_updates": 7, "shadow_params": averages},
        "step": 7,
    }
    torch.save(checkpoint, path)
    denoiser = rectified_flow.load(path, SMALL_FLOW)
    trained = [p for n, p in denoiser.network.named_parameters() if n != "all_modules.0.W"]
    assert all(torch.equal(a, b) for a, b in zip(trained, averages, strict=True))
    assert torch.equal(denoiser.network.all_modules[0].W, network.all_modules[0].W)
    x = image()
    operator = AveragePooling((3, 16, 16), 4)
    restored = ccfast.Sampler(denoiser, operator, Conjugate(6.0), steps=3)(operator.forward(x), seed=0)
    assert torch.isfinite(restored).all()
    uncentred, time = rectified_flow.load(path, SMALL_FLOW, centred=False).network, torch.full((2,), 300.0)
    assert relative_error(uncentred((x + 1) / 2, time), denoiser.network(x, time)) < 1e-5
    checkpoint["ema"]["shadow_params"] = averages[:-1]
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match="must hold averages of"):
        rectified_flow.load(path, SMALL_FLOW)


# ------------------------------------------------------------------------------------ the protocol
@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for number, size in enumerate([(40, 32), (32, 32), (64, 48)]):
        Image.fromarray(generator.integers(0, 255, (*size, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


def test_protocol_restores_every_picture_once_and_takes_up_where_it_stopped(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(CONFIGS, "small", SMALL)
    torch.save(randomised(ADM(SMALL)).state_dict(), folder / "small.pt")
    denoiser = protocol.load_network("small", folder / "small.pt")
    assert denoiser.network_times(np.array([0.4]))[0] == 399  # 999 * 0.4 is rounded down.
    files, operator = protocol.pictures(folder, 3), protocol.operator_of("bicubic", None, side=32)
    record = Record(tmp_path / "results.json", "command", {})
    rows = list(protocol.samplers(15.0, 6.0, dps=False, flow=False))
    assert [(name, steps) for name, _, steps, _ in rows if name == "Conjugate"] == [
        ("Conjugate", n) for n in (5, 10, 20)
    ]
    for count in (2, 3):  # The second run does only what is left.
        protocol.restore_all(denoiser, operator, files[:count], rows[0], tmp_path, record, batch=2)
    assert [row["picture"] for row in record.data["rows"]] == ["0.png", "1.png", "2.png"]
    assert all((tmp_path / "Conjugate_5" / f"{n}.png").exists() for n in range(3))
    assert "Conjugate, 5 steps, 3 pictures: psnr" in protocol.summary(record.data["rows"])


def test_protocol_operators_and_their_errors(folder, tmp_path):
    assert protocol.operator_of("blur", None).shape == (3, 256, 256)
    with pytest.raises(ValueError, match="needs --mask FILE"):
        protocol.operator_of("mask", None)
    Image.fromarray(np.full((32, 32), 255, np.uint8)).save(tmp_path / "mask.PNG")
    assert protocol.operator_of("mask", tmp_path / "mask.PNG", side=32).singular_values.min() == 1
    with pytest.raises(ValueError, match="must be 256 x 256, got 32 x 32"):
        protocol.operator_of("mask", tmp_path / "mask.PNG")
    with pytest.raises(ValueError, match="must hold 9 pictures, got"):
        protocol.pictures(folder, 9)
