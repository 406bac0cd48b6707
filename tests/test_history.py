"""Plans with registers of earlier steps (BDIA, inversion) or coefficients of each image (LML), and their rules."""

from __future__ import annotations

from dataclasses import replace

import guided_ode
import numpy as np
import pytest
import torch
from row_shorthand import update
from torch import nn

from ccfast import Denoiser, Sampler
from ccfast.engine.plan import Term
from ccfast.kernels import reference
from ccfast.operators import AveragePooling, Denoising, SeparableBlur
from ccfast.schedules import EDM, VP, Flow
from ccfast.solvers import BDIA, DDIM, LML, Conjugate, Solver
from ccfast.testing import TOLERANCE, relative_error

SHAPE = (1, 16)
SCHEDULES = {"vp": VP(), "edm": EDM(), "flow": Flow()}
SPANS = {"vp": (0.5, 0.01), "edm": (3.0, 0.02), "flow": (0.3, 0.98)}
OPERATOR = Denoising(SHAPE)


def times_of(name, steps):
    return guided_ode.in_rho(SCHEDULES[name], *SPANS[name], steps)


def problem(prior, name, batch=2):
    schedule, start = SCHEDULES[name], SPANS[name][0]
    generator = torch.Generator().manual_seed(0)
    x0 = prior.sample(batch, generator)
    z = torch.randn(batch, *SHAPE, dtype=torch.float64, generator=generator)
    return x0, float(schedule.mean(start)) * x0 + float(schedule.std(start)) * z


def make(prior, name, solver, steps, prediction="epsilon"):
    return Sampler(prior.denoiser(SCHEDULES[name], prediction), OPERATOR, solver, times=times_of(name, steps))


# ------------------------------------------------------------------------------------------------ BDIA
@pytest.mark.parametrize("name", SCHEDULES)
def test_bdia_orders_and_limit(mixture, name):
    y, x_init = problem(mixture, name)
    fine = make(mixture, name, Conjugate(0.0, order=2), 1280)(y, x_init=x_init)
    assert relative_error(make(mixture, name, BDIA(0.0), 9)(y, x_init=x_init),
                          make(mixture, name, DDIM(), 9)(y, x_init=x_init)) < 1e-14  # fmt: skip
    for gamma, order in ((1.0, 2), (0.5, 1)):
        errors = [relative_error(make(mixture, name, BDIA(gamma), n)(y, x_init=x_init), fine) for n in (80, 160)]
        assert abs(np.log2(errors[0] / errors[1]) - order) < 0.2, (gamma, errors)


def test_bdia_against_its_definition(mixture):
    name, gamma, times = "vp", 0.7, np.array([0.5, 0.35, 0.25, 0.1])
    schedule, denoiser = SCHEDULES[name], mixture.denoiser(VP())
    y, x = problem(mixture, name)
    got = Sampler(denoiser, OPERATOR, BDIA(gamma), times=times)(y, x_init=x)
    mu, sigma = schedule.mean(times).tolist(), schedule.std(times).tolist()

    def ddim(x, eps, i, j):
        return mu[j] * (x - sigma[i] * eps) / mu[i] + sigma[j] * eps

    before = None
    for k in range(3):
        eps = denoiser.network(x, torch.full((2,), times[k], dtype=torch.float64))
        after = ddim(x, eps, k, k + 1)
        if before is not None:
            after = gamma * before - gamma * ddim(x, eps, k, k - 1) + after
        before, x = x, after
    assert relative_error(got, x) < 1e-13


