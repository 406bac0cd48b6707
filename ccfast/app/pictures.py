"""Pictures: image files with all that they hold, read without loss.

A ``Picture`` has the samples as integers of 8 or 16 bits and what a file says beside them: colour profile, EXIF, the
resolution in dots per inch, and how a JPEG was compressed. ``picture_files`` writes it again.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms

__all__ = ["FORMATS", "Header", "Picture", "UnsupportedError", "read_header", "read_picture"]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""The formats whose decoders say how many bits a sample has; others lower deep samples to 8 bits without a word."""
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "I;16", "I;16B", "I;16L")
_OTHER_SPACES = ("CMYK", "LAB", "YCbCr", "HSV")
ORIENTATION = 0x0112


class UnsupportedError(ValueError):
    """The file is a readable image of a kind that is refused."""


class JpegCoding(NamedTuple):
    """How a JPEG was compressed.

    Attributes:
        tables: the quantisation tables, 64 numbers each in the order of rows, by their index.
        used: the index of the table of each channel.
        sampling: the horizontal and vertical sampling factor of each channel.
    """

    tables: dict[int, list[int]]
    used: tuple[int, ...]
    sampling: tuple[tuple[int, int], ...]


@dataclass
class Picture:
    """The samples of an image and what its file says of them.

    Attributes:
        pixels: (H, W, C), uint8 or uint16; C is 1 for a grey file and 3 for one in colour. It is upright.
        alpha: (H, W) of the same type, or None where the file has no transparency.
        profile: the ICC profile, None for none.
        exif: the EXIF data, whose orientation is 1 since the pixels are upright, None for none.
        dpi: dots per inch of the width and the height, None where the file does not say.
        format: the format of the file, "PNG" for a picture that has none.
        jpeg: how a JPEG was compressed, None for other formats.
        texts: the texts of a PNG.
        turned: whether the file says that its pixels were to be turned or mirrored, as they are here.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    format: str = "PNG"
    jpeg: JpegCoding | None = None
    texts: dict[str, str] = field(default_factory=dict)
    turned: bool = False

    @property
    def depth(self) -> int:
        """The bits of a sample, 8 or 16."""
        return 8 * self.pixels.dtype.itemsize

    @property
    def largest(self) -> int:
        """The number of white, 255 or 65535."""
        return 2**self.depth - 1

    @property
    def hw(self) -> tuple[int, int]:
        """The height and the width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


class Header(NamedTuple):
    """What the first bytes of a file say: its upright size, its channels without alpha, its bits and its format."""

    hw: tuple[int, int]
    channels: int
    depth: int
    format: str


def read_header(path: str | os.PathLike[str]) -> Header:
    """The size and kind of an image, which are known without decoding it.

    Raises:
        ValueError: the file is missing, no image of the formats, or of a kind that is refused.
    """
    with _opened(path) as image:
        width, height = image.size
        if Image.Image.getexif(image).get(ORIENTATION, 1) in (5, 6, 7, 8):  # That of a PNG would decode it.
            width, height = height, width
        channels = 1 if image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I") else 3
        return Header((height, width), channels, 16 if _is_deep(image) else 8, str(image.format))


def read_picture(path: str | os.PathLike[str], *, convert: bool = False) -> Picture:
    """All that an image file holds.

    Args:
        path: a PNG, JPEG, BMP, GIF, TIFF, WebP or PPM file of 8 or 16 bits a sample (PNG and TIFF) and one frame.
        convert: whether other colour spaces (CMYK, LAB, YCbCr) are converted to sRGB, through the file's profile if it
            has one; they are refused otherwise.

    Raises:
        ValueError: the file is missing, truncated or no image of these formats, has more bits a sample, several frames,
            or another colour space and ``convert`` is False.
    """
    with _opened(path, convert) as image:
        deep, tiles = _is_deep(image), list(image.tile)  # type: ignore[attr-defined]
        exif = image.getexif()  # This loads a PNG, whose EXIF data may be behind the pixels.
        picture = Picture(
            np.empty((0, 0, 3), np.uint8),
            profile=image.info.get("icc_profile"),
            dpi=_resolution(image),
            format="JPEG" if image.format == "MPO" else str(image.format),
            jpeg=_jpeg_coding(image),
            texts={k: v for k, v in getattr(image, "text", {}).items() if isinstance(v, str)},
        )
        # Pillow turns a TIFF when it decodes it.
        turn = None if image.format == "TIFF" else _TURNS.get(exif.get(ORIENTATION, 1))
        picture.exif = _exif_bytes(exif)
        if image.mode in _OTHER_SPACES:
            image = _to_rgb(image, picture)
        samples, alpha = _deep_samples(path, image, tiles) if deep else _byte_samples(image)
        picture.turned = turn is not None
        if turn is not None:
            samples, alpha = (None if part is None else turn(part) for part in (samples, alpha))
        assert samples is not None
        picture.pixels = np.ascontiguousarray(samples)
        picture.alpha = None if alpha is None else np.ascontiguousarray(alpha)
    return picture


