"""Random valid calls of the compiled ops, and what they must write, in float64 from the definition."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ccfast.kernels import reference

__all__ = ["CALLS", "Call", "Want", "wrong_values"]

LARGEST = 1e37
"""Sums up to this size fit into float32 with a margin."""

SMALLEST = 2e-38
"""Numbers from this size on are normal ones of float32, which have all digits."""

HALVES = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10}
"""The half-precision dtypes, and bounds of the relative error of rounding to them."""


@dataclass
class Want:
    """What an output must hold.

    Attributes:
        value: the expected output, in float64 or complex128.
        size: the same sum over magnitudes, to which rounding errors are relative.
        certain: a mask that is True where every input number is finite. Elsewhere any output is accepted.
    """

    value: Tensor
    size: Tensor
    certain: Tensor

    def __mul__(self, number: float) -> Want:
        return Want(
            self.value * number, self.size * abs(number), self.certain & (self.size < LARGEST) & (abs(number) < LARGEST)
        )


@dataclass
class Call:
    """One call of an op.

    Attributes:
        op: its name in ``torch.ops.ccfast``.
        arguments: the arguments, by the names of the op's schema.
        writes: the names of the arguments that the op writes.
        wants: a function that takes copies of the arguments, made before the call, and returns {name: Want}.
        grad: whether grad mode is on.
        edges: what was changed in the call, and the outcome that each change demands.
        readable: whether the elements of all its tensors can be read.
        pixels: how many pixels the call works on, counted before anything was changed.
    """

    op: str
    arguments: dict[str, Any]
    writes: tuple[str, ...]
    wants: Callable[[dict[str, Any]], dict[str, Want]]
    grad: bool = False
    edges: list[str] = field(default_factory=list)
    readable: bool = True
    pixels: int = -1

    def __post_init__(self) -> None:
        first = self.arguments["terms"][0] if "terms" in self.arguments else self.arguments[self.writes[0]]
        self.pixels = first.numel()

    def tensors(self) -> list[tuple[str, int | None, Tensor]]:
        """Every tensor among the arguments, as (name, place in a list or None, tensor)."""
        found = []
        for name, value in self.arguments.items():
            if isinstance(value, Tensor):
                found.append((name, None, value))
            elif isinstance(value, list):
                found += [(name, k, v) for k, v in enumerate(value) if isinstance(v, Tensor)]
        return found

    def put(self, name: str, place: int | None, tensor: Tensor) -> None:
        if place is None:
            self.arguments[name] = tensor
        else:
            self.arguments[name] = [*self.arguments[name]]
            self.arguments[name][place] = tensor

    def __str__(self) -> str:
        rows = [f"torch.ops.ccfast.{self.op}, grad {'on' if self.grad else 'off'}, edges: {self.edges or 'none'}"]
        for name, value in self.arguments.items():
            parts = [_words(v) for v in value] if isinstance(value, list) else [_words(value)]
            rows.append(f"    {name} = {', '.join(parts) or '[]'}")
        return "\n".join(rows)


def _words(value: object) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    text = f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)}"
    if value.layout is not torch.strided:
        return f"{text} {value.layout}"
    text += f" strides {value.stride()} offset {value.storage_offset()} of {value.untyped_storage().nbytes()} bytes"
    return text + (f" on {value.device}" if value.device.type != "cpu" else "")


def wrong_values(op: str, got: Tensor, want: Want) -> str | None:
    """A description of how an output differs from what it must hold, or None.

    The bound is relative to the sum of magnitudes. It covers 24 terms in float32 or the longer sums of a projection,
    and for half precision the rounding of the result.
    """
    bound = (4e-6 if op in ("lincomb", "mask", "fourier_pack", "fourier_multiply", "normal") else 2e-5) * want.size
    certain = want.certain & (want.size < LARGEST)
    if got.dtype in HALVES:
        bound = bound + HALVES[got.dtype] * want.value.abs() + 1e-7
    if got.dtype == torch.float16:
        certain = certain & (want.size < 6e4)
    error = (got.detach().to(want.value.dtype) - want.value).abs()
    wrong = certain & ~(error <= bound + 1e-36)
    if not wrong.any():
        return None
    place = tuple(wrong.nonzero()[0].tolist())
    return f"element {place} is {got[place].item()}, not {want.value[place].item()}"


# ---------------------------------------------------------------------------------------- numbers and layouts
def number(rng: random.Random) -> float:
    return rng.choice([0.0, 1.0, -0.5, 2.25, rng.uniform(-3, 3), 1e-30])


def values(rng: random.Random, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Random values, most of them ordinary; now and then some are huge, tiny, infinite or not numbers."""
    generator = torch.Generator().manual_seed(rng.getrandbits(40))
    tensor = torch.randn(shape, generator=generator, dtype=torch.float64)
    if tensor.numel() and rng.random() < 0.15:
        place = tuple(rng.randrange(size) for size in shape)
        tensor[place] = rng.choice([math.nan, math.inf, -math.inf, 1e30, 1e-42, -0.0])
    return tensor.to(dtype)


