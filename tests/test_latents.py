"""Latent models: y = H D(z), with autoencoders as other people have them.

On the other side are the autoencoders of diffusers, of the first latent diffusion repository, and of users. What they
do that we would not, each a row or a test here: ``encode`` returns an object with ``latent_dist``, ``latents`` or
``latent``, a distribution, a tuple or a tensor; ``decode`` an object, a tuple or a tensor; the distribution is drawn
from, with the global generator; scaling and shift are in the config, as None, or one for every channel; weights are in
half precision whose range their activations leave (``force_upcast``); sides need not be divisible by 8, and then
latents cover less than the image; tiling and slicing are flags that the owner has set; weights require gradients; a
VAE takes images of one size only; it is one of videos; it detaches its output; its caller is in inference mode.
"""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import ccfast
from ccfast import Denoiser, Sampler
from ccfast.kernels import reference
from ccfast.latents import Autoencoder, Decoded, LatentDenoiser, parts_of
from ccfast.latents.windows import windows
from ccfast.operators import AveragePooling, FourierBlur, Grayscale, Inpainting, LinearOperator
from ccfast.operators.proximal import proximal
from ccfast.schedules import VP, Flow
from ccfast.solvers import (
    DDIM,
    DDNM,
    DPS,
    LATINO,
    PSLD,
    STSL,
    Conjugate,
    Consistency,
    DPMSolverPP,
    ReSample,
)
from ccfast.solvers.psld import glued_direction
from ccfast.testing import Gaussian, relative_error

SHAPE, LATENT = (3, 4, 4), (12, 2, 2)
SIZE = 48


