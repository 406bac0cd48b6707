"""Operators that act on rows and columns by one matrix each: H = H_rows x H_columns, on every channel alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._convolution import border_index, check_boundary, check_convention, check_kernel, correlation_taps
from .axis import CircularAxis, CosineAxis, Factor, TransformAxis, check_rank
from .operator import Operator, check_cutoff, check_shape, wide

__all__ = ["Separable", "SeparableBlur"]

TRANSFORM_FROM = 128
"""The least side at which an axis is kept as a fast transform, where there is one, and not as an SVD of matrices.

Smaller ones keep the coordinates that recorded results were made with. The number is a choice and was not measured."""

MATRICES_BELOW = 2048
"""The side from which torch's Fourier transforms are used in place of its products with the matrices of an axis.

It was chosen from one run on a busy machine, and no quiet one confirms it yet."""


def thin_svd(name: str, matrix: np.ndarray, cutoff: float) -> Factor:
    """The SVD of a 1-D matrix without the singular values below cutoff (and those that are zero but for rounding)."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    rank = int((s >= max(cutoff, s[0] * max(matrix.shape) * np.finfo(np.float64).eps)).sum()) if s[0] > 0 else 0
    check_rank(name, rank, float(s[0]), cutoff)
    u, v = np.ascontiguousarray(u[:, :rank]), np.ascontiguousarray(vt[:rank].T)
    return Factor(torch.from_numpy(u), torch.from_numpy(s[:rank].copy()), torch.from_numpy(v))


def correlation_matrix(kernel: np.ndarray, n: int, center: int, stride: int, boundary: str) -> np.ndarray:
    """The matrix (rows, n) of (Hx)_i = sum_k kernel[k] x[stride i + k - center], for a kernel of any length.

    It has n // stride rows; with the boundary "valid" center is 0, the stride 1, and the n - len(kernel) + 1 rows are
    those that meet no border.
    """
    count = n - len(kernel) + 1 if boundary == "valid" else n // stride
    rows = np.arange(count)[:, None]
    columns = stride * rows + np.arange(len(kernel)) - center
    rows, taps = np.broadcast_to(rows, columns.shape), np.broadcast_to(kernel, columns.shape)
    matrix = np.zeros((count, n + 1), dtype=np.float64)
    np.add.at(matrix, (rows, columns if boundary == "valid" else border_index(columns, n, boundary)), taps)
    return np.ascontiguousarray(matrix[:, :n])  # The last column stands for the zeros outside.


@lru_cache(maxsize=16)
def correlation_factor(
    name: str, kernel: bytes, n: int, center: int, stride: int, boundary: str, cutoff: float
) -> Factor:
    """The Factor of correlation_matrix. It is kept, so that a square image needs one SVD, a second operator none."""
    return thin_svd(name, correlation_matrix(np.frombuffer(kernel), n, center, stride, boundary), cutoff)


def correlation_axis(
    name: str, kernel: bytes, n: int, center: int, stride: int, boundary: str, cutoff: float
) -> Factor | TransformAxis:
    """What correlation_matrix is on an axis: a fast transform where it has one and is large, else its SVD."""
    axis = transform_axis(name, kernel, n, center, stride, boundary, cutoff) if n >= TRANSFORM_FROM else None
    return axis or correlation_factor(name, kernel, n, center, stride, boundary, cutoff)


@lru_cache(maxsize=16)
def transform_axis(
    name: str, kernel: bytes, n: int, center: int, stride: int, boundary: str, cutoff: float
) -> TransformAxis | None:
    """The fast transform of correlation_matrix, or None where it has none; kept as its SVD is."""
    taps = np.frombuffer(kernel)
    if boundary == "reflect":
        return CosineAxis.of_taps(name, taps, n, center, stride, cutoff)
    if boundary == "circular" and stride == 1:
        return CircularAxis(name, taps, n, center, cutoff)
    return None


Applied = tuple[Tensor | None, Tensor, bool]
"""The matrix of the rows, None for signals; that of the columns, transposed; and whether the rows come first."""