def laid_out(rng: random.Random, tensor: Tensor) -> Tensor:
    """The same values in another layout."""
    kind, sizes = rng.randrange(8), tensor.shape
    if kind == 0 and tensor.ndim > 1:  # The dimensions lie in another order.
        order = rng.sample(range(tensor.ndim), tensor.ndim)
        back = [order.index(d) for d in range(tensor.ndim)]
        return tensor.permute(order).contiguous().permute(back)
    if kind == 1:  # It is a part of a wider tensor.
        wide = torch.full([size + rng.randrange(3) for size in sizes], math.nan, dtype=tensor.dtype)
        part = wide[tuple(slice(w - size, w) for w, size in zip(wide.shape, sizes, strict=True))]
        return part.copy_(tensor)
    if kind == 2:  # It takes every second element.
        return torch.stack([tensor, torch.full_like(tensor, math.nan)], -1).flatten(-2)[..., ::2] if sizes else tensor
    if kind == 3 and tensor.numel():  # It repeats along some dimensions.
        narrow = tensor[tuple(slice(0, 1) if rng.random() < 0.4 else slice(None) for _ in sizes)]
        return narrow.contiguous().expand(sizes)
    if kind == 4:  # It starts at an offset that is not aligned.
        memory = torch.full((tensor.numel() + 3,), math.nan, dtype=tensor.dtype)
        return memory[3:].view(sizes).copy_(tensor)
    if kind == 5 and 1 in sizes and tensor.numel():  # Dimensions of size 1 have huge strides.
        plain = tensor.contiguous()
        strides = [2**40 if size == 1 else stride for size, stride in zip(sizes, plain.stride(), strict=True)]
        return plain.as_strided(sizes, strides)
    return tensor


def image_shape(rng: random.Random) -> tuple[int, ...]:
    """The shape of images or signals with few elements or none; rarely so many that a kernel splits the work."""
    batch, channels = rng.choice([0, 1, 1, 2, 3]), rng.choice([0, 1, 1, 2, 3, 3, 5])
    sides = [rng.choice([0, 1, 1, 2, 3, 4, 7, 8, 12, 16, 17, 33, 64]) for _ in range(rng.choice([1, 2, 2, 2]))]
    if rng.random() < 0.03:  # Such a call takes as long as a hundred others.
        return (1, rng.choice([1, 2]), *sides[:-1], rng.choice([2049, 8193])) if sides[0] < 3 else (1, 1, 2049, 3)
    if batch * channels * sides[0] * sides[-1] > 1024:
        sides = [min(side, 17) for side in sides]
    return (batch, channels, *sides)


def factor(rng: random.Random, side: int) -> int:
    return rng.choice([f for f in range(1, side + 1) if side % f == 0] or [1, 2, 2**40])


# ---------------------------------------------------------------------------------------- rows
def row_arguments(rng: random.Random, shape: tuple[int, ...], projects: bool, direct: bool = True) -> dict[str, Any]:
    """The terms and coefficients of a row, to which ``outputs`` adds the outputs."""
    dtypes = [torch.float32, torch.float32, torch.bfloat16, torch.float16]
    count = rng.choice([1, 1, 2, 3, 5, 24])
    terms = [laid_out(rng, values(rng, shape, rng.choice(dtypes))) for _ in range(count)]
    arguments: dict[str, Any] = {"terms": terms}
    if direct:
        arguments["direct"] = [number(rng) for _ in terms]
    if projects:
        arguments["projected"] = [number(rng) for _ in terms]
    if rng.random() < 0.5:
        arguments |= {"scales": None, "scaled": None}
        return arguments
    places = rng.sample(range(count), rng.randrange(count + 1))
    scales = []
    for _ in places:
        own = shape[:1] if rng.random() < 0.5 else tuple(1 if rng.random() < 0.4 else size for size in shape)
        if len(own) > 1 and rng.random() < 0.3:
            own = own[1:]
        scales.append(laid_out(rng, values(rng, own, torch.float32)))
    return arguments | {"scales": scales, "scaled": places}


