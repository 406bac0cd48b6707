"""Restoration as a pipeline of diffusers is called. Nothing of diffusers is imported."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..adapters import from_diffusers
from ..denoiser import Denoiser
from ..latents import LatentDenoiser, latent
from ..operators import Inpainting, Operator
from ..sampler import Sampler
from ..solvers import Solver
from .conversions import OUTPUT_TYPES, batch_of, converted, mask_of

__all__ = ["RestorationPipeline", "RestorationPipelineOutput"]

MOST_SAMPLERS = 8
"""Samplers that a pipeline keeps, for numbers of steps and operators."""

PIECES = ("latents", "pred_original_sample")
"""What a callback may ask for."""

StepEnd = Callable[["RestorationPipeline", int, float, dict[str, Any]], Mapping[str, Any] | None]


@dataclass
class RestorationPipelineOutput:
    """What a pipeline returns.

    Attributes:
        images: a list of Pillow images, an array (B, H, W, C), a tensor (B, C, H, W), or latents.
    """

    images: Any

    def to_tuple(self) -> tuple[Any, ...]:
        return (self.images,)

    def __getitem__(self, key: str | int | slice) -> Any:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(field.name for field in fields(self))

    def keys(self) -> list[str]:
        return list(self)


class RestorationPipeline:
    """Restores pictures: images in, images out, called as a pipeline of diffusers.

        pipe = RestorationPipeline(denoiser, operators.AveragePooling((3, 512, 512), 4))
        image = pipe(small, num_inference_steps=5, generator=torch.Generator().manual_seed(0)).images[0]

        pipe = RestorationPipeline(denoiser)
        image = pipe(picture, mask_image=mask).images[0]        # white = repaint

    Args:
        denoiser: the network, or that of latents with its autoencoder (``ccfast.latent``).
        operator: what has degraded the images; None where calls give it, or a ``mask_image``.
        solver: writes the plan; None for the default of ``Sampler``.
        noise_std: standard deviation of the images' noise, on the scale of [0, 1], half of that of a ``Sampler``.
        options: further arguments of ``Sampler``, such as ``start``, ``hard_consistency`` or ``autocast``.

    Raises:
        TypeError, ValueError: an argument breaks its rule.
    """

    _callback_tensor_inputs = PIECES

    def __init__(
        self,
        denoiser: Denoiser,
        operator: Operator | None = None,
        solver: Solver | None = None,
        noise_std: float = 0.0,
        **options: Any,
    ) -> None:
        if not isinstance(denoiser, Denoiser):
            raise TypeError(f"denoiser: must be a ccfast Denoiser, got {type(denoiser).__name__}")
        if not isinstance(operator, Operator | None):
            raise TypeError(f"operator: must be a ccfast Operator or None, got {type(operator).__name__}")
        for name in ("steps", "times", "operator", "device"):
            if name in options:
                raise TypeError(f"{name}: is not an argument of RestorationPipeline; calls have num_inference_steps")
        self.denoiser, self.operator, self.solver, self.noise_std = denoiser, operator, solver, noise_std
        self.options = options
        self._device: torch.device | None = None
        self._samplers: OrderedDict[Any, tuple[Sampler, Operator]] = OrderedDict()
        self._lock = threading.Lock()
        self._progress_bar_config: dict[str, Any] = {}
        self._interrupt = False
        self._num_timesteps = 0
        if operator is not None:
            self._sampler(operator, 5, False)  # What is wrong with the arguments is said now.

    # ------------------------------------------------------------------------------------ as diffusers has it
    @classmethod
    def from_pipe(
        cls,
        pipe: Any,
        operator: Operator | None = None,
        solver: Solver | None = None,
        noise_std: float = 0.0,
        *,
        network_kwargs: Mapping[str, Any] | None = None,
        guidance: float | None = None,
        negative_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> RestorationPipeline:
        """A pipeline from the network, the scheduler and the autoencoder of one of diffusers, or of another of these.

        Args:
            pipe: has ``scheduler``, ``unet`` or ``transformer``, and ``vae`` or ``vqvae`` where it is one of latents.
            operator, solver, noise_std, options: as above.
            network_kwargs, guidance, negative_kwargs: as in ``adapters.from_diffusers``; text embeddings, say.
        """
        if isinstance(pipe, RestorationPipeline):
            given = operator or pipe.operator, solver or pipe.solver, noise_std or pipe.noise_std
            return cls(pipe.denoiser, *given, **(pipe.options | options))
        network = next((n for n in ("unet", "transformer") if getattr(pipe, n, None) is not None), None)
        if network is None or getattr(pipe, "scheduler", None) is None:
            raise TypeError(
                f"pipe: must have a scheduler and a unet or transformer, got {type(pipe).__name__}; give "
                "RestorationPipeline(denoiser, operator) with a Denoiser"
            )
        denoiser = from_diffusers(
            getattr(pipe, network),
            pipe.scheduler,
            network_kwargs=network_kwargs,
            guidance=guidance,
            negative_kwargs=negative_kwargs,
        )
        vae = next((getattr(pipe, n) for n in ("vae", "vqvae", "movq") if getattr(pipe, n, None) is not None), None)
        return cls(denoiser if vae is None else latent(denoiser, vae), operator, solver, noise_std, **options)

    @property
    def components(self) -> dict[str, Any]:
        """The denoiser and the operator."""
        return {"denoiser": self.denoiser, "operator": self.operator}

    @property
    def _modules(self) -> list[nn.Module]:
        vae = self.denoiser.autoencoder.vae if isinstance(self.denoiser, LatentDenoiser) else None
        return [module for module in (self.denoiser.network, vae) if isinstance(module, nn.Module)]

    @property
    def device(self) -> torch.device:
        """Where it runs: the device of the weights, or for a network without any that of ``to``, or the CPU."""
        weight = next((p for module in self._modules for p in module.parameters()), None)
        return weight.device if weight is not None else self._device or torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, float32 for a network without any."""
        weights = (p for module in self._modules for p in module.parameters() if p.is_floating_point())
        return next((p.dtype for p in weights), torch.float32)

    def to(self, *args: Any, **kwargs: Any) -> RestorationPipeline:
        """Move the network and the autoencoder to a device, a dtype or both, as pipelines of diffusers do.

        The modules are those that the pipeline was given, which are moved themselves.
        """
        given = list(args) + [kwargs.pop(name) for name in ("device", "torch_device") if name in kwargs]
        given += [kwargs.pop(name) for name in ("dtype", "torch_dtype") if name in kwargs]
        if kwargs:
            raise TypeError(f"to: takes a device and a dtype, got {', '.join(kwargs)}")
        for value in given:
            if isinstance(value, str | int | torch.device):
                self._device = torch.device(value)
            elif value is not None and not (isinstance(value, torch.dtype) and value.is_floating_point):
                raise TypeError(f"to: must be given a device or a dtype of floats, got {value!r}")
            if value is not None:
                for module in self._modules:
                    module.to(value)
        with self._lock:
            self._samplers.clear()
        return self

    @property
    def interrupt(self) -> bool:
        """Whether the call that runs ends after its present step; a callback sets ``pipe._interrupt = True``."""
        return self._interrupt

    @property
    def num_timesteps(self) -> int:
        """The number of network evaluations of the last call."""
        return self._num_timesteps

    def progress_bar(self, iterable: Any = None, total: int | None = None) -> Any:
        """A bar of tqdm, with what ``set_progress_bar_config`` was given."""
        if iterable is None and total is None:
            raise ValueError("total: either total or iterable must be given")
        return tqdm(iterable, **self._progress_bar_config) if total is None else self._bar(total)

    def _bar(self, total: int) -> Any:
        return tqdm(total=total, **self._progress_bar_config)

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """Arguments of tqdm for the progress bar; ``disable=True`` for none."""
        self._progress_bar_config = kwargs

    # ------------------------------------------------------------------------------------ a call
    def __call__(
        self,
        image: Any,
        num_inference_steps: int = 5,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        *,
        mask_image: Any = None,
        operator: Operator | None = None,
        latents: Tensor | None = None,
        data_range: tuple[float, float] | None = None,
        condition: Mapping[str, Any] | None = None,
    ) -> RestorationPipelineOutput | tuple[Any, ...]:
        """Restore images.

        Args:
            image: the degraded images: a Pillow image, an array (H, W, C) or (B, H, W, C), a tensor (C, H, W) or
                (B, C, H, W), or a list. Integers span their range, and floats lie in [0, 1].
            num_inference_steps: the number of steps.
            generator: a generator of torch, or a list with one for each image; the noise of an image follows from
                its own alone.
            output_type: "pil", "np", "pt" (floats in [0, 1]) or "latent" (states as they are).
            return_dict: whether to return a ``RestorationPipelineOutput``, or a tuple.
            callback_on_step_end: called as function(pipe, step, timestep, callback_kwargs) after every step, where
                timestep is what the network was told. It may return a dictionary with new ``latents``.
            callback_on_step_end_tensor_inputs: what ``callback_kwargs`` holds: "latents", the state, and
                "pred_original_sample", x0hat.
            mask_image: for inpainting: white is repainted, as in diffusers, and black is kept. It takes the place
                of an operator.
            operator: what has degraded the images of this call.
            latents: the first state, noise included, in place of one that is drawn.
            data_range: (0, 1) or (-1, 1), the range of floats. None: [0, 1], and [-1, 1] where a value is negative and
                the images have no noise.
            condition: keyword arguments of the network for this call: text embeddings, labels.

        Returns:
            The images, as ``output_type`` says.

        Raises:
            TypeError, ValueError: an argument breaks its rule.
        """
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type: must be one of {', '.join(OUTPUT_TYPES)}, got {output_type!r}")
        wanted = getattr(callback_on_step_end, "tensor_inputs", None) or callback_on_step_end_tensor_inputs
        if unknown := [name for name in wanted if name not in self._callback_tensor_inputs]:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs: must be among {', '.join(PIECES)}, got {', '.join(unknown)}"
            )
        if callback_on_step_end is not None and not callable(callback_on_step_end):
            raise TypeError(
                f"callback_on_step_end: must be a function or None, got {type(callback_on_step_end).__name__}"
            )
        measured, operator = self._measured(image, mask_image, operator, data_range)
        sampler, like = self._sampler(operator, num_inference_steps, output_type == "latent")
        y, seed = measured.to(sampler.device), seeds_of(generator, len(measured))
        self._interrupt, self._num_timesteps = False, len(sampler.plan.steps)
        with self._bar(self._num_timesteps) as bar:
            ends = StepEnds(self, sampler, callback_on_step_end, tuple(wanted), bar)
            watching = callback_on_step_end is not None or not bar.disable
            x = sampler(
                y,
                seed=seed,
                x_init=None if latents is None else latents.to(y),
                operator=None if operator is like else operator,
                callback=ends if watching else None,
                condition=condition,
            )
        images = converted(x, output_type)
        return RestorationPipelineOutput(images) if return_dict else (images,)

    def _measured(
        self, image: Any, mask_image: Any, operator: Operator | None, data_range: tuple[float, float] | None
    ) -> tuple[Tensor, Operator]:
        """The measurements on the scale of the network, and the operator of a call."""
        if mask_image is not None and operator is not None:
            raise ValueError("mask_image: takes the place of an operator, got both in one call")
        if mask_image is None:
            operator = operator or self.operator
            if operator is None:
                raise ValueError("operator: must be given to the pipeline or the call, or a mask_image, got None")
            wanted, colours = operator.measurement_shape, 3 if isinstance(self.denoiser, LatentDenoiser) else None
            if len(wanted) == 3:
                images = batch_of("image", image, colours if operator.any_channels else _channels(wanted))
            else:
                images = _measurements(image, len(wanted))
            if not operator.any_channels and tuple(images.shape[1:]) != tuple(wanted):
                raise ValueError(
                    f"image: must be of the size that the operator measures, {tuple(wanted)}"
                    f"{' (C, H, W)' * (len(wanted) == 3)}, got {tuple(images.shape[1:])}"
                )
        else:
            images = batch_of("image", image, 3 if isinstance(self.denoiser, LatentDenoiser) else None)
            repainted = mask_of("mask_image", mask_image)
            if repainted.shape[-2:] != images.shape[-2:]:
                raise ValueError(
                    f"mask_image: must be of the size of the image, {tuple(images.shape[-2:])} (H, W), got "
                    f"{tuple(repainted.shape[-2:])}"
                )
            if len(repainted) not in (1, len(images)):
                raise ValueError(
                    f"mask_image: must be one, or one for each of {len(images)} images, got {len(repainted)}"
                )
            observed = ~repainted if len(repainted) > 1 else ~repainted[0]
            operator = Inpainting(observed, tuple(images.shape[1:]))
        centred = _is_centred(images, data_range, self.noise_std, operator.kind in ("dense", "krylov"))
        if isinstance(operator, Inpainting):  # What lies under the mask need not be black.
            return operator.forward(images if centred else 2.0 * images - 1.0), operator
        if centred:
            return images, operator
        ones = torch.ones(operator.image_shape(images), dtype=images.dtype, device=images.device)
        return 2.0 * images - operator.forward(ones), operator

    def _sampler(self, operator: Operator, steps: int | None, latents: bool) -> tuple[Sampler, Operator]:
        """The sampler for a number of steps and an operator, and the operator that it was made with."""
        key: Any = (
            (type(operator), operator.shape, operator.batch) if isinstance(operator, Inpainting) else id(operator)
        )
        key = key, steps, latents, id(self.denoiser)
        with self._lock:
            if key not in self._samplers:
                through = isinstance(self.denoiser, LatentDenoiser) and latents
                given = self.denoiser.through(operator) if through else operator  # pyright: ignore
                sampler = Sampler(
                    self.denoiser,
                    given,
                    self.solver,
                    steps,
                    noise_std=2.0 * self.noise_std,
                    device=None if any(True for m in self._modules for _ in m.parameters()) else self._device,
                    **self.options,
                )
                self._samplers[key] = sampler, operator
            self._samplers.move_to_end(key)
            while len(self._samplers) > MOST_SAMPLERS:
                self._samplers.popitem(last=False)
            return self._samplers[key]

    def __repr__(self) -> str:
        return f"RestorationPipeline({self.denoiser!r}, {self.operator!r})"


