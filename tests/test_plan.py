"""The meaning of steps, terms and rules, each compared with plain torch, and what a plan prints about itself."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, replace

import numpy as np
import pytest
import torch

from ccfast import Denoiser, Sampler
from ccfast.engine.backends import BACKENDS, can_run
from ccfast.engine.plan import Rule, Term
from ccfast.engine.spectrum import SpectralTable
from ccfast.kernels.reference import dot
from ccfast.operators import AveragePooling, GaussianBlur, Inpainting, LinearOperator, SoftMask
from ccfast.schedules import EDM, VP
from ccfast.solvers import DDIM, DDNM, LML, Conjugate, Solver
from ccfast.testing import relative_error

SHAPE = (3, 8, 12)
BACKEND_NAMES = [name for name in BACKENDS if can_run(name)]
MASK = torch.arange(96).reshape(1, 8, 12) % 3 != 0
OPERATORS = {
    "mask": lambda: Inpainting(MASK, SHAPE),
    "soft mask": lambda: SoftMask(MASK * torch.linspace(0.2, 1.0, 96).reshape(1, 8, 12), SHAPE),
    "block": lambda: AveragePooling(SHAPE, 2),
    "separable": lambda: GaussianBlur(SHAPE, std=1.0),
}


@dataclass(frozen=True)
class Written(Solver):
    """DDIM, whose steps a function changes."""

    change: object

    takes_noise = True

    def steps(self, grid, operator):
        return tuple(self.change(k, step) for k, step in enumerate(grid.ddim().steps()))


def network(x, t):
    return torch.tanh(x + 0.1 * x.roll(1, -1)) * 0.9


def problem(operator, dtype):
    generator = torch.Generator().manual_seed(0)
    image, x_init = (torch.randn(2, *SHAPE, dtype=torch.float64, generator=generator) for _ in range(2))
    return operator.forward(image).to(dtype), x_init.to(dtype)


def run(operator, change, y, x_init, backend="reference", schedule=None, **options):
    schedule = schedule or VP()
    denoiser = Denoiser(network, schedule, "edm" if isinstance(schedule, EDM) else "epsilon")
    sampler = Sampler(denoiser, operator, Written(change), steps=3, backend=backend, **options)
    return sampler(y, x_init=x_init, seed=5), sampler


def plus(term):
    return lambda k, step: replace(step, row=(*step.row, term))


# ------------------------------------------------------------------------------------------------ terms
@pytest.mark.parametrize("backend", BACKEND_NAMES)
@pytest.mark.parametrize("build", OPERATORS.values(), ids=OPERATORS)
def test_modes_written_as_an_array(build, backend):
    """One step is x' = DDIM + V m V^T (a x), with an array m over the modes and a number a for each image."""
    operator = build()
    s = operator.singular_values
    modes = np.asarray(torch.where(s > 0, 0.3 + s, 0.0))
    a = np.array([0.5, -2.0]).reshape(2, 1, 1, 1)
    y, x_init = problem(operator, torch.float64)
    denoiser, times = Denoiser(network, VP()), [0.4, 0.2]
    base = Sampler(denoiser, operator, DDIM(), times=times, backend="reference")(y, x_init=x_init)
    moved = operator.lift(torch.from_numpy(modes) * operator.down(torch.from_numpy(a) * x_init))
    for dtype, bound in ((torch.float64, 1e-13), (torch.float32, 2e-6)):
        solver = Written(plus(Term("x", 0, a, modes)))
        sampler = Sampler(denoiser, operator, solver, times=times, backend=backend)
        assert relative_error(sampler(y.to(dtype), x_init=x_init.to(dtype)), base + moved) < bound


@pytest.mark.parametrize("backend", BACKEND_NAMES)
@pytest.mark.parametrize("build", OPERATORS.values(), ids=OPERATORS)
def test_a_weight_of_zero_is_a_residual_of_zero(build, backend):
    """A weight of zero, a number or an array over the modes, is not taken for one that was not given."""
    operator = build()
    y, x_init = problem(operator, torch.float32)
    base, _ = run(operator, lambda k, step: step, y, x_init, backend)
    for weight in (0.0, np.zeros(operator.singular_values.shape)):
        got, _ = run(operator, lambda k, s, w=weight: replace(plus(Term("r"))(k, s), weight=w), y, x_init, backend)
        assert relative_error(got, base) < 1e-6
    got, _ = run(operator, plus(Term("r")), y, x_init, backend)
    assert relative_error(got, base) > 1e-2


