"""diffusers, whose networks and schedulers are read by their public attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..denoiser import Boundary, Denoiser
from ._diffusers_networks import Called, config_of, convention_of
from ._diffusers_schedulers import trained_with

__all__ = ["from_diffusers"]


def from_diffusers(
    network: nn.Module,
    scheduler: Any,
    name: str | None = None,
    network_kwargs: Mapping[str, Any] | None = None,
    *,
    time_argument: str | None = None,
    time_scale: float | None = None,
    guidance: float | None = None,
    negative_kwargs: Mapping[str, Any] | None = None,
) -> Denoiser:
    """A diffusers network as a Denoiser, by the scheduler that it was trained with.

    A pipeline is ``from_diffusers(pipe.unet, pipe.scheduler)``, or ``pipe.transformer``. The network is called as its
    pipeline does: the time by the name of the argument and on the pipeline's scale (timestep/1000 for Flux), Flux and
    QwenImage with packed tokens, so that x is (B, C, H, W) here. Text and class conditions go into ``network_kwargs``.

        scheduler                                     schedule, prediction
        a table of betas, with prediction_type        DiscreteVP of its alphas_cumprod, the same. It ends where the
            epsilon, sample or v_prediction               scheduler does (``set_alpha_to_one``, ``final_sigmas_type``)
        flow matching (``FlowMatch...``), and         Flow; diffusers' velocity is noise - data and ours data - noise,
            flow_prediction with use_flow_sigmas          but for ``invert_sigmas``
        EDM (``sigma_data``), and Euler with          EDM, "edm"; with v_prediction the output changes its sign
            continuous timesteps
        ``ScoreSdeVeScheduler``                       VE, "score"
        ``CMStochasticIterativeScheduler``            EDM, "consistency"
        ``LCMScheduler``                              as other tables of betas, with its ``Boundary``

    ``clip_sample``, ``clip_sample_range``, ``thresholding``, ``dynamic_thresholding_ratio`` and ``sample_max_value``
    become the clip of the Denoiser, which samplers apply unless they are given another one.

    Args:
        network: A network of diffusers, or any that is called as network(x, timestep, ...) or has an argument of the
            name ``time_argument``.
        scheduler: The scheduler with the path and the prediction type of the training; its timesteps do not matter.
        name: The name of the denoiser, by which presets are found.
        network_kwargs: Further arguments of every call, such as ``encoder_hidden_states`` or ``class_labels``. Tensors
            have a row for each image, or one for all.
        time_argument: The name of the network's time argument. None: that of its class or signature.
        time_scale: The network's time divided by the scheduler's timestep. None: that of the class's pipeline, and 1
            for networks that are not of diffusers.
        guidance: The scale of classifier-free guidance with ``negative_kwargs``,
            F_negative + guidance (F - F_negative), two calls for each evaluation (``Denoiser.guided``); without
            ``negative_kwargs`` the embedded guidance of a distilled network (``guidance_embeds`` in its config).
        negative_kwargs: What replaces ``network_kwargs`` in the unconditional call.

    Raises:
        TypeError: ``network`` or ``scheduler`` is something else, such as a pipeline.
        ValueError: The scheduler, the class of the network or a combination of arguments is not supported; the message
            names what is.
    """
    trained = trained_with(scheduler)
    convention = convention_of(network, time_argument, time_scale)
    config = config_of(network)
    kwargs = dict(network_kwargs or {})
    embedded = bool(config.get("guidance_embeds")) and convention.packed is not None
    if guidance is not None and not float("-inf") < float(guidance) < float("inf"):
        raise ValueError(f"guidance: must be a finite number or None, got {guidance!r}")
    if negative_kwargs is not None:
        if guidance is None:
            raise ValueError("guidance: must be a number where negative_kwargs are given, got None")
        if embedded and "guidance" not in kwargs:
            raise ValueError(
                f"guidance: is that of negative_kwargs here, and {type(network).__name__} has an embedded guidance, "
                "too; give that as network_kwargs={'guidance': tensor of one number}"
            )
    elif guidance is not None and not embedded:
        raise ValueError(
            f"guidance: needs negative_kwargs, the arguments of the unconditional call, since {type(network).__name__} "
            f"has no embedded guidance, got guidance={guidance!r} alone"
        )
    elif embedded and guidance is None and "guidance" not in kwargs:
        raise ValueError(
            f"guidance: must be given, since {type(network).__name__} has an embedded guidance (guidance_embeds); its "
            "pipeline's default is 3.5, got None"
        )
    scale = convention.scale(config, trained.times.count)
    told = float(guidance) if guidance is not None and negative_kwargs is None else None
    denoiser = Denoiser(
        Called(network, convention, trained.sign, told),
        trained.schedule,
        trained.prediction,
        trained.times.scaled(scale, convention.backwards),
        name,
        kwargs,
        trained.clip,
        None if trained.boundary is None else Boundary(trained.boundary / scale),
    )
    if guidance is None or negative_kwargs is None:
        return denoiser
    return denoiser.guided(float(guidance), negative_kwargs, together=False)
