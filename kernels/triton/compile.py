"""Compilation of every kernel ahead of time, without a GPU or a driver, and a report of what the compiler made of it.

The code that launches the kernels makes the ``variants``, on tensors without memory. They are compiled as Triton's
launcher would compile them, with pointers that are aligned to 16 bytes and 32-bit integers of unknown value.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ..device_rows import RESIDUAL, Layout, Scales
from ..resources import Resource
from ..row import Row
from .block import block
from .channel import channel
from .launches import Call
from .lincomb import lincomb
from .mask import mask
from .noise import normal

__all__ = ["Variant", "compiled", "resources", "variants"]

RowArguments = tuple[Tensor, Tensor | None, tuple[Tensor, ...], Tensor, Layout, Scales | None]
"""The arguments of every launch: out, next, terms, table, layout and tensors of coefficients."""

TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.uint8: "*u8",
    torch.int64: "*i64",
}
NETWORK = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}

COMMON = Layout(*Row([((name, 0), 1.0, None) for name in "xFrh"] + [(("h", 0), 1.0, 1.0)]).layout)
"""The layout of the noiseless conjugate sampler with lam = 0."""

EIGHT, SIXTEEN = Layout(0xFF, 0xFF), Layout(0xFFFF, 0xFFFF)
"""The layouts of rows with many terms and with the most, each of them direct and projected."""

NAMES, RESIDUAL_NAMES = ("x", "F", "r", "h", "ybar", "z", "x", "F") * 2, ("ybar", "x", "F")
"""The registers at the places of these rows, which decide the dtypes."""

LARGE, SMALL, ODD = (8, 3, 512, 512), (1, 3, 64, 64), (5, 3, 513, 513)
"""Shapes of batches: one for each size of the launch table, and one whose rows start anywhere in memory."""

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class Variant(NamedTuple):
    """A launch and its name. Where it is ``aligned``, its tensors can be read in vectors of four elements."""

    label: str
    call: Call
    aligned: bool


def variants() -> Iterator[Variant]:
    """The launches: the common row of every kernel in all dtypes, and other rows and sizes with a bfloat16 network."""
    half = torch.bfloat16
    for dtype, label in NETWORK.items():
        for name, call in _kernels(LARGE, dtype, COMMON):
            yield Variant(f"update {name} {label}", call, True)
    for name, call in _kernels(LARGE, half, RESIDUAL):
        yield Variant(f"residual {name} bf16", call, True)
    for name, call in _kernels(SMALL, half, COMMON):
        yield Variant(f"update {name} bf16 small", call, True)
    for name, call in _kernels(ODD, half, COMMON):
        yield Variant(f"update {name} bf16 odd", call, False)
    eight = _row(LARGE, half, EIGHT)
    yield from _scaled(half)
    sixteen = _row(LARGE, half, SIXTEEN)
    yield Variant("sixteen terms per image bf16", mask(*sixteen, _empty(LARGE, torch.uint8)), True)
    yield Variant("sixteen terms 4x4 bf16", block(*sixteen, 4, 4), True)
    yield Variant("sixteen terms 3 channels bf16", channel(*sixteen, _empty((3,))), True)
    yield Variant("eight terms per image bf16", mask(*eight, _empty(LARGE, torch.uint8)), True)
    yield Variant("eight terms 8x8 bf16", block(*eight, 8, 8), True)
    yield Variant("eight terms 3 channels bf16", channel(*eight, _empty((3,))), True)
    yield Variant("eight terms bf16", lincomb(*_row(LARGE, half, EIGHT._replace(projected=0))), True)
    yield Variant("inner bf16", lincomb(*_row(LARGE, half, COMMON._replace(direct=0), inner=True)), True)
    yield Variant("field bf16", lincomb(*_row(LARGE, half, COMMON._replace(projected=0)), _empty(LARGE)), True)
    for shape, name in ((LARGE, ""), (SMALL, " small"), (ODD, " odd")):
        words = _empty(shape[:1], torch.int64)
        yield Variant(f"fp32{name}", normal(_empty(shape), words, words, words, 1), shape != ODD)


def _scaled(dtype: torch.dtype) -> Iterator[Variant]:
    """Rows with tensors as coefficients: of every image in all kernels, of every element where solvers have them."""
    image, element = _empty(LARGE[:1]), _empty(LARGE[1:])
    row = _row(LARGE, dtype, COMMON, scales=Scales([image], [1]))
    yield Variant("scaled 4x4 bf16", block(*row, 4, 4), True)
    yield Variant("scaled 3 channels bf16", channel(*row, _empty((3,))), True)
    both = Scales([image, element], [1, 3])
    row = _row(LARGE, dtype, COMMON, scales=both)
    yield Variant("scaled shared bf16", mask(*row, _empty((1, *LARGE[2:]), torch.uint8)), True)
    yield Variant("scaled bf16", lincomb(*_row(LARGE, dtype, COMMON._replace(projected=0), scales=both)), True)
    weighted = _row(LARGE, dtype, RESIDUAL, scales=Scales([element] * 3, range(3)))
    yield Variant("weighted residual bf16", lincomb(*weighted), True)


def _kernels(shape: tuple[int, ...], dtype: torch.dtype, what: Layout) -> Iterator[tuple[str, Call]]:
    """One launch for every form of P, and one without P."""
    row, plane = _row(shape, dtype, what), shape[2:]
    if not what.residual:
        yield "no P", lincomb(*_row(shape, dtype, what._replace(projected=0)))
    yield "shared", mask(*row, _empty((1, *plane), torch.uint8))
    yield "per image", mask(*row, _empty(shape, torch.uint8))
    if shape == ODD:
        yield "3x3", block(*row, 3, 3)
    else:
        for factor in (2, 4, 8, 16):
            yield f"{factor}x{factor}", block(*row, factor, factor)
        yield "signal 4", block(*row, 1, 4)
    yield "3 channels", channel(*row, _empty((3,)))
    if shape == LARGE:
        yield "16 channels", channel(*_row((shape[0], 16, *plane), dtype, what), _empty((16,)))


def _row(
    shape: tuple[int, ...], dtype: torch.dtype, what: Layout, inner: bool = False, scales: Scales | None = None
) -> RowArguments:
    """A row whose network tensors and next input are of ``dtype``, and whose other tensors are float32."""
    names = RESIDUAL_NAMES if what.residual else NAMES[: (what.direct | what.projected).bit_length()]
    terms = tuple(_empty(shape, dtype if name in "Frh" else torch.float32) for name in names)
    out = _empty(shape, dtype if what.residual else torch.float32)
    following = None if what.residual or inner else _empty(shape, dtype)
    return out, following, terms, _empty((2 * len(terms) + 1,)), what, scales


def _empty(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, device="meta")


# ---------------------------------------------------------------------------------------- compiling
def resources(variants: Sequence[Variant], architecture: int, **options: Any) -> list[Resource]:
    """Compile variants, with further options of the compiler, and read back the resources that they take.

    All are disassembled in one call, since the disassembler takes half a second to start and little time for a kernel.
    """
    binaries = [compiled(variant.call, architecture, **options) for variant in variants]
    listings = _disassembled([binary.asm["cubin"] for binary in binaries], architecture)
    return [
        _resource(variant, architecture, binary, sass)
        for variant, binary, sass in zip(variants, binaries, listings, strict=True)
    ]


def _resource(variant: Variant, architecture: int, binary: Any, sass: str) -> Resource:
    call = variant.call
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage = _tool("cuobjdump", "-res-usage", file.name)
    registers, stack = (int(re.findall(rf"{name}:(\d+)", usage)[-1]) for name in ("REG", "STACK"))
    return Resource(
        "triton",
        call.name,
        variant.label,
        architecture,
        32 * call.warps,
        registers,
        sum(width // 8 * count for width, count in _widths(sass, "STL").items()),
        stack,
        binary.metadata.shared,
        _widths(sass, "LDG"),
        _widths(sass, "STG"),
        len(re.findall(r"\bBAR\.", sass)),
    )


def _disassembled(cubins: Sequence[bytes], architecture: int) -> list[str]:
    """The instructions of each cubin, whose code is laid end to end for one call of the disassembler."""
    codes = [_code(cubin) for cubin in cubins]
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(b"".join(codes))
        file.flush()
        listing = _tool("nvdisasm", "-b", f"SM{architecture}", file.name)
    found = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", listing)
    instructions = [(int(place, 16), instruction) for place, instruction in found]
    ends = list(accumulate(map(len, codes), initial=0))
    return [
        "\n".join(instruction for place, instruction in instructions if start <= place < end)
        for start, end in pairwise(ends)
    ]


def _code(cubin: bytes) -> bytes:
    """The section of a kernel's instructions in a cubin, which is a 64-bit ELF file and holds one kernel."""
    (offset,) = struct.unpack_from("<Q", cubin, 40)
    size, count, names = struct.unpack_from("<HHH", cubin, 58)
    headers = [struct.unpack_from("<IIQQQQ", cubin, offset + k * size) for k in range(count)]
    texts = []
    for name, _, _, _, start, length in headers:
        place = headers[names][4] + name
        if cubin[place : cubin.index(b"\0", place)].startswith(b".text."):
            texts.append(cubin[start : start + length])
    (code,) = texts
    return code


