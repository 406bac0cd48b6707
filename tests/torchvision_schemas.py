"""Importing torchvision beside a torch that its library was not built for.

Torchvision imports only where the schemas of two of its operators exist. Its library defines them, and the wheels of
the package index are built for CUDA, so that beside a torch for the CPU the library cannot be loaded, and the import of
every package that imports torchvision fails. Nothing that is tested here calls one of these operators.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
OPERATORS = ("nms", "qnms")


def define() -> None:
    """Define the operators that ``import torchvision`` asks for, unless its own library does or there is none."""
    found = find_spec("torchvision")
    if found is None or found.origin is None or hasattr(torch.ops.torchvision, OPERATORS[0]):
        return
    for library in Path(found.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(library)
        except OSError:
            continue
        return
    for name in OPERATORS:
        torch.library.define(f"torchvision::{name}", SCHEMA)


define()
