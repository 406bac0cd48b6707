"""Denoisers in folders: what is written comes back, and files of others are refused or read as they are meant.

On the other side are files and their makers: a download that broke off, a description of a newer ccfast, edited by hand
(a key twice, NaN, another data range) or hostile (a class by name, a network of a billion channels), a folder with a
pickle alone, the hub's cache, whose files are symbolic links; networks that are compiled, guided, functions, in half
precision, made on the meta device, in train mode or with tied weights; diffusers' folders of models, pipelines and old
repositories with everything in one place; and a caller without a network, with a folder named like a bundled prior.
"""

from __future__ import annotations

import inspect
import json
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import ccfast
from ccfast import Denoiser, presets
from ccfast.adapters import from_diffusers, guided_diffusion, rectified_flow
from ccfast.app.cli import main
from ccfast.denoiser import Boundary
from ccfast.engine.clipping import DynamicThreshold, EstimateOnly
from ccfast.priors.padding import any_size, multiple_of
from ccfast.priors.unet import UNet
from ccfast.schedules import EDM, VE, VP, DiscreteVP, Flow
from ccfast.testing import relative_error
from ccfast.times import floor_timesteps

SHAPE = (3, 8, 8)


class Small(nn.Module):
    """A network with tied weights, a buffer, and an argument."""

    def __init__(self, width=4):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Conv2d(3, width, 1), nn.Conv2d(width, width, 1), nn.Conv2d(width, 3, 1)
        self.d = self.b
        self.register_buffer("scale", torch.tensor([0.5]))

    def forward(self, x, t, labels=0.0, more=None):
        shift = labels if not isinstance(labels, torch.Tensor) else labels.reshape(-1, 1, 1, 1)
        return self.c(torch.tanh(self.d(self.b(self.a(x))))) * self.scale + 0.1 * shift


def unet():
    return UNet(widths=(8, 8, 8), blocks=1, middle=1)


def saved(folder, denoiser=None):
    (denoiser or Denoiser(unet(), VP(), name="mine")).save_pretrained(folder)
    return folder


def edited(folder, **changes):
    path = folder / "denoiser.json"
    given = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in given.items() if value is not ...}))


def same(one, other, x=None):
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1)) if x is None else x
    for t in (0.3, 0.7321):
        assert relative_error(other(x, t), one(x, t)) < 1e-6
    assert repr(other) == repr(one)
    assert str(other.schedule) == str(one.schedule)


# ------------------------------------------------------------------------------------ there and back
TABLE = np.cumsum(np.linspace(1e-6, 3e-5, 60)) ** 0.9
PARTS = {
    "VP": (VP(0.05, 17.0), "epsilon", {}),
    "a table": (DiscreteVP(TABLE, final="first"), "v_prediction", {"clip": (-1, 1)}),
    "zero terminal SNR": (DiscreteVP(np.append(TABLE, 1.0)), "sample", {"clip": "dynamic"}),
    "flow": (Flow(), "velocity", {"clip": EstimateOnly(DynamicThreshold(0.9, 2.0))}),
    "VE": (VE(0.01, 30.0), "score", {"clip": DynamicThreshold()}),
    "EDM": (EDM(0.01, 30.0, 0.7), "edm", {}),
    "a consistency model": (EDM(), "consistency", {}),
    "LCM": (DiscreteVP(TABLE), "epsilon", {"boundary": Boundary(8.0, 0.4)}),
    "identity": (VE(0.01, 30.0), "sample", {"time_map": float}),
    "whole times": (VP(), "epsilon", {"time_map": floor_timesteps(500)}),
    "arguments": (
        Flow(),
        "velocity",
        {"network_kwargs": {"labels": torch.tensor([0.3]), "more": ([1, None], {"a": "b"})}},
    ),
}


