"""A linear physics of deepinv as H and H^T on plain tensors, in the dtype and on the device of what they are given."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from ..operators.operator import complex_dtype

__all__ = ["Conversions", "PhysicsMap", "buffers_of", "fraction_of", "pack", "parts_of"]

ROUNDING = 2000.0
"""Times the rounding of the dtype: the relative difference by which two ways to compute H x may differ."""


class PhysicsMap:
    """H and H^T of a physics between images (B, *shape) and measurements (B, *measurement_shape).

    Images of four or more dimensions, such as videos (C, T, H, W), are folded to (C T, H, W). Of measurements that are
    lists of tensors the parts are flattened and put one after another, (M,). Complex numbers become a last dimension 2.

    Args:
        physics: has A and, where that is not found by automatic differentiation, A_adjoint.
        shape: of an image as the physics takes it, without the batch.
        dtype, device: of the images on which it is tried now.

    Attributes:
        batch: the number of images that the physics holds parts for, None for any.
        one_by_one: whether the physics takes one image in a call.
        measurement_shape: of one packed measurement.

    Raises:
        ValueError: A is not linear, or cannot be called with images of this shape.
    """

    def __init__(self, physics: Any, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.physics, self.name = physics, type(physics).__name__
        self.image_shape = tuple(shape)
        self.shape = folded(self.image_shape)
        self.on = Conversions(physics)
        self.one_by_one = False
        zeros, self.batch, measured = self._tried(dtype, device)
        self.parts = parts_of(measured)
        self.listed = None if isinstance(measured, Tensor) else type(measured)
        packed = pack(measured)
        self.measurement_shape = tuple(packed.shape[1:])
        self.one_by_one = self.batch is None and not self._takes_two(zeros)
        self.check_linear(zeros)
        self._own_adjoint: dict[torch.dtype, bool] = {}
        self.adjoint(self.forward(zeros))

    def _tried(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, int | None, Any]:
        """An image of zeros, the number of images that are needed, and the measurement of zeros."""
        failed: Exception | None = None
        for count in (1, *batches_of(self.physics)):
            zeros = torch.zeros((count, *self.image_shape), dtype=dtype, device=device)
            try:
                with torch.no_grad():
                    measured = self.on(zeros).A(zeros)
            except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, AttributeError) as error:
                failed = failed or error
                continue
            found = parts_of(measured)[0].shape[0]
            if found != count:
                zeros = zeros.repeat(found, *(1 for _ in self.image_shape))
                with torch.no_grad():
                    measured = self.on(zeros).A(zeros)
            return zeros, found if found > 1 else None, measured
        raise ValueError(
            f"shape: must be that of one image that the A of {self.name} takes, got {self.image_shape}, with which it "
            f"raises {type(failed).__name__}: {failed}"
        ) from failed

    def _takes_two(self, zeros: Tensor) -> bool:
        """Whether a batch of two images can be measured in one call."""
        try:
            return self.forward(zeros.repeat(2, *(1 for _ in self.image_shape)).reshape(2, *self.shape)).shape[0] == 2
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
            return False

    def check_linear(self, like: Tensor) -> None:
        """Raise ValueError unless H (x + 2 z) = H x + 2 H z on random images."""
        x, z = self.random(like, 0), self.random(like, 1)
        apart = self.forward(x) + 2.0 * self.forward(z)
        if not fraction_of(self.forward(x + 2.0 * z) - apart, apart) < ROUNDING * torch.finfo(like.dtype).eps:
            raise ValueError(
                f"physics: must be linear, got {self.name}, whose A(x + 2 z) is not A(x) + 2 A(z) on random images"
            )

    def random(self, like: Tensor, seed: int) -> Tensor:
        """White images for trials, as many as the physics takes."""
        draws = torch.randn(
            (self.batch or 1, *self.shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        return draws.to(dtype=like.dtype, device=like.device)

    def _is_adjoint(self, like: Tensor) -> bool:
        """Whether <H x, y> = <x, A_adjoint(y)> on random vectors."""
        x = self.random(like, 2)
        measured = self.forward(x)
        draws = torch.randn(measured.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        y = measured + draws.to(measured) * measured.square().mean().sqrt()
        try:
            found = self._given_adjoint(y)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError):
            return False
        if found.shape != x.shape or found.dtype != x.dtype:
            return False
        left, right = float((measured.double() * y.double()).sum()), float((x.double() * found.double()).sum())
        scale = float(measured.double().norm() * y.double().norm() + x.double().norm() * found.double().norm())
        return abs(left - right) <= ROUNDING * torch.finfo(like.dtype).eps * scale

    # ------------------------------------------------------------------------------------ H and H^T
    def unfold(self, x: Tensor) -> Tensor:
        """Images as the physics takes them."""
        return x.reshape(x.shape[0], *self.image_shape)

    def forward(self, x: Tensor) -> Tensor:
        """H x for as many images as the physics takes."""
        if self.one_by_one and len(x) > 1:
            return torch.cat([self.forward(image) for image in x.split(1)])
        with torch.no_grad():
            return pack(self.on(x).A(self.unfold(x)))

    def adjoint(self, y: Tensor) -> Tensor:
        """H^T y, by automatic differentiation where the physics has no A_adjoint, or one that is not the transpose."""
        if self.one_by_one and len(y) > 1:
            return torch.cat([self.adjoint(one) for one in y.split(1)])
        if y.dtype not in self._own_adjoint:  # Some physics have one for float32 alone.
            self._own_adjoint[y.dtype] = self._is_adjoint(y)
        return self._given_adjoint(y) if self._own_adjoint[y.dtype] else self._transposed(y)

    def _given_adjoint(self, y: Tensor) -> Tensor:
        with torch.no_grad():
            return self.on(y).A_adjoint(self.unpack(y)).reshape(y.shape[0], *self.shape)

    def _transposed(self, y: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.zeros((y.shape[0], *self.shape), dtype=y.dtype, device=y.device, requires_grad=True)
            measured = pack(self.on(x).A(self.unfold(x)))
            return torch.autograd.grad(measured, x, y.clone())[0]

    def unpack(self, y: Tensor) -> Any:
        """The measurement that ``pack`` makes a tensor of."""
        shapes = [(*part.shape[1:], *((2,) if part.is_complex() else ())) for part in self.parts]
        pieces = [y] if self.listed is None else list(y.split([math.prod(shape) for shape in shapes], 1))
        parts = []
        for piece, part, shape in zip(pieces, self.parts, shapes, strict=True):
            whole = piece.reshape(y.shape[0], *shape)
            parts.append(torch.view_as_complex(whole.contiguous()) if part.is_complex() else whole)
        return parts[0] if self.listed is None else self.listed(parts)


class Conversions:
    """The physics with tensors of the real dtype and on the device of what it is called with: itself, or a copy."""

    def __init__(self, physics: Any) -> None:
        self.physics = physics
        self._kept: dict[tuple[torch.dtype, torch.device], Any] = {}

    def __call__(self, like: Tensor) -> Any:
        key = (like.real.dtype, like.device)
        if key not in self._kept:
            self._kept[key] = converted(self.physics, *key)
        return self._kept[key]


def folded(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape (C, H, W) of images with further dimensions between the channels and the last two."""
    return shape if len(shape) < 4 else (math.prod(shape[:-2]), *shape[-2:])