def outputs(rng: random.Random, shape: tuple[int, ...]) -> dict[str, Any]:
    def empty() -> Tensor:
        dtype = rng.choice([torch.float32, torch.float32, torch.bfloat16, torch.float16])
        memory = torch.full((math.prod(shape) + 5,), math.nan, dtype=dtype)
        return memory[rng.choice([0, 5]) :][: math.prod(shape)].view(shape)

    return {"out": empty(), "next": rng.choice([None, empty()]), "c_in": rng.choice([1.0, -0.5, 0.0, 3.0])}


def total(arguments: dict[str, Any], which: str) -> Want:
    """sum_k a_k c_k T_k, without the terms whose number is zero."""
    terms = arguments["terms"]
    numbers = arguments.get(which) or [0.0] * len(terms)
    shape = terms[0].shape
    value, size = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    certain = torch.ones(shape, dtype=torch.bool)
    scales = dict(zip(arguments.get("scaled") or [], arguments.get("scales") or [], strict=True))
    for k, (term, coefficient) in enumerate(zip(terms, numbers, strict=True)):
        part = term.double()
        if k in scales:
            scale = scales[k].double()
            scale = scale.reshape(-1, *[1] * (len(shape) - 1)) if scale.ndim == 1 else scale
            part = part * scale
            # A factor below the normal numbers has lost digits, which a huge term shows.
            factor = coefficient * scale
            certain = certain & scale.isfinite() & ((factor == 0) | (factor.abs() > SMALLEST))
        certain = certain & part.isfinite() & term.isfinite() & (abs(coefficient) < LARGEST)
        if coefficient:
            rounded = torch.tensor(coefficient, dtype=torch.float32).double()
            value, size = value + rounded * part, size + (rounded * part).abs()
    return Want(value, size, certain)


def row_call(
    op: str,
    rng: random.Random,
    shape: tuple[int, ...],
    further: dict[str, Any],
    project: Callable[[Tensor, dict[str, Any]], Tensor] | None,
    writes: tuple[str, ...] = (),
) -> Call:
    def wants(given: dict[str, Any]) -> dict[str, Want]:
        want = total(given, "direct")
        if project is not None:
            inner = total(given, "projected")
            field, size = project(inner.value, given), project(inner.size, {**given, "magnitudes": True})
            whole = inner.certain.flatten(1).all(1).reshape(-1, *[1] * (len(shape) - 1))
            want = Want(want.value + field, want.size + size.abs(), want.certain & whole & field.isfinite())
        found = {"out": want}
        if given["next"] is not None:
            found["next"] = want * given["c_in"]
        return found

    arguments = outputs(rng, shape) | row_arguments(rng, shape, project is not None) | further
    return Call(op, arguments, ("out", "next", *writes), wants)


def lincomb(rng: random.Random) -> Call:
    shape = image_shape(rng)
    return row_call("lincomb", rng, shape, {}, None)


def mask(rng: random.Random) -> Call:
    shape = image_shape(rng)
    own = (rng.choice([1, shape[1]]), *shape[2:])
    field = values(rng, (shape[0], *own) if rng.random() < 0.4 else own, torch.float32)
    field = field if rng.random() < 0.2 else (field > 0).float()
    return row_call("mask", rng, shape, {"mask": field}, lambda v, given: v * _size(given["mask"], given))


def _size(constant: Tensor, given: dict[str, Any]) -> Tensor:
    constant = constant.to(torch.complex128 if constant.is_complex() else torch.float64)
    return constant.abs() if "magnitudes" in given else constant


