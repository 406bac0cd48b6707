"""C-PiGDM as its authors published it (arXiv 2405.17673, appendix D), the rival that every speed-up is counted against.

It is written from the formulas, and keeps the structure of the public implementation where that costs time. The state
is the conjugate one, xbar = A x, in float64. A, A^-1 and P are applied through full orthogonal bases in float32, P as
H+ H. Every step computes H+ y again and makes four projections. The coefficients come from an adaptive ODE solver.

    A       = e^{k1} [I + (e^{k2} - 1) P],      k1 = lam t + B/2,   k2 = -w B/2,   B = int_0^t beta
    xbar'   = xbar + lam xbar (t' - t) + [Phi_y] H+ y + [Phi_s] eps + [Phi_j] g
    Phi_y   = -int (w beta mu/2) e^{k1 + k2}
    Phi_s   = int beta/(2 sigma) e^{k1} + int (beta/(2 sigma) e^{k1} (e^{k2} - 1) - (w beta sigma/2) e^{k1 + k2}) P
    Phi_j   = int (w beta mu sigma/2) e^{k1} + int (w beta mu sigma/2) e^{k1} (e^{k2} - 1) P

[Phi] is the difference between the end and the start of a step, and g = (d eps/dx)^T (H+ y - P x0hat). One thing is
faster than published: the right-hand sides of the ODEs are plain floats, not tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from ccfast import Denoiser
from ccfast.operators import AveragePooling, Grayscale, Inpainting, Operator
from ccfast.operators.separable import Separable
from ccfast.schedules import VP

__all__ = ["FullSVD", "Published", "full_svd"]

_CPU = torch.device("cpu")

TINY = 1e-5
"""The least sigma in beta/(2 sigma), which is infinite at t = 0, where the integrals start. Only differences of the
integrals are used, so that it does not matter."""


class Published:
    """The published sampler for a noiseless measurement.

    Args:
        denoiser: predicts eps on a VP schedule.
        operator: an operator that ``full_svd`` knows.
        w, lam: the guidance weight and the lambda of the paper.
        times: all times of the grid, falling.
        basis_dtype: the dtype of the bases, float32 as published, or float64 to see the algorithm without its rounding.
        tolerance: the relative and absolute tolerance of the ODE solutions, whose errors reach x times e^{w B/2}.
        device: the device of the bases.

    Raises:
        ValueError: the schedule or the prediction is another, or the operator has no full basis here.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        operator: Operator,
        w: float,
        lam: float,
        times: Sequence[float],
        basis_dtype: torch.dtype = torch.float32,
        tolerance: float = 1e-5,
        device: torch.device | str = "cpu",
    ) -> None:
        if not isinstance(denoiser.schedule, VP) or denoiser.prediction != "epsilon":
            raise ValueError(f"denoiser: must predict epsilon on the VP schedule, got {denoiser!r}")
        self.denoiser, self.schedule, self.w, self.lam, self.tolerance = denoiser, denoiser.schedule, w, lam, tolerance
        self.times = [float(t) for t in times]
        self.svd = full_svd(operator, basis_dtype, torch.device(device))
        self.network_times = denoiser.network_times(np.asarray(self.times))
        self.coefficients = self.table()

    # ------------------------------------------------------------------------------------ coefficients
    def exponents(self, t: float) -> tuple[float, float]:
        """k1 and k2 at a time."""
        low, high = self.schedule.beta_min, self.schedule.beta_max
        clock = low * t + 0.5 * (high - low) * t * t
        return self.lam * t + 0.5 * clock, -0.5 * self.w * clock

    def table(self) -> list[list[float]]:
        """The integrals for every time, which take the place of a plan."""
        return [self.integrals(t) for t in self.times]

    def integrals(self, end: float) -> list[float]:
        """The integrals from 0 to a time, one of Phi_y and two each of Phi_s and Phi_j, by an ODE each."""
        low, high = self.schedule.beta_min, self.schedule.beta_max

        def at(t: float) -> tuple[float, ...]:
            beta, clock = low + (high - low) * t, low * t + 0.5 * (high - low) * t * t
            mu, sigma = math.exp(-0.5 * clock), math.sqrt(-math.expm1(-clock))
            return (beta, mu, sigma, *self.exponents(t))

        def phi_y(t: float, _: object) -> float:
            beta, mu, _, k1, k2 = at(t)
            return -0.5 * self.w * beta * mu * math.exp(k1 + k2)

        def phi_s(t: float, _: object) -> float:
            beta, _, sigma, k1, _ = at(t)
            return 0.5 * beta / max(sigma, TINY) * math.exp(k1)

        def phi_s_range(t: float, _: object) -> float:
            beta, _, sigma, k1, k2 = at(t)
            drift = 0.5 * beta / max(sigma, TINY) * math.exp(k1) * math.expm1(k2)
            return drift - 0.5 * self.w * beta * sigma * math.exp(k1 + k2)

        def phi_j(t: float, _: object) -> float:
            beta, mu, sigma, k1, _ = at(t)
            return 0.5 * self.w * beta * mu * sigma * math.exp(k1)

        def phi_j_range(t: float, _: object) -> float:
            return phi_j(t, _) * math.expm1(self.exponents(t)[1])

        def integrate(f: Callable[[float, object], float]) -> float:
            solution = solve_ivp(f, (0.0, end), [0.0], method="RK45", rtol=self.tolerance, atol=self.tolerance)
            return float(solution.y[0, -1])

        return [integrate(f) for f in (phi_y, phi_s, phi_s_range, phi_j, phi_j_range)]

    # ------------------------------------------------------------------------------------ the loop
    def __call__(self, y: Tensor, x_init: Tensor) -> Tensor:
        """The image at the last time, from the measurement and the image at the first time."""
        state = self.conjugate(x_init.double(), self.times[0])
        for k in range(len(self.times) - 1):
            state = self.step(state, y, k)
        return self.conjugate(state, self.times[-1], inverse=True).to(y.dtype)

    def conjugate(self, x: Tensor, t: float, inverse: bool = False) -> Tensor:
        """A x, or A^-1 x."""
        k1, k2 = self.exponents(t)
        if inverse:
            k1, k2 = -k1, -k2
        return math.exp(k1) * (x + math.expm1(k2) * self.project(x))

    def project(self, x: Tensor) -> Tensor:
        """P x = H+ H x, in float64."""
        return self.svd.pinv(self.svd.forward(x)).double()

    def step(self, state: Tensor, y: Tensor, k: int) -> Tensor:
        """The conjugate state at times[k + 1] from that at times[k]."""
        t, after = self.times[k], self.times[k + 1]
        mu, sigma = float(self.schedule.mean(t)), float(self.schedule.std(t))
        x = self.conjugate(state, t, inverse=True)
        with torch.enable_grad():
            leaf = x.float().requires_grad_()
            network_time = torch.full((x.shape[0],), self.network_times[k], dtype=torch.float32, device=x.device)
            output = self.denoiser.predict(leaf, network_time)
        eps = output.detach().double()
        pinv_y = self.svd.pinv(y.flatten(1)).double()
        residual = pinv_y - self.project((x - sigma * eps) / mu)
        (g,) = torch.autograd.grad(output, leaf, residual.float())
        g = g.double()
        y_, s, s_range, j, j_range = (b - a for a, b in zip(*self.coefficients[k : k + 2], strict=True))
        noise = s * eps + s_range * self.project(eps)
        guidance = j * g + j_range * self.project(g)
        return state + self.lam * state * (after - t) + y_ * pinv_y + noise + guidance


