"""A report of what can run on this machine."""

from __future__ import annotations

import platform

import torch

from .engine import backends
from .kernels.resources import text_table

__all__ = ["show_config", "show_kernels"]

ARCHITECTURES = 80, 90
"""The architectures for which kernels are checked: those of the A100 (sm_80) and of the H100 (sm_90)."""


def show_config() -> str:
    """Print versions, devices, threads and, for every backend and device, whether it can run and if not why.

    Returns:
        The text that was printed, with one fact on each line.
    """
    from . import __version__

    devices = ["cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
    lines = [
        f"ccfast {__version__}, torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}",
        f"threads: {torch.get_num_threads()}",
    ]
    for device in devices:
        label = (
            torch.cuda.get_device_name(device) if device.startswith("cuda") else torch.backends.cpu.get_cpu_capability()
        )
        lines.append(f"device {device}: {label}")
        for name, backend in backends.BACKENDS.items():
            why = backend.reason(torch.device(device))
            lines.append(f"  backend {name}: {'yes' if why is None else f'no, {why}'}")
    text = "\n".join(lines)
    print(text)
    return text


def show_kernels() -> str:
    """Print what compilers make of the GPU kernels (``ccfast.kernels.resources``), which needs no GPU.

    The table has the kernels of every backend that has a function ``resources(architecture)``. Where that raises
    ImportError or RuntimeError, the message stands in place of the rows.

    Returns:
        The text that was printed, with one kernel on each line.
    """
    rows, reasons = [], []
    for name, backend in backends.BACKENDS.items():
        resources = getattr(backend, "resources", None)
        if resources is None:
            continue
        try:
            rows += [row for architecture in ARCHITECTURES for row in resources(architecture)]
        except (ImportError, RuntimeError) as error:
            reasons.append(f"{name}: {error}")
    text = "\n".join([text_table(rows), *reasons])
    print(text)
    return text
