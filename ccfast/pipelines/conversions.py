"""Pillow images, arrays and tensors to batches of tensors and back, by the conventions of diffusers.

    given               channels    values
    Pillow image        by mode     8 or 16 bits a sample
    NumPy array         last        floats in [0, 1]; uint8 and uint16 over their whole range
    torch tensor        first       floats in [0, 1]; uint8 over its whole range

A batch is an array or tensor of four dimensions, or a list. What comes out is float32, (B, C, H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["OUTPUT_TYPES", "batch_of", "converted", "mask_of"]

OUTPUT_TYPES = ("pil", "np", "pt", "latent")

SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")
LARGEST = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}


def batch_of(name: str, images: Any, channels: int | None) -> Tensor:
    """A batch of images, float32 (B, C, H, W), integers scaled to [0, 1].

    Args:
        name: of the argument, for messages.
        images: one image, a batch, or a list of images or batches.
        channels: the number of channels into which Pillow images and grey arrays are converted, 1 or 3; others are not
            converted. None: as they are.

    Raises:
        TypeError: something else than Pillow images, arrays and tensors.
        ValueError: no image, images of several sizes or kinds, or values that are not finite or no floats.
    """
    many = list(images) if isinstance(images, list | tuple) else [images]
    if not many:
        raise ValueError(f"{name}: must hold at least one image, got an empty list")
    single = [_one(f"{name}[{k}]" if len(many) > 1 else name, image, channels) for k, image in enumerate(many)]
    shapes = sorted({tuple(one.shape[1:]) for one in single})
    if len(shapes) > 1:
        raise ValueError(f"{name}: must be images of one size, got {' and '.join(map(str, shapes))} (C, H, W)")
    devices = {one.device for one in single}
    batch = torch.cat([one.to(next(iter(devices))) for one in single])
    if not batch.isfinite().all():
        raise ValueError(f"{name}: must be finite, got {int((~batch.isfinite()).sum())} values of NaN or infinity")
    return batch


def _one(name: str, image: Any, channels: int | None) -> Tensor:
    if isinstance(image, Image.Image):
        return _of_pillow(name, image, channels)
    if isinstance(image, np.ndarray):
        return _of_array(name, image, channels)
    if isinstance(image, Tensor):
        return _of_tensor(name, image, channels)
    raise TypeError(
        f"{name}: must be a Pillow image, a NumPy array, a torch tensor or a list of them, got {type(image).__name__}"
    )


def _of_pillow(name: str, image: Image.Image, channels: int | None) -> Tensor:
    if image.mode in SIXTEEN_BITS:
        grey = torch.from_numpy(np.array(image, dtype=np.float32) / 65535.0)[None, None]
        return grey.expand(1, channels or 1, -1, -1)
    if image.mode not in EIGHT_BITS:
        raise ValueError(
            f"{name}: must be a Pillow image of mode {', '.join(EIGHT_BITS)} or I;16, got mode {image.mode}; convert "
            "it first, since its range or colour space is not known here"
        )
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() < 255:
            raise ValueError(
                f"{name}: must be opaque, got an image of mode {image.mode} with {(alpha < 255).mean():.1%} of its "
                "pixels transparent; paste it on a background, or drop the alpha by image.convert('RGB')"
            )
    grey = channels == 1 or (channels is None and image.mode in ("1", "L", "LA"))
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    planes = torch.from_numpy(pixels.astype(np.float32) / 255.0)
    return planes[None, None] if grey else planes.permute(2, 0, 1)[None]


def _of_array(name: str, image: np.ndarray, channels: int | None) -> Tensor:
    if image.ndim not in (2, 3, 4):
        raise ValueError(f"{name}: must be an array (H, W), (H, W, C) or (B, H, W, C), got shape {image.shape}")
    if image.ndim > 2 and image.shape[-1] > 4 and 1 <= image.shape[-3] <= 4:
        raise ValueError(
            f"{name}: an array has its channels last, (H, W, C), got shape {image.shape}; transpose it, or give a "
            "tensor, whose channels come first"
        )
    scale = LARGEST.get(image.dtype)
    if scale is None and image.dtype.kind not in "fb":
        raise ValueError(f"{name}: must be an array of floats in [0, 1], uint8 or uint16, got {image.dtype}")
    planes = torch.from_numpy(image.astype(np.float32) / np.float32(scale or 1.0))
    planes = planes[..., None] if planes.ndim == 2 else planes
    planes = planes[None] if planes.ndim == 3 else planes
    return _grey(planes.permute(0, 3, 1, 2), channels)


def _of_tensor(name: str, image: Tensor, channels: int | None) -> Tensor:
    if image.ndim not in (2, 3, 4):
        raise ValueError(f"{name}: must be a tensor (H, W), (C, H, W) or (B, C, H, W), got shape {tuple(image.shape)}")
    if image.ndim > 2 and image.shape[-3] > 4 and image.shape[-1] in (1, 3, 4):
        raise ValueError(
            f"{name}: a tensor has its channels first, (C, H, W), got shape {tuple(image.shape)}; permute it, or give "
            "a NumPy array, whose channels come last"
        )
    planes = image.detach()
    if planes.dtype == torch.uint8:
        planes = planes.to(torch.float32) / 255.0
    elif not (planes.is_floating_point() or planes.dtype == torch.bool):
        raise ValueError(f"{name}: must be a tensor of floats in [0, 1] or uint8, got {planes.dtype}")
    planes = planes.to(torch.float32)
    planes = planes[None] if planes.ndim == 2 else planes
    return _grey(planes[None] if planes.ndim == 3 else planes, channels)


def _grey(planes: Tensor, channels: int | None) -> Tensor:
    """A grey image as one of three equal channels, where three are wanted."""
    return planes.expand(-1, 3, -1, -1) if channels == 3 and planes.shape[1] == 1 else planes


def mask_of(name: str, masks: Any) -> Tensor:
    """What is to be repainted, white or 1: bool, (B, 1, H, W). Values from one half on are white."""
    many = list(masks) if isinstance(masks, list | tuple) else [masks]
    grey = []
    for k, mask in enumerate(many):
        own = f"{name}[{k}]" if len(many) > 1 else name
        if isinstance(mask, Image.Image) and mask.mode not in ("1", "L"):
            mask = mask.convert("RGB").convert("L")  # What is transparent does not matter in a mask.
        # As in diffusers, three dimensions are those of a batch without channels, but for arrays (H, W, C).
        if isinstance(mask, Tensor):
            mask = mask[:, None] if mask.ndim == 3 else mask
            mask = mask if mask.is_floating_point() else mask.to(torch.float32)
        elif isinstance(mask, np.ndarray):
            mask = mask[..., None] if mask.ndim == 3 and mask.shape[-1] not in (1, 3, 4) else mask
            mask = mask if mask.dtype.kind == "f" else mask.astype(np.float32)
        planes = batch_of(own, mask, 1)
        if planes.min() < 0 or planes.max() > 1:
            planes = _of_bytes(own, planes)
        grey.append(planes.mean(dim=1, keepdim=True))
    return torch.cat(grey) >= 0.5


def _of_bytes(name: str, planes: Tensor) -> Tensor:
    if planes.min() < 0 or planes.max() > 255:
        low, high = float(planes.min()), float(planes.max())
        raise ValueError(f"{name}: must lie in [0, 1], or in [0, 255], white = repaint, got {low:g} to {high:g}")
    return planes / 255.0


def converted(x: Tensor, output_type: str) -> Any:
    """Images in [-1, 1] as Pillow images, an array (B, H, W, C) or a tensor, in [0, 1]; latents as they are."""
    if output_type == "latent":
        return x
    images = (x.to(torch.float32) / 2.0 + 0.5).clamp(0.0, 1.0)
    if output_type == "pt":
        return images
    array = images.permute(0, 2, 3, 1).cpu().numpy()
    return array if output_type == "np" else pillow_images(array)


def pillow_images(array: np.ndarray) -> Sequence[Image.Image]:
    if array.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"output_type: 'pil' needs images of 1, 3 or 4 channels, got {array.shape[-1]}; give 'np' or 'pt'"
        )
    pixels = (array * 255.0).round().astype(np.uint8)
    return [Image.fromarray(one[..., 0] if one.shape[-1] == 1 else one) for one in pixels]