class StepEnds:
    """The callback of a sampler that calls the one of a pipeline and moves the progress bar."""

    def __init__(
        self, pipe: RestorationPipeline, sampler: Sampler, function: StepEnd | None, wanted: tuple[str, ...], bar: Any
    ) -> None:
        self.pipe, self.function, self.wanted, self.bar = pipe, function, wanted, bar
        self.times = [step.network_time for step in sampler.plan.steps]
        self.estimate: Tensor | None = None

    def __call__(self, step: int, x0hat: Tensor) -> None:
        self.estimate = x0hat

    def step_end(self, step: int, state: Tensor) -> bool:
        """Change the state as the pipeline's callback wants it, and say whether the run ends here."""
        self.bar.update()
        if self.function is None:
            return self.pipe.interrupt
        pieces = {"latents": state.clone(), "pred_original_sample": self.estimate}
        time = self.times[step]
        timestep = int(time) if time == int(time) else time
        answer = self.function(self.pipe, step, timestep, {name: pieces[name] for name in self.wanted})
        if answer is not None and not isinstance(answer, Mapping):
            raise TypeError(f"callback_on_step_end: must return a dictionary or None, got a {type(answer).__name__}")
        changed = None if answer is None else answer.get("latents")
        if changed is not None and not isinstance(changed, Tensor):
            raise TypeError(f"callback_on_step_end: latents must be a tensor, got a {type(changed).__name__}")
        if changed is not None and changed.shape != state.shape:
            raise ValueError(
                f"callback_on_step_end: latents must have shape {tuple(state.shape)}, got {tuple(changed.shape)}"
            )
        if changed is not None:
            state.copy_(changed)
        return self.pipe.interrupt


