"""Operators that act on rows and columns by one matrix each: H = H_rows x H_columns, on every channel alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .operator import Operator, check_array, check_cutoff, check_shape, wide

__all__ = ["Separable", "SeparableBlur"]

BOUNDARIES = ("zero", "reflect", "circular")


class Factor(NamedTuple):
    """Thin SVD of a 1-D matrix (m, n) = u diag(s) v^T: u (m, r), s (r,) descending and positive, v (n, r); float64."""

    u: Tensor
    s: Tensor
    v: Tensor


def thin_svd(name: str, matrix: np.ndarray, cutoff: float) -> Factor:
    """The SVD of a 1-D matrix without the singular values below cutoff (and those that are zero but for rounding)."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    rank = int((s >= max(cutoff, s[0] * max(matrix.shape) * np.finfo(np.float64).eps)).sum()) if s[0] > 0 else 0
    if rank == 0:
        raise ValueError(f"{name}: cutoff must leave a singular value, got {cutoff} with a largest one of {s[0]:.3g}")
    u, v = np.ascontiguousarray(u[:, :rank]), np.ascontiguousarray(vt[:rank].T)
    return Factor(torch.from_numpy(u), torch.from_numpy(s[:rank].copy()), torch.from_numpy(v))


def correlation_matrix(kernel: np.ndarray, n: int, center: int, stride: int, boundary: str) -> np.ndarray:
    """The (n // stride, n) matrix of (Hx)_i = sum_k kernel[k] x[stride * i + k - center], any length of kernel."""
    rows = np.arange(n // stride)[:, None]
    columns = stride * rows + np.arange(len(kernel)) - center
    rows, taps = np.broadcast_to(rows, columns.shape), np.broadcast_to(kernel, columns.shape)
    if boundary == "zero":
        inside = (columns >= 0) & (columns < n)
        rows, columns, taps = rows[inside], columns[inside], taps[inside]
    elif boundary == "circular":
        columns = columns % n
    else:  # half-sample symmetric: d c b a | a b c d | d c b a, of period 2 n
        columns = columns % (2 * n)
        columns = np.where(columns < n, columns, 2 * n - 1 - columns)
    matrix = np.zeros((n // stride, n), dtype=np.float64)
    np.add.at(matrix, (rows, columns), taps)
    return matrix


@lru_cache(maxsize=16)
def correlation_factor(
    name: str, kernel: bytes, n: int, center: int, stride: int, boundary: str, cutoff: float
) -> Factor:
    """The Factor of correlation_matrix, kept: a square image needs one SVD, and a second operator like it none."""
    return thin_svd(name, correlation_matrix(np.frombuffer(kernel), n, center, stride, boundary), cutoff)


Applied = tuple[Tensor | None, Tensor, bool]
"""The matrix of the rows, None for signals; that of the columns, transposed; and whether the rows come first."""


class Separable(Operator):
    """Hx = H_rows x H_columns^T on every channel (x H^T along L for signals), from the SVDs of the 1-D matrices.

    With H_a = U_a S_a V_a^T on axis a:

        down(x) = V_r^T x V_c,    lift(c) = V_r c V_c^T,    encode(y) = S_r^-1 U_r^T y U_c S_c^-1

    Coordinates are (C, rank_r, rank_c), or (C, rank) for signals; what the 1-D SVDs dropped is left out of them.

    Args:
        shape: of one image, (C, H, W) or (C, L).
        factors: the 1-D SVDs, rows first; (m, n) with n the side of the image on that axis.

    Raises:
        ValueError: not such a shape, or factors that do not fit it.
    """

    kind = "separable"

    def __init__(self, shape: tuple[int, ...], factors: Sequence[Factor]) -> None:
        name = type(self).__name__
        shape = check_shape(name, shape)
        sides = tuple(factor.v.shape[0] for factor in factors)
        if sides != shape[1:]:
            raise ValueError(f"{name}: factors must be for sides {shape[1:]}, got {sides}")
        super().__init__(shape, (shape[0], *(factor.u.shape[0] for factor in factors)))
        self.factors = tuple(factors)
        self._laid_out: dict[tuple[str, torch.dtype, torch.device], Applied] = {}
        s = [factor.s for factor in factors]
        self.singular_values = (s[0] if len(s) == 1 else torch.outer(*s))[None]
        ranks = [len(values) for values in s]
        if len(s) == 1:
            dense, thin = sides[0], 2 * ranks[0]
        else:
            (h, w), (p, q) = sides, ranks
            dense, thin = h * w * (h + w), 2 * min(p * w * (h + q), q * h * (w + p))
        self.dense_projection = dense < thin  # V V^T of each axis as one matrix costs fewer operations

    def _matrix(self, name: str, axis: int, like: Tensor) -> Tensor:
        """One 1-D matrix, laid out to be applied as ``matrix @ column``."""
        u, s, v = self.factors[axis]
        makes = {
            "down": lambda: v.mT,
            "lift": lambda: v,
            "encode": lambda: (u / s).mT,
            "decode": lambda: u,
            "project": lambda: v @ v.mT,
        }
        return self.constant(f"{name}{axis}", makes[name], like)

    def _apply(self, name: str, x: Tensor) -> Tensor:
        key = name, x.dtype, x.device
        rows, columns, rows_first = self._laid_out.get(key) or self._lay_out(key, x)
        given = x if x.dtype == columns.dtype else wide(x)
        with true_float32():
            if rows is None:
                result = given @ columns
            else:
                result = (rows @ given) @ columns if rows_first else rows @ (given @ columns)
        return result.to(x.dtype)

    def _lay_out(self, key: tuple[str, torch.dtype, torch.device], like: Tensor) -> Applied:
        """The matrices of a transform for tensors like this one, kept, since they are asked for many times a run."""
        *rows, columns = (self._matrix(key[0], axis, like) for axis in range(len(self.factors)))
        (q, w), rows = columns.shape, rows[0] if rows else None
        p, h = (0, 0) if rows is None else rows.shape
        self._laid_out[key] = applied = rows, columns.mT, p * w * (h + q) <= q * h * (w + p)
        return applied

    def down(self, x: Tensor) -> Tensor:
        return self._apply("down", x)

    def lift(self, c: Tensor) -> Tensor:
        return self._apply("lift", c)

    def encode(self, y: Tensor) -> Tensor:
        return self._apply("encode", y)

    def decode(self, c: Tensor) -> Tensor:
        return self._apply("decode", c)

    def project(self, x: Tensor) -> Tensor:
        if not self.dense_projection:
            return super().project(x)
        self.check_image(x)
        return self._apply("project", x)


class SeparableBlur(Separable):
    """(Hx)_i = sum_k kernel[k] x[i + k - center], on rows and on columns (along L only for signals).

    Args:
        shape: of one image, (C, H, W) or (C, L).
        kernel: 1-D, finite; may be longer than the image.
        center: index of the tap that meets the pixel itself; None: len(kernel) // 2.
        boundary: "zero", "reflect" (the edge is repeated: index -1 is 0) or "circular".
        cutoff: singular values of the 1-D matrices below it count as zero.

    Raises:
        ValueError: an argument against these rules, or a cutoff that leaves nothing.
        TypeError: a kernel that is not numbers, or a center that is not an integer.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        kernel: Any,
        center: int | None = None,
        boundary: str = "reflect",
        cutoff: float = 0.03,
    ) -> None:
        name = type(self).__name__
        shape = check_shape(name, shape)
        kernel = check_array(name, "kernel", kernel)
        if kernel.ndim != 1 or kernel.numel() == 0:
            raise ValueError(f"{name}: kernel must be 1-D and not empty, got shape {tuple(kernel.shape)}")
        center = kernel.numel() // 2 if center is None else center
        if not isinstance(center, int):
            raise TypeError(f"{name}: center must be an integer or None, got {center!r}")
        if not 0 <= center < kernel.numel():
            raise ValueError(f"{name}: center must be an index into the {kernel.numel()} taps of kernel, got {center}")
        if boundary not in BOUNDARIES:
            raise ValueError(f"{name}: boundary must be one of {', '.join(BOUNDARIES)}, got {boundary!r}")
        cutoff = check_cutoff(name, cutoff)
        taps = kernel.numpy().tobytes()
        super().__init__(shape, [correlation_factor(name, taps, n, center, 1, boundary, cutoff) for n in shape[1:]])


def true_float32() -> AbstractContextManager[object]:
    """Float32 matmuls in float32, whatever torch.set_float32_matmul_precision says: tf32 would cost P four digits.

    Code that torch.compile traces cannot change the setting, and keeps the one in force.
    """
    if torch.compiler.is_compiling() or (MATMULS[0].fp32_precision in EXACT and MATMULS[1].fp32_precision in EXACT):
        return NOTHING
    return lowered_precision()


@contextmanager
def lowered_precision() -> Iterator[None]:
    """Settings that are not exact, put to "ieee" meanwhile."""
    lowered = [(setting, setting.fp32_precision) for setting in MATMULS if setting.fp32_precision not in EXACT]
    for setting, _ in lowered:
        setting.fp32_precision = "ieee"
    try:
        yield
    finally:
        for setting, value in lowered:
            setting.fp32_precision = value


EXACT, NOTHING = ("none", "ieee"), nullcontext()
MATMULS: Any = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # pyright: ignore[reportAttributeAccessIssue]
"""The settings of torch for matrix products, of the GPU and of the CPU."""