class Separable(Operator):
    """Hx = H_rows x H_columns^T on every channel (x H^T along L for signals), from the SVDs of the 1-D matrices.

    With H_a = U_a S_a V_a^T on axis a:

        down(x) = V_r^T x V_c,    lift(c) = V_r c V_c^T,    encode(y) = S_r^-1 U_r^T y U_c S_c^-1

    Coordinates are (C, rank_r, rank_c), or (C, rank) for signals; what the 1-D SVDs dropped is left out of them.

    An axis is a Factor, whose matrices are multiplied with, or a TransformAxis, which is of the same SVD but needs no
    matrices where the side is large.

    Args:
        shape: of one image, (C, H, W) or (C, L).
        axes: the 1-D SVDs, rows first; (m, n) with n the side of the image on that axis.

    Raises:
        ValueError: not such a shape, or axes that do not fit it.
    """

    kind = "separable"

    def __init__(self, shape: tuple[int, ...], axes: Sequence[Factor | TransformAxis]) -> None:
        name = type(self).__name__
        shape = check_shape(name, shape)
        sides = tuple(axis.v.shape[0] if isinstance(axis, Factor) else axis.side for axis in axes)
        if sides != shape[1:]:
            raise ValueError(f"{name}: factors must be for sides {shape[1:]}, got {sides}")
        low = (axis.u.shape[0] if isinstance(axis, Factor) else axis.count for axis in axes)
        super().__init__(shape, (shape[0], *low))
        self.axes = tuple(axes)
        self._laid_out: dict[tuple[str, torch.dtype, torch.device], Applied] = {}
        s = [axis.s for axis in axes]
        self.singular_values = (s[0] if len(s) == 1 else torch.outer(*s))[None]
        ranks = [len(values) for values in s]
        if len(s) == 1:
            dense, thin = sides[0], 2 * ranks[0]
        else:
            (h, w), (p, q) = sides, ranks
            dense, thin = h * w * (h + w), 2 * min(p * w * (h + q), q * h * (w + p))
        self.dense_projection = dense < thin  # V V^T of each axis as one matrix is then cheaper
        self._fast = tuple(isinstance(axis, TransformAxis) and axis.side >= MATRICES_BELOW for axis in axes)
        self.transformed = any(self._fast)
        """Whether an axis is applied by a fast transform here, and not by matrices."""

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The SVD of every axis as matrices."""
        return tuple(axis if isinstance(axis, Factor) else axis.factor for axis in self.axes)

    def _matrix(self, name: str, axis: int, like: Tensor) -> Tensor:
        """One 1-D matrix, laid out to be applied as ``matrix @ column``."""

        def make() -> Tensor:
            u, s, v = self.factors[axis]
            makes = {
                "down": lambda: v.mT,
                "lift": lambda: v,
                "encode": lambda: (u / s).mT,
                "decode": lambda: u,
                "project": lambda: v @ v.mT,
            }
            return makes[name]()

        return self.constant(f"{name}{axis}", make, like)

    def _apply(self, name: str, x: Tensor) -> Tensor:
        if self.transformed:
            return self._transform(name, wide(x)).to(x.dtype)
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
        *rows, columns = (self._matrix(key[0], axis, like) for axis in range(len(self.axes)))
        (q, w), rows = columns.shape, rows[0] if rows else None
        p, h = (0, 0) if rows is None else rows.shape
        self._laid_out[key] = applied = rows, columns.mT, p * w * (h + q) <= q * h * (w + p)
        return applied

    def _transform(self, name: str, x: Tensor) -> Tensor:
        """One of the four transforms, axis after axis."""
        for place, (axis, fast) in enumerate(zip(self.axes, self._fast, strict=True)):
            dim = place - len(self.axes)
            if isinstance(axis, Factor) or not fast:
                matrix = self._matrix(name, place, x)
                with true_float32():
                    x = matrix @ x if dim == -2 else x @ matrix.mT
            else:
                # Two axes that are one object share their constants.
                kept = partial(self._of_axis, self.axes.index(axis), x)
                x = getattr(axis, name)(x, dim, kept)
        return x

    def _of_axis(self, place: int, like: Tensor, name: str, make: Callable[[], Tensor]) -> Tensor:
        return self.constant(f"axis {place} {name}", make, like)

    def down(self, x: Tensor) -> Tensor:
        return self._apply("down", x)

    def lift(self, c: Tensor) -> Tensor:
        return self._apply("lift", c)

    def encode(self, y: Tensor) -> Tensor:
        return self._apply("encode", y)

    def decode(self, c: Tensor) -> Tensor:
        return self._apply("decode", c)

    def project(self, x: Tensor) -> Tensor:
        if self.transformed or not self.dense_projection:
            return super().project(x)
        self.check_image(x)
        return self._apply("project", x)


class SeparableBlur(Separable):
    """(Hx)_i = sum_k kernel[k] x[i + k - center], on rows and on columns (along L only for signals).

    This is a correlation, the rule of cv2.filter2D, of torch.nn.functional.conv1d and of scipy.ndimage.correlate1d.
    ``convention="convolution"`` flips the kernel, (Hx)_i = sum_k kernel[k] x[i - k + center], as numpy.convolve and
    scipy.ndimage.convolve1d do; the two differ where the kernel is not symmetric. The pixels beyond the border are,
    with the names that other tools give them,

        boundary       a b c d is followed by    numpy.pad      scipy.ndimage    torch        OpenCV
        "zero"         0 0 0 0                   "constant"     "constant"       "constant"   BORDER_CONSTANT
        "reflect"      d c b a                   "symmetric"    "reflect"        -            BORDER_REFLECT
        "mirror"       c b a b                   "reflect"      "mirror"         "reflect"    BORDER_REFLECT_101
        "replicate"    d d d d                   "edge"         "nearest"        "replicate"  BORDER_REPLICATE
        "circular"     a b c d                   "wrap"         "wrap"           "circular"   BORDER_WRAP

    With "valid" the image is a canvas that reaches beyond the border of the measurement, which holds the
    n - len(kernel) + 1 pixels of each side that meet no border. What lies outside is then part of what is restored.

    Args:
        shape: of one image, (C, H, W) or (C, L).
        kernel: 1-D and finite; it may be longer than the image, unless the boundary is "valid".
        center: index of the tap that meets the pixel itself, len(kernel) // 2 if None. With "valid" it only says
            which canvas pixel a pixel of the measurement is called after, and changes nothing.
        boundary: one of the names above.
        cutoff: singular values of the 1-D matrices below it count as zero.
        convention: "correlation" or "convolution".
        normalize: True divides the kernel by its sum. None keeps it, with a warning if it does not sum to one; False
            keeps it without.

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
        *,
        convention: str = "correlation",
        normalize: bool | None = None,
    ) -> None:
        name = type(self).__name__
        shape = check_shape(name, shape)
        kernel = check_kernel(name, kernel, 1, normalize)
        center = kernel.numel() // 2 if center is None else center
        if not isinstance(center, int) or isinstance(center, bool):
            raise TypeError(f"{name}: center must be an integer or None, got {center!r}")
        if not 0 <= center < kernel.numel():
            raise ValueError(f"{name}: center must be an index into the {kernel.numel()} taps of kernel, got {center}")
        boundary, cutoff = check_boundary(name, boundary), check_cutoff(name, cutoff)
        kernel, (center,) = correlation_taps(kernel, (center,), check_convention(name, convention))
        super().__init__(shape, correlation_axes(name, shape[1:], [(kernel, center)], boundary, cutoff))


