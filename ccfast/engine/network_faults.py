"""Faults in the use of somebody else's network, which are found before they do harm or are named with their cure."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from .._guidance import Guided
from ..denoiser import Denoiser
from .conditions import Batch, sizes

__all__ = [
    "check_mode",
    "check_random_numbers",
    "explained",
    "has_hooks",
    "modules_behind",
    "random_numbers",
    "reaches_out",
    "wants_integers",
    "wrote_a_leaf",
]

INTEGERS = (
    "tensors used as indices must be",
    "scalar types: Long, Int",
    "Expected dtype int",
    "only applicable to index tensor",
    "must be an integer tensor",
)
"""Words in the errors of torch where a network looks a time up in a table."""

DEPTH = 3
"""The depth to which callables that hold callables are searched for modules."""

ONE_NUMBER = ("only one element tensors can be converted", "cannot be converted to Scalar")
"""Words in the errors of torch where a network takes a tensor for a number."""

LEAF = "leaf Variable that requires grad"
"""Words in the error of torch where a network works in place on its input."""


# ------------------------------------------------------------------------------------ train mode
def check_mode(denoiser: Denoiser) -> bool:
    """Whether any part of the network is in train mode.

    Raises:
        ValueError: One of these parts would make restorations random in that mode, or be changed by them.
    """
    network = denoiser.network
    modules = [network] if isinstance(network, nn.Module) else modules_behind(network)
    if isinstance(network, Guided) and reaches_out(network):
        modules += modules_behind(network.network)
    training: list[nn.Module] = []
    for module in modules:
        training += _training(module)
    for part in training:
        if why := _trains(part):
            raise ValueError(
                f"network {denoiser!r}: must be in eval mode, call network.eval(); in train mode its "
                f"{type(part).__name__} {why}"
            )
    return bool(training)


def reaches_out(network: object) -> TypeGuard[Guided]:
    """Whether a module calls others that are none of its parts, as a guided one does whose network is a function."""
    return isinstance(network, Guided) and not isinstance(network.network, nn.Module)


def _training(module: nn.Module) -> list[nn.Module]:
    """The parts of a module that are in train mode; ``modules()`` takes four times as long."""
    waiting, found = [module], []
    while waiting:
        part = waiting.pop()
        if part.training:
            found.append(part)
        if part._modules:
            waiting += filter(None, part._modules.values())
    return found


def _trains(part: nn.Module) -> str | None:
    """The harm that a module does to a restoration in train mode, as the end of a sentence, or None."""
    name = type(part).__name__
    if isinstance(part, nn.modules.batchnorm._BatchNorm):
        return "makes an image depend on the others of its batch and changes its running statistics"
    if isinstance(part, nn.modules.instancenorm._InstanceNorm) and part.track_running_stats:
        return "changes its running statistics"
    if "SpectralNorm" in name or any("SpectralNorm" in type(h).__name__ for h in part._forward_pre_hooks.values()):
        return "changes its estimate of the largest singular value"
    random = isinstance(part, nn.modules.dropout._DropoutNd | nn.RReLU | nn.RNNBase | nn.MultiheadAttention)
    random = random or any(word in name for word in ("Dropout", "DropPath", "StochasticDepth", "DropBlock"))
    chance = next((getattr(part, key) for key in ("p", "dropout", "drop_prob") if hasattr(part, key)), 1.0)
    if random and not (isinstance(chance, int | float) and chance == 0):
        return "draws random numbers"
    return None


def modules_behind(network: Any) -> list[nn.Module]:
    """The modules that a callable is bound to or holds, which are those that it can be seen to run."""
    found: list[nn.Module] = []
    seen: set[int] = set()
    waiting = [(network, 0)]
    while waiting:
        value, depth = waiting.pop()
        if id(value) in seen or depth > DEPTH:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            found.append(value)
        for held in _held(value):
            waiting.append((held, depth + 1))
    return found


def _held(value: Any) -> list[Any]:
    """The objects that a callable other than a module holds and may call."""
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, types.FunctionType):
        if not (value.__closure__ or value.__code__.co_names):
            return []
        named = map(value.__globals__.get, value.__code__.co_names)
        cells = (cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell))
        return [held for held in (*cells, *named) if callable(held)]
    if isinstance(value, nn.Module | type | types.BuiltinFunctionType) or not callable(value):
        return []
    return list(getattr(value, "__dict__", {}).values())


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def random_numbers() -> bytes:
    """The state of torch's generator of the CPU."""
    return torch.get_rng_state().numpy().tobytes()


def check_random_numbers(denoiser: Denoiser, before: bytes) -> None:
    """Raise ValueError where a network in train mode has drawn random numbers since the generator's state ``before``.

    Dropout without a layer of its own does so: ``functional.dropout(x, training=self.training)``.
    """
    if before != random_numbers():
        raise ValueError(
            f"network {denoiser!r}: must be in eval mode, call network.eval(); in train mode it draws random numbers, "
            "so that a seed would not decide the result"
        )


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks run before some part of the module, which may bring its weights to the device."""
    return any(part._forward_pre_hooks or "_hf_hook" in part.__dict__ for part in module.modules())


# ------------------------------------------------------------------------------------ errors of a network
def wrote_a_leaf(error: Exception, x: Tensor) -> bool:
    """Whether a network failed because it wrote into its input, with respect to which a derivative is taken."""
    return x.requires_grad and LEAF in str(error)


def wants_integers(error: Exception) -> bool:
    """Whether a network failed because some tensor, perhaps its times, is not of an integer type."""
    return any(word in str(error) for word in INTEGERS)


def explained(
    error: Exception, denoiser: Denoiser, kwargs: Mapping[str, Any], batch: Batch, t: Tensor
) -> Exception | None:
    """An error with a cure, in place of one that a network raised, or None where no cure is known."""
    text = str(error)
    if wants_integers(error) and bool((t != t.round()).any()):
        return ValueError(
            f"network {denoiser!r}: takes integer times, got {float(t[0])}; give the Denoiser a time_map that returns "
            "whole numbers, such as ccfast.times.floor_timesteps(1000)"
        )
    if any(word in text for word in ONE_NUMBER) and len(t) > 1:
        return ValueError(
            f"network {denoiser!r}: must take a time for every image, got {len(t)} of them where it reads one number "
            f"({text}); all times of a call are equal, so give the Denoiser lambda x, t: network(x, t[:1])"
        )
    if "nference tensor" in text or "nference mode" in text:
        return RuntimeError(
            f"network {denoiser!r}: no derivative can be taken through weights that were made under "
            "torch.inference_mode; load the network outside of it, or take a solver without a derivative, such as "
            "Conjugate(jacobian='none') or DDNM()"
        )
    if "jvp" in text:
        return RuntimeError(
            f"network {denoiser!r}: a part of it has no forward-mode derivative (jvp): {text}; take product='reverse' "
            "or 'finite_difference'"
        )
    odd = {name: n for name, n in sizes(kwargs).items() if n not in (1, batch.measurements)}
    if odd and isinstance(error, RuntimeError | ValueError | IndexError):
        got = ", ".join(f"{name} with {n}" for name, n in odd.items())
        return ValueError(
            f"network_kwargs: a tensor must have one row, or one for each of the {batch.measurements} measurements, "
            f"got {got} rows; {denoiser!r} raised {type(error).__name__}: {text}"
        )
    return None
