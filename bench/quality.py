"""Quality of a bundled prior on held-out pictures: ``python bench/quality.py photo``.

For each task: H+ y (and a harmonic fill for the hidden box), one five-step sample with the default solver and preset,
the mean of several samples, and the baselines PiGDM and DDNM at twenty steps with the same prior. PSNR, SSIM, GMSD and
the Laplacian energy as a share of the truth's, on ten 128x128 crops and on five 256x256 pictures. Prints a table and
writes it with the commit and the settings to bench/results/quality_<prior>.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

import ccfast
from ccfast.degradations import parse_operator
from ccfast.metrics import gmsd, psnr, ssim
from ccfast.operators import Operator
from ccfast.priors import heldout
from ccfast.solvers import DDNM, PiGDM

TASKS = ("inpaint:0.5", "box:0.25", "pool:4", "bicubic:4", "blur:3.0")
RESULTS = Path(__file__).parent / "results"


def laplacian_energy(x: Tensor) -> Tensor:
    """Mean squared Laplacian of each image of (B, C, H, W)."""
    kernel = x.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]]).expand(x.shape[1], 1, 3, 3)
    return functional.conv2d(x, kernel, groups=x.shape[1]).square().mean((1, 2, 3))


def harmonic_fill(y: Tensor, mask: Tensor, sweeps: int = 4000) -> Tensor:
    """Hidden pixels replaced by the solution of Laplace's equation, by Jacobi sweeps; ``mask`` 1 = observed."""
    x, mask = y.clone(), mask.to(y.dtype)
    for _ in range(sweeps):
        padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        mean = (padded[..., 1:-1, 2:] + padded[..., 1:-1, :-2] + padded[..., 2:, 1:-1] + padded[..., :-2, 1:-1]) / 4
        x = mask * y + (1 - mask) * mean
    return x


def scores(restored: Tensor, truth: Tensor) -> dict[str, float]:
    restored = restored.clamp(-1, 1)
    values = {
        "psnr": psnr(restored, truth),
        "ssim": ssim(restored, truth),
        "gmsd": gmsd(restored, truth),
        "laplacian": laplacian_energy(restored) / laplacian_energy(truth),
    }
    return {name: round(float(value.mean()), 4) for name, value in values.items()}


def rivals(
    denoiser: ccfast.Denoiser, operator: Operator, samples: int, pigdm_w: float
) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """What is compared, by name: functions of the measurement."""
    yield "H+ y", operator.pinv
    if "Inpainting" in repr(operator):
        yield "harmonic fill", lambda y: harmonic_fill(y, operator.singular_values)
    default = ccfast.Sampler(denoiser, operator)
    yield "ccfast, 5 steps", lambda y: default(y, seed=0)
    yield f"ccfast, 5 steps, mean of {samples}", lambda y: default.sample(y, samples, seed=0).mean(0)
    yield "PiGDM, 20 steps", ccfast_call(ccfast.Sampler(denoiser, operator, PiGDM(pigdm_w), steps=20))
    yield "DDNM, 20 steps", ccfast_call(ccfast.Sampler(denoiser, operator, DDNM(), steps=20))


def ccfast_call(sampler: ccfast.Sampler) -> Callable[[Tensor], Tensor]:
    return lambda y: sampler(y, seed=0)


def evaluate(prior: str, samples: int, pigdm_w: float, sets: dict[str, Tensor]) -> list[dict]:
    denoiser, rows = ccfast.load_prior(prior), []
    for name, truth in sets.items():
        for task in TASKS:
            operator = parse_operator(task, tuple(truth.shape[1:]))
            y = operator.forward(truth)
            for method, restore in tqdm(list(rivals(denoiser, operator, samples, pigdm_w)), desc=task, leave=False):
                started = time.perf_counter()
                restored = restore(y)
                seconds = time.perf_counter() - started
                row = {"set": name, "task": task, "method": method, **scores(restored, truth)}
                rows.append({**row, "seconds": round(seconds, 2)})
                tqdm.write(
                    f"{name:<14}{task:<13}{method:<30}{row['psnr']:8.2f}{row['ssim']:8.3f}{row['gmsd']:9.4f}"
                    f"{row['laplacian']:8.2f}{seconds:9.1f} s"
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", choices=tuple(ccfast.priors.PRIORS))
    parser.add_argument("--samples", type=int, default=16, help="samples in the mean")
    parser.add_argument("--pigdm-w", type=float, default=2.0, help="guidance weight of PiGDM, tuned on training crops")
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--crops-only", action="store_true", help="leave the 256x256 pictures out")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    sets = {"128 crops": heldout.crops()}
    if not arguments.crops_only:
        sets["256 pictures"] = torch.stack([heldout.square(name) for name in heldout.PHOTOGRAPHS])
    rows = evaluate(arguments.prior, arguments.samples, arguments.pigdm_w, sets)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    record = {
        "commit": commit.stdout.strip(),
        "torch": torch.__version__,
        "samples": arguments.samples,
        "pigdm_w": arguments.pigdm_w,
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"quality_{arguments.prior}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
