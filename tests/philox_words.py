"""A Triton kernel that only tests/test_triton.py uses: it writes the random words that the noise is made of."""

from __future__ import annotations

import triton
import triton.language as tl

from ccfast.kernels.triton.noise import philox

__all__ = ["philox_words"]


@triton.jit
def philox_words(p_out, p_counter, p_key, COUNT: tl.constexpr):
    """Words (4, COUNT) from counters (4, COUNT) and keys (COUNT,), all int64."""
    i = tl.arange(0, COUNT)
    c0 = tl.load(p_counter + i).to(tl.uint32)
    c1 = tl.load(p_counter + COUNT + i).to(tl.uint32)
    c2 = tl.load(p_counter + 2 * COUNT + i).to(tl.uint32)
    c3 = tl.load(p_counter + 3 * COUNT + i).to(tl.uint32)
    key = tl.load(p_key + i)
    c0, c1, c2, c3 = philox(c0, c1, c2, c3, key.to(tl.uint32), (key >> 32).to(tl.uint32))
    tl.store(p_out + i, c0.to(tl.int64))
    tl.store(p_out + COUNT + i, c1.to(tl.int64))
    tl.store(p_out + 2 * COUNT + i, c2.to(tl.int64))
    tl.store(p_out + 3 * COUNT + i, c3.to(tl.int64))
