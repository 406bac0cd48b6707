"""Operators that call a physics of deepinv: by its SVD, by H and H^T alone, and with weights on the measurements."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..operators import FourierBlur, FourierDownsampling, LinearOperator, Operator
from ..operators.operator import wide
from ..operators.separable import Factor, Separable
from ._deepinv_map import Conversions, PhysicsMap, pack

__all__ = ["PhysicsOperator", "PhysicsSVD", "Weighted", "inverted_above"]


class PhysicsOperator(LinearOperator):
    """H and H^T of a physics; H+ y and P x take conjugate gradients.

    Args:
        found: the maps.
        iterations, tolerance: of conjugate gradients, as for ``LinearOperator``.
    """

    def __init__(self, found: PhysicsMap, iterations: int, tolerance: float) -> None:
        super().__init__(
            found.forward, found.adjoint, found.shape, found.measurement_shape, iterations, tolerance, check=False
        )
        self.held, self.batch = found.batch or 1, found.batch
        self.places = None if found.batch is None else torch.arange(found.batch)

    def _call(self, name: str, x: Tensor) -> Tensor:
        """The map on rows that need the parts of the images at ``places``, in as few calls as that takes."""
        if self.places is None or not len(x):
            return super()._call(name, x)
        function, shape = self._maps[name]
        out, left = x.new_empty((len(x), *shape)), list(enumerate(self.places.tolist()))
        while left:
            rows: dict[int, int] = {}
            for row, place in left:
                rows.setdefault(place, row)
            whole = x.new_zeros((self.held, *x.shape[1:]))
            whole[list(rows)] = x[list(rows.values())]
            out[list(rows.values())] = function(whole)[list(rows)]
            left = [(row, place) for row, place in left if rows[place] != row]
        return out

    def _at(self, places: Tensor) -> Operator:
        other = copy.copy(self)
        other._cache, other.places, other.batch = {}, places, len(places)
        return other

    def repeat(self, n: int) -> Operator:
        return self if self.places is None else self._at(self.places.repeat(n))

    def take(self, places: Tensor) -> Operator:
        return self if self.places is None else self._at(self.places[places.cpu()])


class PhysicsSVD(Operator):
    """H = U diag(s) V^T with the transforms of a ``DecomposablePhysics``; its ``mask`` has s, and the phase goes to U.

    Complex coordinates, as of a Fourier transform, are pairs of real ones. They may be redundant, as half a spectrum:
    V diag(f(s)) V^T is right for every f, but ``down`` after ``lift`` is then no identity.

    Args:
        found: the maps of the physics.
        physics: has U, V, their adjoints and ``mask``; the physics of the maps, or another one with the same H.
        negligible: singular values below this part of the largest one count as zero.
        like: a tensor of the dtype and on the device of the images.
    """

    kind = "dense"
    parts = ("singular_values", "phase")

    def __init__(self, found: PhysicsMap, physics: Any, negligible: float, like: Tensor) -> None:
        super().__init__(found.shape, found.measurement_shape)
        self.map, self.on = found, found.on if physics is found.physics else Conversions(physics)
        mask = torch.as_tensor(physics.mask).detach().cpu()
        x = found.random(like, 5)
        c = self.on(like).V_adjoint(found.unfold(x))
        self.complex = c.is_complex()
        mask = mask.reshape((1,) * (c.ndim - mask.ndim) + tuple(mask.shape))
        mask = mask.to(torch.complex128 if mask.is_complex() else torch.float64)
        size = mask.abs().to(torch.float64)
        size = torch.where(size < negligible * size.max(), 0.0, size)
        phase = torch.where(size > 0, mask / size.where(size > 0, 1.0), 0.0)
        if self.complex:
            size = size[..., None]
        self.batch = len(mask) if len(mask) > 1 else None
        self.singular_values, self.phase = (size, phase) if self.batch else (size[0], phase[0])

    def down(self, x: Tensor) -> Tensor:
        given = wide(x)
        return self._kept(self._real(self.on(given).V_adjoint(self.map.unfold(given)))).to(x.dtype)

    def lift(self, c: Tensor) -> Tensor:
        given = wide(c)
        image = self.on(given).V(self._complex(self._kept(given)))
        return (image.real if image.is_complex() else image).reshape(c.shape[0], *self.shape).to(c.dtype)

    def encode(self, y: Tensor) -> Tensor:
        given = wide(y)

        def make() -> Tensor:
            s = self.singular_values
            return torch.where(s > 0, 1.0 / s.where(s > 0, 1.0), 0.0)

        c = self.on(given).U_adjoint(self.map.unpack(given)) * self._phase(given).conj()
        return (self._real(c) * self.constant("inverse", make, given)).to(y.dtype)

    def decode(self, c: Tensor) -> Tensor:
        given = wide(c)
        return pack(self.on(given).U(self._complex(given) * self._phase(given))).to(c.dtype)

    def _phase(self, like: Tensor) -> Tensor:
        return self.constant("phase", lambda: self.phase, like)

    def _kept(self, c: Tensor) -> Tensor:
        return c * self.constant("kept", lambda: (self.singular_values > 0).to(torch.float64), c)

    def _real(self, c: Tensor) -> Tensor:
        return torch.view_as_real(c.resolve_conj()) if self.complex else c

    def _complex(self, c: Tensor) -> Tensor:
        return torch.view_as_complex(c.contiguous()) if self.complex else c


class Weighted(LinearOperator):
    """diag(weights) H: measurements whose elements are multiplied by weights, so that their noise becomes alike.

    Args:
        operator: H.
        weights: finite and >= 0, (1 or B, *measurement_shape).
        iterations, tolerance: of conjugate gradients, as for ``LinearOperator``.
    """

    parts = ("weights",)

    def __init__(self, operator: Operator, weights: Tensor, iterations: int = 50, tolerance: float = 0.0) -> None:
        maps = operator.forward, operator.adjoint
        super().__init__(*maps, operator.shape, operator.measurement_shape, iterations, tolerance, check=False)
        self.operator = operator
        self.weights = weights.detach().to(device="cpu", dtype=torch.float64)
        self.batch = operator.batch if len(weights) == 1 else len(weights)
        if self.batch is not None and len(weights) == 1:
            self.weights = self.weights.repeat(self.batch, *(1 for _ in operator.measurement_shape))

    def _weigh(self, y: Tensor) -> Tensor:
        return y * self.constant("weights", lambda: self.weights, y)

    def _forward(self, x: Tensor) -> Tensor:
        return self._weigh(self.operator.forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator.adjoint(self._weigh(y))

    def repeat(self, n: int) -> Operator:
        other = super().repeat(n)
        if isinstance(other, Weighted) and other is not self:
            other.operator = self.operator.repeat(n)
        return other

    def take(self, places: Tensor) -> Operator:
        other = super().take(places)
        if isinstance(other, Weighted) and other is not self:
            other.operator = self.operator.take(places)
        return other


# ------------------------------------------------------------------------------------ H whole, H+ and P cut
class Whole(Operator):
    """H and H^T with the modes that H+ and P leave out, since rounding in a measurement exceeds what they add to it."""

    whole: Operator

    def forward(self, x: Tensor) -> Tensor:
        return self.whole.forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.whole.adjoint(y)

    def repeat(self, n: int) -> Operator:
        return self._beside(super().repeat(n), self.whole.repeat(n))

    def take(self, places: Tensor) -> Operator:
        return self._beside(super().take(places), self.whole.take(places))

    def _beside(self, other: Operator, whole: Operator) -> Operator:
        if isinstance(other, Whole) and other is not self:
            other.whole = whole
        return other


class WholeFourierBlur(Whole, FourierBlur):
    """A ``FourierBlur`` by convolution, whose H has all frequencies."""

    exchangeable = False

    def __init__(self, whole: FourierBlur, kernel: Tensor, cutoff: float) -> None:
        super().__init__(whole.shape, kernel, cutoff, convention="convolution", normalize=False)
        self.whole = whole


class WholeFourierDownsampling(Whole, FourierDownsampling):
    """A ``FourierDownsampling`` by convolution, whose H has all frequencies."""

    exchangeable = False

    def __init__(self, whole: FourierDownsampling, kernel: Tensor, cutoff: float) -> None:
        super().__init__(whole.shape, kernel, whole.factor, cutoff, convention="convolution", normalize=False)
        self.whole = whole


class WholeSeparable(Whole, Separable):
    """A ``Separable`` without the small singular values of its factors, whose H has them."""

    def __init__(self, whole: Separable, factors: Sequence[Factor]) -> None:
        super().__init__(whole.shape, factors)
        self.whole = whole


def inverted_above(whole: Operator, negligible: float, kernel: Tensor | None = None) -> Operator:
    """An operator whose H+ and P leave out the modes whose singular value is below a part of the largest one."""
    if isinstance(whole, Separable):
        edge = math.sqrt(negligible)
        factors = [
            Factor(u[:, s > edge * s[0]], s[s > edge * s[0]], v[:, s > edge * s[0]]) for u, s, v in whole.factors
        ]
        same = all(len(cut.s) == len(factor.s) for cut, factor in zip(factors, whole.factors, strict=True))
        return whole if same else WholeSeparable(whole, factors)
    if kernel is not None and isinstance(whole, FourierBlur | FourierDownsampling):
        size = whole.response.abs()
        edge = negligible * float(size.max())
        if bool((size >= edge).all()):
            return whole
        if isinstance(whole, FourierBlur):
            return WholeFourierBlur(whole, kernel, edge)
        return WholeFourierDownsampling(whole, kernel, edge)
    return whole
