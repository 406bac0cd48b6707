"""Settings of torch, other processes, values in another range, levels of noise, and bad images around a call."""

from __future__ import annotations

import contextlib
import copy
import pickle
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from ccfast import Denoiser, Sampler, load_prior
from ccfast.errors import NonFiniteError
from ccfast.operators import AveragePooling, Bicubic, FourierBlur, GaussianBlur, Grayscale, Inpainting, Matrix
from ccfast.schedules import VP
from ccfast.solvers import DDNM, Conjugate
from ccfast.testing import relative_error

SHAPE = (3, 16, 16)
EQUAL = 1e-6
"""The relative distance in float32 where only the order of a sum could differ."""

MASK = (torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(3)) > 0.5).float()
H = torch.randn(60, 768, generator=torch.Generator().manual_seed(0))
OPERATORS = {
    "mask": lambda: Inpainting(MASK, SHAPE),
    "block": lambda: AveragePooling(SHAPE, 4),
    "channel": lambda: Grayscale(SHAPE),
    "separable": lambda: Bicubic(SHAPE, 4),
    "separable blur": lambda: GaussianBlur(SHAPE),
    "fourier": lambda: FourierBlur(SHAPE, np.ones((3, 3)) / 9),
    "dense": lambda: Matrix(H, SHAPE),
}


@contextlib.contextmanager
def usual(change, value, before):
    change(value)
    try:
        yield
    finally:
        change(before)


SETTINGS = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default dtype float64": lambda: usual(torch.set_default_dtype, torch.float64, torch.float32),
    "default dtype bfloat16": lambda: usual(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "default device": lambda: usual(torch.set_default_device, "meta", None),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "grad": torch.enable_grad,
    "deterministic algorithms": lambda: usual(torch.use_deterministic_algorithms, True, False),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "threads": lambda: usual(torch.set_num_threads, 2, 1),
}


