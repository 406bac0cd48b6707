"""The protocol of C-PiGDM (arXiv 2405.17673) with public weights: one command writes a table like the paper's.

    python -m bench.quality.published_protocol --network imagenet256 --weights 256x256_diffusion_uncond.pt \\
        --images FOLDER --task bicubic --out FOLDER

The pictures are the first ``--count`` files by name, of which the centre square is resized to 256 x 256 with Lanczos'
filter. There is no noise. The tasks are:

    bicubic    x4
    blur       Gaussian, standard deviation 3, 61 taps, reflected borders
    mask       the hidden pixels of ``--mask FILE`` are black (no free-form mask comes with this package)

The samplers are Conjugate (w = 15) and PiGDM (w = 6), both from t = 0.4 (the paper's tau = 0.6), at 5, 10 and 20 steps,
and DDRM at 20; ``--dps`` adds DPS at 1000. A diffusion network's time is the index rounded down, as in the authors'
code. Every restored picture is written as PNG into ``--out``, in a folder for each row, so that torch-fidelity can
compute FID and KID. PSNR, SSIM, GMSD and (where its weights are installed) LPIPS go into ``--out``/results.json, with
which a command that is started again goes on. The paper gives (w, lambda, tau) for bicubic only; other tasks are run
with the same values.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import ccfast
from ccfast.adapters import guided_diffusion, rectified_flow
from ccfast.operators import Bicubic, GaussianBlur, Inpainting, Operator
from ccfast.solvers import DDRM, DPS, Conjugate, PiGDM, Solver
from ccfast.times import floor_timesteps

from .photographs import scores
from .record import Record

__all__ = ["load_network", "operator_of", "pictures", "restore_all", "samplers"]

SIDE = 256
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def load_network(name: str, weights: Path) -> ccfast.Denoiser:
    """The denoiser of a checkpoint; ``name`` is a key of ``guided_diffusion.CONFIGS``, or "rectified_flow"."""
    if name == "rectified_flow":
        return rectified_flow.load(weights)
    denoiser = guided_diffusion.load(weights, name)
    return ccfast.Denoiser(denoiser.network, denoiser.schedule, time_map=floor_timesteps(1000), name=name)


def operator_of(task: str, mask: Path | None, side: int = SIDE) -> Operator:
    """The operator of a task.

    Raises:
        ValueError: the task needs a mask, which is missing or has another size.
    """
    shape = (3, side, side)
    if task == "bicubic":
        return Bicubic(shape, 4)
    if task == "blur":
        return GaussianBlur(shape, std=3.0, taps=61)
    if mask is None:
        raise ValueError("mask: the task 'mask' needs --mask FILE")
    observed = np.array(Image.open(mask).convert("L")) > 127
    if observed.shape != shape[1:]:
        raise ValueError(f"mask: must be {side} x {side}, got {observed.shape[1]} x {observed.shape[0]}")
    return Inpainting(torch.from_numpy(observed).expand(shape))


def pictures(folder: Path, count: int, side: int = SIDE) -> list[Path]:
    """The first ``count`` picture files by name.

    Raises:
        ValueError: there are fewer files.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if len(found) < count:
        raise ValueError(f"images: {folder} must hold {count} pictures, got {len(found)}; --count takes fewer")
    return found[:count]


def read(path: Path, side: int = SIDE) -> Tensor:
    """The centre square of a picture file, resized, as float32 (3, side, side) in [-1, 1]."""
    picture = Image.open(path).convert("RGB")
    edge = min(picture.size)
    left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
    box = (left, top, left + edge, top + edge)
    pixels = np.array(picture.resize((side, side), Image.Resampling.LANCZOS, box=box))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1.0


