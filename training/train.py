"""Train a bundled prior: ``python -m training.train photo --photos FOLDER --run FOLDER --hours 2``.

The command minimises the mean squared error of the prediction over random patches, noise levels and noise, with AdamW
and a cosine learning rate over the given hours. It exports an exponential moving average of the weights. A run that is
started again with the same ``--run`` folder resumes. ``ccfast/priors/DATA.md`` says what the shipped weights were
trained on.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from ccfast.priors import PRIORS
from ccfast.priors.unet import UNet

from .patches import Patches, parse_with_photographs

EMA = 0.9995


def noise_levels(name: str, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Random times and their mu and sigma, each (count,).

    Two thirds of the times lie where sampling with few steps spends its steps.
    """
    u = torch.rand(count, generator=generator)
    focused = torch.rand(count, generator=generator) < 2 / 3
    if name == "photo":
        t = torch.where(focused, 1e-3 + 0.6 * u.square(), 1e-3 + (1 - 1e-3) * u)
        mu_squared = torch.exp(-(0.1 * t + 9.95 * t * t))
        return t, mu_squared.sqrt(), (1 - mu_squared).sqrt()
    t = torch.where(focused, 1 - 0.6 * u.square(), u)
    return t, t, 1 - t


def learning_rate(peak: float, progress: float, step: int) -> float:
    """A linear rise to ``peak`` over 500 steps, times a cosine from 1 to 0.01 over the ``progress`` from 0 to 1."""
    return peak * min(1.0, step / 500) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int) -> None:
    """Move the average towards the model; early steps count for more, so that the random start is forgotten."""
    decay = min(EMA, (1 + step) / (10 + step))
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


def export(model: nn.Module, path: Path, facts: dict[str, str]) -> None:
    """Write the weights in half precision as safetensors, with the facts of the run in the header."""
    weights = {key: value.half().contiguous() for key, value in model.state_dict().items()}
    save_file(weights, path, metadata=facts)


def train(
    name: str, photos: Path, run: Path, hours: float, seed: int, batch: int, peak: float, initial: Path | None
) -> None:
    run.mkdir(parents=True, exist_ok=True)
    checkpoint, log = run / "checkpoint.pt", run / "loss.jsonl"
    torch.manual_seed(seed)
    model = UNet(head=PRIORS[name].head)
    model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  (missing from torch's stubs)
    if initial is not None:
        model.load_state_dict({key: value.float() for key, value in load_file(initial).items()})
    average = copy.deepcopy(model)
    optimiser = torch.optim.AdamW(model.parameters(), peak, weight_decay=1e-3, fused=True)
    generator = torch.Generator().manual_seed(seed)
    step, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        for holder, key in ((model, "model"), (average, "average"), (optimiser, "optimiser")):
            holder.load_state_dict(state[key])
        generator.set_state(state["generator"])
        step, spent = state["step"], state["spent"]
    patches = Patches(photos, seed + step)

    def save() -> None:
        parts = {"model": model, "average": average, "optimiser": optimiser}
        state = {key: part.state_dict() for key, part in parts.items()}
        state.update(step=step, spent=spent, generator=generator.get_state())
        torch.save(state, checkpoint.with_suffix(".tmp"))
        os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
        facts = {
            "prior": name,
            "head": model.head,
            "steps": str(step),
            "hours": f"{spent / 3600:.2f}",
            "seed": str(seed),
            "peak_learning_rate": str(peak),
        }
        export(average, run / f"{name}.safetensors", facts)

    total, window, saved = hours * 3600, [], time.monotonic()
    with tqdm(total=round(total), initial=round(spent), unit="s") as bar:
        while spent < total:
            started = time.monotonic()
            size = 48 if spent < 0.5 * total else 64
            count = batch * 64 * 64 // size**2
            x0 = patches.batch(count, size).to(memory_format=torch.channels_last)
            t, mu, sigma = (v[:, None, None, None] for v in noise_levels(name, count, generator))
            noise = torch.randn(x0.shape, generator=generator)
            x = mu * x0 + sigma * noise
            target = noise if name == "photo" else x0 - noise
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(peak, spent / total, step)
            with torch.autocast("cpu", torch.bfloat16):
                prediction = model(x, 999 * t.flatten())
            loss = (prediction.float() - target).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            update_average(average, model, step)
            step += 1
            window.append(loss.item())
            elapsed = time.monotonic() - started
            spent += elapsed
            bar.update(elapsed)
            if step % 500 == 0:
                mean, window = sum(window) / len(window), []
                bar.set_postfix(step=step, loss=f"{mean:.4f}")
                with log.open("a") as lines:
                    lines.write(json.dumps({"step": step, "hours": spent / 3600, "loss": mean}) + "\n")
            if time.monotonic() - saved > 300:
                save()
                saved = time.monotonic()
    save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=tuple(PRIORS))
    parser.add_argument("--run", type=Path, required=True, help="folder of checkpoint, log and exported weights")
    parser.add_argument("--hours", type=float, default=2.0, help="time in training steps, over all resumed runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16, help="patches of 64x64 in a step (more of the smaller ones)")
    parser.add_argument("--peak", type=float, default=7e-4, help="learning rate after the warm-up")
    parser.add_argument("--initial", type=Path, help="safetensors to start from")
    arguments = parse_with_photographs(parser)
    train(**vars(arguments))


if __name__ == "__main__":
    main()