@pytest.mark.parametrize("prediction", ["epsilon", "velocity"])
@pytest.mark.parametrize("steps", [2, 10, 50])
@pytest.mark.parametrize("name", SCHEDULES)
def test_inversion_comes_back_to_the_image(mixture, name, steps, prediction):
    y, x_init = problem(mixture, name)
    # The states of EDM are up to ten times as large as the image, and in ten large steps differences grow further.
    room = 20 if name == "edm" else 1
    for dtype, tolerance in ((torch.float64, 1e-14 * room), (torch.float32, 1e-6 * room)):
        sampler = make(mixture, name, BDIA(), steps, prediction)
        image = sampler(y.to(dtype), x_init=x_init.to(dtype))
        pair = sampler.invert(image)
        assert relative_error(sampler(y.to(dtype), x_init=pair), image) < tolerance
        assert sampler.stats()["network_evaluations"] == 2 * steps - 1  # The pair saves the first one.
    # An image that the sampler did not make comes back as well, from states of EDM that are ten times as large.
    other = torch.rand(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    assert relative_error(sampler(y, x_init=sampler.invert(other)), other) < 1e-13 * (2 if name == "edm" else 1)


def test_inversion_finds_the_initial_state(mixture):
    """Inversion finds the initial state to second order, the error of the state before the last, which it chooses."""
    errors = []
    for steps in (20, 40, 80):
        y, x_init = problem(mixture, "vp")
        sampler = make(mixture, "vp", BDIA(), steps)
        first, second = sampler.invert(sampler(y, x_init=x_init))
        errors.append(relative_error(first, x_init))
        assert relative_error(second, first) < 0.2
    assert errors[0] > 3.5 * errors[1] > 3.5**2 * errors[2]


def test_inversion_below_gamma_one_loses_digits_and_says_when_all(mixture):
    y, x_init = problem(mixture, "vp")
    sampler = make(mixture, "vp", BDIA(0.9), 20)
    image = sampler(y, x_init=x_init)
    assert relative_error(sampler(y, x_init=sampler.invert(image)), image) < 1e-12
    with pytest.raises(ValueError, match=r"invert: BDIA\(gamma=0.5\) loses all digits .* 40 steps; .* at least 0.707"):
        make(mixture, "vp", BDIA(0.5), 40).invert(image)
    with pytest.raises(ValueError, match=r"invert: DDIM\(eta=0.0\) has no exact inverse; BDIA\(\) has"):
        make(mixture, "vp", DDIM(), 4).invert(image)
    with pytest.raises(ValueError, match=r"x_init: DDIM.* starts from one state, got two"):
        make(mixture, "vp", DDIM(), 4)(y, x_init=(image, image))
    with pytest.raises(ValueError, match=r"x: Denoising takes shape \(B, 1, 16\), got \(2, 1, 8\)"):
        sampler.invert(image[..., :8])
    with pytest.raises(ValueError, match=r"gamma: must lie in \[0, 1\], got 1.5"):
        BDIA(1.5)


# ------------------------------------------------------------------------------------------------ LML
@pytest.mark.elsewhere
@pytest.mark.parametrize("name", SCHEDULES)
def test_lml_without_memory_is_ddim(mixture, name):
    y, x_init = problem(mixture, name)
    for dtype in (torch.float64, torch.float32):
        got, plain = (
            make(mixture, name, solver, 9)(y.to(dtype), x_init=x_init.to(dtype)) for solver in (LML(0.0), DDIM())
        )
        assert torch.equal(got, plain)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("kappa", "lam"), [(0.5, 10.0), (0.9, 0.1), (0.1, 1e-3), (1e-12, 1e-3)])
@pytest.mark.parametrize("name", SCHEDULES)
def test_lml_against_a_dense_inverse(mixture, name, kappa, lam, prediction):
    times = times_of(name, 3)
    schedule, denoiser = SCHEDULES[name], mixture.denoiser(SCHEDULES[name])
    y, x = problem(mixture, name)
    got = make(mixture, name, LML(kappa, lam), 3, prediction)(y, x_init=x)
    single = make(mixture, name, LML(kappa, lam), 3, prediction)(y.float(), x_init=x.float())
    mu, sigma = schedule.mean(times).tolist(), schedule.std(times).tolist()
    before = None
    for k in range(3):
        eps = denoiser.network(x, torch.full((2,), times[k], dtype=torch.float64))
        direction = eps.clone()
        for b in range(2 if before is not None else 0):
            n, e = eps[b, 0], (kappa * before[b, 0] + (1 - kappa) * eps[b, 0])
            damped = torch.linalg.solve(lam * torch.eye(16, dtype=torch.float64) + torch.outer(e, e), n)
            direction[b, 0] = damped / damped.norm() * n.norm()
        x = mu[k + 1] * (x - sigma[k] * eps) / mu[k] + sigma[k + 1] * direction
        before = eps
    assert relative_error(got, x) < 1e-9
    # As lam |eps|^-2 = 1e-5 and kappa is small, the damped direction is a difference of almost equal numbers.
    assert relative_error(single, got) < 1e-3


