"""Reading a Denoiser from a folder, or from a repository of the hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import presets
from ..adapters.diffusers_folder import from_diffusers_folder, is_diffusers_folder
from ..denoiser import Denoiser
from ..engine.conditions import mapped
from ..priors.padding import PaddedNetwork
from .description import (
    ARCHITECTURES,
    DATA_RANGE,
    FORMAT,
    GIVEN,
    VERSION,
    check_keys,
    read_boundary,
    read_clip,
    read_schedule,
    read_time_map,
    read_value,
)
from .writing import DESCRIPTION, WEIGHTS, bare

__all__ = ["load"]

KEYS = (
    "format",
    "version",
    "name",
    "prediction",
    "schedule",
    "time_map",
    "time_range",
    "data_range",
    "clip",
    "boundary",
    "network",
    "network_kwargs",
)
LARGEST = 1 << 24
"""Bytes of a description; a file that is larger is none."""

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
PRESETS = "presets.json"

WANTED = ("*.json", WEIGHTS, "diffusion_pytorch_model*.safetensors", "unet/*.safetensors", "transformer/*.safetensors")
"""What is fetched of a repository: no pickles, and no text encoders or autoencoders of pipelines."""

Factory = nn.Module | Callable[[], nn.Module]


def load(
    path: str | os.PathLike[str],
    network: Factory | None = None,
    *,
    time_map: Callable[[float], float] | None = None,
    name: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    **options: Any,
) -> Denoiser:
    """What ``Denoiser.from_pretrained`` does."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype: must be a floating point dtype of torch or None, got {dtype!r}")
    folder = folder_of(path, revision)
    if not (folder / DESCRIPTION).exists() and is_diffusers_folder(folder):
        if network is not None or time_map is not None:
            raise ValueError("network, time_map: must be None for a folder of diffusers, which holds both")
        denoiser = from_diffusers_folder(folder, name=name, dtype=dtype, **options)
    else:
        if options:
            raise TypeError(f"{next(iter(options))}: is an argument for folders of diffusers, got {folder}")
        denoiser = _denoiser(folder, network, time_map, name, dtype)
    if isinstance(denoiser.network, nn.Module):
        denoiser.network.to(device)
    denoiser.network_kwargs = mapped(denoiser.network_kwargs, lambda tensor: tensor.to(device))
    if name is None and denoiser.name is not None and (folder / PRESETS).is_file():
        presets.load(folder / PRESETS, prior=denoiser.name)
    return denoiser


