"""How the networks of diffusers are called: by the names of their own signatures, as their pipelines call them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..engine.conditions import Batch, spread

__all__ = ["Called", "Convention", "convention_of", "pack", "unpack"]


@dataclass(frozen=True)
class Convention:
    """How a network is called.

    Attributes:
        time: The name of the time argument; None: the time stands second.
        scale: The factor between the scheduler's timesteps and the network's time, from the network's config and N.
        packed: Where the network takes tokens and is told where they lie: "flux" or "qwen" for tokens of 2 x 2 pixels,
            "flux2" for tokens of one pixel.
        backwards: Whether the network is told N - timestep and returns the negative of its output.
    """

    time: str | None = "timestep"
    scale: Callable[[Mapping[str, Any], int], float] = lambda config, count: 1.0
    packed: str | None = None
    backwards: bool = False


def thousandth(config: Mapping[str, Any], count: int) -> float:
    return 1e-3


def of_training(config: Mapping[str, Any], count: int) -> float:
    return 1.0 / count


def of_config(config: Mapping[str, Any], count: int) -> float:
    return float(config.get("timestep_scale", 1.0))


PLAIN = Convention()
CONVENTIONS = {
    "UNet1DModel": PLAIN,
    "UNet2DModel": PLAIN,
    "UNet2DConditionModel": PLAIN,
    "DiTTransformer2DModel": PLAIN,
    "PixArtTransformer2DModel": PLAIN,
    "HunyuanDiT2DModel": PLAIN,
    "SD3Transformer2DModel": PLAIN,
    "CogView3PlusTransformer2DModel": PLAIN,
    "CogView4Transformer2DModel": PLAIN,
    "SanaTransformer2DModel": Convention(scale=of_config),
    "AuraFlowTransformer2DModel": Convention(scale=thousandth),
    "PRXTransformer2DModel": Convention(scale=of_training),
    "Lumina2Transformer2DModel": Convention(scale=of_training, backwards=True),
    "FluxTransformer2DModel": Convention(scale=thousandth, packed="flux"),
    "Flux2Transformer2DModel": Convention(scale=thousandth, packed="flux2"),
    "ChromaTransformer2DModel": Convention(scale=thousandth, packed="flux"),
    "QwenImageTransformer2DModel": Convention(scale=thousandth, packed="qwen"),
}
"""The classes of diffusers that are called as their pipelines call them; a table of tests has a row for each."""

TIMES = ("timestep", "timesteps", "t", "time", "sigma")
"""Names of the time argument in other people's networks."""


def bare(network: Any) -> Any:
    """The network without the wrappers of torch.compile and DistributedDataParallel."""
    network = getattr(network, "_orig_mod", network)
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


def config_of(network: Any) -> Mapping[str, Any]:
    config = getattr(bare(network), "config", None)
    return config if isinstance(config, Mapping) else {}


def convention_of(network: Any, time_argument: str | None, time_scale: float | None) -> Convention:
    """The convention of a network's class, or of its signature, and what the caller says of it.

    Raises:
        TypeError: ``network`` is no network, but a pipeline, or cannot be called.
        ValueError: It is a class of diffusers whose pipeline calls it in another way, or has no such argument.
    """
    own = bare(network)
    if not callable(network) or hasattr(own, "scheduler"):
        raise TypeError(
            f"network: must be a network, got {type(own).__name__}; of a pipeline give pipe.unet or pipe.transformer, "
            "and pipe.scheduler"
        )
    names = [kind.__name__ for kind in type(own).__mro__]
    found = next((CONVENTIONS[name] for name in names if name in CONVENTIONS), None)
    parameters = parameters_of(own)
    if found is None:
        if type(own).__module__.startswith("diffusers.") and time_scale is None:
            raise ValueError(
                f"network: {names[0]} is not among the classes whose calls are known, {', '.join(CONVENTIONS)}; if it "
                "takes images (B, C, H, W), give time_scale, the factor between the scheduler's timesteps and its time "
                "(1 or 1/1000 in most pipelines), and else Denoiser(function, ...) with a function of (x, t)"
            )
        found = replace(PLAIN, time=next((name for name in TIMES if name in parameters), None))
    if time_argument is not None:
        if time_argument not in parameters and not takes_any(parameters):
            raise ValueError(
                f"time_argument: must be an argument of {names[0]}, got {time_argument!r}; it has "
                f"{', '.join(parameters)}"
            )
        found = replace(found, time=time_argument)
    if time_scale is not None:
        given = float(time_scale)
        if not 0 < given < float("inf"):
            raise ValueError(f"time_scale: must be a finite number > 0, got {time_scale!r}")
        found = replace(found, scale=lambda config, count: given)
    return found


