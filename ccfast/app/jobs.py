"""Commands on many image files: where each result goes, and how one file after the other is worked on."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from .picture_files import SUFFIXES, check_output

__all__ = ["Job", "Naming", "images_of", "plan_jobs", "run_jobs", "say", "tell"]


class Job(NamedTuple):
    """One input file and the files that are made from it."""

    source: Path
    targets: tuple[Path, ...]


class Naming(NamedTuple):
    """How results are called.

    Attributes:
        output: a file, or a folder; None: beside each input.
        added: what is added to the name of each input where the result does not go to one file.
        kind: the suffix of results, with its dot; None: that of each input where it can be written, or .png.
        samples: the number of results of each input; more than one are numbered -0, -1, ...
    """

    output: str | None
    added: str = ""
    kind: str | None = None
    samples: int = 1

    @classmethod
    def of(cls, output: str | None, suffix: str, kind: str | None = None, samples: int = 1) -> Naming:
        """The naming for the ``--suffix`` of the command line, which may end with that of a format.

        Raises:
            ValueError: neither says where results go, or the suffix holds a slash.
        """
        if "/" in suffix or os.sep in suffix or "\0" in suffix:
            raise ValueError(f"suffix: is added to the names of files and may hold no slash, got {suffix!r}")
        added, dot, end = suffix.rpartition(".")
        if dot and f".{end.lower()}" in SUFFIXES:
            suffix, kind = added, f".{end}"
        if output is None and not suffix:
            raise ValueError("output: must be a file or a folder (-o OUT), or --suffix, such as -restored, got none")
        return cls(output, suffix, kind, samples)

    @property
    def is_folder(self) -> bool:
        """Whether results go to a folder."""
        return self.output is None or self.output.endswith(("/", os.sep)) or Path(self.output).is_dir()

    def targets(self, source: Path, folder: Path) -> tuple[Path, ...]:
        """The results of one input in a folder."""
        kind = self.kind or (source.suffix if source.suffix.lower() in SUFFIXES else ".png")
        return _numbered(folder / f"{source.stem}{self.added}{kind}", self.samples)


def plan_jobs(
    inputs: Sequence[str], naming: Naming, *, force: bool, known: Callable[[Path], bool] | None = None
) -> list[Job]:
    """The files to write, all of them checked before any work is done.

    One input is written to the output itself. Where the output is a folder, or there are several inputs, each is
    written to a file of its own name in that folder. A folder among the inputs stands for the images in it.

    Args:
        inputs: files and folders.
        naming: where results go and how they are called.
        force: whether files that exist are replaced.
        known: says of a target that exists whether it belongs to the same work, and may stay.

    Raises:
        ValueError: two results would share a file, a result would replace an input, the suffix is unknown, the output
            must be a folder and is not, or a folder among the inputs holds no image.
        FileExistsError: a result exists, and ``force`` is False.
        FileNotFoundError: the folder of the output does not exist.
    """
    sources = [path for given in inputs for path in images_of(given)]
    output = naming.output
    if output is None:
        jobs = [Job(source, naming.targets(source, source.parent)) for source in sources]
    else:
        folder = Path(output)
        several = len(inputs) > 1 or Path(inputs[0]).is_dir()
        if several or naming.is_folder:
            if folder.exists() and not folder.is_dir():
                raise ValueError(f"output: must be a folder for {len(sources)} inputs, got the file {output!r}")
            jobs = [Job(source, naming.targets(source, folder)) for source in sources]
        else:
            if not folder.parent.is_dir():
                raise FileNotFoundError(f"output: its folder must exist, got {output!r}")
            jobs = [Job(sources[0], _numbered(folder, naming.samples))]
    _check_targets(jobs, force, known or (lambda target: False))
    return jobs


def images_of(given: str) -> list[Path]:
    """A file itself, or the images in a folder, in the order of their names."""
    path = Path(given)
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in (*SUFFIXES, ".gif") and p.is_file())
    found = [p for p in found if not p.name.startswith(".")]
    if not found:
        raise ValueError(f"inputs: a folder must hold images ({', '.join(SUFFIXES)}), got {given!r} without any")
    return found


def _check_targets(jobs: list[Job], force: bool, known: Callable[[Path], bool]) -> None:
    sources = {_identity(job.source) for job in jobs if job.source.exists()}
    owners: dict[Path, Path] = {}
    for job in jobs:
        for target in job.targets:
            if target in owners:
                raise ValueError(
                    f"output: must differ for every input, got {target} for {owners[target]}, {job.source}"
                )
            owners[target] = job.source
            if target.exists() and _identity(target) in sources:
                raise ValueError(f"output: must not replace an input, got {target}")
            check_output(target, overwrite=force or known(target))


def _identity(path: Path) -> tuple[int, int]:
    """The device and inode of a file, which are equal for two paths to one file, through links too."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _numbered(target: Path, samples: int) -> tuple[Path, ...]:
    """The files of all samples of one result."""
    if samples == 1:
        return (target,)
    return tuple(target.with_name(f"{target.stem}-{index}{target.suffix}") for index in range(samples))


def run_jobs(jobs: Sequence[Job], work: Callable[[Job], None]) -> int:
    """Do every job, whatever becomes of the others, and name on stderr each that fails.

    Returns:
        The number of failed jobs.
    """
    failed = 0
    for job in jobs:
        try:
            work(job)
        except Exception as error:
            failed += 1
            tell(f"ccfast: error: {job.source}: {str(error) or type(error).__name__}")
            # PyTorch raises RuntimeError when memory runs out. Others are mistakes in ccfast and show where they are.
            if not isinstance(error, ValueError | OSError | RuntimeError | MemoryError | FloatingPointError):
                tell("".join(traceback.format_exception(error)))
        else:
            say("\n".join(map(str, job.targets)))
    return failed


def say(text: str) -> None:
    """Print a line on stdout; that it is closed or full changes nothing of the work."""
    _print(text, "stdout")


def tell(text: str) -> None:
    """Print a line on stderr, past the progress bar."""
    _print(text, "stderr")


def _print(text: str, name: str) -> None:
    stream = getattr(sys, name)
    if stream is None:  # It was closed when Python started.
        return
    try:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        # A name that is not of the terminal's encoding is shown with escapes.
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        tqdm.write(text, file=stream)
        stream.flush()
    except (OSError, ValueError):  # The reader has gone, the disk is full, or the stream was closed.
        if stream is getattr(sys, f"__{name}__"):
            # What is left in its buffer would raise again when Python ends.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
            _redirect(stream)


def _redirect(stream: object) -> None:
    """Let the descriptor of a broken stream lead nowhere, so that Python's last flush succeeds."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[attr-defined]
        os.close(nowhere)
    except (OSError, ValueError):
        pass
