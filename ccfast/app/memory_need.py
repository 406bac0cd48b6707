"""How much memory a restoration needs, what there is, and the tiles that keep within a limit.

Nothing here imports torch, so that a picture that is too large is refused at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .jobs import images_of
from .pictures import Header, read_header

__all__ = ["NEEDS", "Needs", "available_memory", "refuse_large", "tile_side"]

MIB = 1 << 20
GIB = 1 << 30
BASE = 380 * MIB
"""What Python, torch and a bundled network take before anything is restored."""
MOST = 4 * GIB
"""The most that a picture may need where no limit is given, even if more is free."""
LEAST_TILE = 128


class Needs:
    """Bytes per pixel of the result that is restored at once, by the way of restoring it.

    They are the growth of the peak of resident memory from 256 x 256 to 1024 x 1024 pixels, rounded up, with a solver
    that keeps activations for a derivative, and with one evaluation of the network at a time.
    """

    sampler = 2800
    plain = 800


NEEDS = {"denoise": Needs.plain, "jpeg": Needs.plain, "blur": Needs.plain, "motion": Needs.plain,
         "defocus": Needs.plain, "kernel": Needs.plain}  # fmt: skip
_FACTOR = re.compile(r"(?:pool|bicubic|upscale):(\d+)")


def per_pixel(operator: str) -> int:
    """Bytes per pixel of the result that is restored at once."""
    return NEEDS.get(operator.partition(":")[0], Needs.sampler)


def factor_of(operator: str) -> int:
    """The sides of the result over those of the file."""
    match = _FACTOR.match(operator)
    return int(match[1]) if match else 1


def kept_bytes(header: Header, factor: int) -> int:
    """What the samples of a file and of its result take while tiles are restored and when it is written."""
    height, width = header.hw
    sample = header.depth // 8
    return int(height * width * sample * (4 * header.channels + 4 * max(3, header.channels) * factor**2))


def whole_need(header: Header, operator: str) -> int:
    """The bytes that a picture takes that is restored at once."""
    factor = factor_of(operator)
    height, width = (factor * side for side in header.hw)
    return BASE + kept_bytes(header, factor) + per_pixel(operator) * height * width


def tile_side(header: Header, operator: str, limit: int) -> int | None:
    """The longest side, in pixels of the result, of tiles that keep within a limit; None: the whole picture does.

    Raises:
        ValueError: not even the smallest tiles do.
    """
    if whole_need(header, operator) <= limit:
        return None
    fixed = BASE + kept_bytes(header, factor_of(operator))
    side = int((max(0, limit - fixed) / per_pixel(operator)) ** 0.5) // 8 * 8
    if side < LEAST_TILE:
        least = fixed + per_pixel(operator) * LEAST_TILE**2
        raise ValueError(
            f"max-memory: must be at least {shown(least)} for a picture of {header.hw[1]} x {header.hw[0]} pixels, "
            f"got {shown(limit)}"
        )
    return side


def refuse_large(inputs: Sequence[str], operator: str, limit: int | None) -> None:
    """Raise where a picture needs more memory than there is, or more than the limit with the smallest tiles.

    Files that cannot be read are left to those who read them.

    Raises:
        ValueError: a picture needs too much; the message says how much, and what to do.
    """
    most = min(MOST, available_memory())
    for path in (path for given in inputs for path in _readable(given)):
        try:
            header = read_header(path)
        except ValueError:
            continue
        if limit is not None:
            try:
                tile_side(header, operator, limit)
            except ValueError as error:
                raise ValueError(f"{error} ({path})") from None
            continue
        need = whole_need(header, operator)
        if need > most:
            raise ValueError(
                f"max-memory: {path}, {header.hw[1]} x {header.hw[0]} pixels, needs about {shown(need)} of memory at "
                f"once, and up to {shown(most)} are taken without a limit; --max-memory 2G restores it in tiles"
            )


def _readable(given: str) -> list[Path]:
    with suppress(ValueError, OSError):
        return images_of(given)
    return []


def shown(amount: int) -> str:
    """An amount of memory for people."""
    return f"{amount / GIB:.1f} GiB" if amount >= GIB else f"{amount / MIB:.0f} MiB"


def available_memory() -> int:
    """The bytes that this process may still take, as far as Linux says; a very large number where it does not."""
    found = [1 << 62]
    with suppress(OSError, ValueError, IndexError):
        rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(int(rows["MemAvailable"].split()[0]) * 1024)
    for most, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):
            found.append(int(Path(most).read_text()) - int(Path(used).read_text()))
    with suppress(ImportError, OSError, ValueError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            taken = int(Path(f"/proc/{os.getpid()}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            found.append(limit - taken)
    return max(0, min(found))