@pytest.mark.parametrize("part", PARTS)
def test_every_part_comes_back(part, tmp_path):
    schedule, prediction, options = PARTS[part]
    denoiser = Denoiser(Small(), schedule, prediction, name="mine", **options)
    own = Denoiser.from_pretrained(saved(tmp_path / "new" / "folder", denoiser), Small)
    same(denoiser, own)
    assert (own.name, own.prediction, own.clip) == ("mine", prediction, denoiser.clip)
    times = np.linspace(0.05, 0.95, 40)
    for name in ("mean", "std"):
        assert np.array_equal(getattr(own.schedule, name)(times), getattr(schedule, name)(times))
    assert own.schedule.time_range == schedule.time_range
    assert np.array_equal(own.network_times(times), denoiser.network_times(times))
    assert own.boundary == denoiser.boundary
    assert own.network_kwargs.get("more") == denoiser.network_kwargs.get("more")
    assert not own.network.training
    assert not any(parameter.requires_grad for parameter in own.network.parameters())


def test_the_description_knows_every_argument_of_a_denoiser(tmp_path):
    written = json.loads((saved(tmp_path) / "denoiser.json").read_text())
    assert set(inspect.signature(Denoiser).parameters) <= set(written)


def test_networks_of_this_package_need_no_class(tmp_path):
    small = guided_diffusion.Config(32, (1, 2), 1, (2,), head_channels=16)
    flow = rectified_flow.Shape(16, (1, 2), 1, attention=(8,), side=16)
    x = torch.randn(1, 3, 16, 16)
    for number, (network, schedule, prediction) in enumerate(
        [
            (unet(), VP(), "epsilon"),
            (guided_diffusion.ADM(small), DiscreteVP(np.linspace(1e-4, 0.02, 50)), "epsilon"),
            (rectified_flow.NCSNpp(flow, centred=False), Flow(), "velocity"),
        ]
    ):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(0.05 * torch.randn_like(parameter))
        denoiser = Denoiser(network, schedule, prediction)
        same(denoiser, Denoiser.from_pretrained(saved(tmp_path / str(number), denoiser)), x)
    denoiser = any_size(Denoiser(unet(), VP(), clip=(-1, 1)), 8)
    own = Denoiser.from_pretrained(saved(tmp_path / "padded", denoiser))
    same(denoiser, own, torch.randn(1, 3, 11, 9))
    assert own.clip == (-1, 1)


def test_dtypes_ties_and_modules_of_the_caller(tmp_path):
    denoiser = Denoiser(Small().bfloat16().train(), VP())
    saved(tmp_path, denoiser)
    assert denoiser.network.training
    instance = Small()
    for network in (Small, instance):
        own = Denoiser.from_pretrained(tmp_path, network)
        assert {parameter.dtype for parameter in own.network.parameters()} == {torch.bfloat16}
        assert own.network.d.weight is own.network.b.weight
        assert torch.equal(own.network.c.weight, denoiser.network.c.weight)
    assert own.network is instance
    assert Denoiser.from_pretrained(tmp_path, Small, dtype=torch.float64).network.scale.dtype == torch.float64

    def unmade():
        with torch.device("meta"):
            return Small()

    for dtype in (None, torch.float32):
        own = Denoiser.from_pretrained(tmp_path, unmade, dtype=dtype)
        assert own.network.c.weight.dtype == (dtype or torch.bfloat16)
    with pytest.raises(TypeError, match="dtype: must be a floating point dtype of torch or None, got 'float16'"):
        Denoiser.from_pretrained(tmp_path, Small, dtype="float16")


def test_wrappers_are_taken_off(tmp_path):
    class OptimizedModule(nn.Module):  # It keeps the network as torch.compile does.
        def __init__(self, network):
            super().__init__()
            self._orig_mod = network

    network = unet()
    same(Denoiser(network, VP()), Denoiser.from_pretrained(saved(tmp_path, Denoiser(OptimizedModule(network), VP()))))


def test_files_of_others_stay(tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("kept")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").write_text("kept")
    (folder / "model.safetensors").symlink_to(outside)
    for _ in range(2):
        saved(folder)
    assert outside.read_text() == (folder / "README.md").read_text() == "kept"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "denoiser.json", "model.safetensors"]
    before = (folder / "denoiser.json").read_bytes()
    with pytest.raises(ValueError, match="network_kwargs: "):
        saved(folder, Denoiser(unet(), Flow(), "velocity", network_kwargs={"function": print}))
    assert (folder / "denoiser.json").read_bytes() == before


