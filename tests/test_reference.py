"""The reference kernels: known answers of Philox, the noise stream, and rows against plain algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from row_shorthand import TERMS, residual, update

from ccfast.kernels import reference
from ccfast.operators import AveragePooling
from ccfast.testing import LIBRARY, relative_error

MASK = 0xFFFFFFFF


def philox_in_plain_python(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & MASK, (a >> 32) ^ c[3] ^ k[1], a & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [  # These are from kat_vectors of Random123.
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((MASK,) * 4, (MASK,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter, key, answer):
    words = [torch.tensor([word], dtype=torch.int64) for word in counter]
    got = reference.philox(words, reference.seed_words([key[0] | key[1] << 32], torch.device("cpu")))
    assert tuple(int(word) for word in got) == answer
    assert tuple(philox_in_plain_python(counter, key)) == answer


def draw(shape, seeds, samples=None, draws=None, step=0, dtype=torch.float32):
    count = len(seeds)
    words = [torch.tensor(v or [0] * count, dtype=torch.int64) for v in (samples, draws)]
    out = torch.full((count, *shape), torch.nan, dtype=dtype)
    return reference.normal(out, reference.seed_words(seeds, out.device), *words, step)


def test_noise_is_box_muller_of_the_documented_counter():
    seed, sample, which, step = 0xFEDCBA9876543210, 5, 3, 7
    got = draw((3, 7), [seed], [sample], [which], step).flatten()
    for i in (0, 1, 2, 3, 4, 13, 20):
        words = philox_in_plain_python((i // 4, step, sample, which), (seed & MASK, seed >> 32))
        a, b = words[2 * (i % 4 // 2) : 2 * (i % 4 // 2) + 2]
        radius = math.sqrt(-2 * math.log(((a >> 8) + 1) / 2**24))
        angle = 2 * math.pi * (b >> 8) / 2**24
        expected = radius * (math.cos(angle) if i % 2 == 0 else math.sin(angle))
        assert float(got[i]) == pytest.approx(expected, abs=2e-6)


def test_noise_is_normal_and_every_argument_gives_another_stream():
    base = draw((3, 64, 64), [1])
    others = [
        draw((3, 64, 64), [2]),
        draw((3, 64, 64), [1 | 1 << 40]),
        draw((3, 64, 64), [1], samples=[1]),
        draw((3, 64, 64), [1], draws=[1]),
        draw((3, 64, 64), [1], step=1),
    ]
    n = base.numel()
    for z in (base, *others):
        z = z.double()
        assert abs(float(z.mean())) < 4 / math.sqrt(n)
        assert abs(float(z.var()) - 1) < 4 * math.sqrt(2 / n)
        assert abs(float((z**3).mean())) < 4 * math.sqrt(15 / n)
        assert abs(float((z**4).mean()) - 3) < 4 * math.sqrt(96 / n)
    for z in others:
        assert abs(float((z * base).double().mean())) < 4 / math.sqrt(n)
    lag = (base.flatten()[1:] * base.flatten()[:-1]).double().mean()
    assert abs(float(lag)) < 4 / math.sqrt(n)


@pytest.mark.elsewhere
def test_noise_of_an_image_depends_neither_on_its_batch_nor_on_the_dtype():
    """The noise is the same to the last bits, in which torch's logarithm and cosine depend on an element's place."""
    batch, alone = draw((1, 5, 5), [9, 4, 9], [0, 0, 1]), draw((1, 5, 5), [4])
    torch.testing.assert_close(batch[1], alone[0], rtol=0, atol=LIBRARY[torch.float32])
    torch.testing.assert_close(batch[2], draw((1, 5, 5), [9], [1])[0], rtol=0, atol=LIBRARY[torch.float32])
    assert torch.equal(draw((1, 5, 5), [4], dtype=torch.float64).float(), alone)
    assert draw((3, 0), [1]).shape == (1, 3, 0)


@pytest.mark.elsewhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_row_is_its_formula(dtype):
    """A row of all nine terms, with network tensors in half precision, is its formula in float64."""
    operator = AveragePooling((2, 4, 6), 2)
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(3, 2, 4, 6, generator=generator) for name in ("x", "F", "r", "h", "ybar", "z")}
    for name in ("F", "r", "h"):
        tensors[name] = tensors[name].to(dtype)
    row = {name: float(a) for name, a in zip(TERMS, np.linspace(-0.9, 1.3, len(TERMS)), strict=True)}
    wide = {name: value.double() for name, value in tensors.items()}
    expected = sum(
        a * (operator.project(wide[name[1:]]) if name.startswith("P") else wide[name]) for name, a in row.items()
    )
    out, scaled = torch.full((3, 2, 4, 6), torch.nan), torch.full((3, 2, 4, 6), torch.nan, dtype=dtype)
    update(reference.bind(operator), row, tensors, out, scaled, 0.25)
    assert relative_error(out, expected) < 1e-6
    assert torch.equal(scaled, (0.25 * out).to(dtype))
    r = torch.full((3, 2, 4, 6), torch.nan, dtype=dtype)
    residual(reference.bind(operator), tensors["x"], tensors["F"], tensors["ybar"], 1.2, -0.7, r)
    expected = wide["ybar"] - operator.project(1.2 * wide["x"] - 0.7 * wide["F"])
    assert relative_error(r, expected) < {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]
