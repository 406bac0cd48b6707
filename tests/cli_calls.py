"""What the tests of the command line share: a prior that needs no weights, and calls in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ccfast
from ccfast.app.cli import main


class GaussianNetwork(torch.nn.Module):
    """The network eps(x) = sigma x of white noise images, which refuses the sizes that the bundled network refuses."""

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        assert x.shape[-1] % 8 == 0
        assert x.shape[-2] % 8 == 0
        t = time[:, None, None, None] / 999
        return (1 - torch.exp(-(0.1 * t + 9.95 * t * t))).sqrt() * x


@pytest.fixture(autouse=True)
def prior(monkeypatch):
    """Replace the prior by one that needs no weights."""

    def load_prior(name: str) -> ccfast.Denoiser:
        if name != "photo":
            raise ValueError(f"name: must be 'photo', got {name!r}")
        return ccfast.Denoiser(GaussianNetwork(), ccfast.schedules.VP(), name=name)

    monkeypatch.setattr(ccfast, "load_prior", load_prior)


def run(*arguments: object) -> int:
    """Run the command and return its exit code."""
    return main([str(a) for a in arguments])


def files(folder: Path) -> set[str]:
    """The files in a folder and those in it, without the manifests of the command line."""
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    return {name for name in found if not name.endswith(".ccfast-manifest.jsonl")}