def test_presets_beside_it_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "_loaded", [])
    entry = {"prior": "mine", "operator": "Bicubic", "kind": "separable", "noise_std": 0.0, "strength": 16.0}
    entry |= {"start": 0.3, "end": 0.01, "steps": 5, "w": 3.0, "mode": "none"}
    (saved(tmp_path) / "presets.json").write_text(json.dumps({"entries": [entry]}))
    for _ in range(2):
        denoiser = Denoiser.from_pretrained(tmp_path)
    assert presets._loaded == [entry]
    sampler = ccfast.Sampler(denoiser, ccfast.operators.Bicubic((3, 16, 16), 4))
    assert (sampler.plan.times[0], sampler.solver.w) == (0.3, 3.0)
    Denoiser.from_pretrained(tmp_path, name="another")
    (tmp_path / "presets.json").write_text(json.dumps({"entries": [entry | {"prior": "photo"}]}))
    with pytest.raises(ValueError, match="an entry is for the denoiser 'photo', not for 'mine'"):
        Denoiser.from_pretrained(tmp_path)


# ------------------------------------------------------------------------------------ what cannot be written
UNWRITABLE = [
    (lambda: Denoiser(lambda x, t: x, VP()), TypeError, "network: must be a torch.nn.Module to be saved, got function"),
    (lambda: Denoiser(Small(), VP()).guided(2.0, {}), ValueError, "network: must not be guided to be saved; save the"),
    (lambda: Denoiser(Small(), type("Mine", (VP,), {})()), ValueError, "schedule: must be one of VP, .* got Mine"),
    (
        lambda: Denoiser(Small(), VP(), network_kwargs={"labels": [print]}),
        ValueError,
        r"network_kwargs: network_kwargs\['labels'\]\[0\] must be a tensor, .*, got builtin_function_or_method",
    ),
    (lambda: Denoiser(Small().to("meta"), VP()), ValueError, "network: scale must be a tensor with values"),
]


@pytest.mark.parametrize(("make", "error", "message"), UNWRITABLE)
def test_what_cannot_be_written_is_refused(make, error, message, tmp_path):
    with pytest.raises(error, match=message):
        make().save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_latents_are_saved_apart(tmp_path):
    class Autoencoder:
        def encode(self, x):
            return x

        decode = encode

    latent = ccfast.latent(Denoiser(Small(), VP()), Autoencoder())
    with pytest.raises(TypeError, match=r"denoiser: must be a plain Denoiser to be saved, got LatentDenoiser; save"):
        latent.save_pretrained(tmp_path)
    saved(tmp_path, latent.without_autoencoder())


def test_what_a_file_cannot_hold_is_given_again(tmp_path):
    denoiser = Denoiser(Small(), VP(), time_map=lambda t: 7.0 * t)
    saved(tmp_path, denoiser)
    with pytest.raises(ValueError, match="time_map: must be given, since the file cannot hold the function"):
        Denoiser.from_pretrained(tmp_path, Small)
    with pytest.raises(
        ValueError, match=r"network: must be given, .* since test_pretrained\.Small is no network of ccf"
    ):
        Denoiser.from_pretrained(tmp_path, time_map=float)
    assert (
        Denoiser.from_pretrained(tmp_path, Small, time_map=denoiser.time_map).network_times(np.array([0.5]))[0] == 3.5
    )
    with pytest.raises(ValueError, match=r"network: must be a torch.nn.Module or a function that makes one, got int"):
        Denoiser.from_pretrained(tmp_path, lambda: 3, time_map=float)
    with pytest.raises(ValueError, match=r"must hold the 9 tensors of Small, got 9; missing, .*: a\.weight, a\.bias"):
        Denoiser.from_pretrained(tmp_path, lambda: Small(5), time_map=float)
    with pytest.raises(ValueError, match=r"must hold the .* tensors of UNet, got 9; missing"):
        Denoiser.from_pretrained(tmp_path, unet, time_map=float)


