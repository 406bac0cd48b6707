"""What ``denoiser.json`` says of a Denoiser: its parts as JSON, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from .._clip import Clip, DynamicThreshold, EstimateOnly
from ..adapters.guided_diffusion import ADM, Config
from ..adapters.rectified_flow import NCSNpp, Shape
from ..denoiser import Boundary, Denoiser
from ..priors.padding import PaddedNetwork
from ..priors.unet import UNet, channels_last
from ..schedules import EDM, VE, VP, DiscreteVP, Flow, Schedule
from ..times import FloorTimesteps

__all__ = [
    "ARCHITECTURES",
    "DATA_RANGE",
    "FORMAT",
    "GIVEN",
    "VERSION",
    "Kept",
    "check_keys",
    "read_boundary",
    "read_clip",
    "read_schedule",
    "read_time_map",
    "read_value",
    "record",
]

FORMAT, VERSION = "ccfast.denoiser", 1

GIVEN = "given"
"""The word for a part that a file cannot hold, and that ``from_pretrained`` is given again."""

DATA_RANGE = [-1.0, 1.0]

SCHEDULES: dict[str, tuple[type[Schedule], tuple[str, ...]]] = {
    "VP": (VP, ("beta_min", "beta_max")),
    "DiscreteVP": (DiscreteVP, ("betas", "final")),
    "VE": (VE, ("sigma_min", "sigma_max")),
    "EDM": (EDM, ("sigma_min", "sigma_max", "sigma_data")),
    "Flow": (Flow, ()),
}
"""The schedules, and their arguments, which are attributes as well."""


class Kept(dict[str, Tensor]):
    """The tensors that ``model.safetensors`` holds beside the weights, by name."""

    def add(self, tensor: Tensor) -> str:
        name = f"kept.{len(self)}"
        self[name] = tensor.detach()
        return name


def _unet(arguments: Mapping[str, Any]) -> nn.Module:
    return channels_last(UNet(**{**arguments, "widths": tuple(arguments["widths"])}))


def _tupled(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}


def _ncsnpp(arguments: Mapping[str, Any]) -> nn.Module:
    return NCSNpp(Shape(**_tupled(arguments["shape"])), bool(arguments["centred"]))


ARCHITECTURES: dict[str, tuple[type[nn.Module], Callable[[Any], dict[str, Any]], Callable[..., nn.Module]]] = {
    "UNet": (UNet, lambda network: dict(network.arguments), _unet),
    "ADM": (ADM, lambda network: network.config._asdict(), lambda arguments: ADM(Config(**_tupled(arguments)))),
    "NCSNpp": (NCSNpp, lambda network: {"shape": network.shape._asdict(), "centred": network.centred}, _ncsnpp),
}
"""The networks of this package: the class, its arguments as JSON, and what makes a network of them."""


def record(denoiser: Denoiser, network: nn.Module, kept: Kept) -> dict[str, Any]:
    """The JSON of a Denoiser, whose unwrapped network is ``network``; tensors of its arguments go to ``kept``.

    Raises:
        ValueError: A part is of a class that is not in the tables of this file.
    """
    low, high = denoiser.schedule.time_range
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": denoiser.name,
        "prediction": denoiser.prediction,
        "schedule": _schedule(denoiser.schedule),
        "time_map": _time_map(denoiser),
        "time_range": [low, high],
        "data_range": DATA_RANGE,
        "clip": _clip(denoiser.clip),
        "boundary": None if denoiser.boundary is None else asdict(denoiser.boundary),
        "network": _network(network),
        "network_kwargs": _value("network_kwargs", denoiser.network_kwargs, kept),
    }


# ------------------------------------------------------------------------------------ schedules and times
def _schedule(schedule: Schedule) -> dict[str, Any]:
    name = type(schedule).__name__
    kind, arguments = SCHEDULES.get(name, (None, ()))
    if type(schedule) is not kind:
        raise ValueError(f"schedule: must be one of {', '.join(SCHEDULES)} to be saved, got {schedule!r}")
    own = {argument: getattr(schedule, argument) for argument in arguments}
    if "betas" in own:
        own["betas"] = own["betas"].tolist()
    return {"kind": name, **own}


def read_schedule(given: Mapping[str, Any]) -> Schedule:
    """The schedule of a record; ValueError or TypeError where its kind or its arguments are wrong."""
    name = given.get("kind")
    if name not in SCHEDULES:
        raise ValueError(f"schedule: kind must be one of {', '.join(SCHEDULES)}, got {name!r}")
    kind, arguments = SCHEDULES[name]
    check_keys("schedule", given, ("kind", *arguments))
    return kind(**{argument: given[argument] for argument in arguments})


def _time_map(denoiser: Denoiser) -> dict[str, Any]:
    own = denoiser.time_map
    if getattr(own, "__func__", None) is type(denoiser.schedule).default_time_map:
        return {"kind": "default"}
    if own is float:
        return {"kind": "identity"}
    if isinstance(own, FloorTimesteps):
        return {"kind": "floor_timesteps", "count": own.count}
    return {"kind": GIVEN}


def read_time_map(given: Mapping[str, Any], other: Callable[[float], float] | None) -> Callable[[float], float] | None:
    """The time map of a record, None for the schedule's; ``other`` is the caller's, who knows better."""
    kind = given.get("kind")
    check_keys("time_map", given, ("kind", "count") if kind == "floor_timesteps" else ("kind",))
    if kind not in ("default", "identity", "floor_timesteps", GIVEN):
        raise ValueError(f"time_map: kind must be default, identity, floor_timesteps or given, got {kind!r}")
    if other is not None or kind == "default":
        return other
    if kind == GIVEN:
        raise ValueError("time_map: must be given, since the file cannot hold the function that was saved, got None")
    return float if kind == "identity" else FloorTimesteps(given["count"])


# ------------------------------------------------------------------------------------ clips
def _clip(clip: Clip) -> Any:
    if isinstance(clip, EstimateOnly):
        return {"estimate_only": _clip(clip.limits)}
    if isinstance(clip, DynamicThreshold):
        own = asdict(clip)
        return {**own, "sample_max_value": None} if math.isinf(clip.sample_max_value) else own
    return list(clip) if isinstance(clip, tuple) else clip


def read_clip(given: Any) -> Any:
    """The clip of a record, which the Denoiser checks."""
    if isinstance(given, Mapping) and "estimate_only" in given:
        check_keys("clip", given, ("estimate_only",))
        return EstimateOnly(read_clip(given["estimate_only"]))
    if isinstance(given, Mapping):
        check_keys("clip", given, ("ratio", "sample_max_value"))
        most = given["sample_max_value"]
        return DynamicThreshold(given["ratio"], math.inf if most is None else most)
    return given


def read_boundary(given: Any) -> Boundary | None:
    """The boundary condition of a description."""
    if given is None:
        return None
    check_keys("boundary", given, ("scaling", "sigma_data"))
    return Boundary(**given)


# ------------------------------------------------------------------------------------ networks
def _network(network: nn.Module) -> dict[str, Any]:
    if isinstance(network, PaddedNetwork) and isinstance(network.network, nn.Module):
        return {"architecture": "PaddedNetwork", "multiple": network.multiple, "network": _network(network.network)}
    for name, (kind, arguments, _) in ARCHITECTURES.items():
        if type(network) is kind:
            return {"architecture": name, "arguments": arguments(network)}
    return {"architecture": GIVEN, "class": f"{type(network).__module__}.{type(network).__qualname__}"}


# ------------------------------------------------------------------------------------ arguments of the network
def _value(name: str, value: Any, kept: Kept) -> Any:
    """A value as JSON, tensors by their names in the file of the weights."""
    if isinstance(value, Tensor):
        return {"tensor": kept.add(value)}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"mapping": {key: _value(f"{name}[{key!r}]", item, kept) for key, item in value.items()}}
    if type(value) in (list, tuple):
        items = [_value(f"{name}[{k}]", item, kept) for k, item in enumerate(value)]
        return {"tuple" if type(value) is tuple else "list": items}
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return value
    raise ValueError(
        f"network_kwargs: {name} must be a tensor, number, text or None, or a mapping or list of these, to be saved, "
        f"got {type(value).__name__}"
    )


def read_value(given: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value of ``_value``."""
    if not isinstance(given, Mapping):
        return given
    if len(given) == 1:
        ((kind, inner),) = given.items()
        if kind == "tensor" and inner in tensors:
            return tensors[inner]
        if kind == "mapping" and isinstance(inner, Mapping):
            return {key: read_value(item, tensors) for key, item in inner.items()}
        if kind in ("list", "tuple") and isinstance(inner, list):
            items = [read_value(item, tensors) for item in inner]
            return tuple(items) if kind == "tuple" else items
    raise ValueError(f"network_kwargs: must be values as save_pretrained writes them, got {given!r}")


def check_keys(name: str, given: Any, wanted: tuple[str, ...]) -> None:
    """Raise ValueError unless a mapping has these keys and no other."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{name}: must be an object with {', '.join(wanted)}, got {given!r}")
    missing, unknown = [key for key in wanted if key not in given], [key for key in given if key not in wanted]
    if missing or unknown:
        words = [f"{what} {', '.join(map(repr, keys))}" for what, keys in (("no", missing), ("also", unknown)) if keys]
        raise ValueError(f"{name}: must have {', '.join(wanted)}, got {' and '.join(words)}")