def block(rng: random.Random) -> Call:
    shape = image_shape(rng)
    height, width = (factor(rng, shape[2]) if len(shape) == 4 else 1), factor(rng, shape[-1])

    def means(v: Tensor, given: dict[str, Any]) -> Tensor:
        if not v.numel():
            return v
        rows = v.shape[2] if v.ndim == 4 else 1
        tile = given["height"], given["width"]
        tiles = v.reshape(*v.shape[:2], rows // tile[0], tile[0], v.shape[-1] // tile[1], tile[1])
        return tiles.mean((3, 5), keepdim=True).expand_as(tiles).reshape(v.shape)

    return row_call("block", rng, shape, {"height": height, "width": width}, means)


def channel(rng: random.Random) -> Call:
    shape = image_shape(rng)

    def mixed(v: Tensor, given: dict[str, Any]) -> Tensor:
        direction = _size(given["direction"], given).reshape(-1, *[1] * (v.ndim - 2))
        return direction * (direction * v).sum(1, keepdim=True)

    return row_call("channel", rng, shape, {"direction": values(rng, (shape[1],), torch.float32)}, mixed)


def separable(rng: random.Random) -> Call:
    shape = tuple(size or 1 for size in image_shape(rng))
    shape = (*shape[:2], *(min(side, 40) for side in shape[2:]))
    sides = (1, *shape[2:])[-2:]
    axes = [_axis(rng, side) for side in sides]
    low = [len(axis[1]) for axis in axes]
    scratch = torch.empty(shape[0] * shape[1] * low[0] * low[1])

    def project(v: Tensor, given: dict[str, Any]) -> Tensor:
        rows, columns = ([_size(part, given) for part in given[name]] for name in ("rows", "columns"))
        v = v.reshape(*v.shape[:2], *sides)
        whole = [_dense(up, at_up, len(at)) @ inverse @ _dense(down, at, len(at_up))
                 for down, at, up, at_up, inverse in (rows, columns)]  # fmt: skip
        return (whole[0] @ v @ whole[1].mT).reshape(shape)

    return row_call(
        "separable", rng, shape, {"rows": axes[0], "columns": axes[1], "scratch": scratch}, project, ("scratch",)
    )


def _axis(rng: random.Random, high: int) -> list[Tensor]:
    low = rng.randrange(1, high + 2)
    widths = rng.randrange(1, high + 1), rng.randrange(1, low + 1)
    inverse = torch.rand(low, low, generator=torch.Generator().manual_seed(rng.getrandbits(40))) - 0.5
    starts = [
        torch.tensor([rng.randrange(columns - width + 1) for _ in range(rows)])
        for rows, columns, width in ((low, high, widths[0]), (high, low, widths[1]))
    ]
    taps = [values(rng, (rows, width), torch.float32) for rows, width in ((low, widths[0]), (high, widths[1]))]
    return [taps[0], starts[0], taps[1], starts[1], inverse + inverse.mT]


def _dense(taps: Tensor, start: Tensor, columns: int) -> Tensor:
    matrix = torch.zeros(len(taps), columns, dtype=torch.float64)
    index = start.long()[:, None] + torch.arange(taps.shape[1])
    return matrix.scatter_(1, index, taps.double())


# ---------------------------------------------------------------------------------------- fourier
def _groups(rng: random.Random, shape: tuple[int, ...]) -> int:
    batch, channels = shape[:2]
    return batch * rng.choice([g for g in range(1, channels + 1) if channels % g == 0] or [1])


def _spectrum(rng: random.Random, shape: tuple[int, ...], groups: int) -> Tensor:
    pairs = groups * ((shape[0] * shape[1] // groups + 1) // 2) if groups else 0
    sizes = (pairs, *(1, *shape[2:])[-2:], 2)
    return torch.view_as_complex(values(rng, sizes, torch.float32))


def pack(rng: random.Random) -> Call:
    shape = image_shape(rng)
    groups = _groups(rng, shape)

    def wants(given: dict[str, Any]) -> dict[str, Want]:
        want = total(given, "projected")
        if not want.value.numel():
            return {}
        packed = [_packed(part, given["groups"], given["spectrum"].shape) for part in (want.value, want.size)]
        certain = _packed(want.certain.double(), given["groups"], given["spectrum"].shape)
        lone = (want.value.shape[0] * want.value.shape[1] // given["groups"]) % 2
        sure = (certain.real > 0) & ((certain.imag > 0) | bool(lone))
        return {"spectrum": Want(packed[0], packed[1].real + packed[1].imag, sure)}

    arguments = {"spectrum": _spectrum(rng, shape, groups)} | row_arguments(rng, shape, True, direct=False)
    return Call("fourier_pack", arguments | {"groups": groups}, ("spectrum",), wants)


def _packed(planes: Tensor, groups: int, sizes: torch.Size) -> Tensor:
    members = planes.reshape(groups, -1, *sizes[1:])
    if members.shape[1] % 2:
        members = torch.cat([members, torch.zeros_like(members[:, :1])], 1)
    return torch.complex(members[:, ::2], members[:, 1::2]).reshape(sizes)


def unpack(rng: random.Random) -> Call:
    shape = image_shape(rng)
    groups = _groups(rng, shape)

    def planes(v: Tensor, given: dict[str, Any]) -> Tensor:
        if not v.numel():
            return v
        spectrum = torch.view_as_real(given["spectrum"].to(torch.complex128))
        spectrum = spectrum.abs() if "magnitudes" in given else spectrum
        members = spectrum.unflatten(0, (given["groups"], -1)).movedim(-1, 2).flatten(1, 2)
        return members[:, : shape[0] * shape[1] // given["groups"]].reshape(shape)

    call = row_call("fourier_unpack", rng, shape, {}, planes)
    del call.arguments["projected"]
    call.arguments |= {"spectrum": _spectrum(rng, shape, groups), "groups": groups}
    return call


def _products(rng: random.Random, op: str, name: str, further: dict[str, Any], shape: tuple[int, ...]) -> Call:
    groups = rng.choice([g for g in range(1, 2 * shape[0] + 1) if 2 * shape[0] % g == 0 and g <= shape[0]] or [1])
    groups = groups if shape[0] % groups == 0 else 1
    sizes = (rng.choice([1, groups]), *shape[1:])
    if name == "basis":
        constant = torch.view_as_complex(values(rng, (*sizes, 2), torch.float32))
    else:
        constant = values(rng, sizes, torch.float32)
    spectrum = torch.view_as_complex(values(rng, (*shape, 2), torch.float32))

    def wants(given: dict[str, Any]) -> dict[str, Want]:
        z, m = given["spectrum"].to(torch.complex128), given[name].to(torch.complex128)
        if not z.numel():
            return {}
        count = given["groups"] if len(m) > 1 else 1
        m = m.repeat_interleave(len(z) // count, 0) if count > 1 else m.expand_as(z)
        sure = z.real.isfinite() & z.imag.isfinite() & m.real.isfinite() & m.imag.isfinite()
        if op == "fourier_multiply":
            return {"out": Want(m * z, (m * z).abs(), sure)}
        repeats = z.shape[1] // given["low_height"], z.shape[2] // given["low_width"]

        def folded(v: Tensor) -> Tensor:
            tiles = v.unflatten(2, (repeats[1], -1)).unflatten(1, (repeats[0], -1))
            return tiles.sum((1, 3)).repeat(1, *repeats)

        value, size = m.conj() * folded(m * z), m.abs() * folded(m.abs() * z.abs())
        return {"out": Want(value, size, sure.all() & torch.ones_like(size, dtype=torch.bool))}

    arguments = {"out": torch.full_like(spectrum, complex(math.nan, math.nan)), "spectrum": spectrum, name: constant}
    return Call(op, arguments | {"groups": groups} | further, ("out",), wants)


def _planes(rng: random.Random) -> tuple[int, ...]:
    return (rng.choice([0, 1, 2, 3, 4]), *(rng.choice([0, 1, 2, 5, 8, 12, 17]) for _ in range(2)))


def multiply(rng: random.Random) -> Call:
    return _products(rng, "fourier_multiply", "multiplier", {}, _planes(rng))


def alias(rng: random.Random) -> Call:
    shape = _planes(rng)
    low = {"low_height": factor(rng, shape[1]), "low_width": factor(rng, shape[2])}
    return _products(rng, "fourier_alias", "basis", low, shape)


# ---------------------------------------------------------------------------------------- noise
def normal(rng: random.Random) -> Call:
    shape = tuple(rng.choice([0, 1, 2, 3, 5, 17]) for _ in range(rng.randrange(1, 5)))
    words = [torch.tensor([rng.choice([0, 1, 2**32 - 1, rng.getrandbits(31)]) for _ in range(shape[0])]).long()
             for _ in range(3)]  # fmt: skip
    words[0] = torch.tensor([rng.randrange(-(2**63), 2**63) for _ in range(shape[0])], dtype=torch.int64)

    def wants(given: dict[str, Any]) -> dict[str, Want]:
        out = torch.empty(given["out"].shape)
        if not out.numel():
            return {}
        value = reference.normal(out, given["seeds"], given["samples"], given["draws"], given["step"]).double()
        return {"out": Want(value, torch.ones_like(value), torch.ones_like(value, dtype=torch.bool))}

    arguments = {"out": torch.full(shape, math.nan), "seeds": words[0], "samples": words[1], "draws": words[2]}
    return Call("normal", arguments | {"step": rng.choice([0, 1, 7, 2**32 - 1])}, ("out",), wants)


CALLS: list[Callable[[random.Random], Call]] = [
    lincomb, mask, block, channel, separable, pack, multiply, alias, unpack, normal
]  # fmt: skip
"""One member for every op of the CPU."""