# ------------------------------------------------------------------------------------ damaged and hostile files
CHANGES = [
    ({"version": 2}, "version must be at most 1, which this ccfast reads, got 2; update it"),
    ({"version": True}, "version must be an integer >= 1, got True"),
    ({"version": "1"}, "version must be an integer >= 1, got '1'"),
    ({"format": "diffusers"}, "format must be 'ccfast.denoiser', got 'diffusers'"),
    ({"colour": 1}, "denoiser.json: must have format, .* got also 'colour'"),
    ({"schedule": ...}, "denoiser.json: must have format, .* got no 'schedule'"),
    ({"schedule": {"kind": "VP", "beta_min": 0.1}}, "schedule: must have kind, beta_min, beta_max, got no 'beta_max'"),
    ({"schedule": {"kind": "os.system"}}, "schedule: kind must be one of VP, .* got 'os.system'"),
    ({"schedule": []}, "denoiser.json: "),
    ({"schedule": {"kind": "VP", "beta_min": "x", "beta_max": 20.0}}, "beta_min: must be real numbers"),
    ({"time_range": [0.0, 2.0]}, r"time_range: must be \[0.0, 1.0\], got \[0.0, 2.0\]"),
    ({"time_range": 3}, "denoiser.json: "),
    ({"data_range": [0.0, 1.0]}, r"data_range must be \[-1.0, 1.0\], the range of the data of every Denoiser, got"),
    ({"prediction": "noise"}, "prediction: must be one of epsilon"),
    ({"prediction": ["epsilon"]}, "prediction: must be one of epsilon"),
    ({"name": 3}, "name: must be text or null, got 3"),
    ({"time_map": {"kind": "exec"}}, "time_map: kind must be default, identity"),
    ({"time_map": {"kind": "floor_timesteps", "count": 1}}, "count: must be at least 2, got 1"),
    ({"clip": "hard"}, "clip: must be None, 'dynamic' or two finite numbers"),
    ({"clip": {"ratio": 2.0, "sample_max_value": None}}, "ratio: must lie in"),
    ({"clip": {"estimate_only": None}}, "limits: must be"),
    ({"network": {"architecture": "torch.hub.load"}}, "architecture must be one of UNet, ADM, NCSNpp, got 'torch.hub"),
    ({"boundary": {"scaling": 0.0, "sigma_data": 1.0}}, "scaling: must be a finite number > 0"),
    ({"boundary": 3}, "boundary: must be an object with scaling, sigma_data, got 3"),
    ({"network": "UNet"}, "architecture must be one of UNet"),
    ({"network": {"architecture": "UNet", "arguments": {}}}, "denoiser.json: "),
    ({"network": {"architecture": "PaddedNetwork", "multiple": 0, "network": {}}}, "multiple must be an integer >= 1"),
    ({"network_kwargs": {"tensor": "network.a"}}, "network_kwargs: must be values as save_pretrained writes them"),
    ({"network_kwargs": [1]}, "network_kwargs: must be an object, got"),
]
HUGE = {"channels": 3, "widths": [1 << 20, 1 << 20, 1 << 20], "blocks": 1, "middle": 1, "head": "vp"}


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_descriptions_are_checked(changes, message, tmp_path):
    edited(saved(tmp_path), **changes)
    with pytest.raises(ValueError, match=message) as raised:
        Denoiser.from_pretrained(tmp_path)
    assert str(tmp_path) in str(raised.value)


TEXTS = [
    (b"", "must be a description that save_pretrained wrote, got"),
    (b"{", "must be a description that save_pretrained wrote, got"),
    (b"[1, 2]", r"format must be 'ccfast.denoiser', got \[1, 2\]"),
    (b"\xff\xfe{}", "must be a description that save_pretrained wrote, got"),
    (b'{"format": 1, "format": 2}', "a key stands twice among format, format"),
    (b'{"format": NaN}', "NaN is no number"),
    (b"[" * 100_000, "must be a description that save_pretrained wrote, got"),
    (b" " * (1 << 24) + b"{}", "must be at most 16777216 bytes"),
]


@pytest.mark.parametrize(("text", "message"), TEXTS, ids=range(len(TEXTS)))
def test_texts_that_are_no_description(text, message, tmp_path):
    (saved(tmp_path) / "denoiser.json").write_bytes(text)
    with pytest.raises(ValueError, match=message):
        Denoiser.from_pretrained(tmp_path)