def pack(measured: Any) -> Tensor:
    """A measurement as one real tensor (B, ...): complex numbers are pairs, and the parts of a list are flattened."""
    parts = [torch.view_as_real(part.resolve_conj()) if part.is_complex() else part for part in parts_of(measured)]
    if isinstance(measured, Tensor):
        return parts[0]
    return torch.cat([part.flatten(1) for part in parts], 1)


def parts_of(measured: Any) -> list[Tensor]:
    """The tensors of a measurement, which may be a list or a TensorList of tensors."""
    return [measured] if isinstance(measured, Tensor) else list(measured)


def fraction_of(difference: Tensor, whole: Tensor) -> float:
    """The norm of a difference relative to that of a whole; 0 for 0/0."""
    size, left = float(whole.double().norm()), float(difference.double().norm())
    return left / size if size else left


def buffers_of(physics: Any) -> list[Tensor]:
    """The parameters, buffers and other tensors of a physics, and of those that it keeps in lists."""
    found: list[Tensor] = []
    walked(physics, lambda part: found.append(part) or part, {})
    return found


def batches_of(physics: Any) -> list[int]:
    """The numbers of images that a physics may hold parts for, from the first dimension of its tensors."""
    return sorted({len(part) for part in buffers_of(physics) if part.ndim >= 3 and len(part) > 1})


def converted(physics: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """A physics whose tensors have this real dtype and device: itself, or a copy in which complex ones stay complex."""

    def fits(part: Tensor) -> bool:
        right = part.real.dtype == dtype or not (part.is_floating_point() or part.is_complex())
        return right and part.device == device and not part.requires_grad

    def cast(part: Tensor) -> Tensor:
        return part.detach().to(device=device, dtype=like(part.dtype))

    def like(own: torch.dtype) -> torch.dtype:
        return complex_dtype(dtype) if own.is_complex else dtype if own.is_floating_point else own

    return physics if all(map(fits, buffers_of(physics))) else walked(physics, cast, {}, like)


def walked(
    value: Any,
    cast: Callable[[Tensor], Tensor],
    seen: dict[int, Any],
    like: Callable[[torch.dtype], torch.dtype] = lambda own: own,
) -> Any:
    """A copy of a module, list or mapping with ``cast`` of every tensor and ``like`` of every dtype that it holds.

    All else is shared with the original.

    ``Module.to(dtype)`` would change the caller's module, and would take the imaginary part from its complex tensors.
    """
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, Tensor):
        seen[id(value)] = cast(value)
    elif isinstance(value, nn.Module):
        seen[id(value)] = other = object.__new__(type(value))
        for name, part in vars(value).items():
            other.__dict__[name] = walked(part, cast, seen, like)
    elif isinstance(value, dict):
        seen[id(value)] = {name: walked(part, cast, seen, like) for name, part in value.items()}
    elif isinstance(value, list):
        seen[id(value)] = [walked(part, cast, seen, like) for part in value]
    elif type(value) is tuple:
        seen[id(value)] = tuple(walked(part, cast, seen, like) for part in value)
    elif isinstance(value, MethodType) and isinstance(value.__self__, nn.Module):
        seen[id(value)] = MethodType(value.__func__, walked(value.__self__, cast, seen, like))
    else:
        return like(value) if isinstance(value, torch.dtype) else value
    return seen[id(value)]