def samplers(w: float, pigdm_w: float, dps: bool, flow: bool) -> Iterator[tuple[str, Solver, int, float]]:
    """The name, solver, steps and start of every row of the table."""
    start = 0.6 if flow else 0.4
    for steps in (5, 10, 20):
        yield "Conjugate", Conjugate(w), steps, start
        yield "PiGDM", PiGDM(pigdm_w), steps, start
    yield "DDRM", DDRM(), 20, 0.001 if flow else 1.0
    if dps:
        yield "DPS", DPS(), 1000, 0.001 if flow else 1.0


def restore_all(
    denoiser: ccfast.Denoiser,
    operator: Operator,
    files: list[Path],
    row: tuple[str, Solver, int, float],
    out: Path,
    record: Record,
    batch: int = 1,
    device: str = "cpu",
) -> None:
    """Measure one row of the table picture by picture, but not those that the record has. Picture k has the seed k."""
    name, solver, steps, start = row
    sampler = ccfast.Sampler(denoiser, operator, solver, steps, start)
    folder = out / f"{name}_{steps}"
    folder.mkdir(parents=True, exist_ok=True)
    key = {"method": name, "steps": steps}
    left = [(k, f) for k, f in enumerate(files) if not record.find("rows", **key, picture=f.name)]
    for first in tqdm(range(0, len(left), batch), desc=folder.name):
        some = left[first : first + batch]
        truth = torch.stack([read(path, operator.shape[-1]) for _, path in some]).to(device)
        y = operator.forward(truth)
        x = sampler(y, seed=[k for k, _ in some]).clamp(-1, 1)
        values = scores(x.cpu(), truth.cpu(), operator, y.cpu())
        rows = []
        for place, (_, path) in enumerate(some):
            pixels = ((x[place] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
            Image.fromarray(pixels).save(folder / f"{path.stem}.png")
            rows.append({**key, "picture": path.name, **{m: v[place] for m, v in values.items()}})
        record.add("rows", *rows)


def summary(rows: list[dict[str, Any]]) -> str:
    """The means over the pictures of every row, as text."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["steps"]), []).append(row)
    lines = []
    for (name, steps), own in groups.items():
        measures = [m for m in ("psnr", "ssim", "gmsd", "lpips", "edge_vgg") if m in own[0]]
        means = ", ".join(f"{m} {sum(r[m] for r in own) / len(own):.4g}" for m in measures)
        lines.append(f"{name}, {steps} steps, {len(own)} pictures: {means}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("imagenet256", "ffhq256", "rectified_flow"), default="imagenet256")
    parser.add_argument("--weights", type=Path, required=True, help="the public checkpoint")
    parser.add_argument("--images", type=Path, required=True, help="folder of the validation pictures")
    parser.add_argument("--task", choices=("bicubic", "blur", "mask"), default="bicubic")
    parser.add_argument("--mask", type=Path, help="white: observed")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--w", type=float, default=15.0, help="guidance weight of Conjugate")
    parser.add_argument("--pigdm-w", type=float, default=6.0, help="guidance weight of PiGDM; the paper tried 1 to 10")
    parser.add_argument("--dps", action="store_true", help="DPS at 1000 evaluations too")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True, help="folder for the restored pictures and results.json")
    arguments = parser.parse_args()
    denoiser = load_network(arguments.network, arguments.weights)
    denoiser.network.to(arguments.device)  # type: ignore[attr-defined]
    operator, files = operator_of(arguments.task, arguments.mask), pictures(arguments.images, arguments.count)
    settings = {"network": arguments.network, "task": arguments.task, "w": arguments.w, "pigdm_w": arguments.pigdm_w}
    command = f"python -m bench.quality.published_protocol --network {arguments.network} --task {arguments.task} ..."
    record = Record(arguments.out / "results.json", command, settings)
    flow = denoiser.schedule.frozen == "velocity"
    for row in samplers(arguments.w, arguments.pigdm_w, arguments.dps, flow):
        restore_all(
            denoiser, operator, files, row, arguments.out, record, batch=arguments.batch, device=arguments.device
        )
    print(summary(record.data["rows"]))


if __name__ == "__main__":
    main()