# ------------------------------------------------------------------------------------------------ full bases
class FullSVD:
    """H = U S V^T with a square V, on flattened images (B, n) and measurements (B, m).

    Args:
        shape: the shape of one image.
        down, lift: V^T and V on (B, n), whose first coordinates belong to the singular values, in their order.
        encode, decode: U^T and U on (B, m).
        singular_values: all of them, (m,), zeros included.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        down: Callable[[Tensor], Tensor],
        lift: Callable[[Tensor], Tensor],
        encode: Callable[[Tensor], Tensor],
        decode: Callable[[Tensor], Tensor],
        singular_values: Tensor,
    ) -> None:
        self.shape, self.singular_values = shape, singular_values
        self.down, self.lift, self.encode, self.decode = down, lift, encode, decode

    def forward(self, x: Tensor) -> Tensor:
        """H x of an image (B, *shape)."""
        s = self.singular_values
        return self.decode(s * self.down(x.to(s.dtype).flatten(1))[:, : s.numel()])

    def pinv(self, y: Tensor) -> Tensor:
        """H+ y as an image."""
        s = self.singular_values
        c = self.encode(y.to(s.dtype))
        kept = s.nonzero().flatten()  # This waits for the device, as in the published code.
        full = c.new_zeros(c.shape[0], math.prod(self.shape))
        full[:, kept] = c[:, kept] / s[kept]
        return self.lift(full).reshape(-1, *self.shape)


def full_svd(operator: Operator, dtype: torch.dtype, device: torch.device = _CPU) -> FullSVD:
    """The full bases of an operator.

    Raises:
        ValueError: there are none here, as for Fourier operators and for one mask for each image.
    """
    if isinstance(operator, Inpainting) and operator.batch is None:
        return _mask(operator, dtype, device)
    if isinstance(operator, AveragePooling) and len(operator.shape) == 3:
        return _block(operator, dtype, device)
    if isinstance(operator, Grayscale):
        return _channel(operator, dtype, device)
    if isinstance(operator, Separable) and len(operator.factors) == 2:
        return _separable(operator, dtype, device)
    raise ValueError(f"operator: must be a mask for all images, pooling, greyscale or separable, got {operator!r}")


def _same(c: Tensor) -> Tensor:
    return c


def _mask(operator: Inpainting, dtype: torch.dtype, device: torch.device) -> FullSVD:
    """V is a permutation with the observed pixels first. A measurement has zeros for the others, which U drops."""
    observed = operator.singular_values.expand(operator.shape).flatten().to(device) > 0
    kept, missing = observed.nonzero().flatten(), (~observed).nonzero().flatten()
    order = torch.cat([kept, missing])

    def lift(c: Tensor) -> Tensor:
        out = torch.empty_like(c)
        out[:, order] = c
        return out

    def encode(y: Tensor) -> Tensor:
        return y[:, kept] if y.shape[1] != len(kept) else y

    ones = torch.ones(len(kept), dtype=dtype, device=device)
    return FullSVD(operator.shape, lambda x: x[:, order], lift, encode, _same, ones)


def _block(operator: AveragePooling, dtype: torch.dtype, device: torch.device) -> FullSVD:
    """V acts on each tile, the constant direction first. Coordinates are sorted by direction, then by tile."""
    (c, h, w), s = operator.shape, operator.factor
    rows, columns = h // s, w // s
    _, values, vt = torch.linalg.svd(torch.full((1, s * s), 1.0 / (s * s), dtype=torch.float64), full_matrices=True)
    sign = vt[0].sum().sign()  # U is the number 1.
    v = (vt.mT * torch.where(torch.arange(s * s) == 0, sign, 1.0)).to(device, dtype)

    def down(x: Tensor) -> Tensor:
        tiles = x.reshape(-1, c, rows, s, columns, s).permute(0, 1, 2, 4, 3, 5).reshape(-1, c, rows * columns, s * s)
        return (tiles @ v).permute(0, 3, 1, 2).flatten(1)

    def lift(k: Tensor) -> Tensor:
        tiles = k.reshape(-1, s * s, c, rows * columns).permute(0, 2, 3, 1) @ v.mT
        return tiles.reshape(-1, c, rows, columns, s, s).permute(0, 1, 2, 4, 3, 5).flatten(1)

    return FullSVD(operator.shape, down, lift, _same, _same, values.to(device, dtype).expand(c * rows * columns))


def _channel(operator: Grayscale, dtype: torch.dtype, device: torch.device) -> FullSVD:
    """V acts on each pixel, the direction of the weights first."""
    channels, pixels = operator.shape[0], math.prod(operator.shape[1:])
    weights = operator.weights.double().reshape(1, channels)
    u, values, vt = torch.linalg.svd(weights, full_matrices=True)
    v = (vt.mT * torch.where(torch.arange(channels) == 0, u[0, 0], 1.0)).to(device, dtype)

    def down(x: Tensor) -> Tensor:
        return (v.mT @ x.reshape(-1, channels, pixels)).flatten(1)

    def lift(c: Tensor) -> Tensor:
        return (v @ c.reshape(-1, channels, pixels)).flatten(1)

    return FullSVD(operator.shape, down, lift, _same, _same, values.to(device, dtype).expand(pixels))


def _separable(operator: Separable, dtype: torch.dtype, device: torch.device) -> FullSVD:
    """V_r x V_c and U_r x U_c are square. Coordinates have falling singular values, all planes side by side."""
    c, (h, w) = operator.shape[0], operator.shape[1:]
    (ur, sr, vr), (uc, sc, vc) = (torch.linalg.svd((f.u * f.s) @ f.v.mT, full_matrices=True) for f in operator.factors)
    vr, vc, ur, uc = (m.to(device, dtype) for m in (vr.mT, vc.mT, ur, uc))
    cut = [
        torch.where(torch.arange(len(s)) < len(f.s), s, 0.0) for s, f in zip((sr, sc), operator.factors, strict=True)
    ]
    low = (len(sr), len(sc))
    values, order = torch.outer(*cut).flatten().sort(descending=True)
    full = torch.arange(h * w).reshape(h, w)
    rest = torch.ones(h, w, dtype=torch.bool)
    rest[: low[0], : low[1]] = False
    order_v = torch.cat([full[: low[0], : low[1]].flatten()[order], full[rest]]).to(device)
    order = order.to(device)

    def into(rows: Tensor, x: Tensor, columns: Tensor, places: Tensor) -> Tensor:
        spectrum = (rows @ x.reshape(-1, c, rows.shape[1], columns.shape[0]) @ columns).flatten(2)
        return spectrum[:, :, places].mT.flatten(1)

    def back(rows: Tensor, k: Tensor, columns: Tensor, places: Tensor) -> Tensor:
        k = k.reshape(k.shape[0], -1, c).mT
        spectrum = torch.empty_like(k)
        spectrum[:, :, places] = k
        return (rows @ spectrum.reshape(-1, c, rows.shape[1], columns.shape[0]) @ columns).flatten(1)

    return FullSVD(
        operator.shape,
        lambda x: into(vr.mT, x, vc, order_v),
        lambda k: back(vr, k, vc.mT, order_v),
        lambda y: into(ur.mT, y, uc, order),
        lambda k: back(ur, k, uc.mT, order),
        values.to(device, dtype).repeat_interleave(c),
    )
