"""k-diffusion, whose samplers call ``model(x, sigma)`` for E[x0 | x], where x = x0 + sigma n."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._clip import limited
from ..denoiser import Denoiser

__all__ = ["DenoiseAt", "denoise_at"]


class DenoiseAt(nn.Module):
    """A Denoiser on any schedule as a function of (x, sigma): x0hat of the state mu(t) x, at the time t of noise sigma.

    t is the time at which sigma(t)/mu(t) is the given sigma, which is a number or (B,). A sigma outside the range of
    the schedule is taken at its nearest end. The result can be differentiated with respect to x.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        # As a submodule, the network gives this module its parameters and its device.
        self.network = denoiser.network if isinstance(denoiser.network, nn.Module) else None

    def forward(self, x: Tensor, sigma: Tensor | float, **extra: Any) -> Tensor:
        """x0hat, of the shape of x, (B, C, H, W); extra arguments go to the network."""
        denoiser, schedule = self.denoiser, self.denoiser.schedule
        # sigma goes through a list, since under torch.func (deepinv's guidance) it has no storage to make an array of.
        values = np.atleast_1d(sigma.tolist() if isinstance(sigma, Tensor) else float(sigma)).ravel()
        low, high = sorted(schedule.time_range)
        t = schedule.time(np.broadcast_to(values, x.shape[:1])).clip(low, high)
        column = (-1, *(1,) * (x.ndim - 1))

        def like(value: Any) -> Tensor:
            return torch.as_tensor(value, dtype=x.dtype, device=x.device)

        c = denoiser.coefficients(t)
        state = like(schedule.mean(t)).reshape(column) * x
        exact = torch.promote_types(x.dtype, torch.float32)  # Half precision does not hold whole times above 256.
        times = torch.as_tensor(denoiser.network_times(t), dtype=exact, device=x.device)
        output = denoiser.network(like(c.c_in).reshape(column) * state, times, **denoiser.network_kwargs, **extra)
        x0hat = like(c.p).reshape(column) * state + like(c.q).reshape(column) * denoiser.trim(output, x)
        return limited(x0hat, denoiser.clip)


def denoise_at(denoiser: Denoiser) -> DenoiseAt:
    """The model argument of k-diffusion's ``sample_*`` functions (and of anything that denoises x0 + sigma n)."""
    return DenoiseAt(denoiser)
