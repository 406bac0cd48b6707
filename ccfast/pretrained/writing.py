"""Writing a Denoiser to a folder."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .._guidance import Guided
from ..denoiser import Denoiser
from .description import Kept, record

__all__ = ["DESCRIPTION", "WEIGHTS", "bare", "save"]

DESCRIPTION, WEIGHTS = "denoiser.json", "model.safetensors"


def save(denoiser: Denoiser, folder: str | os.PathLike[str]) -> None:
    """What ``Denoiser.save_pretrained`` does."""
    if type(denoiser) is not Denoiser:
        raise TypeError(
            f"denoiser: must be a plain Denoiser to be saved, got {type(denoiser).__name__}; save "
            "denoiser.without_autoencoder(), and the autoencoder by its own save_pretrained"
        )
    network = bare(denoiser.network)
    if isinstance(network, Guided):
        raise ValueError("network: must not be guided to be saved; save the denoiser that guided(...) was called on")
    if not isinstance(network, nn.Module):
        raise TypeError(f"network: must be a torch.nn.Module to be saved, got {type(network).__name__}")
    from safetensors.torch import save_file

    kept = Kept()
    text = json.dumps(record(denoiser, network, kept), indent=1, allow_nan=False) + "\n"
    weights = {f"network.{name}": _stored(name, value) for name, value in network.state_dict().items()}
    tensors = weights | {name: _stored(name, value) for name, value in kept.items()}
    path = Path(folder).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    _write(path / WEIGHTS, lambda own: save_file(tensors, own, metadata={"format": "pt"}))
    _write(path / DESCRIPTION, lambda own: own.write_text(text, encoding="utf-8"))


def bare(network: Any) -> Any:
    """The network without the wrappers of torch.compile and DistributedDataParallel, whose weights have other names."""
    network = getattr(network, "_orig_mod", network)
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


def _stored(name: str, value: Any) -> Tensor:
    """A tensor of its own that safetensors takes: contiguous, on the CPU, and sharing memory with no other one."""
    if not isinstance(value, Tensor) or value.is_meta:
        raise ValueError(f"network: {name} must be a tensor with values to be saved, got {type(value).__name__}")
    return value.detach().cpu().clone().contiguous()


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place and move it there, so that there is never a part of one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    own = Path(name)
    try:
        write(own)
        mask = os.umask(0)
        os.umask(mask)
        own.chmod(0o666 & ~mask)
        own.replace(path)
    finally:
        own.unlink(missing_ok=True)
