"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598) as a network around a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["UNCONDITIONAL", "Guided"]

UNCONDITIONAL = "unconditional"
"""The keyword argument of a guided network that holds the arguments of the unconditional evaluation."""


class Guided(nn.Module):
    """F = F_u + scale (F_c - F_u), from an evaluation with the condition and one without.

    Args:
        network: The network, called as network(x, t, **kwargs).
        trim: Makes the tensor F of an output, with a learned variance where there is one.
        scale: The scale of the guidance; 1 is the conditional network.
        rescale: The fraction by which F is brought to the standard deviation of F_c in every image (arXiv 2305.08891).
        span: The network times, the smaller one first, between which the guidance acts; outside F is F_c.
        together: Whether both evaluations are one of twice as many images.
    """

    def __init__(
        self,
        network: Callable[..., Any],
        trim: Callable[[object, Tensor], Tensor],
        scale: float,
        rescale: float,
        span: tuple[float, float] | None,
        together: bool,
    ) -> None:
        super().__init__()
        self.network, self.trim = network, trim
        self.training = getattr(network, "training", False)
        self.scale, self.rescale, self.span, self.together = scale, rescale, span, together

    def forward(self, x: Tensor, t: Tensor, unconditional: Mapping[str, Any], **kwargs: Any) -> Tensor:
        without, channels = {**kwargs, **unconditional}, x.shape[1]
        if self.together:
            pairs = torch.cat([x, x]), torch.cat([t, t])
            both = self.trim(self.network(*pairs, **paired(kwargs, without, len(x))), pairs[0])
            found, other = both.chunk(2)
        else:
            # The network may overwrite its inputs, and its output in the next call.
            found = self.trim(self.network(x.clone(), t.clone(), **kwargs), x).clone()
            other = self.trim(self.network(x, t, **without), x)
        mean, other = found[:, :channels], other[:, :channels]
        guided = torch.lerp(other, mean, self.scale)
        if self.rescale:
            axes = tuple(range(1, x.ndim))
            ratio = mean.std(axes, keepdim=True) / guided.std(axes, keepdim=True).clamp_min(1e-12)
            guided = guided * (1.0 - self.rescale + self.rescale * ratio)
        if self.span is not None:
            inside = ((t >= self.span[0]) & (t <= self.span[1])).reshape(-1, *[1] * (x.ndim - 1))
            guided = torch.where(inside, guided, mean)
        return guided if found.shape[1] == channels else torch.cat([guided, found[:, channels:]], 1)


def paired(first: Mapping[str, Any], second: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """The keyword arguments of two evaluations as those of one, the rows of the first before those of the second.

    Raises:
        ValueError: A value has no rows to put together and differs.
    """
    return {name: _pair(name, first.get(name), second[name], batch) for name in second}


def _pair(name: str, a: Any, b: Any, batch: int) -> Any:
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.ndim and b.ndim and a.shape[1:] == b.shape[1:]:
        if {len(a), len(b)} <= {1, batch}:
            rows = [value if len(value) == batch else value.expand(batch, *value.shape[1:]) for value in (a, b)]
            return torch.cat(rows)
        if a is b:  # It has no row for each image, such as a table of the network's, and serves more images as well.
            return b
        raise ValueError(
            f"unconditional: {name} must have one row, or one for each of {batch} images, to share an evaluation with "
            f"the conditional one, got {len(b)} rows beside {len(a)}; take together=False"
        )
    if isinstance(a, Mapping) and isinstance(b, Mapping) and a.keys() == b.keys():
        return {key: _pair(f"{name}[{key!r}]", a[key], b[key], batch) for key in b}
    if type(a) is type(b) and isinstance(a, list | tuple) and len(a) == len(b):
        return type(a)(_pair(f"{name}[{k}]", *values, batch) for k, values in enumerate(zip(a, b, strict=True)))
    if a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b):
        return b
    raise ValueError(
        f"unconditional: {name} must be a tensor with the shape of the conditional one to share an evaluation with it, "
        f"got {_said(b)} beside {_said(a)}; take together=False"
    )


def _said(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
