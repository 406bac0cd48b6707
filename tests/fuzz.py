"""Random calls of every op, right and wrong, in a build of the ops under ASan and UBSan. ``make fuzz``

    python tests/fuzz.py [--calls 20000] [--seed 0]      # makes one call a seed, from this seed on
    python tests/fuzz.py --seed 1234 --calls 1            # repeats the call of this seed, and prints it

Half of the calls are at an edge: freed storage, shared memory, other shapes, dtypes and devices, counts and numbers out
of range. A call that is right must write what the definition in float64 says, and change nothing else. A wrong one
must be refused by a Python exception whose sentence names an argument. The parent builds the library with g++ and runs
the calls in a child, under the preloaded sanitizer; where that ends with a report, it prints the seed. The number of
calls is fixed, not the time, so that a fast machine makes the calls that a slow one makes.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "fuzz"
FLAGS = (
    "-O1 -g1 -std=c++20 -fPIC -fvisibility=hidden -Wno-psabi -fopenmp-simd -fno-omit-frame-pointer "
    "-fsanitize=address,undefined -fno-sanitize-recover=all -DTORCH_TARGET_VERSION=0x020a000000000000"
)
REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError)


def build() -> Path:
    """Build the CPU ops with the sanitizers and return the library; sources that did not change are not compiled."""
    BUILD.mkdir(parents=True, exist_ok=True)
    compiler, folder = os.environ.get("CXX", "g++"), Path(torch.__file__).parent
    sources = [p for p in sorted((ROOT / "csrc").glob("*.cpp")) if p.stem != "bindings" and "_cuda" not in p.stem]
    sources += sorted((ROOT / "csrc/cpu").glob("*.cpp"))
    command = f"{compiler} {FLAGS} -isystem {folder}/include -ffp-contract=off -MMD -MF $out.d -c $in -o $out"
    objects = [f"{BUILD}/{p.parent.name}_{p.stem}.o" for p in sources]
    libraries = f"-L{folder}/lib -Wl,--no-as-needed -ltorch_cpu -Wl,--allow-shlib-undefined"
    rows = [
        f"rule compile\n  command = {command}\n  depfile = $out.d\n  deps = gcc\n",
        f"rule link\n  command = {compiler} -shared -fsanitize=address,undefined $in -o $out {libraries}\n",
        *(f"build {o}: compile {p}\n" for o, p in zip(objects, sources, strict=True)),
        f"build {BUILD}/ops.so: link {' '.join(objects)}\n",
    ]
    (BUILD / "build.ninja").write_text("\n".join(rows))
    done = subprocess.run(["ninja", "-j2", "-C", BUILD], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return BUILD / "ops.so"


def runtime(name: str) -> str:
    """The path of one of the compiler's libraries."""
    command = [*os.environ.get("CXX", "g++").split(), f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def parent(calls: int, seed: int) -> int:
    library = build()
    # The sanitizer looks for __cxa_throw when it starts, so libstdc++, which defines it, must be preloaded as well.
    preload = [runtime(name) for name in ("libasan.so", "libstdc++.so.6")]
    with tempfile.NamedTemporaryFile() as current:
        environment = {
            **os.environ,
            "LD_PRELOAD": " ".join(preload),
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "OMP_NUM_THREADS": "2",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        command = [sys.executable, __file__, "--library", library, "--current", current.name]
        done = subprocess.run([*command, "--calls", str(calls), "--seed", str(seed)], env=environment, cwd=ROOT)
        last = Path(current.name).read_text()
    if done.returncode not in (0, 1):
        print(f"the process ended with {done.returncode} in the call of seed {last}", file=sys.stderr)
    return done.returncode


# ---------------------------------------------------------------------------------------- the child
def load(library: str) -> None:
    """Load the sanitized library in place of the installed one, and then the Python part of the ops."""
    torch.ops.load_library(library)
    sys.modules["ccfast._C"] = SimpleNamespace(build_info=None, philox=None)  # pyright: ignore[reportArgumentType]
    import ccfast.kernels.native

    assert ccfast.kernels.native.REASON is None, ccfast.kernels.native.REASON


def make(seed: int):
    """The call of a seed, and the outcome that it must have."""
    from fuzz_calls import CALLS
    from fuzz_edges import ACCEPT, edge

    rng = random.Random(seed)
    call = rng.choice(CALLS)(rng)
    verdict = edge(rng, call) if rng.random() < 0.6 else ACCEPT
    return call, verdict


def copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().resolve_conj().resolve_neg().clone()
    return [copied(v) for v in value] if isinstance(value, list) else value


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    plain = (t.detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format) for t in (a, b))
    return torch.equal(*(t.flatten().view(torch.uint8) for t in plain))


def trial(call, verdict: str) -> str | None:
    """Make the call, and return what is wrong with its outcome, or None."""
    from fuzz_calls import wrong_values
    from fuzz_edges import ACCEPT, REFUSE

    before = None if verdict == REFUSE or not call.readable else {n: copied(v) for n, v in call.arguments.items()}
    try:
        with torch.set_grad_enabled(call.grad):
            getattr(torch.ops.ccfast, call.op)(**call.arguments)
    except REFUSALS as error:
        text = str(error).partition("\n")[0]
        if verdict == ACCEPT:
            return f"refused, though it is right: {text}"
        if not re.search(rf"\b({'|'.join([*call.arguments, call.op])})\b", text):
            return f"refused by {type(error).__name__} without the name of an argument: {text!r}"
        return None
    if verdict == REFUSE:
        return "taken, though it is wrong"
    if before is None:
        return None
    written = [t for name, _, t in call.tensors() if name in call.writes]
    for name, place, tensor in call.tensors():
        if name in call.writes or any(tensor.data_ptr() == t.data_ptr() for t in written):
            continue
        was = before[name] if place is None else before[name][place]
        if tensor.numel() and not same_bits(tensor, was):
            return f"{name}: it was changed, and is only read"
    for name, want in call.wants(before).items():
        problem = wrong_values(call.op, call.arguments[name], want)
        if problem:
            return f"{name}: {problem}"
    return None


def child(calls: int, seed: int, library: str, current: str) -> int:
    load(library)
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")  # Casts to a wrong dtype warn about lost values.
    counts, first = {}, seed
    with open(current, "r+b", buffering=0) as place:
        for seed in range(first, first + calls):
            place.seek(0)
            place.write(f"{seed:<20}".encode())
            call, verdict = make(seed)
            if calls == 1:
                print(call, flush=True)
            problem = trial(call, verdict)
            if problem:
                print(f"seed {seed}: {problem}\n{call}\nagain: python tests/fuzz.py --seed {seed} --calls 1")
                return 1
            counts[call.op, verdict] = counts.get((call.op, verdict), 0) + 1
    ops = sorted({op for op, _ in counts})
    print(f"fuzz: seeds {first} to {first + calls - 1}: " + ", ".join(
        f"{op} {sum(n for (o, v), n in counts.items() if o == op and v == 'accept')} right and "
        f"{sum(n for (o, v), n in counts.items() if o == op and v == 'refuse')} wrong" for op in ops))  # fmt: skip
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=int(os.environ.get("FUZZ_CALLS", "20000")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("FUZZ_SEED", "0")), help="the first one")
    parser.add_argument("--library", help=argparse.SUPPRESS)
    parser.add_argument("--current", help=argparse.SUPPRESS)
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    sys.exit(
        child(given.calls, given.seed, given.library, given.current)
        if given.library
        else parent(given.calls, given.seed)
    )
