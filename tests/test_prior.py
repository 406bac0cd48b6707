"""The bundled prior: its properties, and the quality of five steps with it on pictures that it has never seen."""

from __future__ import annotations

import pytest
import torch

import ccfast
from ccfast import Sampler
from ccfast.metrics import psnr, ssim
from ccfast.operators import AveragePooling, Inpainting
from ccfast.priors import PRIORS, WEIGHTS, heldout
from ccfast.priors.unet import HEADS, UNet
from ccfast.solvers import Conjugate
from training import patches
from training.train import learning_rate, noise_levels, train

SHAPE = (3, 128, 128)


@pytest.fixture(scope="module", params=PRIORS)
def prior(request):
    return ccfast.load_prior(request.param)


def test_weights_are_small_and_the_network_takes_any_size_divisible_by_eight(prior):
    assert sum((WEIGHTS / f"{name}.safetensors").stat().st_size for name in PRIORS) <= 16 * 2**20
    count = sum(p.numel() for p in prior.network.parameters())
    assert 1e6 <= count <= 4e6
    for height, width in ((8, 8), (64, 40)):
        x = torch.zeros(2, 3, height, width)
        assert prior.network(x, torch.tensor([0.0, 999.0])).shape == x.shape
    with pytest.raises(ValueError, match=r"divisible by 8, got \(12, 16\)"):
        prior.network(torch.zeros(1, 3, 12, 16), torch.zeros(1))
    with pytest.raises(ValueError, match="name: must be one of 'photo', 'photo-flow', got 'faces'"):
        ccfast.load_prior("faces")
    assert set(PRIORS) == {path.stem for path in WEIGHTS.glob("*.safetensors")}


def test_it_predicts_noise(prior):
    """On held-out crops the error of eps is well below that of eps = 0 at every level, and x0hat beats x/mu."""
    x0, generator = heldout.crops()[::2], torch.Generator().manual_seed(0)
    noise = torch.randn(x0.shape, generator=generator)
    for rho in (0.06, 0.34, 1.2, 6.0, 50.0):
        t = float(prior.schedule.time(rho))
        mu, sigma = (float(v(t)) for v in (prior.schedule.mean, prior.schedule.std))
        with torch.no_grad():
            x0hat = prior(mu * x0 + sigma * noise, t)
        eps = (mu * x0 + sigma * noise - mu * x0hat) / sigma
        assert float((eps - noise).square().mean()) < 0.5
        assert float(psnr(x0hat, x0).mean()) > float(psnr(x0 + sigma / mu * noise, x0).mean()) + 2


def test_five_steps_on_held_out_crops(prior):
    """Five steps with the presets reach at least these scores on the centre of every photograph.

    All ten crops, with every target, met or missed, are in bench/results/quality_<prior>.json.
    """
    x, generator = heldout.crops()[::2], torch.Generator().manual_seed(0)
    half = Inpainting(torch.rand(1, 128, 128, generator=generator) < 0.5, SHAPE)
    y = half.forward(x)
    restored = Sampler(prior, half, steps=5)(y, seed=0)
    assert float(psnr(restored, x).mean()) >= 27.0
    assert float(ssim(restored, x).mean()) >= 0.80
    pooling = AveragePooling(SHAPE, 4)
    y = pooling.forward(x)
    restored = Sampler(prior, pooling, steps=5)(y, seed=0)
    assert float(psnr(restored, x).mean() - psnr(pooling.pinv(y), x).mean()) >= 1.0
    assert float(ssim(restored, x).mean() - ssim(pooling.pinv(y), x).mean()) >= 0.02


def test_the_heads_agree():
    """Both heads find the same x0 where the ratio of noise to signal is the same."""
    x0, noise = torch.randn(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).unbind()
    networks = {head: UNet(head=head).eval().requires_grad_(False) for head in HEADS}
    torch.nn.init.normal_(networks["vp"].leave.weight, std=0.05)
    networks["flow"].load_state_dict(networks["vp"].state_dict())
    found = []
    for name in PRIORS:
        denoiser = ccfast.Denoiser(networks[PRIORS[name].head], PRIORS[name].schedule(), PRIORS[name].prediction)
        t = float(denoiser.schedule.time(0.7))
        mu, sigma = float(denoiser.schedule.mean(t)), float(denoiser.schedule.std(t))
        found.append(denoiser(mu * x0 + sigma * noise, t))
    torch.testing.assert_close(*found, rtol=0, atol=2e-5)
    with pytest.raises(ValueError, match="head: must be one of 'vp', 'flow', got 'plain'"):
        UNet(head="plain")


def test_without_a_derivative_it_also_restores(prior):
    x = heldout.crops()[:2]
    pooling = AveragePooling(SHAPE, 4)
    restored = Sampler(prior, pooling, Conjugate(jacobian="none"))(pooling.forward(x), seed=0)
    assert float(psnr(restored, x).mean()) > 20


def test_every_photograph_is_in_the_data_file():
    text = (WEIGHTS.parent / "DATA.md").read_text()
    for photograph in patches.PHOTOGRAPHS:
        assert f"| {photograph.package} | {photograph.path} | {photograph.author} | {photograph.licence} |" in text
    assert len(set(patches.PHOTOGRAPHS)) == len(patches.PHOTOGRAPHS)


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """Put two invented photographs in the place of the real ones."""
    from PIL import Image

    rows = []
    for k in range(2):
        path = tmp_path / "package" / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        noise = torch.rand(90, 450, 3, generator=torch.Generator().manual_seed(k))
        Image.fromarray((255 * noise).byte().numpy()).save(path)
        rows.append(patches.Photograph("package", f"{k}.png", "nobody", "CC0"))
    monkeypatch.setattr(patches, "PHOTOGRAPHS", rows)
    return tmp_path


def test_patches_repeat_with_their_seed(photographs):
    first, again, other = (patches.Patches(photographs, seed).batch(4, 32) for seed in (0, 0, 1))
    assert first.shape == (4, 3, 32, 32)
    assert first.abs().max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with pytest.raises(FileNotFoundError, match="photos: 2 photographs are not in"):
        patches.Patches(photographs / "elsewhere", 0)


@pytest.mark.parametrize("name", ["photo", "photo-flow"])
def test_training_runs_and_resumes(photographs, tmp_path, name, monkeypatch):
    monkeypatch.setattr("training.train.UNet", lambda head: UNet(widths=(8, 8, 8), blocks=1, middle=1, head=head))
    run = tmp_path / "run"
    for hours in (1e-4, 2e-4):
        train(name, photographs, run, hours, seed=0, batch=1, peak=1e-3, initial=None)
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    assert state["spent"] >= 0.72
    assert state["step"] >= 2
    assert (run / f"{name}.safetensors").exists()


def test_training_schedule():
    assert learning_rate(7e-4, 0.0, 0) == 0
    assert learning_rate(7e-4, 0.0, 500) == pytest.approx(7e-4)
    assert learning_rate(7e-4, 1.0, 500) == pytest.approx(7e-6)
    for name in ("photo", "photo-flow"):
        t, mu, sigma = noise_levels(name, 4096, torch.Generator().manual_seed(0))
        schedule = ccfast.schedules.VP() if name == "photo" else ccfast.schedules.Flow()
        torch.testing.assert_close(
            mu.double(), torch.from_numpy(schedule.mean(t.double().numpy())), rtol=1e-5, atol=1e-6
        )
        torch.testing.assert_close(
            sigma.double(), torch.from_numpy(schedule.std(t.double().numpy())), rtol=1e-4, atol=1e-6
        )
        assert t.min() < 0.05
        assert t.max() > 0.95
