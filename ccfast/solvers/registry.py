"""The table of solvers: what each costs and can do. docs/solvers.md and the SOLVERS of the tests are made from it.

python -m ccfast.solvers.registry docs/solvers.md     # writes the table between its markers
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .bdia import BDIA
from .conjugate import Conjugate
from .consistency import Consistency
from .ddim import DDIM
from .ddnm import DDNM
from .ddpm import DDPM
from .ddrm import DDRM
from .dds import DDS
from .deis import DEIS
from .diffpir import DiffPIR
from .dpir import DPIR
from .dpm_solver_pp import DPMSolverPP
from .dps import DPS
from .heavy_ball import HeavyBall
from .heun import Heun
from .latino import LATINO
from .lml import LML
from .pigdm import PiGDM
from .psld import PSLD
from .red_diff import REDDiff
from .resample import ReSample
from .solver import Solver
from .steered import Steered
from .stsl import STSL
from .unipc import UniPC

__all__ = ["BEGIN", "END", "REGISTRY", "Entry", "fill", "table"]

BEGIN, END = "<!-- solvers: made by ccfast/solvers/registry.py -->", "<!-- solvers end -->"


@dataclass(frozen=True)
class Entry:
    """One row. All but the paper is checked against what a run does.

    Attributes:
        solver: an instance; the row shows the arguments that are not the default.
        paper: arXiv number, or venue.
        order: of convergence to the ODE that it discretises, "-" if it discretises none; as observed on grids that are
            uniform in t, the default, where the first steps, which are of lower order, limit the order of a whole run.
        projections: applications of P, or of H and H^T, in a noiseless step; "M" is DDS's number of iterations.
        noise: "yes": the steps know of noise in the measurement, "start": the first state alone does, "no": refused.
        measurement: whether the steps see the measurement; those that do not start from it.
        evaluations, vjps, history: network evaluations and products with its Jacobian a step; steps looked back.
        matches: the public implementation that it agrees with, and how closely; "-" where it is compared with the
            paper's formulas alone. ``tests/test_public_loops.py`` holds it, or names the test that does.
    """

    solver: Solver
    paper: str
    order: str
    projections: str
    noise: str
    measurement: bool = True
    evaluations: int = 1
    vjps: int = 0
    history: int = 0
    matches: str = "-"

    @property
    def name(self) -> str:
        """The call that makes the solver, without defaults."""
        arguments: Any = self.solver
        given = {f.name: (getattr(arguments, f.name), f.default) for f in fields(arguments)}
        shown = ", ".join(f"{name}={value!r}" for name, (value, default) in given.items() if value != default)
        return f"{type(self.solver).__name__}({shown})"


_IMPROVED_DIFFUSION = "openai/improved-diffusion, every step, without clipping"

REGISTRY = (
    Entry(Conjugate(), "2405.17673", "1", "2", "yes", vjps=1, matches="mandt-lab/c-pigdm, runs to 1e-5"),
    Entry(Conjugate(order=2), "2405.17673", "2", "2", "yes", vjps=1, history=1),
    Entry(Conjugate(jacobian="one_projection"), "2405.17673", "1", "1", "yes", vjps=1),
    Entry(Conjugate(jacobian="none"), "2405.17673", "1", "1", "yes"),
    Entry(Conjugate(product="finite_difference"), "2405.17673", "1", "2", "yes", evaluations=2),
    Entry(Conjugate("bayes", jacobian="auto", refresh=1.0), "2405.17673", "-", "1", "yes", vjps=1),
    Entry(PiGDM(), "ICLR 2023", "-", "1", "yes", vjps=1, matches="NVlabs/RED-diff (pgdm), every step"),
    Entry(PiGDM(1.0), "2405.17673", "1", "1", "yes", vjps=1, matches="mandt-lab/c-pigdm, runs to 1e-5"),
    Entry(
        DPS(),
        "2209.14687",
        "-",
        "1",
        "start",
        vjps=1,
        matches="DPS2022, every step; the norm is of each image, the variance small",
    ),
    Entry(DDNM(), "2212.00490", "-", "1", "yes", matches="wyhuai/DDNM, every step; no time travel"),
    Entry(DDRM(), "2201.11793", "-", "2", "yes", matches="bahjat-kawar/ddrm, every step; noise_std is not doubled"),
    Entry(
        DiffPIR(),
        "2305.08995",
        "-",
        "1",
        "yes",
        matches="yuanzhi-zhu/DiffPIR, every step but the last, which sees the data here",
    ),
    Entry(
        DDS(),
        "2303.05754",
        "-",
        "1 + M",
        "yes",
        matches="HJ-harry/DDS (solver_2d), every step; inner products are of each image",
    ),
    Entry(REDDiff(), "2305.04391", "-", "1", "start", matches="NVlabs/RED-diff, every step"),
    Entry(PSLD(), "2307.00619", "-", "2", "start", vjps=1),
    Entry(STSL(inner=1), "2312.00852", "-", "1", "start", evaluations=3, vjps=2, history=1),
    Entry(ReSample(), "2307.08123", "-", "1", "yes"),
    Entry(LATINO(), "2503.12615", "-", "1", "yes"),
    Entry(DPIR(), "2008.13751", "-", "1", "yes", matches="cszn/DPIR (deblurring), every step"),
    Entry(Steered(), "2310.00224", "-", "1", "no"),
    Entry(DDIM(), "2010.02502", "1", "0", "start", measurement=False, matches="ermongroup/ddim, every step"),
    Entry(DDIM(eta=1.0), "2010.02502", "1", "0", "start", measurement=False, matches="ermongroup/ddim, every step"),
    Entry(DDPM(), "2006.11239", "-", "0", "start", measurement=False, matches=_IMPROVED_DIFFUSION),
    Entry(DDPM(variance="large"), "2006.11239", "-", "0", "start", measurement=False, matches=_IMPROVED_DIFFUSION),
    Entry(
        DPMSolverPP(),
        "2211.01095",
        "2",
        "0",
        "start",
        measurement=False,
        history=1,
        matches="diffusers (dpmsolver++, midpoint), every step",
    ),
    Entry(
        DPMSolverPP(order=3),
        "2211.01095",
        "2",
        "0",
        "start",
        measurement=False,
        history=2,
        matches="the paper's formula; the public code leaves out a factor 2",
    ),
    Entry(
        DPMSolverPP(sde=True),
        "2211.01095",
        "2",
        "0",
        "start",
        measurement=False,
        history=1,
        matches="diffusers (sde-dpmsolver++, midpoint), every step",
    ),
    Entry(
        DPMSolverPP(order=3, curvature=0.5),
        "2211.01095",
        "2",
        "0",
        "start",
        measurement=False,
        history=2,
        matches="diffusers (dpmsolver++, solver_order=3), runs to 1e-5",
    ),
    Entry(
        Heun(),
        "2206.00364",
        "2",
        "0",
        "start",
        measurement=False,
        evaluations=2,
        history=1,
        matches="diffusers, runs to 1e-5",
    ),
    Entry(
        DEIS(order=1, basis="log_rho"),
        "2204.13902",
        "2",
        "0",
        "start",
        measurement=False,
        history=1,
        matches="diffusers (solver_order=2), runs to 1e-5",
    ),
    Entry(DEIS(), "2204.13902", "2", "0", "start", measurement=False, history=3),
    Entry(HeavyBall(1.5), "2307.11118", "2", "0", "start", measurement=False, history=1),
    Entry(HeavyBall(2, 0.8, "hb"), "2307.11118", "1", "0", "start", measurement=False, history=1),
    Entry(DEIS(order=2, basis="rho"), "2204.13902", "2", "0", "start", measurement=False, history=2),
    Entry(
        UniPC(),
        "2302.04867",
        "2",
        "0",
        "start",
        measurement=False,
        history=2,
        matches="diffusers, every step below 15 steps; above it lowers the last orders, too",
    ),
    Entry(
        UniPC(order=3),
        "2302.04867",
        "3",
        "0",
        "start",
        measurement=False,
        history=3,
        matches="diffusers, every step below 15 steps; above it lowers the last orders, too",
    ),
    Entry(Consistency(), "2303.01469", "-", "0", "start", measurement=False),
    Entry(BDIA(), "2307.10829", "2", "0", "start", measurement=False, history=1),
    Entry(LML(kappa=0.5, lam=100.0), "2505.24222", "1", "0", "start", measurement=False, history=1),
)


def table() -> str:
    """The rows as a table in Markdown."""
    head = (
        "solver",
        "paper",
        "order",
        "evaluations",
        "VJPs",
        "projections",
        "measurement",
        "noise",
        "history",
        "matches",
    )
    rows = [head, ("---",) * len(head)]
    for e in REGISTRY:
        paper = f"[{e.paper}](https://arxiv.org/abs/{e.paper})" if e.paper[0].isdigit() else e.paper
        numbers = (str(e.evaluations), str(e.vjps), e.projections)
        uses = "in every step" if e.measurement else "at the start"
        rows.append((f"`{e.name}`", paper, e.order, *numbers, uses, e.noise, str(e.history), e.matches))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def fill(document: str) -> str:
    """The document with the table between its markers; ValueError if it has none."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"document: must have the markers {BEGIN!r} and {END!r}, got {document[:40]!r}...")
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")
