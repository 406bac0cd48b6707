"""The Operator: a linear degradation H given by its thin singular value decomposition.

    H = U S V^T,    encode(y) = S^-1 U^T y,    down(x) = V^T x,    lift(c) = V c

A member of this folder names its ``kind`` (the word that its kernels carry), writes these transforms, and gets the
rest: ``pinv(y) = lift(encode(y))`` is H+ y and ``project(x) = lift(down(x))`` is P x = H+ H x.
"""

from __future__ import annotations

import copy
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["ConstantKey", "Operator", "made_constant"]

ConstantKey = tuple[str, torch.dtype, torch.device]


class Operator(ABC):
    """A linear map from images (B, *shape) to measurements (B, *measurement_shape).

    ``shape`` is (C, H, W), or (C, L) for signals. Tensors may be of any floating dtype and on any device; what an
    operator holds is kept in float64 on the CPU and cast and moved once for each dtype and device it meets. Half
    precision inputs are computed in float32 and returned in their own dtype.

    Modes whose singular value is zero, or below the cutoff of the operator, are exactly zero in all transforms: in
    the coordinates of ``down`` and ``encode`` they are either left out or zero, and ``lift`` and ``decode`` ignore
    them. The shape of the input is checked by forward, adjoint, pinv and project, not by the four transforms that a
    member writes; those may return their argument itself where the transform is the identity.

    Attributes:
        kind: how P is applied: "mask", "block", "channel", "separable", "fourier", "dense" (by its own ``project``,
            no kernel knows more about it) or "krylov" (likewise, by an iteration; no singular values).
        shape: of one image.
        measurement_shape: of one measurement.
        singular_values: float64, broadcastable to the coordinates of one image (or of a batch, for an operator with
            parts of its own for every image); zero marks a mode outside the range.
        batch: number of images that the operator was made for, None for any number.
        any_channels: whether images with any number of channels are taken, whatever shape[0] says.
        exchangeable: whether all that the loop takes from a member, and that differs between two of them with equal
            shapes, are tensors from ``constant``: a captured graph then serves another one with other values in them.
        parts: names of the tensors whose first dimension is ``batch`` where that is not None.
    """

    kind: ClassVar[str]
    parts: ClassVar[tuple[str, ...]] = ("singular_values",)
    exchangeable: ClassVar[bool] = False
    shape: tuple[int, ...]
    measurement_shape: tuple[int, ...]
    singular_values: Tensor
    batch: int | None = None
    any_channels: bool = False
    _makers: dict[ConstantKey, Callable[[], Tensor]] | None = None
    """What makes the constants; only the operator that stands in for others in a captured graph keeps it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = made_on_the_cpu(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, shape: tuple[int, ...], measurement_shape: tuple[int, ...]) -> None:
        self.shape = check_shape(type(self).__name__, shape)
        self.measurement_shape = tuple(measurement_shape)
        self._cache: dict[ConstantKey, Tensor] = {}

    # ------------------------------------------------------------------------------------ what a member writes
    @abstractmethod
    def down(self, x: Tensor) -> Tensor:
        """V^T x: the coordinates of an image, (B, *shape) to (B, ...)."""

    @abstractmethod
    def lift(self, c: Tensor) -> Tensor:
        """V c: the image with these coordinates, (B, ...) to (B, *shape)."""

    @abstractmethod
    def encode(self, y: Tensor) -> Tensor:
        """S^-1 U^T y: the coordinates of H+ y, (B, *measurement_shape) to (B, ...)."""

    @abstractmethod
    def decode(self, c: Tensor) -> Tensor:
        """U c: the measurement with these coordinates, (B, ...) to (B, *measurement_shape)."""

    # ------------------------------------------------------------------------------------ what follows from it
    def forward(self, x: Tensor) -> Tensor:
        """H x, (B, *shape) to (B, *measurement_shape)."""
        self.check_image(x)
        return self.decode(self.scale(self.down(wide(x)), 1)).to(x.dtype)

    def adjoint(self, y: Tensor) -> Tensor:
        """H^T y, (B, *measurement_shape) to (B, *shape)."""
        self.check_measurement(y)
        return self.lift(self.scale(self.encode(wide(y)), 2)).to(y.dtype)

    def pinv(self, y: Tensor) -> Tensor:
        """H+ y, (B, *measurement_shape) to (B, *shape)."""
        self.check_measurement(y)
        return self.lift(self.encode(wide(y))).to(y.dtype)

    def project(self, x: Tensor) -> Tensor:
        """P x = H+ H x, the part of an image that the measurement determines, (B, *shape) to (B, *shape)."""
        self.check_image(x)
        return self.lift(self.down(wide(x))).to(x.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """H x, as ``forward``."""
        return self.forward(x)

    def scale(self, c: Tensor, power: int) -> Tensor:
        """Coordinates times singular values to a power (>= 0)."""
        return (c * self.constant("singular_values", lambda: self.singular_values, c) ** power).to(c.dtype)

    def repeat(self, n: int) -> Operator:
        """The operator for n copies of a batch, image k * batch + b having the parts of image b.

        An operator without parts of its own for every image serves any batch, and is returned as it is.
        """
        if not isinstance(n, int) or n < 1:
            raise ValueError(f"{type(self).__name__}.repeat: n must be a positive integer, got {n!r}")
        if self.batch is None:
            return self
        other = copy.copy(self)
        other._cache = {}
        other.batch = n * self.batch
        for name in self.parts:
            part = getattr(self, name)
            setattr(other, name, part.repeat(n, *[1] * (part.ndim - 1)))
        return other

    def take(self, places: Tensor) -> Operator:
        """The operator for some images of a batch, in the order of their places, (n,) integers."""
        if self.batch is None:
            return self
        other = copy.copy(self)
        other._cache, other.batch = {}, len(places)
        for name in self.parts:
            part = getattr(self, name)
            setattr(other, name, part[places.to(part.device)])
        return other

    # ------------------------------------------------------------------------------------ helpers
    def constant(self, name: str, make: Callable[[], Tensor], like: Tensor) -> Tensor:
        """A tensor of the operator in the precision (half: float32) and on the device of ``like``, made once a pair."""
        key = (name, compute_dtype(like), like.device)
        if key not in self._cache:
            self._cache[key] = made_constant(key, make)
            if self._makers is not None:
                self._makers[key] = make
        return self._cache[key]

    def image_shape(self, y: Tensor) -> tuple[int, ...]:
        """Shape of the image batch that a batch of measurements belongs to."""
        return (y.shape[0], *self.shape)

    def check_image(self, x: Tensor) -> None:
        """Raise unless x is a floating (B, *shape) and has as many images as the operator was made for."""
        self._check("x", x, self.shape)

    def check_measurement(self, y: Tensor) -> None:
        """Raise unless y is a floating (B, *measurement_shape), B as the operator was made for."""
        self._check("y", y, self.measurement_shape)

    def _check(self, name: str, value: Tensor, shape: tuple[int | None, ...]) -> None:
        """Raise unless the shape and the batch are right; None in ``shape`` stands for any number."""
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: {type(self).__name__} takes a torch.Tensor, got {type(value).__name__}")
        if not value.is_floating_point():
            raise TypeError(f"{name}: {type(self).__name__} takes a floating point tensor, got {value.dtype}")
        own = tuple(value.shape[1:])
        if own != shape and (len(own) != len(shape) or any(map(_misfit, shape, own))):
            expected = ", ".join("C" if n is None else str(n) for n in shape)
            raise ValueError(
                f"{name}: {type(self).__name__} takes shape (B, {expected}), got {tuple(value.shape)}"
                f"{self._cure(name, tuple(value.shape), shape)}"
            )
        if self.batch is not None and value.shape[0] != self.batch:
            raise ValueError(
                f"{name}: this {type(self).__name__} holds parts for {self.batch} images, got {value.shape[0]}"
            )

    def _cure(self, name: str, given: tuple[int, ...], shape: tuple[int | None, ...]) -> str:
        """What to write instead of a batch that does not have this shape, where that can be guessed."""
        if len(given) == len(shape) and not any(map(_misfit, shape, given)):
            return f"; write {name}[None] for one image"
        if len(shape) == 3 and len(given) == 4 and not any(map(_misfit, shape, (given[3], *given[1:3]))):
            return f"; its channels come last, write {name}.permute(0, 3, 1, 2)"
        if len(self.shape) == 2 and len(given) == 4:
            return "; this operator is for signals (C, L), and one for images is made with a shape (C, H, W)"
        return ""

    def __repr__(self) -> str:
        parts = [f"{self.shape} -> {self.measurement_shape}", f"kind={self.kind!r}", self._extent()]
        if self.batch is not None:
            parts.append(f"for {self.batch} images")
        return f"{type(self).__name__}({', '.join(part for part in parts if part)})"

    def _extent(self) -> str:
        """What is known of the singular values, in words."""
        if self.kind == "krylov":
            return ""
        s = self.singular_values
        if self.kind == "mask":
            return f"{float((s > 0).double().mean()):.1%} observed"
        low, high = float(s[s > 0].min()), float(s.max())
        return f"singular values {low:.3g}" + (f" to {high:.3g}" if high > low else "")


def made_on_the_cpu(make: Callable[..., None]) -> Callable[..., None]:
    """An ``__init__`` that makes its tensors on the CPU, whatever the default device of the caller is."""

    @functools.wraps(make)
    def init(self: Operator, *args: Any, **kwargs: Any) -> None:
        if torch.get_default_device().type == "cpu":
            make(self, *args, **kwargs)
        else:
            with torch.device("cpu"):
                make(self, *args, **kwargs)

    return init


def _misfit(want: int | None, got: int) -> bool:
    return want is not None and want != got


def made_constant(key: ConstantKey, make: Callable[[], Tensor]) -> Tensor:
    """What ``Operator.constant`` keeps under a key: indices as they are, other tensors in the dtype of the key."""
    _, real, device = key
    with torch.inference_mode(False):  # One made in inference mode could not serve a later backward.
        value = make()
        # Code under torch.compile cannot ask this, and need not.
        if not torch.compiler.is_compiling() and value.is_inference():
            value = value.clone()
        dtype = complex_dtype(real) if value.is_complex() else real if value.is_floating_point() else value.dtype
        return value.to(dtype=dtype, device=device)


def compute_dtype(like: Tensor) -> torch.dtype:
    return torch.float64 if like.dtype in (torch.float64, torch.complex128) else torch.float32


def complex_dtype(real: torch.dtype) -> torch.dtype:
    """``real.to_complex()``, which torch.compile does not know, of float32 and float64."""
    return torch.complex128 if real == torch.float64 else torch.complex64


def wide(x: Tensor) -> Tensor:
    """x in the dtype that it is computed in: half precision becomes float32."""
    return x.to(compute_dtype(x))


# ---------------------------------------------------------------------------------------- checks of arguments
def check_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A (C, H, W) or (C, L) of positive integers, or ValueError with what to write instead.

    What is certain to be a picture without its channels, or with its channels last, is refused, too, since it would
    pass for a signal with hundreds of channels, or for an image with a few columns.
    """
    sides = tuple(shape) if isinstance(shape, Iterable) and not isinstance(shape, str) else ()
    if len(sides) not in (2, 3) or not all(is_integer(n) and n > 0 for n in sides):
        more = f"; write shape={sides[1:]}, of one image, without the batch" if len(sides) == 4 else ""
        raise ValueError(
            f"{name}: shape must be (C, H, W) or (C, L) with positive integers, got {sides if sides else shape!r}{more}"
        )
    sides = tuple(int(n) for n in sides)
    if is_picture(sides, LARGE, 2):
        h, w = sides
        raise ValueError(
            f"{name}: shape must be (C, H, W), or (C, L) for signals, got {sides}, which looks like an image without "
            f"channels; write shape=(3, {h}, {w}) for colour, (1, {h}, {w}) for one channel"
        )
    if channels_last(sides):
        h, w, channels = sides
        raise ValueError(
            f"{name}: shape must be (C, H, W), got {sides}, which looks like (H, W, C); "
            f"write shape=({channels}, {h}, {w})"
        )
    return sides


