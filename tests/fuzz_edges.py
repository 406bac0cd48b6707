"""Changes that make a valid call wrong or merely unusual; each function returns the outcome that it demands."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fuzz_calls import Call
from torch import Tensor

__all__ = ["ACCEPT", "EITHER", "REFUSE", "edge"]

ACCEPT, REFUSE, EITHER = "accept", "refuse", "either"
READ_STRIDED = ("terms", "scales")
HUGE = (2**31, 2**32, 2**62, 2**63 - 1)


def edge(rng: random.Random, call: Call) -> str:
    """Change a call, and return the outcome that it must have. A call without pixels may skip what it does not need."""
    for _ in range(20):
        change = rng.choice(EDGES)
        verdict = change(rng, call)
        if verdict is not None:
            call.edges.append(f"{change.__name__}: {verdict}")
            return EITHER if verdict == REFUSE and is_empty(call) and change is not on_meta else verdict
    return ACCEPT


def is_empty(call: Call) -> bool:
    """Whether the call has no pixels, either from the start or after a change."""
    terms = call.arguments.get("terms")
    return call.pixels == 0 or bool(terms and terms[0].layout is torch.strided and not terms[0].numel())


Change = Callable[[random.Random, Call], str | None]


def of_a_tensor(elements: int) -> Callable[[Callable[..., str | None]], Change]:
    """Make a change of one tensor into one of a call, which picks a tensor with at least so many elements."""

    def decorate(change: Callable[[random.Random, Call, str, int | None, Tensor], str | None]) -> Change:
        @functools.wraps(change)
        def picked(rng: random.Random, call: Call) -> str | None:
            found = [entry for entry in call.tensors() if entry[2].numel() >= elements]
            return change(rng, call, *rng.choice(found)) if found else None

        return picked

    return decorate


# ---------------------------------------------------------------------------------------- tensors
@of_a_tensor(1)
def freed(rng: random.Random, call: Call, name: str, place: int | None, tensor: Tensor) -> str | None:
    """Free a tensor's storage, so that it holds less than the sizes say."""
    own = tensor.contiguous().clone()
    size = own.untyped_storage().nbytes()
    own.untyped_storage().resize_(rng.choice([0, size - 1, size // 2]))
    call.put(name, place, own)
    call.readable = False
    return REFUSE


@of_a_tensor(0)
def of_another_dtype(rng: random.Random, call: Call, name: str, place: int | None, tensor: Tensor) -> str | None:
    dtypes = [torch.float64, torch.int32, torch.bool, torch.uint8, torch.complex128]
    call.put(name, place, tensor.detach().to(rng.choice(dtypes)))
    return REFUSE


@of_a_tensor(0)
def on_meta(rng: random.Random, call: Call, name: str, place: int | None, tensor: Tensor) -> str | None:
    if len(call.tensors()) < 2:
        return None
    call.put(name, place, tensor.to("meta"))
    call.readable = False
    return REFUSE


@of_a_tensor(2)
def sparse(rng: random.Random, call: Call, name: str, place: int | None, tensor: Tensor) -> str | None:
    call.put(name, place, tensor.contiguous().to_sparse())
    call.readable = False
    return REFUSE


@of_a_tensor(1)
def of_another_shape(rng: random.Random, call: Call, name: str, place: int | None, old: Tensor) -> str | None:
    plain = old.contiguous()
    dim = rng.randrange(max(old.ndim, 1))
    changed = rng.choice(
        [
            lambda: plain[None],
            lambda: plain.flatten(),
            lambda: plain[0] if old.ndim else plain,
            lambda: torch.cat([plain, plain[(slice(None),) * dim + (slice(0, 1),)]], dim) if old.ndim else plain,
            lambda: plain[(slice(None),) * dim + (slice(1, None),)] if old.ndim else plain,
            lambda: plain.mT.contiguous() if old.ndim > 1 else plain,
            lambda: plain.reshape(tuple(reversed(old.shape))),
        ]
    )().clone()
    call.put(name, place, changed)
    if changed.shape == old.shape:
        return ACCEPT
    if name in ("rows", "columns") and place in (0, 2):
        return ACCEPT if taps_fit(tuple(changed.shape), call.arguments[name], place) else REFUSE
    fits = {"scales": scale_fits, "mask": mask_fits, "multiplier": constant_fits, "basis": constant_fits}
    if call.op == "normal" and name == "out":  # Only the number of images has to fit.
        return ACCEPT if changed.ndim and len(changed) == len(old) else REFUSE
    if name == "scratch":
        return ACCEPT if changed.numel() == old.numel() else REFUSE
    if call.op == "fourier_pack" and name == "terms":
        return ACCEPT if pack_fits(call) else REFUSE
    return ACCEPT if name in fits and fits[name](tuple(changed.shape), call) else REFUSE


def taps_fit(sizes: tuple[int, ...], parts: list[Tensor], place: int) -> bool:
    """Whether taps of these sizes are valid: they may have any width that lies inside the matrix."""
    starts, columns = parts[place + 1], len(parts[3 - place])
    return len(sizes) == 2 and sizes[0] == len(starts) and sizes[1] > 0 and int(starts.max()) + sizes[1] <= columns


def scale_fits(sizes: tuple[int, ...], call: Call) -> bool:
    shape = tuple(call.arguments["terms"][0].shape)
    if len(sizes) == 1:
        return sizes[0] == shape[0]
    if len(shape) - len(sizes) not in (0, 1) or len(sizes) < 2:
        return False
    return all(a in (1, b) for a, b in zip(sizes, shape[len(shape) - len(sizes) :], strict=True))


def mask_fits(sizes: tuple[int, ...], call: Call) -> bool:
    shape = tuple(call.arguments["terms"][0].shape)
    if len(shape) - len(sizes) not in (0, 1):
        return False
    own = sizes[len(sizes) - len(shape) + 1 :]
    image = len(sizes) < len(shape) or sizes[0] == shape[0]
    return image and own[0] in (1, shape[1]) and own[1:] == shape[2:]


def constant_fits(sizes: tuple[int, ...], call: Call) -> bool:
    shape = tuple(call.arguments["spectrum"].shape)
    return len(sizes) == 3 and sizes[0] in (1, call.arguments["groups"]) and sizes[1:] == shape[1:]


def pack_fits(call: Call) -> bool:
    """Whether the terms have one shape whose planes fill the spectrum; 2k - 1 and 2k planes take k complex ones."""
    given = call.arguments
    (shape, *others), groups = [tuple(term.shape) for term in given["terms"]], given["groups"]
    if any(other != shape for other in others) or len(shape) not in (3, 4) or not shape[0] or not groups:
        return False
    if not all(scale_fits(tuple(scale.shape), call) for scale in given.get("scales") or ()):
        return False
    planes = shape[0] * shape[1]
    pairs = groups * ((planes // groups + 1) // 2)
    fits = planes % groups == 0 and groups % shape[0] == 0
    return fits and tuple(given["spectrum"].shape) == (pairs, *(1, *shape[2:])[-2:])


@of_a_tensor(2)
def not_contiguous(rng: random.Random, call: Call, name: str, place: int | None, tensor: Tensor) -> str | None:
    """Give a strided or repeated tensor to an argument that must be contiguous."""
    if name in READ_STRIDED:
        return None
    if rng.random() < 0.5:
        other = torch.stack([tensor, tensor], -1)[..., 0]
    else:
        other = tensor[tuple(slice(0, 1) for _ in tensor.shape)].expand(tensor.shape)
    call.put(name, place, other)
    return ACCEPT if other.is_contiguous() else REFUSE


def sharing_memory(rng: random.Random, call: Call) -> str | None:
    """Put an output into one buffer with another tensor, overlapping it or beside it."""
    written = [entry for entry in call.tensors() if entry[0] in call.writes and entry[2].numel()]
    if not written or call.pixels > 5000:
        return None
    name, place, out = rng.choice(written)
    others = [entry for entry in call.tensors() if entry[2] is not out and entry[2].numel()]
    if not others:
        return None
    other_name, other_place, other = rng.choice(others)
    step = rng.choice([1, 1, 2]) if other_name in READ_STRIDED else 1
    sizes = [t.numel() * t.element_size() * s for t, s in ((out, 1), (other, step))]
    memory = torch.zeros(2 * sum(sizes) + 64, dtype=torch.uint8)
    at = [8 * rng.randrange(sizes[1] // 8 + 2), 8 * rng.randrange(sizes[0] // 8 + 2)]
    if rng.random() < 0.3:
        at[1] = at[0]
    new_out = memory[at[0] : at[0] + sizes[0]].view(out.dtype).view(out.shape)
    new_other = memory[at[1] : at[1] + sizes[1]].view(other.dtype)[::step].view(other.shape)
    new_other.copy_(other)
    call.put(name, place, new_out)
    call.put(other_name, other_place, new_other)
    if not addresses(new_out) & addresses(new_other):
        return ACCEPT
    plain = new_other.is_contiguous() and other.dtype == out.dtype == torch.float32
    itself = call.op == "lincomb" and other_name == "terms" and new_out.data_ptr() == new_other.data_ptr() and plain
    return ACCEPT if itself else REFUSE


def addresses(tensor: Tensor) -> set[int]:
    """The memory that a tensor's elements occupy, as addresses in units of two bytes."""
    index = np.indices(tuple(tensor.shape)).reshape(tensor.ndim, -1)
    strides = np.array(tensor.stride())[:, None] * tensor.element_size()
    first = tensor.data_ptr() + (index * strides).sum(0)
    return {int(a) // 2 + k for a in first for k in range(tensor.element_size() // 2)}


@of_a_tensor(0)
def differentiated(rng: random.Random, call: Call, name: str, place: int | None, tensor: Tensor) -> str | None:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return None
    call.put(name, place, tensor.clone().contiguous().requires_grad_())
    call.grad = rng.random() < 0.8
    return REFUSE if call.grad else ACCEPT


def conjugated(rng: random.Random, call: Call) -> str | None:
    """Set the conjugate or negative bit of a tensor, which torch applies only when the tensor is read."""
    name = rng.choice(["spectrum", "basis", "multiplier", "mask", "direction", "scales"])
    if name == "scales":
        if not call.arguments.get(name):
            return None
        call.put(name, 0, torch._neg_view(call.arguments[name][0]))  # pyright: ignore[reportPrivateImportUsage]
        return REFUSE
    tensor = call.arguments.get(name)
    if tensor is None or name in call.writes:
        return None
    call.arguments[name] = tensor.conj() if tensor.is_complex() else torch._neg_view(tensor)  # pyright: ignore[reportPrivateImportUsage]
    return ACCEPT


# ---------------------------------------------------------------------------------------- numbers and lists
def other_counts(rng: random.Random, call: Call) -> str | None:
    name = rng.choice(["direct", "projected", "terms", "rows", "columns"])
    if name not in call.arguments:
        return None
    given = call.arguments[name]
    if name == "terms":
        call.arguments[name] = rng.choice([[], [given[0]] * 25])
        return REFUSE
    call.arguments[name] = rng.choice([[*given, given[0]], given[:-1]])
    return EITHER if not call.arguments[name] else REFUSE  # An empty list stands for zeros.


def numbers_out_of_reach(rng: random.Random, call: Call) -> str | None:
    name = rng.choice(["direct", "projected", "c_in"])
    if name not in call.arguments:
        return None
    value = rng.choice([math.nan, math.inf, -math.inf, 1e300, 1e38, 1e-300, -0.0])
    if name == "c_in":
        call.arguments[name] = value
    else:
        call.arguments[name] = [*call.arguments[name]]
        call.arguments[name][rng.randrange(len(call.arguments[name]))] = value
    return ACCEPT


def other_places(rng: random.Random, call: Call) -> str | None:
    if "scaled" not in call.arguments:
        return None
    count, places = len(call.arguments["terms"]), call.arguments["scaled"]
    if not places:
        call.arguments["scaled"] = [0]
        return REFUSE
    wrong = rng.choice([[*places[:-1], bad] for bad in (-1, count, -(2**63), *HUGE)] + [places[:-1], [*places, 0]])
    call.arguments["scaled"] = wrong
    return REFUSE


def other_sides(rng: random.Random, call: Call) -> str | None:
    names = [name for name in ("height", "width", "low_height", "low_width") if name in call.arguments]
    if not names:
        return None
    name = rng.choice(names)
    shape = call.arguments["spectrum" if "low" in name else "terms"]
    shape = shape.shape if isinstance(shape, Tensor) else shape[0].shape
    side = shape[-1] if "width" in name else (shape[-2] if len(shape) == 4 or "low" in name else 1)
    value = rng.choice([0, -1, -side, side, side + 1, 2, 3, 5, *HUGE])
    call.arguments[name] = value
    return ACCEPT if value > 0 and side % value == 0 else REFUSE


def other_groups(rng: random.Random, call: Call) -> str | None:
    if "groups" not in call.arguments:
        return None
    old = call.arguments["groups"]
    value = rng.choice([0, -1, 1, 2, 3, 6, old + 1, 2 * old, *HUGE])
    call.arguments["groups"] = value
    spectrum = call.arguments["spectrum"]
    terms = call.arguments.get("terms")
    batch, planes = (1, 2 * len(spectrum)) if terms is None else (len(terms[0]), math.prod(terms[0].shape[:2]))
    if value <= 0 or not batch or planes % value or value % batch:
        return REFUSE
    constants = [call.arguments[n] for n in ("multiplier", "basis") if n in call.arguments]
    fits = value * ((planes // value + 1) // 2) == len(spectrum) and all(len(c) in (1, value) for c in constants)
    return ACCEPT if fits else REFUSE


def other_counters(rng: random.Random, call: Call) -> str | None:
    if call.op != "normal":
        return None
    bad = rng.choice([-1, 2**32, -(2**63), 2**63 - 1])
    name = rng.choice(["step", "samples", "draws"])
    if name == "step":
        call.arguments[name] = bad
    elif not call.arguments[name].numel():
        return None
    else:
        call.arguments[name] = call.arguments[name].clone()
        call.arguments[name][-1] = bad
    return REFUSE


def bands_that_leave(rng: random.Random, call: Call) -> str | None:
    if call.op != "separable":
        return None
    name, place = rng.choice(["rows", "columns"]), rng.choice([1, 3])
    parts: list[Any] = [*call.arguments[name]]
    width, columns = parts[place - 1].shape[1], len(parts[4 - place])
    starts = parts[place].clone()
    starts[rng.randrange(len(starts))] = rng.choice([-1, columns - width + 1, -(2**63), *HUGE])
    parts[place] = starts
    call.arguments[name] = parts
    return REFUSE


EDGES: list[Change] = [
    freed, of_another_dtype, on_meta, sparse, of_another_shape, of_another_shape, not_contiguous, sharing_memory,
    sharing_memory, differentiated, conjugated, other_counts, numbers_out_of_reach, other_places, other_sides,
    other_groups, other_counters, bands_that_leave,
]  # fmt: skip