# ------------------------------------------------------------------------------------ where it is
def folder_of(path: str | os.PathLike[str], revision: str | None) -> Path:
    """The folder of a path, or of the hub's copy of a repository.

    Raises:
        FileNotFoundError: There is no such folder, and the path is no name of a repository.
        ValueError: It is a file.
        ImportError: It is the name of a repository, and huggingface_hub is not installed.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path: must be a folder or the name of a repository, got {path!r}")
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ValueError(
            f"path: must be a folder with {DESCRIPTION} and {WEIGHTS}, got the file {folder}{_cure(folder)}"
        )
    if not (isinstance(path, str) and REPOSITORY.fullmatch(path)):
        raise FileNotFoundError(f"path: must be a folder or owner/name of a repository of the hub, got {str(path)!r}")
    try:
        hub = import_module("huggingface_hub")
    except ImportError as error:
        raise ImportError(
            f"path: there is no folder {path!r}, and a repository of that name needs huggingface_hub, which is not "
            "installed"
        ) from error
    try:
        return Path(hub.snapshot_download(path, revision=revision, allow_patterns=list(WANTED)))
    except (OSError, ValueError) as error:
        raise OSError(
            f"path: there is no folder {path!r}, and the hub has not given a repository of that name ({error})"
        ) from error


def _cure(path: Path) -> str:
    """What to do with a file instead."""
    if path.suffix in PICKLES:
        return (
            ", a pickle, which may run code when it is read; ccfast.adapters has loaders of guided_diffusion and "
            "rectified_flow, which read weights alone"
        )
    return "; Denoiser(network, schedule).save_pretrained(folder) makes one" if path.suffix == ".safetensors" else ""


# ------------------------------------------------------------------------------------ our own folders
def _denoiser(
    folder: Path,
    network: Factory | None,
    time_map: Callable[[float], float] | None,
    name: str | None,
    dtype: torch.dtype | None,
) -> Denoiser:
    source = folder / DESCRIPTION
    given = _description(source)
    try:
        schedule = read_schedule(given["schedule"])
        if list(given["time_range"]) != list(schedule.time_range):
            raise ValueError(f"time_range: must be {list(schedule.time_range)}, got {given['time_range']}")
        times, clip = read_time_map(given["time_map"], time_map), read_clip(given["clip"])
        boundary = read_boundary(given["boundary"])
        own = given["name"]
        if not (own is None or isinstance(own, str)):
            raise ValueError(f"name: must be text or null, got {own!r}")
        made = _network(given["network"], network)
        Denoiser(made, schedule, given["prediction"], times, own, None, clip, boundary)  # It checks before any reading.
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{source}: {error}") from error
    tensors = _tensors(folder)
    kept = {key: tensors.pop(key) for key in list(tensors) if key.startswith("kept.")}
    try:
        kwargs = read_value(given["network_kwargs"], kept)
        if not isinstance(kwargs, Mapping):
            raise ValueError(f"network_kwargs: must be an object, got {kwargs!r}")
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    state = {key.removeprefix("network."): value for key, value in tensors.items()}
    check_state(made, state, folder / WEIGHTS)
    if network is None and any(buffer.is_meta for name, buffer in made.named_buffers() if name not in state):
        made = _network(given["network"], None, "cpu")  # Buffers that no file holds are made with the network.
    _fill(made, state, dtype)
    return Denoiser(made, schedule, given["prediction"], times, own if name is None else name, kwargs, clip, boundary)


def _description(path: Path) -> Mapping[str, Any]:
    """The checked keys, format and version of ``denoiser.json``."""
    if not path.is_file():
        held = sorted(other.name for other in path.parent.iterdir())
        pickles = [other for other in held if Path(other).suffix in PICKLES]
        why = f"; {pickles[0]} is a pickle, which may run code when it is read" if pickles else ""
        raise FileNotFoundError(
            f"path: {path.parent} must hold {DESCRIPTION} and {WEIGHTS}, or a model of diffusers with its scheduler, "
            f"got {', '.join(held[:6]) or 'an empty folder'}{why}"
        )
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path}: must be at most {LARGEST} bytes, got {path.stat().st_size}")
    try:
        given = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: must be a description that save_pretrained wrote, got ({error})") from error
    found = given.get("format") if isinstance(given, dict) else given
    if not isinstance(given, dict) or found != FORMAT:
        raise ValueError(f"{path}: format must be {FORMAT!r}, got {found!r}")
    version = given.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or not version >= 1:
        raise ValueError(f"{path}: version must be an integer >= 1, got {version!r}")
    if version > VERSION:
        raise ValueError(
            f"{path}: version must be at most {VERSION}, which this ccfast reads, got {version}; update it"
        )
    check_keys(str(path), given, KEYS)
    if given["data_range"] != DATA_RANGE:
        raise ValueError(
            f"{path}: data_range must be {DATA_RANGE}, the range of the data of every Denoiser, got "
            f"{given['data_range']}; give Denoiser a network that maps it to that of its own"
        )
    return given


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"a key stands twice among {', '.join(key for key, _ in pairs)}")
    return found


def _network(given: Any, other: Factory | None, device: str = "meta") -> nn.Module:
    """The network of a description, or the caller's. Weights without values cost nothing, however large they are."""
    name = given.get("architecture") if isinstance(given, Mapping) else None
    if other is not None:
        made = other if isinstance(other, nn.Module) else other() if callable(other) else other
        if not isinstance(made, nn.Module):
            raise TypeError(
                f"network: must be a torch.nn.Module or a function that makes one, got {type(made).__name__}"
            )
        return made
    if name == GIVEN:
        check_keys("network", given, ("architecture", "class"))
        raise ValueError(
            f"network: must be given, a torch.nn.Module or a function that makes one, since {given['class']} is no "
            "network of ccfast, got None"
        )
    if name == "PaddedNetwork":
        check_keys("network", given, ("architecture", "multiple", "network"))
        multiple = given["multiple"]
        if not isinstance(multiple, int) or multiple < 1:
            raise ValueError(f"network: multiple must be an integer >= 1, got {multiple!r}")
        return PaddedNetwork(_network(given["network"], None, device), multiple)
    if name not in ARCHITECTURES:
        raise ValueError(f"network: architecture must be one of {', '.join(ARCHITECTURES)}, got {name!r}")
    check_keys("network", given, ("architecture", "arguments"))
    with torch.device(device):
        return ARCHITECTURES[name][2](given["arguments"])


def _tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"path: {folder} must hold {WEIGHTS}, got {DESCRIPTION} alone")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: must be a whole safetensors file, got ({error})") from error


def check_state(network: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Raise ValueError unless a state has the names and shapes of a network's."""
    own = bare(network).state_dict()
    wrong = sorted(own.keys() ^ state.keys()) or [key for key in own if own[key].shape != state[key].shape]
    if wrong:
        raise ValueError(
            f"{source}: must hold the {len(own)} tensors of {type(network).__name__}, got {len(state)}; missing, "
            f"unknown or of another shape: {', '.join(wrong[:5])}"
        )


def _fill(network: nn.Module, state: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
    """Give a network its weights, in the dtype of the file or another one; it is in eval mode and frozen then."""
    network = bare(network)
    if dtype is not None:
        state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    unmade = any(value.is_meta for value in network.state_dict().values())
    if not unmade:  # Weights that are tied stay so.
        named = (*network.named_parameters(), *network.named_buffers())
        for key, value in named:
            if key in state and value.dtype != state[key].dtype:
                value.data = value.data.to(state[key].dtype)
    network.load_state_dict(state, assign=unmade)
    network.eval().requires_grad_(False)