# ------------------------------------------------------------------------------------------------ opening
class _opened:  # noqa: N801, used as a function
    """An open image of a kind that is read; every error of a decoder becomes a ValueError that names the file."""

    def __init__(self, path: str | os.PathLike[str], convert: bool = True) -> None:
        self.path, self.convert = path, convert

    def __enter__(self) -> Image.Image:
        try:
            self.image = Image.open(self.path, formats=FORMATS)
            _check_kind(self.path, self.image, self.convert)
        except Exception as error:
            if hasattr(self, "image"):
                self.image.close()
            raise self._named(error) from error
        return self.image

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.image.close()
        if isinstance(error, Exception):
            raise self._named(error) from error

    def _named(self, error: Exception) -> Exception:
        """Broken data makes decoders raise OSError, SyntaxError, zlib.error, struct.error and others."""
        if isinstance(error, UnsupportedError | MemoryError):
            return error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        return ValueError(f"path: must be a readable image ({', '.join(FORMATS)}), got {str(self.path)!r}: {reason}")


def _check_kind(path: str | os.PathLike[str], image: Image.Image, convert: bool) -> None:
    # An MPO is the JPEG of a camera with previews or depth maps as further frames; the first is the photograph.
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1:
        raise UnsupportedError(f"path: must hold one image, got {str(path)!r} with {frames} frames")
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise UnsupportedError(
            f"path: must have 8 or 16 bits a sample, got {str(path)!r} with 32 (mode {image.mode}); convert it first"
        )
    if image.mode in _OTHER_SPACES:
        if convert:
            return
        raise UnsupportedError(
            f"path: must be RGB, greyscale or palette, got {str(path)!r} with mode {image.mode}; --to-rgb converts it"
        )
    if image.mode not in (*_MODES, "I"):
        raise UnsupportedError(f"path: must be RGB, greyscale or palette, got {str(path)!r} with mode {image.mode}")
    if _is_deep(image) and image.format not in ("PNG", "TIFF"):
        raise UnsupportedError(
            f"path: must have 8 bits a sample in this format, got {str(path)!r} with more; PNG and TIFF may have 16"
        )


def _is_deep(image: Image.Image) -> bool:
    """Whether samples have 16 bits, which for colours only the file's raw mode tells, since Pillow lowers them to 8."""
    if image.mode.startswith("I"):
        return True
    for tile in image.tile:  # type: ignore[attr-defined]
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        raw_mode = str(arguments[0]) if arguments else ""
        if ";16" in raw_mode and not raw_mode.startswith("BGR"):  # "BGR;16" is a BMP with 5 or 6 bits a sample.
            return True
        if tile[0] in ("ppm", "ppm_plain") and arguments[-1] > 255:  # It is the largest value of a sample.
            return True
    return False