def random(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


ROTATION = torch.linalg.qr(random(SIZE, SIZE)).Q


class Rotated:
    """A linear autoencoder that is orthogonal, so that it changes no norm and no noise."""

    def encode(self, x):
        return (x.flatten(1) @ ROTATION.to(x)).reshape(-1, *LATENT)

    def decode(self, z):
        return (z.flatten(1) @ ROTATION.mT.to(z)).reshape(-1, *SHAPE)


VAE = Rotated()


@pytest.fixture(scope="module", params=[VP(), Flow()], ids=["VP", "Flow"])
def pair(request):
    """A denoiser of images, and the same of latents."""
    covariance = random(SIZE, SIZE, seed=1) / 7
    prior = Gaussian(0.1 * random(SIZE, seed=2), covariance @ covariance.mT + 0.05 * torch.eye(SIZE), SHAPE)
    images = prior.denoiser(request.param, "velocity" if isinstance(request.param, Flow) else "epsilon")

    def network(z, t):
        return VAE.encode(images.network(VAE.decode(z), t))

    latents = Denoiser(network, images.schedule, images.prediction, time_map=float)
    return images, ccfast.latent(latents, VAE)


OPERATORS = {
    "mask": lambda: Inpainting(random(1, 4, 4, seed=3) > 0, SHAPE),
    "pooling": lambda: AveragePooling(SHAPE, 2),
    "grayscale": lambda: Grayscale(SHAPE),
    "blur": lambda: FourierBlur(SHAPE, random(3, 3, seed=4).abs() / 4),
}
SOLVERS = [
    DPS(),
    PSLD(),
    PSLD(0.7, 0.3, eta=1.0),
    ReSample(),
    ReSample(space="latents", iterations=3, eta=0.5),
    STSL(inner=2),
    LATINO(),
    Consistency(),
    DDIM(),
    DPMSolverPP(),
]


def rotated_noise(monkeypatch):
    """Let a run of latents draw the rotated noise of a run of images."""

    def normal(out, seeds, samples, draws, step):
        keys = (seeds + 7 * samples + 100 * step).tolist()
        numbers = torch.stack([random(*SHAPE, seed=key) for key in keys])
        return out.copy_(numbers if out.shape[1:] == SHAPE else VAE.encode(numbers))

    monkeypatch.setattr(reference, "normal", normal)


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_latent_restoration_is_that_of_images(solver, noise, pair, monkeypatch):
    rotated_noise(monkeypatch)
    images, latents = pair
    for make in OPERATORS.values():
        operator = make()
        y = operator.forward(random(2, *SHAPE, seed=5))
        options = {"steps": 4, "noise_std": noise, "backend": "reference"}
        expected = Sampler(images, operator, solver, **options)(y, seed=3)
        got = Sampler(latents, operator, solver, **options)(y, seed=3)
        assert relative_error(got, expected) < 1e-9, operator
        if not noise:
            consistent = Sampler(latents, operator, solver, hard_consistency=True, **options)(y, seed=3)
            assert relative_error(operator.forward(consistent), operator.forward(operator.pinv(y))) < 1e-9


def test_latino_on_images_is_ddnm_with_fresh_noise(pair):
    """The two agree up to the last step, in which LATINO adds none."""
    images, _ = pair
    operator = AveragePooling(SHAPE, 2)
    y = operator.forward(random(2, *SHAPE, seed=5))
    times = np.linspace(images.schedule.default_start, 0.0 if isinstance(images.schedule, VP) else 1.0, 5)
    expected = Sampler(images, operator, DDNM(eta=1.0), times=times)(y, seed=3)
    assert relative_error(Sampler(images, operator, LATINO(), times=times)(y, seed=3), expected) < 1e-12


class Bent(nn.Module):
    """A smooth autoencoder that is not linear, whose encoder undoes its decoder."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.3, dtype=dtype))

    def encode(self, x):
        return torch.asinh(VAE.encode(x)) * self.scale

    def decode(self, z):
        return VAE.decode(torch.sinh(z / self.scale))


@pytest.mark.parametrize("name", OPERATORS)
def test_the_glued_direction_is_the_gradient_of_the_two_norms(name):
    operator = OPERATORS[name]()
    parts = parts_of(Decoded(operator, Autoencoder(Bent(), scaling=0.8, shift=0.1)))
    y, z = operator.forward(random(1, *SHAPE, seed=6)), 0.5 * random(1, *LATENT, seed=7)

    def loss(z):
        image = parts.decode(z)
        misfit = y - operator.forward(image)
        gap = z - parts.encode(image + operator.adjoint(misfit))
        return float(0.7 * misfit.norm() + 0.4 * gap.norm())

    direction = glued_direction(parts, y, z, 0.7, 0.4)
    for seed in range(3):
        v = 1e-5 * random(1, *LATENT, seed=seed)
        assert (loss(z + v) - loss(z - v)) / 2 == pytest.approx(-float((direction * v).sum()), rel=1e-5, abs=1e-12)


def move(denoiser, operator, y, x, e, t, lam, eta):
    """A move of STSL by autograd, from its formula."""
    mu, sigma = float(denoiser.schedule.mean(t)), float(denoiser.schedule.std(t))
    x = x.clone().requires_grad_()

    def score(x):
        return (mu * denoiser(x, t) - x) / sigma**2

    misfit = (y - operator.forward(denoiser(x, t))).square().sum()
    probe = (e * (score(x + e) - score(x))).sum()
    (lam * mu**2 * misfit + eta / x[0].numel() * probe).backward()
    return x.detach() - x.grad


def test_moves_of_stsl_are_the_gradient_of_the_two_terms(mixture):
    denoiser, operator = mixture.denoiser(VP()), AveragePooling((1, 16), 2)
    y, x = operator.forward(mixture.sample(1, torch.Generator().manual_seed(1))), random(1, 1, 16, seed=2)
    solver, states = STSL(lam=0.2, eta=0.5, inner=2), []

    class Look:
        def __call__(self, step, x0hat):
            pass

        def step_end(self, step, state):
            states.append(state.clone())

    with torch.enable_grad():
        end = Sampler(denoiser, operator, solver, times=[0.4, 0.2, 0.1])(y, x_init=x, seed=0, callback=Look())
        assert len(states) == 10
        for k, t in ((1, 0.4), (3, 0.4), (6, 0.2), (8, 0.2)):
            # Before the evaluation at x + e that precedes a move the state is x + e, and after it x.
            before = states[k - 2] if k > 1 else x
            moved = states[k] - (states[k] - states[k + 1] if k in (1, 6) else 0.0)
            expected = move(denoiser, operator, y, states[k - 1], before - states[k - 1], t, 0.2, 0.5)
            assert relative_error(moved, expected) < 1e-9, k
    assert torch.equal(end, states[-1])


def test_the_probe_moves_nothing_where_the_score_is_linear(prior):
    operator = AveragePooling((1, 16), 2)
    y = operator.forward(prior.sample(2, torch.Generator().manual_seed(1)))
    results = [
        Sampler(prior.denoiser(VP()), operator, STSL(eta=eta, inner=2), steps=3)(y, seed=0) for eta in (0.0, 5.0)
    ]
    assert relative_error(*results) < 1e-9
    with pytest.raises(ValueError, match="inner: must be a positive integer, got 0"):
        STSL(inner=0)
    with pytest.raises(ValueError, match=r"lam: must be > 0, got 0\.0"):
        STSL(lam=0.0)


def test_hard_steps_explain_the_measurement():
    """Descent on latents lowers the misfit of a bent decoder, and stops at the level of the noise."""
    operator = AveragePooling(SHAPE, 2)
    latents = ccfast.latent(Denoiser(lambda z, t: torch.zeros_like(z), VP(), "sample"), Bent())
    y = operator.forward(0.5 * random(2, *SHAPE, seed=8))

    def misfit(**options):
        x = Sampler(latents, operator, ReSample(space="latents", **options), times=[0.4, 0.0])(y, seed=0)
        return float((y - operator.forward(x)).norm() / y.norm())

    misfits = [misfit(iterations=n) for n in (1, 2, 4, 8)]
    assert misfits == sorted(misfits, reverse=True)
    assert misfits[-1] < 1e-2 * misfits[0]
    hard = ReSample(space="latents", iterations=8)
    again = Sampler(latents, operator, hard, times=[0.4, 0.0], noise_std=0.4)(y, seed=0)
    left = (y - operator.forward(again)).square().mean().sqrt()
    assert 0.05 < float(left) < 0.4


@pytest.mark.parametrize("name", [*OPERATORS, "krylov"])
def test_the_proximal_step_solves_its_equations(name):
    blur = OPERATORS["blur"]()
    krylov = LinearOperator(blur.forward, blur.adjoint, SHAPE, dtype=torch.float64)
    operator = krylov if name == "krylov" else OPERATORS[name]()
    y, x = operator.forward(random(2, *SHAPE, seed=9)), random(2, *SHAPE, seed=10)
    u = proximal(operator, y, x, 0.3)
    assert (operator.adjoint(operator.forward(u) - y) + 0.3 * (u - x)).abs().max() < 1e-8


# ------------------------------------------------------------------------------------------------ what encode returns
RETURNS = {
    "a tensor": lambda z: z,
    "latents": lambda z: SimpleNamespace(latents=z),
    "latent": lambda z: SimpleNamespace(latent=z),
    "latent_dist": lambda z: SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: z, sample=lambda: z + 1)),
    "a distribution": lambda z: SimpleNamespace(mode=lambda: z, sample=lambda: z + 1),
    "a tuple": lambda z: (z, None),
    "a tuple of a distribution": lambda z: (SimpleNamespace(mode=lambda: z),),
}


@pytest.mark.parametrize("name", RETURNS)
def test_what_encode_and_decode_return(name):
    vae = SimpleNamespace(
        encode=lambda x: RETURNS[name](VAE.encode(x)),
        decode=lambda z: (VAE.decode(z),) if "tuple" in name else SimpleNamespace(sample=VAE.decode(z)),
    )
    x = random(2, *SHAPE)
    own = Autoencoder(vae, 2.0, 0.5)
    assert relative_error(own.encode(x), 2 * (VAE.encode(x) - 0.5)) < 1e-14
    assert relative_error(own.decode(own.encode(x), SHAPE), x) < 1e-12


CONFIGS = [
    ({}, 1.0, 0.0),
    ({"scaling_factor": 0.2, "shift_factor": None}, 0.2, 0.0),
    ({"scaling_factor": 0.2, "shift_factor": 0.3}, 0.2, 0.3),
    ({"latents_mean": [0.5] * 6 + [0.1] * 6, "latents_std": [2.0] * 12}, 0.5, [0.5] * 6 + [0.1] * 6),
    ({"scaling_factor": 3.0, "latents_mean": [0.5] * 12, "latents_std": [2.0] * 12}, 1.5, 0.5),
]


@pytest.mark.parametrize(("config", "scaling", "shift"), CONFIGS)
def test_scaling_and_shift_are_those_of_the_config(config, scaling, shift):
    vae = SimpleNamespace(encode=VAE.encode, decode=VAE.decode, config=config)
    x = random(2, *SHAPE)
    column = torch.tensor(shift, dtype=torch.float64).reshape(-1, 1, 1)
    assert relative_error(Autoencoder(vae).encode(x), scaling * (VAE.encode(x) - column)) < 1e-14
    assert relative_error(Autoencoder(vae, 1.0, 0.0).encode(x), VAE.encode(x)) < 1e-14


# ------------------------------------------------------------------------------------------------ tiles and shapes
@pytest.mark.parametrize("side", [4, 5, 7, 8, 9, 13, 31])
def test_the_weights_of_windows_add_up_to_one(side):
    for tile in (4, 5, 8):
        total = torch.zeros(3 * side, 3 * 6)
        for window in windows((side, 6), tile, (1, 3)):
            assert all(s.stop is None or s.stop - s.start <= tile for s in window.source)
            weight = torch.ones(()) if window.weight is None else window.weight
            total[window.target] += weight
        torch.testing.assert_close(total, torch.ones_like(total))


class Unshuffled:
    """Pixels of 2 x 2 as channels; it works on any size, so that tiles make no difference."""

    def encode(self, x):
        return nn.functional.pixel_unshuffle(x, 2)

    def decode(self, z):
        return nn.functional.pixel_shuffle(torch.sin(z), 2)


@pytest.mark.parametrize("shape", [(3, 18, 26), (3, 17, 25)])
def test_tiles_change_nothing_where_pixels_are_independent(shape):
    whole, tiled = Autoencoder(Unshuffled()), Autoencoder(Unshuffled(), tile=5)
    x, v = random(2, *shape), random(2, *shape, seed=1)
    z = whole.encode(x)
    assert z.shape == (2, *whole.latent_shape(shape)) == (2, 12, 9, 13)
    assert relative_error(tiled.encode(x), z) < 1e-6
    assert whole.decode(z, shape).shape == x.shape
    assert relative_error(tiled.decode(z, shape), whole.decode(z, shape)) < 1e-6
    for one, other in [
        (whole.pull_decoder(z, lambda x: v * x, shape), tiled.pull_decoder(z, lambda x: v * x, shape)),
        (whole.pull_encoder(x, lambda z: z**2), tiled.pull_encoder(x, lambda z: z**2)),
    ]:
        assert relative_error(other, one) < 1e-6
    whole = Autoencoder(Unshuffled(), multiple=4)
    z = whole.encode(x)
    assert z.shape == (2, *whole.latent_shape(shape)) == (2, 12, 12, 16)
    assert relative_error(whole.decode(z, shape), torch.sin(x)) < 1e-12
    w = 1e-6 * random(*z.shape, seed=2)
    change = whole.decode(z + w, shape) - whole.decode(z - w, shape)
    pulled = whole.pull_decoder(z, lambda x: v, shape)
    assert float((v * change).sum()) / 2 == pytest.approx(float((pulled * w).sum()), rel=1e-6)


# ------------------------------------------------------------------------------------------------ refusals
BAD = [
    ({"vae": object()}, TypeError, r"vae: must have encode\(x\) and decode\(z\), got object without encode"),
    ({"scaling": 0.0}, ValueError, r"scaling: must not be zero, got 0\.0"),
    ({"scaling": float("nan")}, ValueError, r"scaling: must be finite, got nan"),
    ({"shift": "a"}, TypeError, r"shift: must be a number, or one for every channel of the latents, got 'a'"),
    ({"tile": 2}, ValueError, r"tile: must be an integer >= 4, .* got 2"),
    ({"tile": 8.0}, ValueError, r"tile: must be an integer >= 4, .* got 8\.0"),
    ({"multiple": 0}, ValueError, r"multiple: must be an integer >= 1, got 0"),
    ({"checkpointing": 1}, TypeError, r"checkpointing: must be True or False, got 1"),
    ({"checkpointing": True}, ValueError, r"checkpointing: must be False for Rotated, .* give tile="),
    ({"denoiser": VAE}, TypeError, r"denoiser: must be a ccfast Denoiser, got Rotated"),
]


@pytest.mark.parametrize(("arguments", "error", "words"), BAD)
def test_arguments_are_refused_by_name(arguments, error, words):
    denoiser = Denoiser(lambda z, t: z, VP())
    with pytest.raises(error, match=words):
        ccfast.latent(**{"denoiser": denoiser, "vae": VAE, **arguments})


def test_what_does_not_work_on_latents_is_refused(pair):
    _, latents = pair
    operator = AveragePooling(SHAPE, 2)
    with pytest.raises(ValueError, match=r"solver: must be LATINO, .* got Conjugate"):
        Sampler(latents, operator, Conjugate())
    with pytest.raises(ValueError, match=r"graph: must be 'auto' or False for latents, .* got True"):
        Sampler(latents, operator, graph=True)
    with pytest.raises(ValueError, match=r"hard_consistency: must be False where the result is latents, got True"):
        Sampler(latents, latents.through(operator), hard_consistency=True)
    with pytest.raises(AttributeError, match=r"adjoint: Decoded\(.* is not linear in the latents"):
        latents.through(operator).adjoint(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match=r"vae: Rotated\.encode must take images \(B, 3, 8, 8\)"):
        Sampler(latents, AveragePooling((3, 8, 8), 2))
    with pytest.raises(ValueError, match=r"scaling, shift: must be a number or one for each of 12 channels, got 2"):
        Autoencoder(VAE, [1.0, 2.0]).encode(torch.zeros(1, *SHAPE))
    sampler = Sampler(latents, operator)
    with pytest.raises(ValueError, match=r"operator: must have the kind and shapes of the sampler's AveragePooling"):
        sampler(torch.zeros(1, 3, 2, 2), operator=Grayscale(SHAPE))
    with pytest.raises(ValueError, match=r"y: AveragePooling takes shape \(B, 3, 2, 2\), got"):
        sampler(torch.zeros(1, 3, 4, 4))


def test_outputs_without_a_graph_are_refused():
    detached = SimpleNamespace(encode=VAE.encode, decode=lambda z: VAE.decode(z).detach())
    latents = ccfast.latent(Denoiser(lambda z, t: z, VP()), detached)
    y = torch.zeros(1, 3, 2, 2)
    with pytest.raises(ValueError, match=r"vae: its outputs must be differentiable, .* LATINO\(\) and ReSample\(\)"):
        Sampler(latents, AveragePooling(SHAPE, 2), PSLD())(y)
    assert Sampler(latents, AveragePooling(SHAPE, 2), LATINO())(y).shape == (1, *SHAPE)


# ------------------------------------------------------------------------------------------------ the sampler around it
def test_calls_of_a_sampler_of_latents(pair):
    _, latents = pair
    masks = torch.stack([random(1, 4, 4, seed=k) > 0 for k in range(2)])
    operator = Inpainting(masks, SHAPE)
    y = operator.forward(random(2, *SHAPE, seed=5)).float()
    sampler = Sampler(latents, operator, steps=3)
    assert sampler.solver == LATINO()
    x = sampler(y, seed=[1, 2])
    assert x.dtype == torch.float32
    assert x.shape == y.shape
    for k in range(2):
        single = Sampler(latents, Inpainting(masks[k], SHAPE), steps=3)
        assert relative_error(single(y[k : k + 1], seed=[k + 1]), x[k : k + 1]) < 1e-5
    assert relative_error(sampler.sample(y, 2, seed=[1, 2], together=2)[0], x) < 1e-5
    inside = Sampler(latents, latents.through(operator), steps=3)(y, seed=[1, 2])
    assert inside.shape == (2, *LATENT)
    assert relative_error(latents.decode(inside, SHAPE), x) < 1e-5
    seen = []
    sampler(y, seed=0, callback=lambda k, z: seen.append(tuple(z.shape)))
    assert seen == [(2, *LATENT)] * 3
    assert relative_error(sampler(y, seed=[1, 2], noise_std=[0.0, 0.0]), x) < 1e-6
    assert Sampler(latents, Inpainting(masks[0], SHAPE))(y[:0]).shape == (0, *SHAPE)
    sampler.warmup(2)
    assert sampler.stats()["vjps"] == 0
    again = pickle.loads(pickle.dumps(Autoencoder(VAE, 2.0)))
    assert torch.equal(again.encode(x), Autoencoder(VAE, 2.0).encode(x))


def test_a_mask_of_one_channel_serves_the_images_of_the_autoencoder(pair):
    _, latents = pair
    y = torch.zeros(1, *SHAPE, dtype=torch.float64)
    assert Sampler(latents, Inpainting(random(1, 4, 4) > 0))(y, seed=0).shape == y.shape


def test_guidance_of_latents(pair):
    """``guided`` and conditions keep the autoencoder."""
    network = lambda z, t, c: c.reshape(-1, 1, 1, 1) * z  # noqa: E731
    latents = ccfast.latent(Denoiser(network, VP()), VAE)
    guided = latents.guided(2.0, {"c": torch.zeros(1)})
    assert isinstance(guided, LatentDenoiser)
    y = random(2, 3, 2, 2).float()
    c = torch.tensor([0.1, 0.2])
    got = Sampler(guided, AveragePooling(SHAPE, 2))(y, seed=0, condition={"c": c})
    expected = Sampler(latents, AveragePooling(SHAPE, 2))(y, seed=0, condition={"c": 2 * c})
    assert relative_error(got, expected) < 1e-5


# ------------------------------------------------------------------------------------------------ diffusers
def kl(**options):
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    sizes = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 4, "sample_size": 16}
    return diffusers.AutoencoderKL(**blocks, **sizes, **options)


def tiny():
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    torch.manual_seed(0)
    widths = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    return diffusers.AutoencoderTiny(**widths, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))


def video():
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    torch.manual_seed(0)
    statistics = {"latents_mean": [0.1] * 4, "latents_std": [2.0] * 4}
    sizes = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 1], "num_res_blocks": 1, "temperal_downsample": [False]}
    return diffusers.AutoencoderKLQwenImage(**sizes, **statistics)


VAES = {"KL": kl, "KL with a shift": lambda: kl(scaling_factor=1.5, shift_factor=0.1), "Tiny": tiny, "video": video}


@pytest.mark.parametrize("name", VAES)
def test_autoencoders_of_diffusers(name):
    """Encoded and decoded as their pipelines do it, and restored end to end without a change of what the owner has."""
    vae = VAES[name]()
    before = copy.deepcopy(vae.state_dict())
    flags = [(p.requires_grad, p.grad) for p in vae.parameters()]
    shape = (3, 14, 11)
    x = random(2, *shape).float().clamp(-1, 1)
    own = Autoencoder(vae)
    z = own.encode(x)
    padded = nn.functional.pad(x, (0, 1, 0, 0), mode="replicate")
    given = padded[:, :, None] if name == "video" else padded
    with torch.no_grad():
        encoded = vae.encode(given)
        theirs = encoded.latents if name == "Tiny" else encoded.latent_dist.mode()
        if name == "video":
            theirs = (theirs - 0.1) / 2.0
            decoded = vae.decode(theirs * 2.0 + 0.1).sample[:, :, 0]
            theirs = theirs[:, :, 0]
        else:
            shift = vae.config.get("shift_factor") or 0.0
            theirs = (theirs - shift) * vae.config.scaling_factor
            decoded = vae.decode(theirs / vae.config.scaling_factor + shift).sample
    assert relative_error(z, theirs) < 1e-5
    assert relative_error(own.decode(z, shape), decoded[..., :11]) < 1e-5
    generator = torch.get_rng_state()
    latents = ccfast.latent(Denoiser(lambda z, t: 0.5 * z, VP()), vae)
    operator = Inpainting(random(1, 14, 11) > 0)
    for solver in (LATINO(), PSLD(), ReSample(space="latents", iterations=1)):
        with torch.inference_mode():
            result = Sampler(latents, operator, solver, steps=2, hard_consistency=True)(operator.forward(x), seed=0)
        assert result.shape == x.shape
        assert relative_error(operator.forward(result), operator.forward(x)) < 1e-5
    assert torch.equal(torch.get_rng_state(), generator)
    assert [(p.requires_grad, p.grad) for p in vae.parameters()] == flags
    assert all(torch.equal(value, before[key]) for key, value in vae.state_dict().items())


def test_tiles_and_checkpoints_of_diffusers():
    vae = kl(mid_block_add_attention=False).eval()
    shape, z = (3, 32, 40), random(1, 4, 16, 20).float()
    plain = Autoencoder(vae)
    direction = plain.pull_decoder(z, lambda x: x, shape)
    again = Autoencoder(vae, checkpointing=True)
    assert relative_error(again.pull_decoder(z, lambda x: x, shape), direction) < 1e-5
    assert not vae.is_gradient_checkpointing
    # Group norms and borders see a tile alone, so that tiles change the image; they must not change its derivative.
    tiled, v = Autoencoder(vae, tile=10), random(1, *shape, seed=1).float()
    double = Autoencoder(copy.deepcopy(vae).double(), tile=10)
    pulled, w = tiled.pull_decoder(z, lambda x: v, shape), 1e-5 * random(*z.shape, seed=2)
    change = double.decode(z.double() + w, shape) - double.decode(z.double() - w, shape)
    assert float((v * change).sum()) / 2 == pytest.approx(float((pulled * w).sum()), rel=1e-3)
    vae.enable_tiling()
    vae.enable_slicing()
    twice = z.repeat(2, 1, 1, 1)
    with torch.no_grad():
        theirs = vae.decode(twice / vae.config.scaling_factor).sample
    assert relative_error(plain.decode(twice, shape), theirs) < 1e-5
    assert plain.pull_decoder(twice, lambda x: x, shape).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_autoencoders(dtype):
    """In float16 the weights compute in float32, as force_upcast says; nothing of the owner's is cast."""
    vae = kl()
    x = random(1, 3, 16, 16).float().clamp(-1, 1)
    wide = Autoencoder(copy.deepcopy(vae))
    rounded = Autoencoder(vae.to(dtype))
    exact = Autoencoder(copy.deepcopy(vae).float())
    z = rounded.encode(x)
    assert z.dtype == torch.float32
    assert relative_error(z, wide.encode(x)) < 0.1
    assert (relative_error(z, exact.encode(x)) < 1e-5) is (dtype == torch.float16)
    pulled = rounded.pull_decoder(z, lambda x: x, (3, 16, 16))
    assert pulled.dtype == torch.float32
    assert relative_error(pulled, exact.pull_decoder(z, lambda x: x, (3, 16, 16))) < 0.1
    assert {p.dtype for p in vae.parameters()} == {dtype}


def test_generation_decodes(pair):
    images, latents = pair
    generator, plain = ccfast.Generator(latents, steps=4), ccfast.Generator(latents.without_autoencoder(), steps=4)
    z = plain(5, LATENT, seed=3, dtype=torch.float64)
    seen = []
    for together in (None, 2):
        got = generator(5, list(SHAPE), seed=3, dtype=torch.float64, together=together)
        assert relative_error(got, VAE.decode(z)) < 1e-12
    generator(1, SHAPE, callback=lambda k, x0hat: seen.append(x0hat.shape))
    assert seen == [(1, *LATENT)] * 4
    states = random(2, *LATENT)
    want = ccfast.Generator(images, steps=4)(2, SHAPE, x_init=VAE.decode(states), dtype=torch.float64)
    assert relative_error(generator(2, SHAPE, x_init=states, dtype=torch.float64), want) < 1e-9
    assert generator(0, SHAPE).shape == (0, *SHAPE)
