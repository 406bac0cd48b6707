"""RePaint, the one sampler for inverse problems in diffusers, for noiseless masks, without its jumps in time."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import torch
from torch import Tensor

from .case import Case, Restore

__all__ = ["peers"]


def peers(case: Case) -> Iterator[tuple[str, Restore]]:
    """The name of the sampler and its run, on betas from 0.0001 to 0.02, the path of the case in a thousand steps."""
    if case.noise_std or not case.word.startswith(("inpaint", "box")):
        return
    diffusers = import_module("diffusers")
    mask = case.operator.singular_values.float().reshape(1, *case.operator.shape)

    def restore() -> Tensor:
        scheduler = diffusers.RePaintScheduler(clip_sample=False)
        scheduler.set_timesteps(case.evaluations, jump_length=1, jump_n_sample=1)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, *case.operator.shape, generator=generator)
        with torch.no_grad():
            for t in scheduler.timesteps:
                output = case.denoiser.network(x, t.expand(1).float())
                x = scheduler.step(output, int(t), x, case.y, mask, generator).prev_sample
        return x

    yield "diffusers RePaintScheduler", restore
