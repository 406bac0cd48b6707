"""diffusers, whose networks and schedulers are read by their public attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..denoiser import Denoiser
from ..schedules import DiscreteVP, Flow
from ..times import final_of_scheduler

__all__ = ["from_diffusers"]

PREDICTIONS = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v_prediction"}


class Called(nn.Module):
    """The network called with ``return_dict=False``, which avoids graph breaks, and its output times ``sign``."""

    def __init__(self, network: nn.Module, sign: float) -> None:
        super().__init__()
        self.network, self.sign = network, sign

    def forward(self, x: Tensor, t: Tensor, **kwargs: Any) -> Tensor:
        output = self.network(x, t, return_dict=False, **kwargs)[0]
        return output if self.sign == 1.0 else self.sign * output


def from_diffusers(
    network: nn.Module, scheduler: Any, name: str | None = None, network_kwargs: Mapping[str, Any] | None = None
) -> Denoiser:
    """A diffusers network as a Denoiser.

    ``UNet2DModel`` and ``UNet2DConditionModel`` take (sample, timestep, ...); DiT-like transformers take the image
    first and the time as ``timestep``, which is how they are called here. Text or class conditions go into
    ``network_kwargs`` (``encoder_hidden_states``, ``class_labels``). A pipeline is
    ``from_diffusers(pipe.unet, pipe.scheduler)``.

        scheduler.config                              schedule, prediction
        beta table, prediction_type epsilon,          DiscreteVP(betas), the same; network time: the index. It ends
            sample or v_prediction                        where the scheduler does (``times.final_of_scheduler``)
        flow matching (``FlowMatch...``):             Flow; diffusers' velocity is noise - data, ours data - noise, and
            x = (1 - s) x0 + s n                      its time is N s with s = 1 - t

    Raises:
        ValueError: the scheduler is of neither kind (networks of EDM and VE go through ``from_edm``), or its prediction
            type is another.
    """
    config = scheduler.config
    count = int(config.get("num_train_timesteps", 1000))
    if "FlowMatch" in type(scheduler).__name__:
        return Denoiser(Called(network, -1.0), Flow(), "velocity", lambda t: count * (1.0 - t), name, network_kwargs)
    betas, prediction = getattr(scheduler, "betas", None), config.get("prediction_type", "epsilon")
    if betas is None or config.get("sigma_data") is not None:
        raise ValueError(
            "scheduler: must have a table of betas or be a flow-matching one, got "
            f"{type(scheduler).__name__}; EDM-like networks go through from_edm"
        )
    if prediction not in PREDICTIONS:
        raise ValueError(f"scheduler: prediction_type must be one of {', '.join(PREDICTIONS)}, got {prediction!r}")
    schedule = DiscreteVP(betas, final=final_of_scheduler(scheduler))
    return Denoiser(Called(network, 1.0), schedule, PREDICTIONS[prediction], name=name, network_kwargs=network_kwargs)
