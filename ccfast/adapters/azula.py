"""azula, where ``denoiser(x_t, t).mean`` is E[x0 | x_t] and ``denoiser.schedule(t)`` is (alpha, sigma)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ..denoiser import Denoiser

__all__ = ["to_azula"]


def to_azula(denoiser: Denoiser) -> Any:
    """An ``azula.denoise.Denoiser`` on the same path, with the same times, which must run from 0 (data) to 1 (noise).

    Raises:
        ImportError: azula is not installed.
        ValueError: the schedule has other times, as Flow, VE and EDM have.
    """
    azula, noise = import_module("azula.denoise"), import_module("azula.noise")

    own = denoiser.schedule
    low, high = own.time_range
    if low > 0 or high != 1.0 or not float(own.std(1.0)) > float(own.std(0.0)):
        raise ValueError(f"denoiser: its schedule must have times from 0 to 1 = noise, got {own!r}")

    class Path(noise.Schedule):
        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            times = t.detach().double().cpu().numpy()
            return torch.as_tensor(own.mean(times)).to(t), torch.as_tensor(own.std(times)).to(t)

    class Adapted(azula.Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.schedule = Path()
            self.network = denoiser.network if isinstance(denoiser.network, nn.Module) else None

        def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> Any:
            if t.numel() != 1:
                raise ValueError(f"t: must be one time for the whole batch, got shape {tuple(t.shape)}")
            return azula.DiracPosterior(mean=denoiser(x_t, float(t)))

    return Adapted()