class Network(nn.Module):
    """A smooth network that makes a tensor without naming a dtype or a device, as many networks do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x, t):
        scale = torch.tensor(0.5).to(x.dtype)
        return scale * torch.tanh(self.a(x)) * torch.cos(t.view(-1, 1, 1, 1) / 300)


def made(name, solver):
    return Sampler(Denoiser(NETWORK, VP()), OPERATORS[name](), solver)


NETWORK = Network()


def measurement(operator, batch=2):
    x = torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return operator.forward(x)


@pytest.mark.elsewhere
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", OPERATORS)
def test_settings_of_torch_change_nothing(name, setting):
    for solver in (DDNM(), Conjugate(5.0, jacobian="auto")):
        outside = made(name, solver)
        y = measurement(outside.operator)
        want = outside(y, seed=0)
        for callback in (None, lambda step, x0hat: None):
            with SETTINGS[setting]():
                before = outside(y, seed=0, callback=callback)
                inside = made(name, solver)(y, seed=0, callback=callback)
            for got in (before, inside):
                assert (got.dtype, got.device, got.is_inference()) == (want.dtype, want.device, False)
                assert relative_error(got, want) < EQUAL


def test_derivatives_of_a_sampler_are_refused():
    sampler = made("block", DDNM())
    y = measurement(sampler.operator)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(y, torch.ones_like(y))
        with pytest.raises(RuntimeError, match="y: carries a forward-mode tangent"):
            sampler(dual, seed=0)
    for transform in (
        lambda: torch.func.jvp(lambda v: sampler(v, seed=0), (y,), (y,)),
        lambda: torch.func.vmap(lambda v: sampler(v[None], seed=0))(y),
        lambda: torch.func.grad(lambda v: sampler(v, seed=0).sum())(y),
    ):
        with pytest.raises(RuntimeError, match=r"torch\.func: a sampler cannot be called under grad, vmap, jvp"):
            transform()


# ------------------------------------------------------------------------------------ copies
@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
def test_what_people_make_can_be_copied(way):
    duplicate = copy.deepcopy if way == "deepcopy" else lambda value: pickle.loads(pickle.dumps(value))
    for denoiser in (Denoiser(NETWORK, VP()), load_prior("photo")):
        for name in OPERATORS:
            sampler = Sampler(denoiser, OPERATORS[name](), steps=2, noise_std=0.0 if name == "dense" else 0.05)
            y = measurement(sampler.operator, 1)
            want = sampler(y, seed=0)
            assert str(duplicate(sampler.plan)) == str(sampler.plan)
            assert torch.equal(duplicate(sampler)(y, seed=0), want)
            assert repr(duplicate(denoiser)) == repr(denoiser)


def restored_elsewhere(sampler, y, queue):
    torch.set_num_threads(1)
    queue.put(sampler(y, seed=0).numpy())


def test_a_sampler_can_be_sent_to_a_process():
    sampler = made("separable", DDNM())
    y = measurement(sampler.operator)
    context = torch.multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=restored_elsewhere, args=(sampler, y, queue))
    process.start()
    got = torch.from_numpy(queue.get(timeout=120))
    process.join()
    assert torch.equal(got, sampler(y, seed=0))


# ------------------------------------------------------------------------------------ values
def said(act):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return " ".join(str(w.message) for w in caught if issubclass(w.category, UserWarning))


VALUES = {
    "pixels": (lambda: AveragePooling(SHAPE, 4), lambda y: (y + 1) * 127.5, {}, r"y: reaches .*\[-1, 1\]"),
    "random matrix, pixels": (lambda: Matrix(H, SHAPE), lambda y: y * 127.5, {}, r"y: reaches"),
    "noise of pixels": (lambda: AveragePooling(SHAPE, 4), lambda y: y, {"noise_std": 12.75}, r"noise_std: .*\[-1, 1\]"),
    "right": (lambda: AveragePooling(SHAPE, 4), lambda y: y, {"noise_std": 0.1}, None),
    "right, random matrix": (lambda: Matrix(H, SHAPE), lambda y: y, {}, None),
    "right, mask": (lambda: Inpainting(MASK, SHAPE), lambda y: y, {}, None),
    "right, latents": (lambda: Inpainting(MASK, SHAPE), lambda y: 5 * y, {}, None),
    "black": (lambda: Inpainting(MASK, SHAPE), lambda y: 0 * y, {}, None),
    "not looked at": (lambda: AveragePooling(SHAPE, 4), lambda y: y * 127.5, {"check_finite": False}, None),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_that_can_hardly_be_meant(name):
    make, change, options, pattern = VALUES[name]
    operator = make()
    denoiser = Denoiser(lambda x, t: torch.tanh(x), VP(), "sample")
    text = said(lambda: Sampler(denoiser, operator, DDNM(eta=0.0), **options)(change(measurement(operator)), seed=0))
    assert (pattern is None and not text) or (pattern and re.search(pattern, text)), text


def test_an_inverted_mask_and_an_output_that_blew_up():
    operator = Inpainting(MASK, SHAPE)
    denoiser = Denoiser(lambda x, t: torch.tanh(x), VP(), "sample")
    sampler = Sampler(denoiser, Inpainting(1 - MASK, SHAPE), DDNM())
    assert "is the mask inverted? 1 = observed" in said(lambda: sampler(measurement(operator), seed=0))
    blown = Sampler(Denoiser(lambda x, t: 100 * x.sign(), VP(), "sample"), operator, DDNM(eta=0.0))
    assert "result: images [0, 1] reach" in said(lambda: blown(measurement(operator), seed=0))


# ------------------------------------------------------------------------------------ images that are not finite
def spoiling(*bad):
    factor = torch.ones(4, 1, 1, 1)
    factor[list(bad)] = torch.nan
    return Denoiser(lambda x, t: 0.5 * x * factor[: len(x)], VP())


@pytest.mark.parametrize("bad", [(2,), (0, 3)])
def test_the_error_names_the_images_and_keeps_the_others(bad):
    operator = AveragePooling(SHAPE, 4)
    y, rest = measurement(operator, 4), [b for b in range(4) if b not in bad]
    good = Sampler(spoiling(), operator, DDNM())(y, seed=0)
    with pytest.raises(FloatingPointError, match=rf"images \[{', '.join(map(str, bad))}\] of 4") as caught:
        Sampler(spoiling(*bad), operator, DDNM())(y, seed=0)
    assert isinstance(caught.value, NonFiniteError)
    assert caught.value.images == list(bad)
    assert torch.equal(caught.value.result[rest], good[rest])
    assert pickle.loads(pickle.dumps(caught.value)).images == list(bad)
    with pytest.warns(RuntimeWarning, match="hold values that are not finite"):
        returned = Sampler(spoiling(*bad), operator, DDNM(), nan="return")(y, seed=0)
    assert torch.equal(returned[rest], good[rest])
    with pytest.raises(NonFiniteError) as caught:
        Sampler(spoiling(*bad), operator, DDNM()).sample(y, 3, seed=0)
    assert caught.value.images == list(bad)


def test_measurements_that_are_not_finite():
    operator = AveragePooling(SHAPE, 4)
    y = measurement(operator, 3)
    good = Sampler(spoiling(), operator, DDNM())(y, seed=0)
    y[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"y: must be finite, .* in images \[1\]; .*nan='return'"):
        Sampler(spoiling(), operator, DDNM())(y, seed=0)
    with pytest.warns(RuntimeWarning, match=r"images \[1\] of 3"):
        got = Sampler(spoiling(), operator, DDNM(), nan="return")(y, seed=0)
    assert torch.equal(got[[0, 2]], good[[0, 2]])


# ------------------------------------------------------------------------------------ noise of every image
@pytest.mark.parametrize("name", OPERATORS)
def test_noise_of_every_image(name):
    operator = OPERATORS[name]()
    denoiser, levels = Denoiser(NETWORK, VP()), [0.0, 0.1, 0.0, 0.2]
    sampler = Sampler(denoiser, operator, DDNM(), noise_std=0.1)
    y = measurement(operator, 4)
    seeds = [5, 6, 7, 8]
    got = sampler(y, seed=seeds, noise_std=torch.tensor(levels, dtype=torch.float64))
    for b, level in enumerate(levels):
        alone = Sampler(denoiser, operator, DDNM(), noise_std=level)(y[b : b + 1], seed=[seeds[b]])
        assert relative_error(got[b : b + 1], alone) < 10 * EQUAL
    assert torch.equal(sampler(y, seed=9, noise_std=0.1), sampler(y, seed=9))
    plans = dict(sampler._levels)
    sampler(y, seed=seeds, noise_std=levels)
    assert dict(sampler._levels) == plans, "a level is planned once"


def test_noise_of_every_image_with_masks_of_every_image():
    masks = (torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(4)) > 0.5).float()
    operator, denoiser = Inpainting(masks, SHAPE), Denoiser(NETWORK, VP())
    y = measurement(operator, 3)
    got = Sampler(denoiser, operator, DDNM())(y, seed=[1, 2, 3], noise_std=[0.1, 0.0, 0.1])
    for b, level in enumerate([0.1, 0.0, 0.1]):
        one = Inpainting(masks[b], SHAPE)
        alone = Sampler(denoiser, one, DDNM(), noise_std=level)(y[b : b + 1], seed=[b + 1])
        assert relative_error(got[b : b + 1], alone) < 10 * EQUAL


BAD_CALLS = {
    "number of levels": (lambda s, y: s(y, noise_std=[0.1]), ValueError, "noise_std: .* each of the 2 images, got 1"),
    "negative level": (lambda s, y: s(y, noise_std=[0.1, -1.0]), ValueError, "noise_std: must be a finite number >= 0"),
    "level in words": (lambda s, y: s(y, noise_std="0.1"), TypeError, "noise_std: must be a number"),
    "callback of levels": (
        lambda s, y: s(y, noise_std=[0.1, 0.2], callback=print),
        ValueError,
        "callback: sees one batch",
    ),
    "callback with a number": (lambda s, y: s(y, callback=lambda k, x: 1), TypeError, "callback: must return True"),
    "callback with images": (lambda s, y: s(y, callback=lambda k, x: x), TypeError, "callback: .* got a Tensor"),
    "seed of floats": (lambda s, y: s(y, seed=[1.5, 2.0]), TypeError, "seed: must be an integer"),
    "seed in words": (lambda s, y: s(y, seed="12"), TypeError, "seed: must be an integer"),
    "seed of bytes": (lambda s, y: s(y, seed=b"ab"), TypeError, "seed: must be an integer"),
    "seed of truth": (lambda s, y: s(y, seed=True), TypeError, "seed: must be an integer"),
    "seed of a float tensor": (
        lambda s, y: s(y, seed=torch.tensor(1.0)),
        TypeError,
        "seed: an array must hold integers",
    ),
    "seed of a mapping": (lambda s, y: s(y, seed={1: 2, 3: 4}), TypeError, "seed: must be an integer"),
    "n of a float": (lambda s, y: s.sample(y, 2.0), TypeError, "n: must be an integer"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls(name):
    act, error, message = BAD_CALLS[name]
    sampler = made("block", DDNM())
    with pytest.raises((error, ValueError), match=message):
        act(sampler, measurement(sampler.operator))


BAD_ARGUMENTS = {
    "times and steps": ({"times": [0.4, 0.1], "steps": 50}, "times: is the whole grid, here of 1 steps, .*steps=50"),
    "times and start": ({"times": [0.4, 0.1], "start": 0.4}, "times: .*start=0.4"),
    "check_finite": ({"check_finite": None}, "check_finite: must be True, False, got None"),
    "compile_network": ({"compile_network": "x"}, "compile_network: must be True"),
    "hard_consistency": ({"hard_consistency": 1}, "hard_consistency: must be True"),
    "nan": ({"nan": "ignore"}, "nan: must be 'raise' or 'return'"),
    "noise_std": ({"noise_std": [0.1, 0.2]}, "noise_std: must be a number"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments(name):
    arguments, message = BAD_ARGUMENTS[name]
    with pytest.raises((TypeError, ValueError), match=message):
        Sampler(Denoiser(NETWORK, VP()), AveragePooling(SHAPE, 4), DDNM(), **arguments)


def test_arguments_that_agree():
    denoiser, operator = Denoiser(NETWORK, VP()), AveragePooling(SHAPE, 4)
    y = measurement(operator)
    times = [0.4, 0.2, 0.1]
    want = Sampler(denoiser, operator, DDNM(), times=times)(y, seed=7)
    sampler = Sampler(denoiser, operator, DDNM(), times=times, steps=2, noise_std=torch.tensor(0.0))
    for seed in (7, np.int32(7), torch.tensor(7), np.uint64(7)):
        assert torch.equal(sampler(y, seed=seed), want)
    for seeds in ([1, 2], (np.int64(1), 2), torch.tensor([1, 2]), np.array([1, 2])):
        assert torch.equal(sampler(y, seed=seeds), sampler(y, seed=[1, 2]))
    drawn = [sampler(y, seed=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*drawn)
    for answer in (True, np.True_, torch.tensor(True)):
        steps = []
        sampler(y, seed=0, callback=lambda k, x, answer=answer, steps=steps: (steps.append(k), answer)[1])
        assert steps == [0]
