"""Every solver with every operator can be captured.

A run waits for nothing, takes nothing from the host, and its steps allocate nothing outside the network."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import conftest
import numpy as np
import pytest
import torch
from lint import Lint

from ccfast import Denoiser, Sampler
from ccfast.engine.backends import can_run
from ccfast.engine.buffers import Buffers
from ccfast.engine.plan import Rule, Term
from ccfast.engine.restoration import Draws, Request, restore
from ccfast.operators import Inpainting, LinearOperator
from ccfast.schedules import EDM, VP
from ccfast.solvers import DDRM, DDS, DPS, LATINO, Conjugate, PiGDM, Solver, Steered

pytestmark = pytest.mark.filterwarnings("ignore:jacobian. 'exact' is stable", "ignore:.*torch.jit:DeprecationWarning")

aten = torch.ops.aten
CPU = torch.device("cpu")
OPERATORS = conftest.OPERATORS + conftest.KRYLOV_OPERATORS
SOLVERS = [entry.solver for entry in conftest.REGISTRY]
FURTHER = [Conjugate(lam=0.1), Conjugate(order=2, eta=0.5), Conjugate(centred="rayleigh", order=2), PiGDM(eta=0.5)]
FURTHER += [Conjugate(refresh=1.0), Conjugate(centred="rayleigh", refresh=0.5)]
EVERY_FUNCTION = [Conjugate(), DDS(), LATINO()]
NOISY = [Conjugate(), DDRM()]
LIBRARY = ("dense", "krylov")
"""The kinds without a kernel. Their P is the operator's own ``project``, made of torch functions that allocate."""

FOURIER = {aten._fft_c2c.default, aten._fft_r2c.default, aten._fft_c2r.default}
"""The transforms of torch, which allocate their results."""

STEPS = 3


def by_operator(members):
    return pytest.mark.parametrize("build", [b for _, b in members], ids=[name for name, _ in members])


def form(operator):
    """The properties of an operator that decide which of its functions a run calls, whatever the numbers and sizes."""
    return type(operator), operator.kind, operator.batch is None


def meeting(operator):
    """The properties of an operator that a solver and the kernels see."""
    return operator.kind, operator.batch is None


def first_of_each(properties, members):
    first = {}
    for member in members:
        first.setdefault(properties(member[1]()), member)
    return list(first.values())


FORMS, MEETINGS = first_of_each(form, OPERATORS), first_of_each(meeting, OPERATORS)


def lint_twice(operator, solver, monkeypatch, backend, **options):
    """Run three times, first to move the constants and then on two sets of values; return program and last lint."""
    lints = []
    meaning = options.pop("schedule", VP()), options.pop("meaning", "epsilon")
    denoiser = Denoiser(lambda x, t: lints[-1].network(x, t), *meaning)
    sampler = Sampler(denoiser, operator, solver, steps=STEPS, backend=backend, graph=False, **options)
    program = sampler._program
    buffers = None
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        y = operator.forward(torch.rand(operator.batch or 2, *operator.shape, generator=generator))
        request = Request(y, Draws([seed] * len(y), list(range(len(y))), [0] * len(y)).words(CPU))
        buffers = buffers or Buffers(program, operator.image_shape(y), y.dtype)
        lints.append(Lint(request[:2], lints[1] if seed == 2 else None))
        watching = lints[-1].watching(monkeypatch) if seed else nullcontext()
        with torch.no_grad(), monkeypatch.context() as patch, watching:
            patch.setattr(program, "product", program.product._replace(take=lints[-1].of_library(program.product.take)))
            patch.setattr(program, "run", lints[-1].loop(program.run))
            if operator.kind in LIBRARY:
                patch.setattr(operator, "project", lints[-1].of_library(operator.project))
            restore(program, buffers, operator, request)
    first, second = lints[1:]
    assert second.operations == first.operations  # No operation depends on values.
    return program, second


def bound_over_modes(program, operator):
    """For every step, whether it has coefficients over the modes."""
    bound = program.bind(operator, torch.empty(0))
    return [bool(row.modes) or weight is not None for row, weight in zip(bound.rows, bound.weights, strict=True)]


def check(operator, solver, monkeypatch, backend="auto", **options):
    program, lint = lint_twice(operator, solver, monkeypatch, backend, **options)
    where = f"{solver!r} with {operator!r}"
    assert not lint.waits, where
    assert not lint.strangers, where
    own_rule = any(step.rules for step in program.plan.steps)
    if backend == "reference" or own_rule or any(bound_over_modes(program, operator)):
        # The reference functions, coefficients over the modes, and rules of a solver are plain torch, which allocates.
        return
    allowed = FOURIER if operator.kind == "fourier" else set()
    allocated = [(step, op) for step, op in lint.allocations if op not in allowed]
    # The work space of a run is made in its first step.
    assert {op for step, op in allocated if step <= 0} <= {aten.empty.memory_format}, where
    assert not [(step, op) for step, op in allocated if step > 0], where


