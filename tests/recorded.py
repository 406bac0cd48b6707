"""Results of every solver on every operator and schedule, in float64, as probes to compare with a recorded table.

``python tests/recorded.py`` writes the table anew. That is right only after a change that is meant to change results:
``tests/test_recorded.py`` holds everything else to what is recorded.

Nothing here depends on the processor beyond rounding: the network is a rational function, and the noise is a hash of
integers in place of Philox normals, whose logarithms and cosines differ in the last bits of single precision.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import ccfast
from ccfast import operators, schedules, solvers
from ccfast.kernels import reference
from ccfast.solvers.registry import REGISTRY

TABLE = Path(__file__).with_name("recorded.npz")
SHAPE, STEPS, PROBES = (3, 6, 8), 4, 4


def uniform(*shape: int, seed: int) -> torch.Tensor:
    """Numbers in [0, 1) from a hash, which no library's generator makes."""
    index = np.arange(int(np.prod(shape)), dtype=np.uint64)
    mixed = (index * np.uint64(2654435761) + np.uint64(seed * 40503 + 12345)) % np.uint64(4294967291)
    mixed = (mixed * mixed + np.uint64(7)) % np.uint64(999983)
    return torch.from_numpy((mixed.astype(np.float64) / 999983).reshape(shape))


def noise(out, seeds, samples, draws, step):
    """Noise of unit variance, which takes the place of ``reference.normal`` with the same arguments."""
    for b in range(len(out)):
        key = int(seeds[b]) + 31 * int(samples[b]) + 977 * int(draws[b]) + 7919 * step
        out[b] = (uniform(*out.shape[1:], seed=key) - 0.5) * 12**0.5
    return out


def network(x, t):
    u = x + 0.3 * x.roll(1, -1) - 0.2 * x.roll(1, 1)
    t = t.reshape(-1, *[1] * (x.ndim - 1)) / 1000
    return (u - 0.1 + 0.2 * t) / (1 + u * u)


def _matrix(rows: int, columns: int) -> torch.Tensor:
    return uniform(rows, columns, seed=9) - 0.5


def _linear() -> operators.Operator:
    matrix = _matrix(10, 144)
    return operators.LinearOperator(
        lambda x: x.flatten(1) @ matrix.mT.to(x), lambda y: (y @ matrix.to(y)).reshape(-1, *SHAPE), SHAPE, iterations=12
    )


OPERATORS = {
    "mask": lambda: operators.Inpainting(uniform(*SHAPE, seed=1) < 0.5),
    "soft mask": lambda: operators.SoftMask(uniform(*SHAPE, seed=2)),
    "pooling": lambda: operators.AveragePooling(SHAPE, 2),
    "grayscale": lambda: operators.Grayscale(SHAPE),
    "bicubic": lambda: operators.Bicubic(SHAPE, 2),
    "gaussian blur": lambda: operators.GaussianBlur(SHAPE, std=1.0),
    "fourier blur": lambda: operators.FourierBlur(SHAPE, uniform(3, 3, seed=3) / 4),
    "fourier downsampling": lambda: operators.FourierDownsampling(SHAPE, uniform(3, 3, seed=4) / 4, 2),
    "matrix": lambda: operators.Matrix(_matrix(20, 144), SHAPE),
    "linear": _linear,
}
SCHEDULES = {
    "VP": (lambda: schedules.VP(), "epsilon"),
    "DiscreteVP": (lambda: schedules.DiscreteVP(np.linspace(1e-4, 0.02, 1000)), "v_prediction"),
    "VE": (lambda: schedules.VE(0.01, 50.0), "sample"),
    "EDM": (lambda: schedules.EDM(), "edm"),
    "Flow": (lambda: schedules.Flow(), "velocity"),
}
OPTIONS = (
    solvers.Conjugate(centred="prior"),
    solvers.Conjugate(centred="rayleigh"),
    solvers.Conjugate(centred="rayleigh", order=2, eta=0.5),
    solvers.Conjugate(4.0, lam=0.1),
    solvers.Conjugate(4.0, lam=0.1, jacobian="auto"),
    solvers.Conjugate(eta=1.0),
    solvers.Conjugate("bayes", order=2, jacobian="auto"),
    solvers.Conjugate(refresh=0.5, jacobian="none"),
    solvers.Conjugate(product="forward"),
    solvers.PiGDM(4.0, "constant", eta=0.0),
    solvers.DDNM(eta=0.0),
    solvers.LML(0.5, 100.0),
)
SOLVERS = {repr(solver): solver for solver in (*(entry.solver for entry in REGISTRY), *OPTIONS)}
NOISES = (0.0, 0.05)


def cases(solver: solvers.Solver, every: bool = True) -> Iterator[tuple[str, str, float, torch.Tensor]]:
    """(operator, schedule, noise, probes) of the combinations that the solver takes.

    Unless ``every`` one is asked for, an operator on a schedule has one level of noise, and the other one on the next
    schedule.
    """
    truth = 2 * uniform(2, *SHAPE, seed=5) - 1
    probe = torch.cos(torch.arange(truth.numel(), dtype=torch.float64)[:, None] * torch.arange(1, PROBES + 1))
    for row, (name, make) in enumerate(OPERATORS.items()):
        operator = make()
        y = operator.forward(truth)
        for column, (path, (schedule, prediction)) in enumerate(SCHEDULES.items()):
            denoiser = ccfast.Denoiser(network, schedule(), prediction)
            for std in NOISES if every else [NOISES[(row + column) % 2]]:
                try:
                    sampler = ccfast.Sampler(denoiser, operator, solver, STEPS, noise_std=std, backend="reference")
                except ValueError:
                    continue
                x = sampler(y, seed=zlib.crc32(name.encode()) % 1000)
                yield name, path, std, x.flatten() @ probe


def record() -> dict[str, np.ndarray]:
    """The probes of every solver, (operators, schedules, noises, PROBES), and NaN where a combination is refused."""
    table = {}
    for key, solver in SOLVERS.items():
        table[key] = np.full((len(OPERATORS), len(SCHEDULES), len(NOISES), PROBES), np.nan)
        for name, path, std, values in cases(solver):
            place = list(OPERATORS).index(name), list(SCHEDULES).index(path), NOISES.index(std)
            table[key][place] = values.numpy()
    return table


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    reference.normal = noise
    torch.set_num_threads(1)
    table = record()
    keys = sorted(table)
    np.savez_compressed(TABLE, keys=np.array(keys), values=np.stack([table[key] for key in keys]))