def correlation_axes(
    name: str, sides: tuple[int, ...], taps: Sequence[tuple[Tensor, int]], boundary: str, cutoff: float
) -> list[Factor | TransformAxis]:
    """The axes, from the (kernel, center) of each, or from one that they share."""
    axes: list[Factor | TransformAxis] = []
    for n, (kernel, center) in zip(sides, taps if len(taps) == len(sides) else [*taps] * len(sides), strict=True):
        if boundary == "valid":
            check_fits(name, (n,), (len(kernel),))
            center = 0
        axes.append(correlation_axis(name, kernel.numpy().tobytes(), n, center, 1, boundary, cutoff))
    return axes


def check_fits(name: str, sides: tuple[int, ...], taps: tuple[int, ...]) -> None:
    """ValueError unless a kernel has a place on a canvas where it meets no border."""
    if any(k > n for n, k in zip(sides, taps, strict=True)):
        raise ValueError(
            f"{name}: boundary 'valid' needs a kernel that is not longer than the canvas, got {taps} taps for {sides}"
        )


def true_float32() -> AbstractContextManager[object]:
    """Run float32 matmuls in float32, whatever torch.set_float32_matmul_precision says; tf32 would cost P four digits.

    Code that torch.compile traces cannot change the setting, and keeps the one in force.
    """
    if torch.compiler.is_compiling() or (MATMULS[0].fp32_precision in EXACT and MATMULS[1].fp32_precision in EXACT):
        return NOTHING
    return lowered_precision()


@contextmanager
def lowered_precision() -> Iterator[None]:
    """Put settings that are not exact to "ieee" meanwhile."""
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