# ------------------------------------------------------------------------------------------------ samples
def _byte_samples(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """(H, W, C) and the alpha channel (H, W) of a file with 8 bits a sample or fewer."""
    has_alpha = image.has_transparency_data
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode in ("La", "RGBa"):  # Their colours were multiplied by alpha.
        image = image.convert("LA" if grey else "RGBA")
    pixels = np.array(image.convert(("LA" if grey else "RGBA") if has_alpha else ("L" if grey else "RGB")))
    if pixels.ndim == 2:
        return pixels[..., None], None
    return (pixels[..., :-1], pixels[..., -1]) if has_alpha else (pixels, None)


def _deep_samples(
    path: str | os.PathLike[str], image: Image.Image, tiles: list[Any]
) -> tuple[np.ndarray, np.ndarray | None]:
    """The same with 16 bits a sample.

    Pillow has no mode for colours of 16 bits and keeps one byte of each sample. Its raw modes "16L" and "16B" differ in
    which byte they keep, so that decoding twice gives both.
    """
    key = image.info.get("transparency")
    if image.mode.startswith("I"):
        grey = np.array(image).astype(np.uint16)
        return grey[..., None], None if key is None else _opaque(grey != int(key))
    raw_modes = {str((tile[3] if isinstance(tile[3], tuple) else (tile[3],))[0]) for tile in tiles}
    raw_mode = raw_modes.pop()
    if raw_modes or ";16" not in raw_mode:
        raise UnsupportedError(f"path: must have 16-bit samples that lie together, got {str(path)!r} with planes")
    if raw_mode == "LA;16B":  # The four bytes of a pixel are read as if they were four channels.
        four = _decoded(path, "RGBA", "RGBA").astype(np.uint16)
        return (256 * four[..., 0] + four[..., 1])[..., None], 256 * four[..., 2] + four[..., 3]
    name, end = raw_mode[:-1], raw_mode[-1]
    little = end == "L" or (end == "N" and np.little_endian)
    high = _decoded(path, image.mode, f"{name}{'L' if little else 'B'}").astype(np.uint16)
    low = _decoded(path, image.mode, f"{name}{'B' if little else 'L'}")
    if high.ndim != 3 or raw_mode[:4] not in ("RGB;", "RGBA", "RGBX"):
        raise UnsupportedError(f"path: must be RGB or greyscale, got {str(path)!r} with {raw_mode}; convert it first")
    samples = 256 * high + low
    if samples.shape[2] == 4:
        return samples[..., :3], samples[..., 3]
    return samples, None if key is None else _opaque((samples != np.array(key, np.uint16)).any(2))


def _opaque(opaque: np.ndarray) -> np.ndarray:
    return np.where(opaque, np.uint16(65535), np.uint16(0))


def _decoded(path: str | os.PathLike[str], mode: str, raw_mode: str) -> np.ndarray:
    """The bytes that Pillow's decoder gives with another raw mode than the one that it chose."""
    with Image.open(path, formats=FORMATS) as image:
        tiles = []
        for codec, box, offset, arguments in image.tile:  # type: ignore[attr-defined]
            rest = arguments[1:] if isinstance(arguments, tuple) else None
            given = raw_mode if rest is None else (raw_mode, *rest)
            tiles.append((codec, box, offset, given))
        kind = type(image.tile[0])  # type: ignore[attr-defined]
        image.tile = [kind(*tile) for tile in tiles] if kind is not tuple else tiles  # type: ignore[attr-defined]
        image._mode = mode  # type: ignore[attr-defined]
        # A decoder of libtiff reads the raw mode once more, from what the file says.
        image.load()
        return np.array(image)


def _to_rgb(image: Image.Image, picture: Picture) -> Image.Image:
    """The image in sRGB, through its profile where it has one that can be read."""
    profile, picture.profile = picture.profile, None
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            if converted is not None:
                return converted
        except ImageCms.PyCMSError:
            pass  # A broken profile leaves Pillow's own formula.
    return image.convert("RGB")


_TURNS = {
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""What makes an image upright, by its EXIF orientation."""


# ------------------------------------------------------------------------------------------------ what else is kept
def _resolution(image: Image.Image) -> tuple[float, float] | None:
    given = image.info.get("dpi")
    try:
        x, y = (float(value) for value in given)  # type: ignore[union-attr]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None


def _exif_bytes(exif: Image.Exif) -> bytes | None:
    """The EXIF data without orientation and preview, which no longer fit, and without what a TIFF's pixels need."""
    kept = {tag: value for tag, value in exif.items() if tag not in _LAYOUT_TAGS}
    inner = {tag: exif.get_ifd(tag) for tag in (0x8769, 0x8825)}
    if not any(tag not in (0x8769, 0x8825) for tag in kept) and not any(inner.values()):
        return None
    new = Image.Exif()
    for tag, value in kept.items():
        if tag not in inner:
            new[tag] = value
    for tag, values in inner.items():
        if values:
            new.get_ifd(tag).update(values)
    if ORIENTATION in exif:
        new[ORIENTATION] = 1
    try:
        return new.tobytes()
    except Exception:  # A tag of a camera that Pillow can read and not write; the picture is worth more than it.
        return None


_LAYOUT_TAGS = (
    *range(254, 260), 262, 266, 273, 277, 278, 279, 280, 281, 282, 283, 284, 296, 317, 320, 322, 323, 324, 325, 330,
    338, 339, 347, 512, 513, 514, 530, 531, 532, 700, 33723, 34377, 34675, ORIENTATION,
)  # fmt: skip
"""The tags of TIFF that say how its pixels lie, its resolution and profile, which are kept by themselves, and XMP."""


def _jpeg_coding(image: Image.Image) -> JpegCoding | None:
    if image.format not in ("JPEG", "MPO"):
        return None
    layers = getattr(image, "layer", [])
    return JpegCoding(
        {index: list(table) for index, table in image.quantization.items()},  # type: ignore[attr-defined]
        tuple(layer[3] for layer in layers),
        tuple((layer[1], layer[2]) for layer in layers),
    )
