"""The command line: ``ccfast`` and ``python -m ccfast``.

The exit code is 0 when all is done, 1 when some files failed (each is named on stderr) and the others were written, 2
when the command was refused before it wrote anything, 130 when it was interrupted and 143 when it was told to end.

Nothing here imports torch before a command needs it, so that help, versions and refusals come at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer

from . import memory_need
from .jobs import tell
from .levels import parse_level, parse_memory, parse_threshold
from .words import word_list

__all__ = ["main"]

app = typer.Typer(
    help="Restore images from degraded measurements in a few network evaluations.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
CODES = (
    "0 all done, 1 some files failed (named on stderr), 2 refused before anything was written, 130 interrupted, "
    "143 ended"
)
_WRONG, _HOW, _FILES, _MACHINE = "What is wrong", "How it is restored", "Files", "Machine"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # It was closed by the caller, and libraries expect one.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = f"ccfast {arguments[0]}" if arguments and not arguments[0].startswith("-") else "ccfast"
    try:
        with _ended_as_interrupted():
            code = typer.main.get_command(app)(args=arguments, prog_name="ccfast", standalone_mode=False)
    except _EndedError:
        tell(f"{name}: ended")
        return 143
    except KeyboardInterrupt:
        code = 130
    except (ValueError, OSError, ImportError) as error:
        tell(f"{name}: error: {error}")
        return 2
    except Exception as error:
        # Typer's errors of usage are those of click, or of its own copy of click.
        explain, code = getattr(error, "format_message", None), getattr(error, "exit_code", None)
        if explain is None or code is None:
            raise
        tell(f"{name}: error: {explain()} ({name} --help)")
        return int(code)
    if code == 130:  # Typer makes this of an interrupt.
        tell(f"{name}: interrupted")
    return code if isinstance(code, int) else 0


class _EndedError(BaseException):
    """The process was told to end (SIGTERM), and leaves no half file behind."""


@contextmanager
def _ended_as_interrupted():
    def end(number: int, frame: object) -> None:
        raise _EndedError

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # Only the main thread may.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# ------------------------------------------------------------------------------------------------ readers of options
def _reader(parse: Callable[[str], Any]) -> Callable[[str | None], Any]:
    """What a callback of an option does: a ValueError is told as the error of that option."""

    def read(text: str | None) -> Any:
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return read


def _show_version(value: bool) -> None:
    if value:
        import ccfast

        typer.echo(f"ccfast {ccfast.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


# ------------------------------------------------------------------------------------------------ options
class Goal(StrEnum):
    """What presets are for."""

    faithful = "faithful"
    sharp = "sharp"


Inputs = Annotated[list[str], typer.Argument(metavar="IN...", help="Image files, or folders of them.")]
Operator = Annotated[
    str, typer.Option("--operator", "-x", metavar="WORD", rich_help_panel=_WRONG, help="The degradation, see above.")
]
Noise = Annotated[
    str | None,
    typer.Option(
        "--noise-std",
        metavar="LEVEL",
        rich_help_panel=_WRONG,
        help="Standard deviation of the noise: 25/255 or 25@255 of 8-bit values, 0.1 or 10% of the range from black to "
        "white. Without it, what the operator says.",
    ),
]
Invert = Annotated[
    bool, typer.Option("--invert", rich_help_panel=_WRONG, help="Masks the other way: black observed, white hidden.")
]
Threshold = Annotated[
    str,
    typer.Option(
        "--threshold",
        metavar="T",
        rich_help_panel=_WRONG,
        help="Pixels of a mask below it count as black: 0.5, 50% or 128/255. 1 hides all soft edges.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        rich_help_panel=_FILES,
        help="A file, or a folder, in which each result has the name and format of its input.",
    ),
]
Suffix = Annotated[
    str,
    typer.Option(
        "--suffix",
        metavar="TEXT",
        rich_help_panel=_FILES,
        help="Added to the names of results, such as -restored; with .png behind it all are PNG. Without -o results "
        "lie beside their inputs.",
    ),
]
KeepAlpha = Annotated[
    bool, typer.Option("--keep-alpha", rich_help_panel=_FILES, help="Restore the colours of transparent images, too.")
]
DropAlpha = Annotated[
    bool, typer.Option("--drop-alpha", rich_help_panel=_FILES, help="Leave the transparency of images out.")
]
ToRgb = Annotated[
    bool, typer.Option("--to-rgb", rich_help_panel=_FILES, help="Convert CMYK and other colour spaces to sRGB.")
]
Force = Annotated[bool, typer.Option("--force", "-f", rich_help_panel=_FILES, help="Replace outputs that exist.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, rich_help_panel=_HOW, help="Of all random numbers.")]
Steps = Annotated[
    int | None, typer.Option("--steps", min=1, rich_help_panel=_HOW, help="Network evaluations; 5, or 8 for blur.")
]
Prior = Annotated[str, typer.Option("--prior", rich_help_panel=_HOW, help="A bundled prior, or a folder.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, metavar="N", rich_help_panel=_MACHINE, help="CPU threads.")
]
Device = Annotated[str, typer.Option("--device", rich_help_panel=_MACHINE, help="cpu, cuda, ...")]

_OPERATORS = f"""
\b
Operators (the size of the image follows from the measurement):
{word_list()}
"""
_MANY = f"""
Several inputs go to a folder, and a file that fails does not stop the others. All files use the same seed, so that a \
result does not depend on which other files are given. --resume goes on with what was stopped.