def parameters_of(network: Any) -> Mapping[str, inspect.Parameter]:
    """The arguments of a network by name."""
    function = network.forward if isinstance(network, nn.Module) else network
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


class Called(nn.Module):
    """A network of diffusers as a Denoiser calls it, network(x, t, **kwargs), which returns the output alone.

    A distilled network is told ``guidance``. ``return_dict=False`` avoids graph breaks.
    """

    def __init__(self, network: Any, convention: Convention, sign: float, guidance: float | None = None) -> None:
        super().__init__()
        self.network, self.time, self.packed = network, convention.time, convention.packed
        self.sign, self.guidance = -sign if convention.backwards else sign, guidance
        parameters = parameters_of(bare(network))
        known = "return_dict" in parameters or takes_any(parameters)
        self.options: dict[str, Any] = {"return_dict": False} if known else {}

    def forward(self, x: Tensor, t: Tensor, **kwargs: Any) -> Tensor:
        output = self.evaluate(x, t, kwargs)
        return output if self.sign == 1.0 else self.sign * output

    def evaluate(self, x: Tensor, t: Tensor, kwargs: Mapping[str, Any]) -> Tensor:
        """One call, with arguments of one row spread over the batch."""
        kwargs = {**self.options, **spread(kwargs, Batch(len(x)))}
        if self.packed is not None:
            return self.evaluate_packed(x, t, kwargs)
        if self.time is None:
            return first(self.network(x, t, **kwargs))
        return first(self.network(x, **{self.time: t}, **kwargs))

    def evaluate_packed(self, x: Tensor, t: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """A call with the tokens of an image, and with the places of the tokens."""
        config, (batch, channels, height, width) = config_of(self.network), x.shape
        wanted, side = config.get("in_channels"), 1 if self.packed == "flux2" else 2
        if height % side or width % side or (wanted is not None and wanted != side**2 * channels):
            raise ValueError(
                f"x: must have {'even sides and ' * (side == 2)}{wanted // side**2 if wanted else 'as many'} channels, "
                f"since {side**2} pixels are one token of {type(bare(self.network)).__name__}, got {tuple(x.shape)}"
            )
        places: dict[str, Any] = {}
        text = kwargs.get("encoder_hidden_states")
        length = text.shape[1] if isinstance(text, Tensor) else 0
        if self.packed == "qwen":
            places["img_shapes"] = [[(1, height // 2, width // 2)]] * batch
        elif self.packed == "flux":
            places |= {"img_ids": image_places(x, side), "txt_ids": x.new_zeros(length, 3)}
        else:  # (0, row, column, 0) and (0, 0, 0, number) for every image
            image = nn.functional.pad(image_places(x, side), (0, 1))
            numbers = torch.arange(length, device=x.device, dtype=x.dtype)[:, None]
            places["img_ids"] = image.expand(batch, -1, -1)
            places["txt_ids"] = nn.functional.pad(numbers, (3, 0)).expand(batch, -1, -1)
        if config.get("guidance_embeds") and self.guidance is not None:
            places["guidance"] = torch.full((batch,), self.guidance, dtype=torch.float32, device=x.device)
        tokens = self.network(pack(x, side), **{self.time or "timestep": t}, **(places | kwargs))
        return unpack(first(tokens), height, width, side)


def first(output: Any) -> Tensor:
    """The output itself, or the first of a tuple or dictionary of outputs."""
    if isinstance(output, Tensor):
        return output
    return output[0]


def pack(x: Tensor, side: int = 2) -> Tensor:
    """Images (B, C, H, W) as tokens of side x side pixels, channel by channel, (B, H W/side^2, side^2 C)."""
    batch, channels, height, width = x.shape
    tiles = x.reshape(batch, channels, height // side, side, width // side, side).permute(0, 2, 4, 1, 3, 5)
    return tiles.reshape(batch, (height // side) * (width // side), side**2 * channels)


def unpack(tokens: Tensor, height: int, width: int, side: int = 2) -> Tensor:
    """The images of ``pack``'s tokens."""
    batch, _, size = tokens.shape
    channels = size // side**2
    tiles = tokens.reshape(batch, height // side, width // side, channels, side, side).permute(0, 3, 1, 4, 2, 5)
    return tiles.reshape(batch, channels, height, width)


def image_places(x: Tensor, side: int = 2) -> Tensor:
    """(0, row, column) of every token of an image, (H W/side^2, 3)."""
    height, width = x.shape[-2] // side, x.shape[-1] // side
    places = torch.zeros(height, width, 3, device=x.device, dtype=x.dtype)
    places[..., 1] = torch.arange(height, device=x.device)[:, None]
    places[..., 2] = torch.arange(width, device=x.device)
    return places.reshape(-1, 3)