def compiled(call: Call, architecture: int, **options: Any) -> Any:
    """Triton's CompiledKernel of a launch."""
    options = {"num_warps": call.warps, "enable_fp_fusion": call.fusion, **options}
    return triton.compile(_source(call), target=GPUTarget("cuda", architecture, 32), options=options)


def _source(call: Call) -> ASTSource:
    signature: dict[str, Any] = {}
    constants: dict[str, Any] = {}
    attributes = {}
    for index, (parameter, value) in enumerate(zip(call.kernel.params, call.arguments, strict=True)):
        name = parameter.name
        if parameter.is_constexpr or value is None:
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, int):
            signature[name] = "i32"
        elif isinstance(value, tuple) and isinstance(value[0], int):
            signature[name] = ("i32",) * len(value)
        elif isinstance(value, tuple):
            signature[name] = tuple(TYPES[t.dtype] for t in value)
            attributes |= {(index, k): [["tt.divisibility", 16]] for k in range(len(value))}
        else:
            signature[name] = TYPES[value.dtype]
            attributes[index,] = [["tt.divisibility", 16]]
    return ASTSource(fn=call.kernel, signature=signature, constexprs=constants, attrs=attributes)


def _tool(name: str, *arguments: str) -> str:
    done = subprocess.run([TOOLS / name, *arguments], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _widths(sass: str, instruction: str) -> dict[int, int]:
    """How often the instruction occurs, by its width in bits: 128 for LDG.E.128, 16 for LDG.E.U16, 32 for LDG.E."""
    widths = Counter()
    for modifiers in re.findall(rf"\b{instruction}((?:\.\w+)*)", sass):
        sizes = re.findall(r"\.[US]?(8|16|64|128)\b", modifiers)
        widths[int(sizes[0]) if sizes else 32] += 1
    return dict(widths)
