"""Single-coil MRI, which measures some lines of the Fourier transform of a complex image: ``python examples/mri.py``.

The example shows an operator of your own. It needs its singular values and four transforms; every solver then works.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from phantom import fitted_prior, heads, psnr
from torch import Tensor

import ccfast
from ccfast.operators import Operator


class MRI(Operator):
    """H x = mask * F x, where F is the unitary 2-D Fourier transform; channels are real and imaginary part.

    Since F is orthonormal as a real map of (2, H, W) too, V^T = mask F, U = I, and the singular values are the mask.

    Args:
        mask: (H, W), 1 where a frequency is measured and 0 elsewhere; frequency zero is first, as in torch.fft.fft2.
    """

    kind = "dense"  # No kernel knows this operator, so P is applied by ``project``.

    def __init__(self, mask: Any) -> None:
        mask = torch.as_tensor(mask)
        if mask.ndim != 2 or not ((mask == 0) | (mask == 1)).all() or not mask.any():
            raise ValueError(f"MRI: mask must be (H, W) of 0 and 1, not all 0, got shape {tuple(mask.shape)}")
        super().__init__((2, *mask.shape), (2, *mask.shape))
        self.singular_values = mask.to(torch.float64)[None]

    def _mask(self, x: Tensor) -> Tensor:
        return self.constant("singular_values", lambda: self.singular_values, x)

    def down(self, x: Tensor) -> Tensor:
        return (transform(torch.fft.fft2, x) * self._mask(x)).to(x.dtype)

    def lift(self, c: Tensor) -> Tensor:
        return transform(torch.fft.ifft2, c * self._mask(c)).to(c.dtype)

    def encode(self, y: Tensor) -> Tensor:
        return (y * self._mask(y)).to(y.dtype)

    def decode(self, c: Tensor) -> Tensor:
        return self.encode(c)


def transform(fourier: Callable[..., Tensor], x: Tensor) -> Tensor:
    """A unitary transform of the complex image whose real and imaginary part are the channels."""
    x = x if x.dtype in (torch.float32, torch.float64) else x.float()
    if not x.shape[0]:  # The FFT of MKL refuses an empty batch.
        return x
    z = fourier(torch.complex(x[:, 0], x[:, 1]), norm="ortho")
    return torch.stack((z.real, z.imag), 1)


def cartesian_mask(height: int, width: int, acceleration: float, centre: int, seed: int = 0) -> Tensor:
    """A mask (height, width) of height/acceleration whole rows, the ``centre`` lowest frequencies and random others."""
    order = torch.fft.fftfreq(height).abs().argsort(stable=True)
    others = order[centre:]
    chosen = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))
    rows = torch.cat((order[:centre], others[chosen[: max(round(height / acceleration) - centre, 0)]]))
    mask = torch.zeros(height, width)
    mask[rows] = 1
    return mask


def scans(count: int, side: int, seed: int) -> Tensor:
    """Complex images (count, 2, side, side) of heads, with the smooth phase that a receive coil gives them."""
    generator = torch.Generator().manual_seed(seed)
    images, axis = heads(count, side, seed), torch.linspace(-1, 1, side)
    tilt, bend = torch.randn(2, count, 1, 1, generator=generator) * 0.3
    phase = tilt * axis[:, None] + bend * axis**2
    return torch.stack((images * phase.cos(), images * phase.sin()), 1)


def main(side: int = 32) -> tuple[float, float]:
    """PSNR of H+ y (the zero-filled image) and of the restoration."""
    x = scans(1, side, seed=1)
    operator = MRI(cartesian_mask(side, side, acceleration=2.5, centre=side // 10))
    y = operator.forward(x)
    sampler = ccfast.Sampler(fitted_prior(scans(600, side, seed=0)), operator, start=0.6, hard_consistency=True)
    return psnr(operator.pinv(y), x), psnr(sampler(y, seed=0), x)


if __name__ == "__main__":
    before, after = main()
    print(f"zero-filled H+ y {before:.2f} dB, restored {after:.2f} dB")