Profile, EXIF and resolution of a file are kept, and so are its format, its quality, 16 bits, and grey.

Exit codes: {CODES}.
"""


# ------------------------------------------------------------------------------------------------ commands
def _restore(
    inputs: Inputs,
    operator: Operator,
    output: Output = None,
    suffix: Suffix = "",
    noise_std: Noise = None,
    invert: Invert = False,
    threshold: Threshold = "0.5",
    steps: Steps = None,
    seed: Seed = 0,
    samples: Annotated[
        int,
        typer.Option(
            "--samples",
            min=1,
            metavar="N",
            rich_help_panel=_HOW,
            help="Results of each input, OUT-0, OUT-1, ... with the seeds SEED, SEED + 1, ...",
        ),
    ] = 1,
    mean: Annotated[
        int,
        typer.Option("--mean", min=1, metavar="N", rich_help_panel=_HOW, help="Each result is the mean of N samples."),
    ] = 1,
    goal: Annotated[
        Goal,
        typer.Option(
            "--goal",
            rich_help_panel=_HOW,
            help="faithful: near to the truth on average; sharp: one sample, with as much detail as a photograph has. "
            "Samples and means are of sharp ones, since faithful results differ little or not at all.",
        ),
    ] = Goal.faithful,
    solver: Annotated[
        str | None,
        typer.Option(
            "--solver",
            metavar="NAME",
            rich_help_panel=_HOW,
            help="A solver of ccfast.solvers with its arguments, such as DDNM or 'Conjugate(w=10, jacobian=\"none\")'.",
        ),
    ] = None,
    hard_consistency: Annotated[
        bool,
        typer.Option("--hard-consistency", rich_help_panel=_HOW, help="End with H x = y exactly (no noise in IN)."),
    ] = False,
    prior: Prior = "photo",
    keep_alpha: KeepAlpha = False,
    drop_alpha: DropAlpha = False,
    to_rgb: ToRgb = False,
    force: Force = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            rich_help_panel=_FILES,
            help="Do what the same command, which was stopped, has left undone.",
        ),
    ] = False,
    max_memory: Annotated[
        str | None,
        typer.Option(
            "--max-memory",
            metavar="SIZE",
            rich_help_panel=_MACHINE,
            help="Restore large pictures in tiles, so that the process takes at most this: 2G, 800M.",
        ),
    ] = None,
    threads: Threads = None,
    device: Device = "cpu",
) -> int:
    arguments = dict(locals())
    limit = _reader(parse_memory)(max_memory)
    memory_need.refuse_large(inputs, operator, limit)
    from . import commands

    return commands.restore(
        **_common(arguments),
        samples=samples,
        mean=mean,
        goal=goal.value,
        solver=solver,
        hard_consistency=hard_consistency,
        resume=resume,
        limit=limit,
        steps=steps,
        prior=prior,
        threads=threads,
        device=device,
    )


def _common(given: dict[str, Any]) -> dict[str, Any]:
    """The options that ``degrade`` and ``restore`` share, read."""
    names = ("inputs", "operator", "output", "suffix", "seed", "force", "to_rgb", "invert")
    if given["keep_alpha"] and given["drop_alpha"]:
        raise typer.BadParameter("--keep-alpha and --drop-alpha exclude each other")
    alpha = "keep" if given["keep_alpha"] else "drop" if given["drop_alpha"] else "refuse"
    return {name: given[name] for name in names} | {
        "alpha": alpha,
        "noise": _reader(parse_level)(given["noise_std"]),
        "threshold": _reader(parse_threshold)(given["threshold"]),
    }


def _degrade(
    inputs: Inputs,
    operator: Operator,
    output: Output = None,
    suffix: Suffix = "",
    noise_std: Noise = None,
    invert: Invert = False,
    threshold: Threshold = "0.5",
    seed: Seed = 0,
    keep_alpha: KeepAlpha = False,
    drop_alpha: DropAlpha = False,
    to_rgb: ToRgb = False,
    force: Force = False,
) -> int:
    arguments = dict(locals())
    from . import commands

    return commands.degrade(**_common(arguments))


_restore.__doc__ = f"""Restore measurement images.

