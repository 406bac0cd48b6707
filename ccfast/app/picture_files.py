"""Writing pictures: the formats, and files that appear whole or not at all."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .pictures import ORIENTATION, Picture

__all__ = ["SUFFIXES", "check_output", "encode", "remove_partial_files", "write_bytes"]

SUFFIXES = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP", ".bmp": "BMP",
    ".ppm": "PPM", ".pgm": "PPM",
}  # fmt: skip
"""The formats that are written, by the suffix of the file."""
QUALITY = 95
"""The quality of a JPEG that was not made from another one."""


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Raise what writing to ``path`` would raise because of its name, before any work is done.

    Raises:
        ValueError: the suffix is none of ``SUFFIXES``.
        FileExistsError: ``path`` exists and ``overwrite`` is False.
        IsADirectoryError: it is a folder.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise ValueError(f"path: must end in {', '.join(SUFFIXES)}, got {str(path)!r}")
    if target.is_dir():
        raise IsADirectoryError(f"path: must be a file, got the folder {str(path)!r}")
    if not overwrite and os.path.lexists(target):
        raise FileExistsError(f"path: must not exist unless it may be overwritten (--force), got {str(path)!r}")


def encode(picture: Picture, suffix: str) -> bytes:
    """The bytes of a file with this suffix, with profile, EXIF and resolution where it can hold them.

    A JPEG made from a JPEG has the same quantisation tables and sampling, any other quality 95 and full chroma. WebP is
    lossless. Sixteen bits stay sixteen in PNG and TIFF and are rounded to eight elsewhere.

    Raises:
        ValueError: the picture has transparency and the format has none.
    """
    kind = SUFFIXES[suffix.lower()]
    if picture.alpha is not None and kind in ("JPEG", "PPM"):
        raise ValueError(f"path: must be a PNG, TIFF or WebP to keep transparency (or --drop-alpha), got {suffix!r}")
    if picture.depth == 16 and kind == "PNG":
        return _deep_png(picture)
    if kind == "TIFF":
        return _tiff(picture)
    options: dict[str, Any] = {}
    if kind in ("PNG", "JPEG", "WEBP"):
        options = {"icc_profile": picture.profile, "exif": picture.exif}
    if kind != "WEBP" and picture.dpi:
        options["dpi"] = picture.dpi
    if kind == "PNG" and picture.texts:
        options["pnginfo"] = PngInfo()
        for key, text in picture.texts.items():
            options["pnginfo"].add_text(key, text)
    if kind == "JPEG":
        options |= _jpeg_options(picture)
    if kind == "WEBP":
        options |= {"lossless": True, "exact": True}
    buffer = io.BytesIO()
    kept = {name: value for name, value in options.items() if value is not None}
    as_pillow(picture).save(buffer, format=kind, **kept)
    return buffer.getvalue()


def as_pillow(picture: Picture) -> Image.Image:
    """The picture with 8 bits a sample as an image of Pillow, of mode L, LA, RGB or RGBA."""
    parts = [picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha[..., None]]
    samples = np.concatenate(parts, axis=2)
    if samples.dtype == np.uint16:
        samples = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)


def _jpeg_options(picture: Picture) -> dict[str, Any]:
    coding, channels = picture.jpeg, picture.pixels.shape[2]
    if coding is None or len(coding.used) not in (1, 3):
        return {"quality": QUALITY, "subsampling": 0}
    luma = coding.tables[coding.used[0]]
    chroma = coding.tables[coding.used[-1]]
    options: dict[str, Any] = {"qtables": [luma] if channels == 1 else [luma, chroma]}
    sampling = {((1, 1),): 0, ((2, 1),): 1, ((2, 2),): 2}.get((coding.sampling[0],), 0)
    if channels == 3:
        options["subsampling"] = sampling if len(coding.used) == 3 else 0
    return options


# ------------------------------------------------------------------------------------------------ 16 bits
def _deep_png(picture: Picture) -> bytes:
    """A PNG with 16 bits a sample, which Pillow writes for grey pictures only."""
    parts = [picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha[..., None]]
    samples = np.concatenate(parts, axis=2).astype(">u2")
    height, width, channels = samples.shape
    rows = samples.view(np.uint8).reshape(height, -1)
    step = 2 * channels
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 1  # Every row is filtered by "Sub", the difference from the pixel before.
    filtered[:, 1 : step + 1] = rows[:, :step]
    filtered[:, step + 1 :] = rows[:, step:] - rows[:, :-step]
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    chunks = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))]
    if picture.profile:
        chunks.append(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(picture.profile)))
    if picture.dpi:
        per_metre = (round(value / 0.0254) for value in picture.dpi)
        chunks.append(_chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    for key, text in picture.texts.items():
        with suppress(UnicodeEncodeError):
            chunks.append(_chunk(b"tEXt", key.encode("latin-1") + b"\0" + text.encode("latin-1")))
    if picture.exif:
        chunks.append(_chunk(b"eXIf", picture.exif.removeprefix(b"Exif\0\0")))
    chunks.append(_chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _tiff(picture: Picture) -> bytes:
    """A TIFF in one strip of deflated samples; EXIF data are a TIFF already, to which the pixels are added.

    Pillow writes neither colours of 16 bits nor the directories inside EXIF data, and reads no grey with alpha of 16
    bits, which is written as colours.
    """
    pixels = picture.pixels
    if picture.alpha is not None and pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    parts = [pixels] if picture.alpha is None else [pixels, picture.alpha[..., None]]
    samples = np.concatenate(parts, axis=2).astype(f"<u{picture.depth // 8}")
    height, width, channels = samples.shape
    strip = zlib.compress(samples.tobytes(), 6)
    exif = Image.Exif()
    exif.load(picture.exif or b"")
    exif.endian = "<"
    tags: dict[int, Any] = {
        256: width, 257: height, 258: (picture.depth,) * channels, 259: 8, 262: 1 if channels < 3 else 2, 273: 0,
        277: channels, 278: height, 279: len(strip), 284: 1, ORIENTATION: 1,
    }  # fmt: skip
    if channels in (2, 4):
        tags[338] = 2  # The last channel is alpha, by which the colours are not multiplied.
    if picture.dpi:
        tags |= {282: picture.dpi[0], 283: picture.dpi[1], 296: 2}
    if picture.profile:
        tags[34675] = picture.profile
    for tag, value in tags.items():
        exif[tag] = value
    # Pillow counts the offset of the strip from the end of the directory.
    return exif.tobytes().removeprefix(b"Exif\0\0") + strip


# ------------------------------------------------------------------------------------------------ whole or not at all
def write_bytes(path: str | os.PathLike[str], data: bytes, overwrite: bool = False) -> None:
    """Write a file that appears whole or not at all, also where the machine stops.

    The data are written beside the target, brought to the disk, and renamed.

    Raises:
        FileExistsError: ``path`` exists and ``overwrite`` is False.
        OSError: ``path`` cannot be written.
    """
    target = Path(path)
    partial = target.with_name(f"{_PREFIX}{target.name}.{os.getpid()}{_END}")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if not overwrite and os.path.lexists(target):
            raise FileExistsError(f"path: must not exist unless it may be overwritten (--force), got {str(path)!r}")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(target.parent)


def remove_partial_files(targets: Iterable[Path]) -> None:
    """Remove what processes that were killed while they wrote one of these files have left beside it."""
    names: dict[Path, set[str]] = {}
    for target in targets:
        names.setdefault(target.parent, set()).add(target.name)
    for folder, own in names.items():
        with suppress(OSError):
            for path in folder.iterdir():
                name, _, owner = path.name.removeprefix(_PREFIX).removesuffix(_END).rpartition(".")
                is_ours = path.name == f"{_PREFIX}{name}.{owner}{_END}" and name in own and owner.isdecimal()
                if is_ours and not _alive(int(owner)):
                    path.unlink(missing_ok=True)


_PREFIX, _END = ".", ".part"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
