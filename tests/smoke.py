"""The first use of an installed ccfast, outside the checkout: import, native code, a restoration, the command line.

`make smoke` runs it in an empty environment, into which the source distribution has just been installed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch

import ccfast

ROOT = Path(__file__).resolve().parent.parent


def expect(what: str, holds: bool, got: object) -> None:
    if not holds:
        sys.exit(f"{what}: got {got}")
    print(f"{what}: yes")


def command(*words: str) -> str:
    """The output of the installed command ``ccfast``, which lies beside this environment's Python."""
    script = Path(sys.executable).parent / "ccfast"
    done = subprocess.run([script, *words], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else f"exit code {done.returncode}: {done.stdout}{done.stderr}"


def restored(prior: ccfast.Denoiser, backend: str) -> tuple[torch.Tensor, ccfast.Sampler, torch.Tensor]:
    """Restore an image of two greys in five steps from one four times smaller; return it, the sampler and y."""
    image = torch.full((1, 3, 32, 32), -0.5)
    image[..., 13:] = 0.5
    operator = ccfast.operators.AveragePooling((3, 32, 32), 4)
    sampler = ccfast.Sampler(prior, operator, ccfast.solvers.DDNM(), steps=5, backend=backend)
    y = operator.forward(image)
    return sampler(y, seed=0), sampler, y


def main() -> None:
    place = Path(ccfast.__file__).resolve()
    expect("ccfast is imported from where it was installed", not place.is_relative_to(ROOT / "ccfast"), place)
    expect("its version is that of the distribution", ccfast.__version__ == version("ccfast"), version("ccfast"))
    expect("ccfast --version", command("--version") == f"ccfast {ccfast.__version__}\n", command("--version"))
    config = command("config")
    expect("ccfast config: the native backend is there", "backend native: yes" in config, config)

    prior = ccfast.load_prior("photo")
    image, sampler, y = restored(prior, "auto")
    plain, _, _ = restored(prior, "reference")
    expect("a sampler takes the native backend by itself", sampler.backend == "native", sampler.backend)
    error = float((sampler.operator.forward(image) - y).abs().max())
    # The last state keeps the noise of the schedule's end.
    left = float(prior.schedule.rho(prior.schedule.default_end))
    expect(
        "the restored image has the measurement that was given, but for that noise", error < left, f"{error}, {left}"
    )
    # The two backends round float32 differently, and the network amplifies the difference.
    error = float((image - plain).abs().max())
    expect("plain PyTorch restores the same, to 1e-3", error < 1e-3, error)

    with tempfile.TemporaryDirectory() as folder:
        photograph, small, large = (str(Path(folder) / f"{name}.png") for name in ("photograph", "small", "large"))
        pixels = ((image[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        from PIL import Image

        Image.fromarray(pixels).save(photograph)
        said = command("degrade", photograph, "-o", small, "--operator", "pool:4")
        said += command("restore", small, "-o", large, "--operator", "pool:4")
        sizes = [Image.open(path).size for path in (small, large) if Path(path).is_file()]
        expect("ccfast degrade and ccfast restore, from file to file", sizes == [(8, 8), (32, 32)], said or sizes)


if __name__ == "__main__":
    main()