@pytest.mark.parametrize("backend", BACKEND_NAMES)
@pytest.mark.parametrize("schedule", [VP(), EDM()], ids=["vp", "edm"])
def test_a_weight_that_is_a_number(backend, schedule):
    operator = OPERATORS["separable"]()
    y, x_init = problem(operator, torch.float32)
    got, _ = run(operator, lambda k, s: replace(plus(Term("r"))(k, s), weight=0.25), y, x_init, backend, schedule)
    expected, _ = run(operator, plus(Term("r", 0, 0.25)), y, x_init, "reference", schedule)
    assert relative_error(got, expected) < 1e-5


# ------------------------------------------------------------------------------------------------ rules
class Misfit(Rule):
    """A rule that writes H^T (y - H x0hat) to the register r."""

    reads, writes = (("x", 0), ("F", 0)), ("r",)

    def fill(self, step, registers):
        operator = registers.operator
        registers["r", 0].copy_(operator.adjoint(registers.measurement - operator.forward(registers.estimate(step))))
        return ()


class Momentum(Rule):
    """A rule that keeps a register from step to step: m <- m/2 + F, where m begins as the first state's mean."""

    reads, keeps = (("F", 0),), ("m",)

    def fill(self, step, registers):
        registers["m", 0].mul_(0.5).add_(registers["F", 0])
        return ()


class Square(Rule):
    """A rule that fills its register anew in every step."""

    reads, writes = (("F", 0),), ("G",)

    def fill(self, step, registers):
        registers["G", 0] = registers["F", 0].square()
        return ()


class Norm(Rule):
    """A rule that gives the term x/|x|^2, whose coefficient is a number for every image."""

    reads, gives = (("x", 0),), (("x", 0),)

    def fill(self, step, registers):
        return [Term("x", 0, 1.0 / dot(registers["x", 0], registers["x", 0]))]


def by_hand(operator, y, x, rule):
    """The loop of ``Written`` with one rule and its term in plain torch."""
    plan = DDIM().plan(Denoiser(network, VP()), operator, VP().check_times(np.linspace(0.4, 0.001, 4)))
    kept = operator.pinv(y).clone()
    for k, step in enumerate(plan.steps):
        F = network(x, None)
        row = plan.numbers("x")[k] * x + plan.numbers("F")[k] * F
        if rule is Misfit:
            row = row + operator.adjoint(y - operator.forward(step.p * x + step.q * F))
        elif rule is Momentum:
            kept = 0.5 * kept + F
            row = row + kept
        elif rule is Square:
            row = row + F.square()
        else:
            row = row + x / x.square().sum((1, 2, 3), keepdim=True)
        x = row
    return x


RULES = {Misfit: Term("r"), Momentum: Term("m"), Square: Term("G"), Norm: None}