def test_weights_are_checked(tmp_path):
    path = saved(tmp_path) / "model.safetensors"
    whole = path.read_bytes()
    for part in (b"", whole[:5], whole[:100], whole[:-1], whole + b"0", b"\x80\x02}q\x00.", b"\xff" * 64):
        path.write_bytes(part)
        with pytest.raises(ValueError, match=r"model\.safetensors: must be a whole safetensors file, got \("):
            Denoiser.from_pretrained(tmp_path)
    path.write_bytes(whole)
    state = load_file(path)
    first, *_ = state
    for wrong in (
        {key: value for key, value in state.items() if key != first},
        state | {"network.more": torch.zeros(1)},
        state | {first: torch.zeros(7)},
    ):
        save_file(wrong, path)
        with pytest.raises(ValueError, match=r"tensors of UNet, got .*; missing, unknown or of another shape: "):
            Denoiser.from_pretrained(tmp_path)
    path.write_bytes(whole)
    edited(tmp_path, network={"architecture": "UNet", "arguments": HUGE})  # It would take 100 TB.
    with pytest.raises(ValueError, match="missing, unknown or of another shape"):
        Denoiser.from_pretrained(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold model\.safetensors, got denoiser\.json alone"):
        Denoiser.from_pretrained(tmp_path)


def test_pickles_are_refused(tmp_path):
    pickled = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(1)}, pickled)
    with pytest.raises(
        FileNotFoundError, match=r"got pytorch_model.bin; pytorch_model.bin is a pickle, which may run co"
    ):
        Denoiser.from_pretrained(tmp_path)
    for path in (pickled, str(pickled)):
        with pytest.raises(
            ValueError, match=r"path: must be a folder .* got the file .*, a pickle, which may run code"
        ):
            Denoiser.from_pretrained(path)


def test_links_are_followed_as_the_hub_has_them(tmp_path):
    blobs, snapshot = saved(tmp_path / "blobs"), tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    (tmp_path / "link").symlink_to(snapshot)
    same(Denoiser.from_pretrained(blobs), Denoiser.from_pretrained(tmp_path / "link"))
    (blobs / "denoiser.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"path: .* must hold denoiser.json and model.safetensors, or a model"):
        Denoiser.from_pretrained(tmp_path / "link")


# ------------------------------------------------------------------------------------ the hub, and bundled priors
def test_a_repository_is_asked_of_the_hub(tmp_path, monkeypatch):
    folder, asked = saved(tmp_path / "folder"), []
    hub = ModuleType("huggingface_hub")

    def snapshot_download(repository, *, revision, allow_patterns):
        asked.append((repository, revision))
        assert not any(pattern.endswith((".bin", "*")) for pattern in allow_patterns)
        if repository == "nobody/nothing":
            raise OSError("offline")
        return str(folder)

    hub.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.chdir(tmp_path)
    same(Denoiser.from_pretrained(folder), Denoiser.from_pretrained("someone/photographs", revision="v1"))
    same(ccfast.load_prior(folder), ccfast.load_prior("someone/photographs"))
    assert asked == [("someone/photographs", "v1"), ("someone/photographs", None)]
    with pytest.raises(
        OSError, match=r"path: there is no folder 'nobody/nothing', and the hub has not given .*offline"
    ):
        Denoiser.from_pretrained("nobody/nothing")
    (tmp_path / "nobody").mkdir()
    saved(tmp_path / "nobody" / "nothing")
    Denoiser.from_pretrained("nobody/nothing")  # A folder goes before the hub.
    assert len(asked) == 3
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ImportError, match=r"path: there is no folder 'a/b', .* needs huggingface_hub, which is not inst"
    ):
        Denoiser.from_pretrained("a/b")
    for path in ("../a/b", "/a/b", "a", "a/b/c", "-a/b", ""):
        with pytest.raises(
            FileNotFoundError, match=r"path: must be a folder or owner/name of a repository of the hub|hold"
        ):
            Denoiser.from_pretrained(path)
    with pytest.raises(TypeError, match="path: must be a folder or the name of a repository, got 3"):
        Denoiser.from_pretrained(3)


