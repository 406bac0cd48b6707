"""Every wrong input gets an exception that says name, rule and value."""

from __future__ import annotations

import pytest
import torch

from ccfast import Denoiser, Sampler
from ccfast.operators import AveragePooling, Inpainting
from ccfast.schedules import VP
from ccfast.solvers import Conjugate

SHAPE = (3, 8, 8)
OPERATOR = AveragePooling(SHAPE, 2)


def identity(x, t):
    return 0.9 * x


def sampler(network=identity, **options):
    return Sampler(Denoiser(network, VP(), name="net"), OPERATOR, **options)


def y(batch=2, **options):
    return torch.zeros(batch, 3, 4, 4, **options)


class WithParameters(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, x, t):
        return self.scale * x


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"denoiser": identity}, TypeError, "denoiser: must be a ccfast Denoiser, got function"),
        ({"operator": "blur"}, TypeError, "operator: must be a ccfast Operator, got str"),
        ({"solver": Conjugate}, TypeError, "solver: must be one of ccfast.solvers"),
        ({"steps": 0}, ValueError, "steps: must be an integer >= 1, got 0"),
        ({"steps": 2.5}, ValueError, "steps: must be an integer >= 1, got 2.5"),
        ({"start": 1.5}, ValueError, r"times: VP takes times in \[0, 1\], got 1.5"),
        ({"start": 0.1, "end": 0.4}, ValueError, "times: the noise must fall strictly"),
        ({"times": [0.4, 0.3, 0.35]}, ValueError, "times: the noise must fall strictly"),
        ({"times": [0.4]}, ValueError, "times: must be a sequence of at least two"),
        ({"noise_std": -0.1}, ValueError, "noise_std: must be a finite number >= 0, got -0.1"),
        ({"backend": "cuda-fast"}, ValueError, "backend: must be 'auto' or one of .*, got 'cuda-fast'"),
        ({"graph": True}, ValueError, "graph: True needs a CUDA device, got device 'cpu'"),
        ({"graph": "yes"}, ValueError, "graph: must be 'auto', True or False, got 'yes'"),
        ({"autocast": torch.float64}, ValueError, "autocast: must be None, torch.bfloat16 or torch.float16"),
    ],
)
def test_making_a_sampler(options, error, message):
    arguments = {"denoiser": Denoiser(identity, VP()), "operator": OPERATOR} | options
    with pytest.raises(error, match=message):
        Sampler(**arguments)


def test_device_must_be_the_networks():
    with pytest.raises(ValueError, match="device: the network's parameters are on cpu, got device='meta'"):
        sampler(WithParameters(), device="meta")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s([1.0]), TypeError, "y: must be a torch.Tensor, got list"),
        (lambda s: s(y()[0]), ValueError, r"y: AveragePooling takes shape \(B, 3, 4, 4\), got \(3, 4, 4\)"),
        (lambda s: s(torch.zeros(2, 3, 8, 8)), ValueError, r"y: AveragePooling takes shape \(B, 3, 4, 4\)"),
        (lambda s: s(y(dtype=torch.float16)), TypeError, "y: must have dtype torch.float32 or torch.float64"),
        (lambda s: s(y(dtype=torch.int64)), TypeError, "y: must have dtype .*, got torch.int64"),
        (lambda s: s(y(device="meta")), ValueError, "y: must be on the sampler's device cpu, got meta"),
        (lambda s: s(y().fill_(torch.nan)), ValueError, "y: must be finite, got 96 NaN or infinite values of 96"),
        (lambda s: s(y().index_fill(0, torch.tensor([1]), torch.inf)), ValueError, "y: must be finite, got 48"),
        (lambda s: s(y().requires_grad_()), ValueError, r"y: requires grad, .* pass y.detach\(\)"),
        (lambda s: s(y(), seed=[1]), ValueError, "seed: must be an int or one for each of the 2 images, got 1"),
        (lambda s: s(y(), seed=[1, 2, 3]), ValueError, "seed: .* got 3"),
        (lambda s: s(y(), seed=-1), ValueError, r"seed: must be in \[0, 2\^64\), got -1"),
        (lambda s: s(y(), x_init=torch.zeros(2, 3, 4, 4)), ValueError, r"x_init: must have shape \(2, 3, 8, 8\)"),
        (lambda s: s(y(), x_init=torch.zeros(2, *SHAPE).double()), TypeError, "x_init: must have dtype torch.float32"),
        (lambda s: s(y(), x_init=torch.full((2, *SHAPE), torch.nan)), ValueError, "x_init: must be finite"),
        (lambda s: s.sample(y(), 0), ValueError, "n, together: must be at least 1, got 0 and 1"),
        (lambda s: s.warmup(0), ValueError, "batch: must be at least 1, got 0"),
        (lambda s: s.memory_estimate(0), ValueError, "batch: must be at least 1, got 0"),
    ],
)
def test_calling_a_sampler(call, error, message):
    with pytest.raises(error, match=message):
        call(sampler())


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (lambda x, t: x[:, :2], ValueError, r"network net: must return shape \(2, 3, 8, 8\) .*, got \(2, 2, 8, 8\)"),
        (lambda x, t: x[..., :4], ValueError, "network net: must return shape"),
        (lambda x, t: {"sample": x}, TypeError, "network net: must return a tensor, got dict"),
        (lambda x, t: x.detach() * 0.9, ValueError, "network net: its output must be differentiable .* detached"),
        (lambda x, t: torch.zeros_like(x).requires_grad_(), ValueError, "network net: its output must be diff"),
        (
            lambda x, t: x / 0,
            FloatingPointError,
            "result: Conjugate.* with network net gave values that are not finite",
        ),
        (lambda x, t: x * torch.nan, FloatingPointError, "not finite"),
    ],
)
def test_networks_that_do_not_work(network, error, message):
    with pytest.raises(error, match=message):
        sampler(network)(y(), seed=0)


def test_a_network_that_is_detached_inside_no_grad():
    @torch.no_grad()
    def network(x, t):
        return 0.9 * x

    with pytest.raises(ValueError, match="detached"):
        sampler(network)(y(), seed=0)
    assert torch.isfinite(sampler(network, solver=Conjugate(jacobian="none"))(y(), seed=0)).all()


def test_inference_mode_where_a_vjp_is_needed():
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"torch.inference_mode: .* differentiates"):
        sampler()(y(), seed=0)


def test_masks_for_every_image_fix_the_batch():
    s = Sampler(Denoiser(identity, VP()), Inpainting(torch.ones(2, 1, 8, 8), SHAPE))
    with pytest.raises(ValueError, match=r"y: .*2 images"):
        s(torch.zeros(3, *SHAPE))
    with pytest.raises(ValueError, match="batch: the operator holds parts for 2 images, got 1"):
        s.warmup()


def test_a_mask_without_channels_cannot_size_a_batch():
    s = Sampler(Denoiser(identity, VP()), Inpainting(torch.ones(1, 8, 8)))
    assert s(torch.zeros(2, 3, 8, 8), seed=0).shape == (2, 3, 8, 8)
    for method in (s.warmup, s.memory_estimate):
        with pytest.raises(ValueError, match=r"shape: .* give Inpainting\(mask, shape=\(C, H, W\)\)"):
            method(1)


def test_nothing_is_checked_on_request():
    bad = y()
    bad[0, 0, 0, 0] = torch.nan
    assert torch.isnan(sampler(check_finite=False)(bad, seed=0)).any()