def check_backends_and_noise(operator, monkeypatch):
    for solver in EVERY_FUNCTION:
        check(operator, solver, monkeypatch, backend="reference")
    for solver in NOISY if operator.kind != "krylov" else [DPS()]:
        check(operator, solver, monkeypatch, noise_std=0.1)


@by_operator(MEETINGS)
def test_every_solver(build, monkeypatch):
    """A run can be captured whichever solver and operator meet: every solver runs with an operator of every kind."""
    operator = conftest.few_iterations(build())
    for solver in SOLVERS + FURTHER:
        check(operator, solver, monkeypatch)
    check_backends_and_noise(operator, monkeypatch)


@by_operator([member for member in OPERATORS if member not in MEETINGS])
def test_every_operator(build, monkeypatch):
    """Other classes, sizes and numbers of a kind change no function that is called, and need no solver beyond three.

    Sizes and numbers change nothing for the plain functions of the reference, either, nor for coefficients over modes.
    """
    operator = conftest.few_iterations(build())
    for solver in EVERY_FUNCTION:
        check(operator, solver, monkeypatch)
    if any(build is first for _, first in FORMS):
        check_backends_and_noise(operator, monkeypatch)


FUNCTIONS = ("forward", "adjoint", "pinv", "project", "down", "lift", "encode", "decode")


@by_operator(FORMS)
def test_three_solvers_call_every_function_of_an_operator_that_any_calls(build, monkeypatch):
    """This is why ``test_every_operator`` asks for no other solver."""
    operator, called = conftest.few_iterations(build()), set()

    def noted(name, function):
        def call(*arguments, **keywords):
            called.add(name)
            return function(*arguments, **keywords)

        return call

    for name in FUNCTIONS:
        monkeypatch.setattr(operator, name, noted(name, getattr(operator, name)))

    def calls(solvers):
        called.clear()
        y = torch.full((operator.batch or 1, *operator.measurement_shape), 0.5)
        for solver in solvers:
            Sampler(Denoiser(lambda x, t: x * 0.5, VP()), operator, solver, steps=STEPS)(y, seed=0)
        return set(called)

    assert calls(EVERY_FUNCTION) == calls(SOLVERS + FURTHER)


@pytest.mark.skipif(not can_run("native"), reason="the reference backend allocates in every operation")
@pytest.mark.parametrize("backend", ["native"])
def test_a_scaled_network(backend, monkeypatch):
    operator = Inpainting(conftest._mask(3, 6, 9))
    options = {"schedule": EDM(), "meaning": "edm", "start": 5.0, "end": 0.1}
    check(operator, Conjugate(), monkeypatch, backend, **options)


class Mean(Rule):
    """A rule whose term has a coefficient for every image."""

    reads, gives = (("x", 0),), (("x", 0),)

    def fill(self, step, registers):
        return [Term("x", 0, registers["x", 0].flatten(1).mean(1))]


class Beside(Solver):
    """DDIM with arrays over the elements and the modes, and a rule whose terms join them in the row."""

    def steps(self, grid, operator):
        over = operator.singular_values.numpy()
        terms = Term("x", 0, np.full(operator.shape, 0.1)), Term("F", 0, 1.0, 0.1 * over)
        return tuple(replace(step, row=(*step.row, *terms), rules=(Mean(),)) for step in grid.ddim().steps())


@pytest.mark.parametrize("name", ["inpainting", "bicubic", "fourier-blur"])
def test_a_rule_beside_arrays_takes_nothing_from_the_host(name, monkeypatch):
    check(dict(OPERATORS)[name](), Beside(), monkeypatch)


# ------------------------------------------------------------------------------------------------ what it finds
BAD = {
    "item": (lambda x: x * float(x.max()), "waits"),
    "mask": (lambda x: x.index_put((x > 0,), torch.tensor(0.0)), "waits"),
    "list": (lambda x: x * torch.tensor([2.0]), "strangers"),
}


@pytest.mark.parametrize("name", BAD)
def test_it_finds(name, monkeypatch):
    """An ``up`` of Steered that a graph could not hold."""
    function, what = BAD[name]
    operator = Inpainting(conftest._mask(3, 6, 9))
    _, lint = lint_twice(operator, Steered(function), monkeypatch, "auto")
    assert getattr(lint, what)


def test_it_finds_reads_and_allocations(monkeypatch):
    mask = Inpainting(conftest._mask(1, 4, 4), (1, 4, 4))
    with pytest.raises(AssertionError, match="tolist waits for the device"):
        lint_twice(mask, Steered(lambda x: x * x.flatten().tolist()[0]), monkeypatch, "auto")
    linear = LinearOperator(mask.forward, mask.adjoint, (1, 4, 4), iterations=1)
    monkeypatch.setitem(globals(), "LIBRARY", ())
    with pytest.raises(AssertionError, match="Conjugate"):
        check(linear, Conjugate(), monkeypatch)
