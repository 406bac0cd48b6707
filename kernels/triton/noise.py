"""Unit Gaussian noise, in the stream that ``ccfast.kernels.reference.normal`` defines (Philox 4x32-10 and Box-Muller).

The GPU's approximate logarithm, sine and cosine are not used. All that is computed are additions, multiplications and a
square root, which IEEE rounds in one way, in the order of the C++ for the CPU. Without fused multiply-add the kernel
gives the same bits on every device.
"""

# The compiler of Triton unrolls tl.static_range, which is not to be iterated in Python.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .launches import VECTOR, Call, launch, units

__all__ = ["normal", "philox"]


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Four words from a counter of four words and a key of two, all of them uint32."""
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, 0xD2511F53), c0 * 0xD2511F53
        high2, low2 = tl.umulhi(c2, 0xCD9E8D57), c2 * 0xCD9E8D57
        c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def log_positive(u):
    """ln u for a normal u > 0, as u = 2^e m with m in [sqrt(1/2), sqrt(2)) and a polynomial of Cephes (2 ulp)."""
    bits = u.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) >> 23  # This is the exponent of u / sqrt(1/2).
    e = exponent.to(tl.float32)
    x = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    z = x * x
    y = x * 7.0376836292e-2 - 1.1514610310e-1
    y = y * x + 1.1676998740e-1
    y = y * x - 1.2420140846e-1
    y = y * x + 1.4249322787e-1
    y = y * x - 1.6668057665e-1
    y = y * x + 2.0000714765e-1
    y = y * x - 2.4999993993e-1
    y = y * x + 3.3333331174e-1
    y = y * x * z - 2.12194440e-4 * e - 0.5 * z
    return x + y + 0.693359375 * e


@triton.jit
def cosine_sine(angle):
    """The cosine and sine of an angle in [0, 2 pi], by polynomials after quarter turns take it to [-pi/4, pi/4]."""
    quarter = (angle * 0.636619772 + 0.5).to(tl.int32)
    q = quarter.to(tl.float32)
    x = ((angle - q * 1.5703125) - q * 4.83751296997e-4) - q * 7.5497899549e-8
    z = x * x
    s = ((z * -1.9515295891e-4 + 8.3321608736e-3) * z - 1.6666654611e-1) * z * x + x
    c = ((z * 2.443315711809948e-5 - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z - 0.5 * z + 1.0
    odd = (quarter & 1) != 0
    sine, cosine = tl.where(odd, c, s), tl.where(odd, s, c)
    sine = tl.where((quarter & 2) != 0, -sine, sine)
    cosine = tl.where(((quarter + 1) & 2) != 0, -cosine, cosine)
    return cosine, sine


@triton.jit
def box_muller(a, b):
    """R cos(angle) and R sin(angle) of two words, which give R = sqrt(-2 ln u), u in (0, 1], and angle in [0, 2 pi)."""
    u = ((a >> 8) + 1).to(tl.int32).to(tl.float32) * 5.9604644775390625e-8  # 2^-24
    angle = (b >> 8).to(tl.int32).to(tl.float32) * 3.745070283e-7  # 2 pi / 2^24
    radius = tl.sqrt_rn(log_positive(u) * -2.0)
    cosine, sine = cosine_sine(angle)
    return radius * cosine, radius * sine


@triton.jit(do_not_specialize=["step", "count"])
def normal_kernel(p_out, p_seed, p_sample, p_draw, step, count, UNIT: tl.constexpr, BLOCK: tl.constexpr):
    """Counter (i, step, sample, draw) gives elements 4 i .. 4 i + 3 of an image, which has count * UNIT elements."""
    size = count * UNIT
    pieces = tl.cdiv(size, 4 * BLOCK)
    i_image = tl.program_id(0) // pieces
    i_first = tl.program_id(0) % pieces * BLOCK
    seed = tl.load(p_seed + i_image)
    zero = tl.zeros((BLOCK,), tl.uint32)
    c0 = (i_first + tl.arange(0, BLOCK)).to(tl.uint32)
    c1 = zero + step.to(tl.uint32)
    c2 = zero + tl.load(p_sample + i_image).to(tl.uint32)
    c3 = zero + tl.load(p_draw + i_image).to(tl.uint32)
    c0, c1, c2, c3 = philox(c0, c1, c2, c3, zero + seed.to(tl.uint32), zero + (seed >> 32).to(tl.uint32))
    b_0, b_1 = box_muller(c0, c1)
    b_2, b_3 = box_muller(c2, c3)
    p_image = p_out + i_image * size
    if UNIT % 4 == 0:
        b_out = tl.reshape(tl.join(tl.join(b_0, b_2), tl.join(b_1, b_3)), (4 * BLOCK,))
        o_element = 4 * i_first + tl.arange(0, 4 * BLOCK)
        tl.store(p_image + o_element, b_out, mask=o_element < size)
    else:  # A vector that is not aligned would be exchanged between threads through shared memory.
        o_element = 4 * (i_first + tl.arange(0, BLOCK))
        tl.store(p_image + o_element, b_0, mask=o_element < size)
        tl.store(p_image + o_element + 1, b_1, mask=o_element + 1 < size)
        tl.store(p_image + o_element + 2, b_2, mask=o_element + 2 < size)
        tl.store(p_image + o_element + 3, b_3, mask=o_element + 3 < size)


def normal(out: Tensor, seeds: Tensor, samples: Tensor, draws: Tensor, step: int) -> Call:
    """The launch that fills ``out``, contiguous float32 (B, ...), from seeds, samples and draws, (B,) int64."""
    size, how = out.numel() // out.shape[0], launch("normal", out.numel())
    arguments = (out, seeds, samples, draws, step, *units(size), how.block // VECTOR)
    return Call("normal", normal_kernel, out.shape[0] * triton.cdiv(size, how.block), how.warps, arguments, False)