def seeds_of(generator: Any, batch: int) -> Any:
    """A seed for the batch, or one for every image, drawn from generators."""
    if generator is None or isinstance(generator, torch.Generator):
        return generator
    many = list(generator) if isinstance(generator, list | tuple) else None
    if many is None or not all(isinstance(one, torch.Generator) for one in many):
        raise TypeError(f"generator: must be a torch.Generator, a list of them or None, got {generator!r}")
    if len(many) != batch:
        raise ValueError(f"generator: must be one, or one for each of the {batch} images, got {len(many)}")
    return [int(torch.randint(2**63 - 1, (), dtype=torch.int64, generator=g, device=g.device)) for g in many]


def _measurements(values: Any, dimensions: int) -> Tensor:
    """Measurements that are no images, as a float32 batch."""
    if not isinstance(values, Tensor) or values.ndim not in (dimensions, dimensions + 1):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"image: must be a tensor of {dimensions} dimensions and a batch for this operator, got {got}")
    values = values.detach().to(torch.float32)
    return values if values.ndim > dimensions else values[None]


def _channels(shape: tuple[int, ...]) -> int | None:
    """Into how many channels pictures are converted, for measurements of this shape."""
    return shape[0] if len(shape) == 3 and shape[0] in (1, 3) else None


def _is_centred(images: Tensor, data_range: tuple[float, float] | None, noise_std: float, any_values: bool) -> bool:
    """Whether the images lie in [-1, 1] rather than in [0, 1].

    ``any_values`` says that measurements of images in [0, 1] may be negative.
    """
    if data_range is not None:
        if tuple(data_range) not in ((0, 1), (-1, 1)):
            raise ValueError(f"data_range: must be (0, 1), (-1, 1) or None, got {data_range!r}")
        return data_range[0] == -1
    low, high = (float(v) for v in images.aminmax())
    if low < 0 and (noise_std or any_values):
        raise ValueError(
            "data_range: must be (0, 1) or (-1, 1) where noise or the operator can make values negative, got None and "
            f"values from {low:.4g}"
        )
    slack = 1e-3 + 6.0 * noise_std
    if low < -1.0 - slack or (high > 1.0 + slack and not any_values):
        raise ValueError(f"image: floats must lie in [0, 1] (bytes are uint8), got values from {low:.4g} to {high:.4g}")
    return low < 0