The input is the small image for pool, bicubic and upscale, the image with holes for inpaint, box and mask, the grey, \
blurred, noisy or compressed image for the others. Any size.
{_OPERATORS}{_MANY}"""
_degrade.__doc__ = f"""Make measurement images.

The measurement is y = H x + noise, rounded to the bits of the file, as PNG. Hidden pixels are mid-grey. Sides that a \
sub-sampling factor does not divide are padded by reflection, and their true size is noted in the PNG; restore crops \
to it. Restore with the same --operator, --seed and --noise-std.
{_OPERATORS}{_MANY}"""
app.command("restore")(_restore)
app.command("degrade")(_degrade)


@app.command()
def demo(
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="The gallery.")] = "gallery.png",
    size: Annotated[int, typer.Option("--size", min=1, help="Side of the photographs in pixels, 32 to 296.")] = 256,
    prior: Prior = "photo",
    steps: Annotated[int, typer.Option("--steps", min=1, rich_help_panel=_HOW, help="Network evaluations.")] = 5,
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = "cpu",
    force: Force = False,
) -> int:
    """Degrade and restore photographs, and draw a gallery.

    Photographs that the prior has never seen (they come with scikit-image) are degraded in four ways and restored;
    prints PSNR and SSIM of the pseudo-inverse H+ y and of the restored image, and draws all of it.
    """
    from . import commands

    return commands.demo(
        out=out, size=size, prior=prior, steps=steps, seed=seed, threads=threads, device=device, force=force
    )


@app.command()
def bench(
    threads: Annotated[int | None, typer.Option(metavar="N", help="CPU threads (torch's choice without it).")] = None,
    side: Annotated[int, typer.Option(help="Of the square images, in pixels.")] = 256,
    rounds: Annotated[int, typer.Option(help="Times that each rival is timed.")] = 11,
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile as a rival too; takes a minute.")] = False,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the figures as JSON too.")] = None,
    busy: Annotated[bool, typer.Option("--busy", help="Measure although other processes use the CPU.")] = False,
) -> int:
    """Time the kernels of this machine against plain torch."""
    arguments = argparse.Namespace(**locals())
    from .benchmark import command

    return command.run(arguments)


@app.command()
def config(
    kernels: Annotated[
        bool,
        typer.Option(
            "--kernels",
            help="Also compile the GPU kernels, which needs no GPU, and print registers, memory and widths of loads.",
        ),
    ] = False,
) -> int:
    """Print what can run here, and why the rest cannot."""
    import ccfast

    from ..config import show_kernels

    ccfast.show_config()
    if kernels:
        show_kernels()
    return 0
