"""Every Triton kernel compiled for sm_80 and sm_90, without a GPU, and what the compiler made of it."""

from __future__ import annotations

import pytest
import torch

from ccfast import cli
from ccfast.kernels import triton as backend
from ccfast.kernels.resources import REGISTER_FILE, SHARED_LIMIT, Resource, text_table

pytest.importorskip("triton", reason="triton is not installed")
from ccfast.kernels.triton import compile

VARIANTS = list(compile.variants())


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("variant", VARIANTS, ids=[f"{v.call.name} {v.label}" for v in VARIANTS])
def test_resources(variant, architecture):
    r = compile.resource(variant, architecture)
    assert (r.spills, r.stack) == (0, 0)
    # shared memory only where threads exchange elements, and no kernel here has to
    assert r.shared <= SHARED_LIMIT[architecture] * 1024
    assert (r.shared, r.barriers) == (0, 0)
    # what a thread has under way are its loads, which are up to 64 of 16 bytes with eight rows of a tile: 12 warps
    assert r.blocks * r.threads >= 384
    assert r.blocks * r.threads * r.registers <= REGISTER_FILE
    if variant.aligned:
        check_widths(variant.call, r)


def check_widths(call, r: Resource):
    """A thread takes four elements at a time: 128 bits of float32, 64 of a half; of a mask 32, one byte an element.

    What else is loaded with 32 bits are coefficients and directions, one instruction for all threads, and the 64 bits
    of a noise key.
    """
    out, following, *others = call.arguments
    if call.name == "normal":
        assert r.loads == {64: 1, 32: 2}  # seed; the low words of sample and draw
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
    assert r.loads.get(32, 0) <= coefficients + extra
    outputs = [t for t in (out, following) if t is not None]
    assert set(r.stores) == {128 if t.dtype == torch.float32 else 64 for t in outputs}


def test_a_spill_and_a_narrow_load_are_seen():
    """The gate itself: eight terms in registers on too few of them, and rows that start anywhere."""
    labels = {f"{v.call.name} {v.label}": v for v in VARIANTS}
    odd = compile.resource(labels["mask update shared bf16 odd"], 80)
    assert {32, 16, 8} <= set(odd.loads)
    assert 128 not in odd.loads
    starved = compile.resource(labels["block eight terms 8x8 bf16"], 80, maxnreg=48)
    assert starved.registers <= 48
    assert starved.spills > 0


def test_config_prints_the_table(monkeypatch, capsys):
    monkeypatch.setattr(compile, "variants", lambda: iter(VARIANTS[:2]))
    assert cli.main(["config", "--kernels"]) == 0
    printed = capsys.readouterr().out
    rows = [resource for architecture in (80, 90) for resource in backend.resources(architecture)]
    assert len(rows) == 4
    assert text_table(rows) in printed
    assert "triton lincomb update no P fp32" in printed
