"""The command line: ``ccfast`` and ``python -m ccfast``.

The exit code is 0 when all is done, 1 when some files failed (each is named on stderr) and the others were written, 2
when the command was refused before it wrote anything, and 130 when it was interrupted.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import ccfast

from ..config import show_kernels
from ..priors.padding import any_size
from ..priors.unet import MULTIPLE
from . import demo
from .benchmark import command as bench
from .degradations import parse_degradation, word_list
from .files import Restorer, degrade, plan_jobs, run_jobs
from .gallery import draw_gallery
from .images import check_output, write_picture

__all__ = ["main"]

_OPERATORS = f"""
operators (the size of the image follows from the measurement):
{word_list()}
"""
_DESCRIPTIONS = {
    "demo": """\
Photographs that the prior has never seen (they come with scikit-image) are degraded in four ways and
restored; prints PSNR and SSIM of the pseudo-inverse H+ y and of the restored image, and draws all of it.""",
    "restore": """\
Restore measurement images: the small image for pool and bicubic, the image with holes for inpaint, box and
mask, the grey or blurred image for the others. Any size. An 8-bit file holds the measurement rounded to
1/255, so that it agrees with the operator to that precision and no better.""",
    "degrade": """\
Make the measurement y = H x + noise of images, rounded to 8 bits, as PNG. Hidden pixels are mid-grey. Sides
that a sub-sampling factor does not divide are padded by reflection, and their true size is noted in the
PNG; restore crops to it. Restore with the same --operator, --seed and --noise-std.""",
}
_FILES = """
Several inputs: OUT is a folder and gets NAME.png for each; a file that fails does not stop the others. All files use
the same seed, so that a result does not depend on which other files are given.

exit codes: 0 all done, 1 some files failed (named on stderr), 2 refused before anything was written
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; argparse exits by itself (code 2, or 0 for --help)."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"ccfast {arguments.command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"ccfast {arguments.command}: interrupted", file=sys.stderr)
        return 130


# ------------------------------------------------------------------------------------------------ commands
def _demo(arguments: argparse.Namespace) -> int:
    check_output(arguments.out, overwrite=arguments.force)
    if not Path(arguments.out).parent.is_dir():
        raise FileNotFoundError(f"out: its folder must exist, got {arguments.out!r}")
    tasks = demo.restore_tasks(
        _prior(arguments), steps=arguments.steps, seed=arguments.seed, size=arguments.size, device=arguments.device
    )
    results = []
    print(f"{'task':<24}{'photograph':<12}{'PSNR H+ y':>10}{'restored':>10}{'SSIM H+ y':>11}{'restored':>10}"
          f"{'evaluations':>13}{'seconds':>9}")  # fmt: skip
    for r in tqdm(tasks, total=len(demo.TASKS), desc="restoring", unit="task", disable=None, leave=False):
        results.append(r)
        tqdm.write(f"{r.task:<24}{r.photograph:<12}{r.psnr[0]:>10.2f}{r.psnr[1]:>10.2f}{r.ssim[0]:>11.3f}{r.ssim[1]:>10.3f}"
                   f"{r.network_evaluations:>13}{r.seconds:>9.2f}", file=sys.stdout)  # fmt: skip
    write_picture(draw_gallery([result.row() for result in results]), arguments.out, overwrite=arguments.force)
    print(f"gallery: {arguments.out}")
    return 0


def _degrade(arguments: argparse.Namespace) -> int:
    degradation = parse_degradation(arguments.operator)
    jobs = plan_jobs(arguments.inputs, arguments.output, force=arguments.force)
    for job in jobs:
        if job.targets[0].suffix.lower() != ".png":
            raise ValueError(
                f"output: a measurement must be a .png (JPEG would change it), got {str(job.targets[0])!r}"
            )
    with _bar(len(jobs), "file") as bar:

        def work(job) -> None:
            try:
                degrade(job, degradation, **_measurement_options(arguments))
            finally:
                bar.update()

        return 1 if run_jobs(jobs, work) else 0


def _restore(arguments: argparse.Namespace) -> int:
    degradation = parse_degradation(arguments.operator)
    jobs = plan_jobs(arguments.inputs, arguments.output, force=arguments.force, samples=arguments.samples)
    denoiser = any_size(_prior(arguments), MULTIPLE)
    with _bar(len(jobs) * arguments.samples * arguments.steps, "step") as bar:
        restorer = Restorer(
            denoiser,
            degradation,
            steps=arguments.steps,
            progress=None if bar.disable else bar.update,
            **_measurement_options(arguments),
        )
        return 1 if run_jobs(jobs, restorer) else 0