LARGE = 64
"""From this side on two numbers of a like size are those of an image, and not channels and length of a signal."""


def is_picture(sides: tuple[int, ...], least: int, ratio: float) -> bool:
    """Whether two numbers are the sides of an image: at least ``least``, and the ratio of the two below ``ratio``."""
    return len(sides) == 2 and min(sides) >= least and max(sides) < ratio * min(sides)


def channels_last(sides: tuple[int, ...]) -> bool:
    """Whether these are the sides of an image and then 1, 3 or 4 channels."""
    return len(sides) == 3 and sides[2] in (1, 3, 4) and min(sides[:2]) >= 16


def is_integer(value: object) -> bool:
    """Whether a value is an integer of Python or numpy, and no bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_factor(name: str, factor: int, shape: tuple[int, ...]) -> int:
    """A positive integer that divides every side of the image, or ValueError."""
    if not is_integer(factor) or factor < 1:
        raise ValueError(f"{name}: factor must be a positive integer, got {factor!r}")
    if any(n % factor for n in shape[1:]):
        raise ValueError(f"{name}: the sides of shape must be divisible by factor {factor}, got {shape}")
    return int(factor)


def check_cutoff(name: str, cutoff: float) -> float:
    """A finite number >= 0, or ValueError."""
    cutoff = float(cutoff)
    if not (math.isfinite(cutoff) and cutoff >= 0):
        raise ValueError(f"{name}: cutoff must be a finite number >= 0, got {cutoff}")
    return cutoff


def check_array(name: str, argument: str, value: Any) -> Tensor:
    """A list, array or tensor of finite numbers as a float64 tensor of its own on the CPU; or TypeError, ValueError."""
    try:
        # NumPy takes views that run backwards, and lists of floats without loss of digits.
        array = value.detach().cpu() if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: {argument} must be an array of numbers, got {type(value).__name__}") from error
    if array.is_complex():
        raise TypeError(f"{name}: {argument} must be an array of real numbers, got {array.dtype}")
    tensor = array.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
    if not tensor.isfinite().all():
        raise ValueError(f"{name}: {argument} must be finite, got {value}")
    return tensor