@pytest.mark.elsewhere
def test_lml_freezes_the_first_steps(mixture):
    y, x_init = problem(mixture, "vp")
    seen = []
    for solver in (LML(0.5, 1.0, freeze=0.5), LML(0.5, 1.0), DDIM()):
        states = []
        make(mixture, "vp", solver, 8)(y, x_init=x_init, callback=lambda k, x0hat, s=states: s.append(x0hat))
        seen.append(states)
    frozen, damped, plain = seen
    assert [torch.equal(a, b) for a, b in zip(frozen, plain, strict=True)] == [True] * 5 + [False] * 3
    assert [torch.equal(a, b) for a, b in zip(damped, plain, strict=True)] == [True] * 2 + [False] * 6
    for options, message in (({"kappa": 1.0}, r"kappa: must lie in \[0, 1\), got 1.0"),
                             ({"lam": 0.0}, "lam: must be a finite number > 0, got 0.0"),
                             ({"freeze": 2.0}, r"freeze: must lie in \[0, 1\], got 2.0")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            LML(**options)


# ------------------------------------------------------------------------------------------------ registers
class Memory(Solver):
    """A solver that reads every register as far back as a plan may look."""

    def steps(self, grid, operator):
        late = [np.arange(len(grid.t)) >= age for age in range(4)]
        rows = grid.ddim().add("r", 0.2).add("h", 0.1).add("F", 0.3 * late[2], age=2, projected=True)
        rows.add("ybar", 0.05, projected=True).add("z", 0.2, projected=True)
        for register in "xFrh":
            for age in (1, 2, 3):
                rows.add(register, 0.1 * late[age] / age, age)
        return rows.steps()


def test_every_register_is_kept_for_three_steps(mixture):
    """The result is that of a loop that keeps copies of all registers."""
    operator = AveragePooling(SHAPE, 4)
    denoiser, times = mixture.denoiser(EDM(), "edm"), times_of("edm", 7)
    y, x = operator.forward(problem(mixture, "edm")[0]), problem(mixture, "edm")[1]
    sampler = Sampler(denoiser, operator, Memory(), times=times)
    assert sampler.plan.depth == dict.fromkeys("xFrh", 3)
    got = sampler(y, x_init=x, seed=4)
    again = sampler(y, x_init=x, seed=4)
    plan, ybar, past = sampler.plan, operator.pinv(y), []
    words = [torch.tensor([4, 4]), torch.tensor([0, 1]), torch.tensor([0, 0])]
    for k, step in enumerate(plan.steps):
        leaf = (step.c_in * x).requires_grad_()
        F = denoiser.network(leaf, torch.full((2,), step.network_time, dtype=torch.float64))
        r = ybar - operator.project(step.p * x + step.q * F.detach())
        (h,) = torch.autograd.grad(F, leaf, r)
        z = torch.empty_like(x)
        reference.normal(z, *words, k + 1)
        now = {"x": x, "F": F.detach(), "r": r, "h": h, "ybar": ybar, "z": z}
        total = torch.zeros_like(x)
        for term in step.row:
            tensor = past[-term.age][term.register] if term.age else now[term.register]
            total += term.a * (tensor if term.modes is None else operator.project(tensor))
        past.append(now)
        x = total
    assert relative_error(got, x) < 1e-12
    assert torch.equal(got, again)  # The first run leaves no trace.


def test_history_is_rotated_not_copied():
    class Network(nn.Module):
        def forward(self, x, t):
            return torch.tanh(x)

    sampler = Sampler(Denoiser(Network(), VP()), OPERATOR, BDIA(), steps=6)
    y = torch.rand(2, *SHAPE)
    addresses = []
    for seed in range(3):
        sampler(y, seed=seed)
        (buffers,) = next(iter(sampler._pool.values()))
        addresses.append(sorted(t.data_ptr() for t in buffers.states))
    assert len(addresses[0]) == 3
    assert addresses[0] == addresses[1] == addresses[2]
    plain = Sampler(Denoiser(Network(), VP()), OPERATOR, Conjugate(), steps=6)
    plain(y, seed=0)
    (buffers,) = next(iter(plain._pool.values()))
    assert (len(buffers.states), len(buffers.cotangents)) == (2, 1)
    assert plain.memory_estimate(2).buffers < sampler.memory_estimate(2).buffers + 1


@pytest.mark.elsewhere
def test_an_output_that_is_the_input_is_remembered_as_it_was():
    def network(x, t):
        return x

    def copied(x, t):
        return x.clone()

    y = torch.rand(2, *SHAPE)
    for solver in (Conjugate(0.0, order=2), LML(0.5, 1.0)):
        one, two = (Sampler(Denoiser(f, VP()), OPERATOR, solver, steps=5)(y, seed=0) for f in (network, copied))
        assert torch.equal(one, two)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_update_with_coefficients_over_the_modes_and_of_each_image(dtype):
    operator = SeparableBlur(SHAPE, [0.2, 0.6, 0.2])
    generator = torch.Generator().manual_seed(0)
    x, F, h = (torch.randn(3, *SHAPE, dtype=torch.float64, generator=generator).to(dtype) for _ in range(3))
    a, b = (torch.randn(3, dtype=torch.float64, generator=generator) for _ in range(2))
    f = torch.rand(operator.singular_values.shape, dtype=torch.float64, generator=generator)
    out = torch.empty(3, *SHAPE, dtype=torch.promote_types(dtype, torch.float32))
    row = {"x": a, "F1": 0.5, "Ph": b, "PF1": 0.3}
    update(reference.bind(operator), row, {"x": x, "F1": F, "h": h}, out, None, 1.0, {"x": f.to(out.dtype)})
    x, F, h = x.double(), F.double(), h.double()
    # Its rows are those of V^T.
    v = operator.lift(torch.eye(16, dtype=torch.float64)[: f.numel(), None, : f.numel()]).squeeze(1)
    expected = a[:, None] * x[:, 0] + 0.5 * F[:, 0] + (b[:, None] * h[:, 0] + 0.3 * F[:, 0]) @ v.T @ v
    expected += (x[:, 0] @ v.T * f.flatten()) @ v
    assert relative_error(out[:, 0], expected) < TOLERANCE[out.dtype]


def test_rules_of_a_plan():
    plan = DDIM().plan(Denoiser(lambda x, t: x, VP()), OPERATOR, np.linspace(0.4, 0.001, 4))
    for term, message in (
        (Term("x", 1), "row: x1 does not exist before step 1, got it in step 0 of DDIM"),
        (Term("h", 3, modes=1.0), "row: h3 does not exist before step 3, got it in step 0"),
        (Term("x", 4), "row: x, F, r, h can be looked back at for 1 to 3 steps, got x4"),
        (Term("z", 1), "row: x, F, r, h can be looked back at .*, got z1"),
        (Term("g"), "row: step 0 of DDIM.* reads g, which no rule writes or keeps"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(plan, steps=[replace(step, row=(term,)) for step in plan.steps])
    with pytest.raises(ValueError, match="times: must be one more than the 2 steps, got 4"):
        replace(plan, steps=plan.steps[1:])
