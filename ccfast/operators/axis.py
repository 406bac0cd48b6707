"""1-D matrices whose singular vectors are those of a fast transform, so that nothing of n^2 elements is made."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .fourier import even, response_of

__all__ = ["CircularAxis", "CosineAxis", "Factor", "TransformAxis", "check_rank", "least_kept"]

Constants = Callable[[str, Callable[[], Tensor]], Tensor]
"""Gives the tensor that a function makes, in the dtype and on the device of what is transformed; made once a name."""


class Factor(NamedTuple):
    """Thin SVD of a 1-D matrix (m, n) = u diag(s) v^T: u (m, r), s (r,) positive, v (n, r); float64."""

    u: Tensor
    s: Tensor
    v: Tensor


def least_kept(s: Tensor, cutoff: float, sides: tuple[int, int]) -> float:
    """The least singular value that counts: the cutoff, or what is zero but for rounding."""
    return max(cutoff, float(s.max()) * max(sides) * torch.finfo(torch.float64).eps)


def check_rank(name: str, rank: int, largest: float, cutoff: float) -> None:
    """ValueError unless a cutoff leaves a singular value."""
    if rank == 0:
        raise ValueError(
            f"{name}: cutoff must leave a singular value, got {cutoff} with a largest one of {largest:.3g}"
        )


class TransformAxis(ABC):
    """The thin SVD of a matrix (m, n) by a transform of length n and one of length m, O(n log n) in time.

    Each of the four transforms acts along dimension ``dim``, -1 or -2, and has the coordinates of ``factor``.

    Attributes:
        side, count: n and m.
        s: the singular values, (r,), all positive, in the order of their frequencies.
    """

    side: int
    count: int
    s: Tensor

    @abstractmethod
    def down(self, x: Tensor, dim: int, constants: Constants) -> Tensor:
        """V^T x."""

    @abstractmethod
    def lift(self, c: Tensor, dim: int, constants: Constants) -> Tensor:
        """V c."""

    @abstractmethod
    def encode(self, y: Tensor, dim: int, constants: Constants) -> Tensor:
        """S^-1 U^T y."""

    @abstractmethod
    def decode(self, c: Tensor, dim: int, constants: Constants) -> Tensor:
        """U c."""

    @cached_property
    def factor(self) -> Factor:
        """The same SVD as matrices of float64, for small sides and for kernels that multiply by matrices."""
        own: dict[str, Tensor] = {}

        def constants(name: str, make: Callable[[], Tensor]) -> Tensor:
            return own.setdefault(name, make())

        one = torch.eye(len(self.s), dtype=torch.float64)
        u, v = self.decode(one, -1, constants).mT, self.lift(one, -1, constants).mT
        return Factor(u.contiguous(), self.s, v.contiguous())


class CosineAxis(TransformAxis):
    """A correlation with a symmetric kernel, reflected at half a sample beyond the border, that a stride may follow.

    Let C_n be the orthonormal DCT-II, C_n x = t_k sum_j x_j cos(pi k (j + 1/2)/n), t_0 = 1/sqrt(n), t_k = sqrt(2/n).
    A kernel that is symmetric about the middle of the block of f = n/m samples that an output covers maps the cosine
    of frequency k to h_k times the cosine of the low-resolution frequency p with k = 2 m a + p or k = 2 m a - p, since

        cos(pi k (i + 1/2)/m) = (-1)^a cos(pi p (i + 1/2)/m),    h_k = sum_d kernel(d) cos(pi k d / n),

    so that H = C_m^T F C_n, where every column of F has at most one element. The frequencies k = m, 3m, ... vanish.
    Hence U is C_m^T, s_p is the norm of row p of F, and v_p is C_n^T F_p / s_p. Products of such matrices are of the
    same form. The DCT is a Fourier transform of the same length with twiddles (Makhoul, IEEE ASSP 28, 1980).

    Args:
        name: of the operator, for errors.
        count: m.
        place: the low-resolution frequency that each of the n frequencies goes to, (n,) int64; m for none.
        weight: the element of F there, (n,) float64.
        cutoff: singular values below it count as zero.
    """

    def __init__(self, name: str, count: int, place: np.ndarray, weight: np.ndarray, cutoff: float) -> None:
        self.side, self.count = len(place), count
        square = np.bincount(place, weight**2, count + 1)[:count]
        s = torch.from_numpy(np.sqrt(square))
        kept = (s >= least_kept(s, cutoff, (self.side, count))).numpy() & (square > 0)
        check_rank(name, int(kept.sum()), float(s.max()), cutoff)
        self.kept, self.s = np.flatnonzero(kept), s[torch.from_numpy(kept)]
        # What was cut off is not there for products either.
        self.place, self.weight = place, np.where(np.append(kept, False)[place], weight, 0.0)
        norm = np.append(np.sqrt(square), 1.0)[place]
        self.v = np.where(self.weight != 0, self.weight / np.where(norm > 0, norm, 1.0), 0.0)

    @classmethod
    def of_taps(
        cls, name: str, kernel: np.ndarray, n: int, center: int, stride: int, cutoff: float
    ) -> CosineAxis | None:
        """The axis of (Hx)_i = sum_k kernel[k] x[stride i + k - center], or None where it has not this form."""
        distance = np.arange(len(kernel)) - center - (stride - 1) / 2
        reach = round(2 * max(-distance[0], distance[-1]))
        if n % stride or reach < 0:
            return None
        taps = np.zeros(2 * reach + 1)  # at distances -reach/2, (1 - reach)/2, ..., reach/2
        taps[np.rint(2 * distance).astype(np.int64) + reach] = kernel
        if np.abs(taps - taps[::-1]).max() > 4 * np.finfo(np.float64).eps * np.abs(taps).max():
            return None
        k, count = np.arange(n), n // stride
        # cos(pi k d / n) at d of halves of a sample, with the angle reduced exactly.
        angles = np.cos(np.pi * np.arange(4 * n) / (2 * n))
        response = np.zeros(n)
        for tap, twice in zip(kernel, np.rint(2 * distance).astype(np.int64), strict=True):
            response += tap * angles[(k * twice) % (4 * n)]
        block, within = np.divmod(k, count)
        place = np.where(block % 2 == 0, within, count - within)
        sign = np.where((block + 1) // 2 % 2 == 0, 1.0, -1.0)
        # t_k / t_p, where p = 0 comes from k = 0 and from k > 0.
        ratio = np.where((place == 0) & (k > 0), math.sqrt(2.0), 1.0) / math.sqrt(stride)
        return cls(name, count, place, np.where(place < count, sign * ratio * response, 0.0), cutoff)

    def then(self, name: str, other: CosineAxis, cutoff: float) -> CosineAxis:
        """The axis of ``other`` after this one."""
        place = np.append(other.place, other.count)[self.place]
        return CosineAxis(name, other.count, place, self.weight * np.append(other.weight, 0.0)[self.place], cutoff)

    def multiplier(self, values: Tensor) -> Tensor:
        """Numbers for the singular values, (..., r), as numbers for the frequencies k, (..., n); m must equal n."""
        full = values.new_zeros(*values.shape[:-1], self.side)
        first = int(self.kept[0])
        if len(self.kept) == self.kept[-1] - first + 1:
            full[..., first : first + len(self.kept)] = values
        else:
            full[..., torch.from_numpy(self.kept)] = values
        return full

    @cached_property
    def aliases(self) -> tuple[Tensor, Tensor]:
        """The frequencies that each coordinate gathers and their elements of V, (f, r); zero where there are fewer."""
        rank = len(self.kept)
        coordinate = np.full(self.count + 1, rank)
        coordinate[self.kept] = np.arange(rank)
        own = coordinate[self.place]
        order = np.argsort(own, kind="stable")
        order = order[own[order] < rank]
        own = own[order]
        turn = np.arange(len(own)) - np.searchsorted(own, own)
        index, element = np.zeros((turn.max() + 1, rank), np.int64), np.zeros((turn.max() + 1, rank))
        index[turn, own], element[turn, own] = order, self.v[order]
        return torch.from_numpy(index), torch.from_numpy(element)

    def down(self, x: Tensor, dim: int, constants: Constants) -> Tensor:
        spectrum = dct(x, dim, constants)
        index, element = (constants(f"aliases {k}", lambda k=k: self.aliases[k]) for k in range(2))
        parts = [
            spectrum.index_select(dim, i) * along(v, dim) for i, v in zip(index.unbind(), element.unbind(), strict=True)
        ]
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def lift(self, c: Tensor, dim: int, constants: Constants) -> Tensor:
        def source() -> Tensor:
            return torch.from_numpy(np.searchsorted(self.kept, self.place).clip(max=len(self.kept) - 1))

        element = constants("elements", lambda: torch.from_numpy(self.v))
        return idct(c.index_select(dim, constants("sources", source)) * along(element, dim), dim, constants)

    def encode(self, y: Tensor, dim: int, constants: Constants) -> Tensor:
        kept = constants("kept", lambda: torch.from_numpy(self.kept))
        return dct(y, dim, constants).index_select(dim, kept) * along(constants("inverse", lambda: 1 / self.s), dim)

    def decode(self, c: Tensor, dim: int, constants: Constants) -> Tensor:
        def source() -> Tensor:
            return torch.from_numpy(np.searchsorted(self.kept, np.arange(self.count)).clip(max=len(self.kept) - 1))

        def there() -> Tensor:
            return torch.from_numpy(np.isin(np.arange(self.count), self.kept).astype(np.float64))

        spectrum = c.index_select(dim, constants("places", source)) * along(constants("there", there), dim)
        return idct(spectrum, dim, constants)


class CircularAxis(TransformAxis):
    """A correlation with any kernel and a circular border, whose singular vectors are those of ``FourierBlur``.

    V is the Hartley basis cas(2 pi f j / n)/sqrt(n), s = |k_hat| and U = H V S^-1.

    Args:
        name: of the operator, for errors.
        kernel, center: the taps, and the index of the one that meets the sample itself.
        n: the number of samples.
        cutoff: singular values below it count as zero.
    """

    def __init__(self, name: str, kernel: np.ndarray, n: int, center: int, cutoff: float) -> None:
        self.side = self.count = n
        response = response_of(torch.from_numpy(kernel.copy())[None], (center,), (n,))
        s = even(response.abs())[0, 0]
        self.kept = (s >= least_kept(s, cutoff, (n, n))).nonzero()[:, 0]
        check_rank(name, len(self.kept), float(s.max()), cutoff)
        self.response, self.s = response[0, 0], s[self.kept]

    def _phase(self) -> Tensor:
        """k_hat / |k_hat| where that is kept, zero elsewhere, at the frequencies of rfft."""
        phase = torch.zeros(self.side, dtype=torch.complex128)
        phase[self.kept] = self.response[self.kept] / self.s
        return phase[: self.side // 2 + 1]

    def _filter(self, x: Tensor, dim: int, constants: Constants, conjugate: bool) -> Tensor:
        """U V^T x, or V U^T x."""
        if not x.numel():
            return x
        phase = along(constants("phase", self._phase), dim)
        return torch.fft.irfft(torch.fft.rfft(x, dim=dim) * (phase.conj() if conjugate else phase), self.side, dim)

    def down(self, x: Tensor, dim: int, constants: Constants) -> Tensor:
        return hartley_along(x, dim).index_select(dim, constants("kept", lambda: self.kept))

    def lift(self, c: Tensor, dim: int, constants: Constants) -> Tensor:
        def source() -> Tensor:
            return torch.searchsorted(self.kept, torch.arange(self.side)).clamp(max=len(self.kept) - 1)

        def there() -> Tensor:
            return torch.zeros(self.side, dtype=torch.float64).index_fill(0, self.kept, 1.0)

        full = c.index_select(dim, constants("sources", source)) * along(constants("there", there), dim)
        return hartley_along(full, dim)

    def encode(self, y: Tensor, dim: int, constants: Constants) -> Tensor:
        inverse = along(constants("inverse", lambda: 1 / self.s), dim)
        return self.down(self._filter(y, dim, constants, True), dim, constants) * inverse

    def decode(self, c: Tensor, dim: int, constants: Constants) -> Tensor:
        return self._filter(self.lift(c, dim, constants), dim, constants, False)


# ---------------------------------------------------------------------------------------- transforms along one axis
# MKL's FFT refuses tensors without elements, which have nothing to transform.
def along(values: Tensor, dim: int) -> Tensor:
    """Numbers of one axis, to be multiplied with what has it at ``dim``."""
    return values if dim == -1 else values.unsqueeze(-1)


def hartley_along(x: Tensor, dim: int) -> Tensor:
    """sum_j x_j cas(2 pi f j / n)/sqrt(n): real, orthonormal and its own inverse."""
    if not x.numel():
        return x
    spectrum = torch.fft.fft(x, dim=dim, norm="ortho")
    return spectrum.real - spectrum.imag


def dct(x: Tensor, dim: int, constants: Constants) -> Tensor:
    """The orthonormal DCT-II C_n x by one real Fourier transform of length n."""
    n = x.shape[dim]
    if not x.numel():
        return x
    order = constants(f"order {n}", lambda: torch.cat([torch.arange(0, n, 2), torch.arange(1, n, 2).flip(0)]))
    twiddles = along(constants(f"twiddles {n}", lambda: makhoul(n)), dim)
    spectrum = torch.fft.rfft(x.index_select(dim, order), dim=dim) * twiddles
    return torch.cat([spectrum.real, -spectrum.imag.narrow(dim, 1, (n - 1) // 2).flip(dim)], dim)


def idct(c: Tensor, dim: int, constants: Constants) -> Tensor:
    """C_n^T c, the inverse of ``dct``."""
    n = c.shape[dim]
    if not c.numel():
        return c
    mirrored = constants(f"mirrored {n}", lambda: (n - torch.arange(n // 2 + 1)) % n)
    signs = constants(f"signs {n}", lambda: torch.cat([torch.zeros(1), -torch.ones(n // 2)]).double())
    order = constants(f"back {n}", lambda: torch.stack([torch.arange(n), n - 1 - torch.arange(n)], 1).flatten()[:n])
    twiddles = along(constants(f"inverse twiddles {n}", lambda: 1 / makhoul(n)), dim)
    imaginary = c.index_select(dim, mirrored) * along(signs, dim)
    spectrum = torch.complex(c.narrow(dim, 0, n // 2 + 1), imaginary) * twiddles
    return torch.fft.irfft(spectrum, n, dim).index_select(dim, order)


def makhoul(n: int) -> Tensor:
    """t_k exp(-i pi k / 2n) for the frequencies k of rfft."""
    k = torch.arange(n // 2 + 1, dtype=torch.float64)
    scale = torch.full_like(k, math.sqrt(2.0 / n))
    scale[0] = math.sqrt(1.0 / n)
    return torch.polar(scale, -math.pi / (2 * n) * k)
