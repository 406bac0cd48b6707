"""Every Triton kernel, compiled for sm_80 and sm_90 without a GPU, and the resources that it takes."""

from __future__ import annotations

import pytest
import torch
from interpreter import INTERPRETING

from ccfast.app import cli
from ccfast.kernels import triton as backend
from ccfast.kernels.resources import REGISTER_FILE, SHARED_LIMIT, Resource, text_table

triton = pytest.importorskip("triton", reason="triton is not installed")
compile = pytest.importorskip("ccfast.kernels.triton.compile")

pytestmark = pytest.mark.skipif(INTERPRETING, reason="kernels are interpreted, not compiled")
VARIANTS = list(compile.variants())


@pytest.fixture(scope="module")
def resources():
    """The resources of all compiled variants, by architecture, kernel and label."""
    return {
        (architecture, r.kernel, r.variant): r
        for architecture in (80, 90)
        for r in compile.resources(VARIANTS, architecture)
    }


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("variant", VARIANTS, ids=[f"{v.call.name} {v.label}" for v in VARIANTS])
def test_resources(variant, architecture, resources):
    r = resources[architecture, variant.call.name, variant.label]
    assert (r.spills, r.stack) == (0, 0)
    # Shared memory serves threads that exchange elements, which no kernel here needs.
    assert r.shared <= SHARED_LIMIT[architecture] * 1024
    assert (r.shared, r.barriers) == (0, 0)
    # 12 warps a multiprocessor hide latency, because each thread has the loads of up to eight rows under way at once.
    assert r.blocks * r.threads >= 384
    assert r.blocks * r.threads * r.registers <= REGISTER_FILE
    if variant.aligned:
        check_widths(variant.call, r)


def check_widths(call, r: Resource):
    """A thread takes four elements at a time: 128 bits of float32, 64 of half precision, and 32 of a mask's bytes.

    Coefficients and directions are loaded with 32 bits, in one instruction for all threads, and noise keys with 64.
    """
    out, following, *others = call.arguments
    if call.name == "normal":
        assert r.loads == {64: 1, 32: 2}  # They are a seed, and the low words of sample and draw.
        assert r.stores == {128: 1}
        return
    terms = next(value for value in others if isinstance(value, tuple))
    constants = dict(zip((p.name for p in call.kernel.params), call.arguments, strict=True))
    used = [t for k, t in enumerate(terms) if (constants["DIRECT"] | constants["PROJECTED"]) >> k & 1]
    field = constants.get("p_field")
    wide = sum(t.dtype == torch.float32 for t in used)
    halves = len(used) - wide
    assert r.loads.get(128, 0) >= wide + (field is not None)
    assert r.loads.get(64, 0) >= halves
    assert (64 in r.loads) == (halves > 0)
    assert set(r.loads) <= {128, 64, 32}
    coefficients = 2 * len(terms) + 1
    extra = 2 * constants["CHANNELS"] if call.name == "channel" else call.name == "mask"
    # The number of an image is read by one load for every row of a tile and for every channel.
    images = sum(constants["SCALED"] >> 2 * k & 3 == 1 for k in range(len(terms)))
    rows = constants.get("ROWS", constants["CHANNELS"] if call.name == "channel" else 1)
    assert r.loads.get(32, 0) <= coefficients + extra + 4 * images * rows
    outputs = [t for t in (out, following) if t is not None]
    assert set(r.stores) == {128 if t.dtype == torch.float32 else 64 for t in outputs}


def test_a_spill_and_a_narrow_load_are_seen():
    """The gate sees spills where eight terms get too few registers, and narrow loads where rows start anywhere."""
    labels = {f"{v.call.name} {v.label}": v for v in VARIANTS}
    (odd,) = compile.resources([labels["mask update shared bf16 odd"]], 80)
    assert {32, 16, 8} <= set(odd.loads)
    assert 128 not in odd.loads
    (starved,) = compile.resources([labels["block eight terms 8x8 bf16"]], 80, maxnreg=48)
    assert starved.registers <= 48
    assert starved.spills > 0


def test_code_disassembled_with_that_of_others_is_the_same():
    """A kernel disassembled alone has the same instructions as in the one call that disassembles all kernels."""
    cubins = [compile.compiled(variant.call, 90).asm["cubin"] for variant in VARIANTS[:3]]
    together = compile._disassembled(cubins, 90)
    assert len(set(together)) == 3
    assert [compile._disassembled([cubin], 90)[0].count("\n") for cubin in cubins] == [t.count("\n") for t in together]
    assert all("EXIT" in listing for listing in together)


class Driver:
    """A stand-in for Triton's driver with a device number that no machine has, so that launches find nothing for it."""

    def __init__(self, architecture):
        self.target = triton.backends.compiler.GPUTarget("cuda", architecture, 32)

    def get_current_device(self):
        return 900 + self.target.arch

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return self.target


@pytest.mark.parametrize("architecture", [80, 90])
def test_the_launcher_compiles_the_same(architecture, monkeypatch):
    """Triton's launcher, stopped before the launch, compiles the same bytes for real tensors as the gate has judged."""
    monkeypatch.setattr(triton.runtime.driver, "_active", Driver(architecture))
    for call in {variant.call.name: variant.call for variant in VARIANTS}.values():
        arguments = [allocated(value) for value in call.arguments]
        options = {"num_warps": call.warps, "enable_fp_fusion": call.fusion}
        launched = call.kernel.run(*arguments, grid=(call.programs,), warmup=True, **options)
        assert launched.asm["cubin"] == compile.compiled(call, architecture).asm["cubin"]


def allocated(value):
    if isinstance(value, tuple):
        return tuple(map(allocated, value))
    return torch.empty(64, dtype=value.dtype) if isinstance(value, torch.Tensor) else value


def test_config_prints_the_table(monkeypatch, capsys):
    monkeypatch.setattr(compile, "variants", lambda: iter(VARIANTS[:2]))
    monkeypatch.setattr("ccfast.kernels.cuda.resources", lambda architecture: [])
    assert cli.main(["config", "--kernels"]) == 0
    printed = capsys.readouterr().out
    rows = [resource for architecture in (80, 90) for resource in backend.resources(architecture)]
    assert len(rows) == 4
    assert text_table(rows) in printed
    assert "triton lincomb update no P fp32" in printed
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert cli.main(["config", "--kernels"]) == 0
    assert "triton: TRITON_INTERPRET: must not be 1" in capsys.readouterr().out