def test_a_prior_is_a_name_or_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "photo")
    assert ccfast.load_prior("photo").network.arguments["widths"] == (64, 96, 128)
    for path in ("./photo", tmp_path / "photo", str(tmp_path / "photo")):
        assert ccfast.load_prior(path).network.arguments["widths"] == (8, 8, 8)
    saved(tmp_path / "mine")
    assert repr(ccfast.load_prior("mine")) == "mine"
    photo = ccfast.load_prior("photo")
    saved(tmp_path / "copy", photo)
    same(photo, ccfast.load_prior("copy"))
    weight = ccfast.load_prior("copy").network.enter.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_the_command_line_takes_a_folder(tmp_path, capsys):
    folder, small, out = saved(tmp_path / "mine"), tmp_path / "small.png", tmp_path / "out.png"
    Image.fromarray(np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)).save(small)
    given = ["restore", str(small), "-o", str(out), "--operator", "pool:2", "--steps", "1", "--prior"]
    assert main([*given, str(folder)]) == 0
    with Image.open(out) as image:
        assert image.size == (10, 12)
    (folder / "model.safetensors").write_bytes(b"")
    assert main([*given, str(folder), "--force"]) == 2
    assert "model.safetensors: must be a whole safetensors file" in capsys.readouterr().err.replace("\n", " ")


def test_sides_that_networks_need():
    with torch.device("meta"):
        adm = guided_diffusion.ADM(guided_diffusion.CONFIGS["ffhq256"])
    assert (multiple_of(unet()), multiple_of(adm), multiple_of(lambda x, t: x)) == (8, 32, 8)


# ------------------------------------------------------------------------------------ folders of diffusers
@pytest.fixture(scope="module")
def model():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
    ).eval()


def layouts(folder, model, scheduler):
    """The folders of diffusers: a pipeline, one of its models, and an old repository with all in one place."""
    (folder / "pipeline" / "unet").mkdir(parents=True)
    model.save_pretrained(folder / "pipeline" / "unet")
    scheduler.save_pretrained(folder / "pipeline" / "scheduler")
    (folder / "pipeline" / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    model.save_pretrained(folder / "old")
    scheduler.save_pretrained(folder / "old")
    return folder / "pipeline", folder / "pipeline" / "unet", folder / "old"


def test_folders_of_diffusers(model, tmp_path):
    import diffusers

    scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction", clip_sample_range=2.0)
    want = from_diffusers(model, scheduler)
    for folder in layouts(tmp_path, model, scheduler):
        own = Denoiser.from_pretrained(folder, name="cats")
        assert (own.name, own.clip, own.prediction) == ("cats", want.clip, "v_prediction")
        x = torch.randn(1, *SHAPE)
        assert relative_error(own(x, 0.3), want(x, 0.3)) < 1e-6
    flow = Denoiser.from_pretrained(folder, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), dtype=torch.bfloat16)
    assert isinstance(flow.schedule, Flow)
    assert next(flow.network.parameters()).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="network, time_map: must be None for a folder of diffusers"):
        Denoiser.from_pretrained(folder, Small)
    with pytest.raises(TypeError, match="guidance: is an argument for folders of diffusers"):
        Denoiser.from_pretrained(saved(tmp_path / "ours"), guidance=2.0)


def test_wrong_folders_of_diffusers(model, tmp_path, monkeypatch):
    import diffusers

    pipeline, unet_folder, old = layouts(tmp_path, model, diffusers.DDIMScheduler())
    for name in ("os.system", "StableDiffusionPipeline", "DDIMScheduler", "__loader__", 3):
        (unet_folder / "config.json").write_text(json.dumps({**model.config, "_class_name": name}))
        with pytest.raises(ValueError, match=f"_class_name must be a ModelMixin of diffusers, got {name!r}"):
            Denoiser.from_pretrained(pipeline)
    (old / "scheduler_config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(ValueError, match="_class_name must be a SchedulerMixin of diffusers, got 'UNet2DModel'"):
        Denoiser.from_pretrained(old)
    (old / "scheduler_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="must hold the scheduler that the network was trained with"):
        Denoiser.from_pretrained(old)
    weights = old / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(FileNotFoundError, match=r"must hold weights as \.safetensors, got .*pickles"):
        Denoiser.from_pretrained(old)
    (pipeline / "unet").rename(pipeline / "net")
    with pytest.raises(FileNotFoundError, match=r"must hold config.json of a network of diffusers, or unet/ or transf"):
        Denoiser.from_pretrained(pipeline)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match="is a model of diffusers, which is not installed"):
        Denoiser.from_pretrained(pipeline)