@pytest.mark.parametrize("backend", BACKEND_NAMES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", ["block", "separable"])
def test_rules_against_a_loop(name, rule, backend):
    operator, term = OPERATORS[name](), RULES[rule]
    more = () if term is None else (term,)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        y, x_init = problem(operator, dtype)
        instance = rule()
        got, sampler = run(
            operator, lambda k, s, r=instance: replace(s, row=(*s.row, *more), rules=(r,)), y, x_init, backend
        )
        expected = by_hand(operator, y.double(), x_init.double(), rule)
        assert relative_error(got, expected) < bound
        assert f"and the rule {rule.__name__}" in str(sampler.plan)
        again = sampler(y, x_init=x_init, seed=5)
        assert torch.equal(got, again), "something of a rule outlived its run"


class OverModes(Rule):
    """A rule that gives the term V m V^T (a x), where a is the mean of each image's x, computed on the device."""

    reads, gives = (("x", 0),), (("x", 0),)

    def __init__(self, modes):
        self.modes = modes

    def fill(self, step, registers):
        return [Term("x", 0, registers["x", 0].flatten(1).mean(1), self.modes)]


@pytest.mark.parametrize("backend", BACKEND_NAMES)
@pytest.mark.parametrize("build", OPERATORS.values(), ids=OPERATORS)
def test_a_rule_gives_terms_over_the_modes(build, backend):
    """One step equals its formula, for modes that are a number or a tensor; a mask has one mode for every element."""
    operator = build()
    s = operator.singular_values
    over = torch.where(s > 0, 0.3 + s, 0.0)
    y, x_init = problem(operator, torch.float64)
    denoiser, times = Denoiser(network, VP()), [0.4, 0.2]
    base = Sampler(denoiser, operator, DDIM(), times=times, backend="reference")(y, x_init=x_init)
    part = operator.down(x_init * x_init.mean((1, 2, 3), keepdim=True))
    for modes, factor in ((0.7, 0.7), (over, over)):
        solver = Written(lambda k, step, m=modes: replace(step, rules=(OverModes(m),)))
        expected = base + operator.lift(factor * part)
        for dtype, bound in ((torch.float64, 1e-13), (torch.float32, 2e-6)):
            sampler = Sampler(denoiser, operator, solver, times=times, backend=backend)
            assert relative_error(sampler(y.to(dtype), x_init=x_init.to(dtype)), expected) < bound
    assert relative_error(base, expected) > 1e-3


class Given(Rule):
    """A rule that returns one term and has the names in ``gives`` that it is made with."""

    def __init__(self, term, *gives):
        self.term, self.gives = term, gives

    def fill(self, step, registers):
        return [self.term]


@pytest.mark.parametrize("backend", BACKEND_NAMES)
@pytest.mark.parametrize("build", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize("in_plan", [False, True], ids=["unknown table", "table of the plan"])
def test_a_rule_gives_no_spectrum(build, in_plan, backend):
    operator = build()
    spectrum = SpectralTable(lambda s: {"f": np.stack([s, s, s])}, operator).at("f", 0)
    row = (Term("x", 0, 0.1, spectrum),) if in_plan else ()
    y, x_init = problem(operator, torch.float32)

    def change(k, step):
        return replace(step, row=(*step.row, *row), rules=(Given(Term("F", 0, 1.0, spectrum), ("F", 0)),))

    message = "row: a rule gives numbers and tensors over the modes, got a Spectrum for F in step 0 from Given"
    with pytest.raises(ValueError, match=message):
        run(operator, change, y, x_init, backend)


@pytest.mark.parametrize("backend", BACKEND_NAMES)
@pytest.mark.parametrize(
    ("term", "gives"), [(Term("x"), ()), (Term("x", 0, torch.ones(2)), (("F", 0),)), (Term("r"), (("x", 0),))]
)
def test_a_rule_names_what_it_gives(term, gives, backend):
    """A rule must name in ``gives`` what it returns, because kernels are chosen and registers filled by that."""
    operator = OPERATORS["block"]()
    y, x_init = problem(operator, torch.float32)
    message = f"row: a rule names what it returns in gives, got a term of {term.register} in step 0 from Given"
    with pytest.raises(ValueError, match=message):
        run(operator, lambda k, step: replace(step, rules=(Given(term, *gives),)), y, x_init, backend)


class MisfitAndMore(Misfit):
    gives = (("x", 0),)


@pytest.mark.parametrize(
    ("term", "options", "message"),
    [
        (Term("x", 0, np.nan), {}, "row: the coefficients of x must be finite, got nan in step 0 of Written"),
        (
            Term("F", 0, 1.0, np.array([np.inf])),
            {},
            r"row: the coefficients of F must be finite, got \[inf\] in step 0",
        ),
        (Term("r"), {"weight": np.nan}, "row: the coefficients of the residual's weight must be finite, got nan in"),
        (
            Term("r"),
            {"weight": np.ones(5)},
            r"row: the residual's weight must .* the modes \(1, 7, 11\), got shape \(5,\)",
        ),
        (Term("F", 0, 1.0, np.ones((3, 1))), {}, r"row: F must have .* the modes \(1, 7, 11\), got shape \(3, 1\)"),
        (
            Term("F", 0, 1.0, np.ones((1, 1, 1, 1))),
            {},
            r"row: F must have .* modes \(1, 7, 11\), got shape \(1, 1, 1, 1\)",
        ),
        (Term("F", 4), {}, "row: x, F, r, h can be looked back at for 1 to 3 steps, got F4"),
        (Term("z", 1), {}, "row: x, F, r, h can be looked back at for 1 to 3 steps, got z1"),
        (Term("F", 1), {}, "row: F1 does not exist before step 1, got it in step 0 of Written"),
        (
            Term("m"),
            {},
            "row: step 0 of Written.* reads m, which no rule writes or keeps; the registers of every plan are x,",
        ),
        (
            Term("r"),
            {"rules": (MisfitAndMore(),)},
            "row: a rule that writes r gives no terms, got MisfitAndMore with x in",
        ),
    ],
)
def test_rules_of_a_plan_and_their_messages(term, options, message):
    operator, denoiser = OPERATORS["separable"](), Denoiser(network, VP())
    with pytest.raises(ValueError, match=message):
        Sampler(denoiser, operator, Written(lambda k, s: replace(plus(term)(k, s), **options)))


def test_an_operator_without_singular_values_has_no_modes():
    mask, denoiser = OPERATORS["mask"](), Denoiser(network, VP())
    operator = LinearOperator(mask.forward, mask.adjoint, SHAPE, iterations=1)
    with pytest.raises(ValueError, match=r"row: x must have a number over the modes, since LinearOperator.* got shape"):
        Sampler(denoiser, operator, Written(plus(Term("x", 0, 1.0, np.ones(SHAPE)))))
    y, x_init = problem(mask, torch.float64)
    half = plus(Term("x", 0, 1.0, 0.5))
    assert relative_error(run(operator, half, y, x_init)[0], run(mask, half, y, x_init)[0]) < 1e-12


def test_arrays_of_a_plan_are_read_only():
    operator, weight, a = OPERATORS["separable"](), np.full((1, 7, 11), 0.5), np.ones((1, 8, 12))
    plan = Sampler(
        Denoiser(network, VP()), operator, Written(lambda k, s: replace(plus(Term("r", 0, a))(k, s), weight=weight))
    ).plan
    for array in (plan.steps[0].weight, plan.steps[0].row[-1].a, plan.times):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2.0
    for frozen, name in ((plan, "steps"), (plan.steps[0], "p"), (plan.steps[0].row[0], "a")):
        with pytest.raises(FrozenInstanceError):
            setattr(frozen, name, 0.0)


# ------------------------------------------------------------------------------------------------ what a plan says
def test_explain_says_who_runs_a_row_and_why():
    operator, denoiser = OPERATORS["separable"](), Denoiser(network, VP())
    plan = Conjugate().plan(denoiser, operator, VP().check_times([0.4, 0.2, 0.1]), 0.1)
    assert plan.explain().endswith("not bound yet: a Sampler decides which kernels run it")
    sampler = Sampler(denoiser, operator, Conjugate(), times=[0.4, 0.2, 0.1], noise_std=0.1, backend="reference")
    assert sampler.plan.explain().splitlines()[-1].startswith("step 1: reference separable; 3 registers")
    assert "and residuals weighted over" in str(sampler.plan)
    assert sampler.stats()["kernels"] == sampler.plan.kernels
    if can_run("native"):
        native = Sampler(denoiser, operator, Conjugate(), times=[0.4, 0.2, 0.1], noise_std=0.1, backend="native")
        assert "step 0: native separable; 3 registers, 2 over the modes" in native.plan.explain()


@pytest.mark.skipif(not can_run("native"), reason="the native backend has what it refuses")
def test_a_row_that_a_backend_refuses_is_run_by_the_reference():
    operator = OPERATORS["block"]()
    y, x_init = problem(operator, torch.float32)
    terms = tuple(Term("x", 0, np.full((2, 1, 1, 1), 0.001 * k)) for k in range(30))

    def long(k, step):
        return replace(step, row=(*step.row, *terms))

    got, sampler = run(operator, long, y, x_init, "native")
    words = "reference, since its kernels take 1 to 24 terms, and the row has 32"
    assert all(kernel.startswith(words) for kernel in sampler.plan.kernels)
    expected, _ = run(operator, long, y.double(), x_init.double(), "reference")
    assert relative_error(got, expected) < 1e-5
    # On the same sampler the reference also runs a float64 state.
    assert relative_error(sampler(y.double(), x_init=x_init.double()), expected) < 1e-13


def test_numbers_and_terms_in_words():
    operator = OPERATORS["block"]()
    plan = Conjugate().plan(Denoiser(network, EDM(), "edm"), operator, EDM().check_times([5.0, 2.0, 0.5]))
    row = plan.steps[1].row
    for register, projected in (("x", False), ("h", False), ("h", True)):
        own = [t.a for t in row if t.register == register and (t.modes is not None) == projected]
        assert plan.numbers(register, projected=projected)[1] == sum(own) != 0
    assert str(Term("F", 2, 0.5)) == "0.5 F2"
    assert str(Term("h", 0, -1.25, 1.0)) == "-1.25 P h"
    assert plan.depth == {}
    assert LML(0.5, 10.0).plan(Denoiser(network, VP()), operator, VP().check_times([0.4, 0.2, 0.1])).depth == {
        "F": 1,
    }
    assert plan.vjp_steps == 2
    assert DDNM().plan(Denoiser(network, VP()), operator, VP().check_times([0.4, 0.2])).vjp_steps == 0
