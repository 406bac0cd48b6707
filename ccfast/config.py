"""What can run on this machine."""

from __future__ import annotations

import platform

import torch

from . import backends

__all__ = ["show_config"]


def show_config() -> str:
    """Versions, devices, threads and, for every backend and device, whether it can run and if not why.

    Returns the text, one fact a line, after printing it.
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
        for name, (_, reason) in backends.BACKENDS.items():
            why = reason(torch.device(device))
            lines.append(f"  backend {name}: {'yes' if why is None else f'no, {why}'}")
    text = "\n".join(lines)
    print(text)
    return text
