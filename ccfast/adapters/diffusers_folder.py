"""Folders of diffusers: a pipeline's, or a model's with the scheduler that it was trained with."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..denoiser import Denoiser
from .diffusers import from_diffusers

__all__ = ["from_diffusers_folder", "is_diffusers_folder"]

NETWORKS = ("unet", "transformer", "prior", "")
"""The folders of a network in a pipeline's, or the folder itself."""

MODEL, SCHEDULER, PIPELINE = "config.json", "scheduler_config.json", "model_index.json"


def is_diffusers_folder(folder: Path) -> bool:
    """Whether a folder is a pipeline of diffusers, or one of its models."""
    return (folder / PIPELINE).is_file() or "_class_name" in _json(folder / MODEL)


def from_diffusers_folder(
    folder: str | Path, *, name: str | None = None, dtype: torch.dtype | None = None, **options: Any
) -> Denoiser:
    """The network of a folder as a Denoiser, by the scheduler beside it; nothing is downloaded.

    The network is in the folder itself or in ``unet/`` or ``transformer/``, the scheduler in the folder, in
    ``scheduler/`` or in ``../scheduler/``.

    Args:
        folder: it holds config.json and diffusion_pytorch_model.safetensors (or its parts), as ``save_pretrained``
            of diffusers writes them.
        name: of the denoiser.
        dtype: of the weights; None: as they are in the file.
        options: more arguments of ``from_diffusers``; ``scheduler`` among them is taken in place of the folder's.

    Raises:
        ImportError: diffusers is not installed.
        FileNotFoundError: the folder has no network, weights in safetensors, or scheduler.
        ValueError: a class in the folder is none of diffusers.
    """
    folder = Path(folder)
    try:
        diffusers = import_module("diffusers")
    except ImportError as error:
        raise ImportError(f"path: {folder} is a model of diffusers, which is not installed") from error
    held = next((folder / sub for sub in NETWORKS if "_class_name" in _json(folder / sub / MODEL)), None)
    if held is None:
        raise FileNotFoundError(f"path: {folder} must hold {MODEL} of a network of diffusers, or unet/ or transformer/")
    if not any(held.glob("*.safetensors")):
        raise FileNotFoundError(
            f"path: {held} must hold weights as .safetensors, got {', '.join(sorted(p.name for p in held.iterdir()))}; "
            "pickles (.bin) may run code when they are read, and save_pretrained(folder, safe_serialization=True) of "
            "diffusers writes them anew"
        )
    scheduler = options.pop("scheduler", None)
    if scheduler is None:
        places = [folder, folder / "scheduler", held, held / "scheduler", held.parent / "scheduler"]
        at = next((place for place in places if "_class_name" in _json(place / SCHEDULER)), None)
        if at is None:
            raise FileNotFoundError(
                f"path: {folder} must hold the scheduler that the network was trained with, in {SCHEDULER} or "
                f"scheduler/{SCHEDULER}, or give scheduler="
            )
        scheduler = _class(diffusers, at / SCHEDULER, "SchedulerMixin").from_pretrained(at)
    kind = _class(diffusers, held / MODEL, "ModelMixin")
    given = {"torch_dtype": "auto" if dtype is None else dtype, "use_safetensors": True, "local_files_only": True}
    network = kind.from_pretrained(held, low_cpu_mem_usage=False, **given)
    return from_diffusers(network.eval().requires_grad_(False), scheduler, name, **options)


def _class(diffusers: Any, path: Path, base: str) -> Any:
    """The class that a config names, if it is one of diffusers."""
    name = _json(path)["_class_name"]
    found = getattr(diffusers, name, None) if isinstance(name, str) and not name.startswith("_") else None
    if not (isinstance(found, type) and any(kind.__name__ == base for kind in found.__mro__)):
        raise ValueError(f"{path}: _class_name must be a {base} of diffusers, got {name!r}")
    return found


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is no such file, or something else in it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