def _measurement_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that ``degrade`` and ``restore`` share."""
    return {name: getattr(arguments, name) for name in ("noise_std", "seed", "force", "drop_alpha")}


def _config(arguments: argparse.Namespace) -> int:
    ccfast.show_config()
    if arguments.kernels:
        show_kernels()
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    return bench.run(arguments)


def _prior(arguments: argparse.Namespace) -> ccfast.Denoiser:
    """The prior that the arguments name, on their device; sets the number of CPU threads too, where one is given."""
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    denoiser = ccfast.load_prior(arguments.prior)
    if isinstance(denoiser.network, torch.nn.Module):
        denoiser.network.to(arguments.device)
    return denoiser


def _bar(total: int, unit: str) -> tqdm:
    """A progress bar, which ``disable=None`` hides where stderr is no terminal."""
    return tqdm(total=total, unit=unit, disable=None, leave=False)


# ------------------------------------------------------------------------------------------------ arguments
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ccfast", description="Restore images from degraded measurements in a few network evaluations."
    )
    parser.add_argument("--version", action="version", version=f"ccfast {ccfast.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _demo_arguments(_command(commands, "demo", _demo, "degrade and restore photographs, and draw a gallery"))
    _restore_arguments(_command(commands, "restore", _restore, "restore measurement images", _OPERATORS + _FILES))
    _degrade_arguments(_command(commands, "degrade", _degrade, "make measurement images", _OPERATORS + _FILES))
    bench.add_arguments(_command(commands, "bench", _bench, "time the kernels of this machine against plain torch"))
    config = _command(commands, "config", _config, "print what can run here, and why the rest cannot")
    config.add_argument(
        "--kernels",
        action="store_true",
        help="also compile the GPU kernels, which needs no GPU, and print registers, memory and widths of loads",
    )
    return parser


def _command(commands, name: str, run: Callable, summary: str, epilog: str | None = None) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=_DESCRIPTIONS.get(name, summary[0].upper() + summary[1:] + "."),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="gallery.png", metavar="FILE", help="the gallery (default: %(default)s)")
    parser.add_argument(
        "--size",
        type=_whole(1),
        default=256,
        help="side of the photographs in pixels, 32 to 296 (default: %(default)s)",
    )
    _sampling_arguments(parser)


def _restore_arguments(parser: argparse.ArgumentParser) -> None:
    _measurement_arguments(parser, outputs=".png or .jpg", noise="that the measurements are known to have")
    _sampling_arguments(parser)
    parser.add_argument(
        "--samples", type=_whole(1), default=1, metavar="N",
        help="restorations of each input, OUT-0, OUT-1, ... with the seeds SEED, SEED + 1, ... (default: %(default)s)",
    )  # fmt: skip


def _degrade_arguments(parser: argparse.ArgumentParser) -> None:
    _measurement_arguments(parser, outputs=".png", noise="to add")
    _seed_and_force(parser)


def _measurement_arguments(parser: argparse.ArgumentParser, *, outputs: str, noise: str) -> None:
    """The files, the degradation and the noise; ``outputs`` names the kinds of files written, ``noise`` whose it is."""
    parser.add_argument("inputs", nargs="+", metavar="IN", help="image files, 8 bits a sample")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help=f"{outputs} file, or a folder")
    parser.add_argument("--operator", required=True, metavar="WORD", help="the degradation, see below")
    parser.add_argument(
        "--drop-alpha", action="store_true", help="take images that are not opaque, without their transparency"
    )
    parser.add_argument(
        "--noise-std", type=_nonnegative, default=0.0, metavar="STD",
        help=f"standard deviation of the noise in y {noise}, where black is -1 and white is 1 (default: %(default)s)",
    )  # fmt: skip


def _sampling_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prior", default="photo", help="bundled prior (default: %(default)s)")
    parser.add_argument("--steps", type=_whole(1), default=5, help="network evaluations (default: %(default)s)")
    parser.add_argument(
        "--threads", type=_whole(1), default=None, metavar="N", help="CPU threads (default: what torch chooses)"
    )
    parser.add_argument("--device", type=_device, default="cpu", help="cpu, cuda, ... (default: %(default)s)")
    _seed_and_force(parser)


def _seed_and_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=_whole(0), default=0, help="of all random numbers (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace outputs that exist")


def _whole(smallest: int) -> Callable[[str], int]:
    """A reader of whole numbers from ``smallest`` to 2^32 - 1, for argparse."""

    def read(text: str) -> int:
        if not text.strip().isdecimal() or not smallest <= int(text) < 2**32:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {smallest}, got {text!r}")
        return int(text)

    return read


def _nonnegative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text!r}")
    return value


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # Torch asserts that it was built for the device.
        reason = str(error).strip().splitlines()[0]
        raise argparse.ArgumentTypeError(f"must be a device that torch can use, got {text!r}: {reason}") from None
    return device
