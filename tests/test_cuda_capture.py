"""Captures by CUDA graphs on a stand-in for torch.cuda: what a failure leaves behind, and which devices wait."""

from __future__ import annotations

import gc
import threading

import pytest
import torch
from fake_cuda import FakeCuda

from ccfast.engine.graphs.capture import CudaCapture
from ccfast.engine.graphs.waits import find_wait

META = torch.device("meta")


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.setattr(CudaCapture, "_failed", [])
    return FakeCuda(monkeypatch)


def check_whole(cuda):
    """Torch is as it was: it allocates, frees, draws and captures."""
    gc.collect()
    assert not cuda.captures
    assert not +cuda.pools
    cuda.empty_cache()
    cuda.draw()


def capture_in_lane(capture, work):
    with capture.lane():
        return capture.record(work)


def test_the_damage_is_what_torch_does(cuda):
    """Without the cure, a capture that fails ends allocations and random numbers: the stand-in knows that."""
    capturing = torch.cuda.graph(torch.cuda.CUDAGraph(), stream=torch.cuda.Stream(0))
    with pytest.raises(RuntimeError, match="previous error"), capturing:
        cuda.invalid = True
    with pytest.raises(RuntimeError, match="captures_underway"):
        torch.cuda.empty_cache()
    with pytest.raises(RuntimeError, match="Offset increment"):
        cuda.draw()


def leave_invalid(cuda):
    cuda.invalid = True  # The network has caught the error of the operation.


def interrupt(cuda):
    raise KeyboardInterrupt


def misbehave(cuda):
    raise ZeroDivisionError("of the network's own")


FAILURES = {
    "a wait": (FakeCuda.wait, RuntimeError, "previous error", 1),
    "a wait whose error the network caught": (leave_invalid, RuntimeError, "previous error", 1),
    "an error in Python": (misbehave, ZeroDivisionError, "of the network's own", 0),
    "an interruption": (interrupt, KeyboardInterrupt, None, 0),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_capture_leaves_torch_as_it_was(name, cuda):
    work, kind, message, kept = FAILURES[name]
    capture = CudaCapture(torch.device("cuda", 0))
    for count in (1, 2):
        with pytest.raises(kind, match=message) as raised:
            capture_in_lane(capture, lambda: work(cuda))
        del raised
        check_whole(cuda)
        # The allocator of pinned memory may call the graph of a capture that never ended.
        assert len(CudaCapture._failed) == cuda.graphs == kept * count
    recording = capture_in_lane(capture, cuda.draw)
    recording.replay()
    assert recording.bytes == 7
    del recording
    check_whole(cuda)


def test_a_capture_that_does_not_begin(cuda):
    cuda.fails_to_begin = True
    with pytest.raises(RuntimeError, match="out of memory"):
        capture_in_lane(CudaCapture(torch.device("cuda", 0)), lambda: None)
    cuda.fails_to_begin = False
    check_whole(cuda)


def test_a_capture_on_one_device_delays_no_replay_on_another(cuda):
    first, second = (CudaCapture(torch.device("cuda", index)) for index in (0, 1))
    begun, replayed, order = threading.Event(), threading.Event(), []

    def capturing():
        begun.set()
        assert replayed.wait(10)
        order.append("captured")

    def other():
        assert begun.wait(10)
        with second.lane():
            order.append("replayed")
        replayed.set()
        capture_in_lane(second, lambda: order.append("captured after"))  # The fake refuses two captures at once.

    thread = threading.Thread(target=other)
    thread.start()
    capture_in_lane(first, capturing)
    thread.join(10)
    assert order == ["replayed", "captured", "captured after"]


def test_a_device_without_an_index_is_the_present_one(cuda):
    assert CudaCapture(torch.device("cuda")).device == torch.device("cuda", 1)


def matrix(device):
    return torch.ones(3, 3, device=device)


WAITING = {
    "item": lambda: matrix(META).sum().item(),
    "bool": lambda: bool(matrix(META).sum() > 0),
    "nonzero": lambda: matrix(META).nonzero(),
    "a mask as index": lambda: matrix(META)[matrix(META) > 0],
    "a mask written through": lambda: matrix(META).index_put_((matrix(META) > 0,), matrix(META).sum()),
    "masked_select": lambda: matrix(META).masked_select(matrix(META) > 0),
    "unique": lambda: matrix(META).unique(),
    "to the device": lambda: torch.ones(3).to(META),
    "to the device without waiting, but not pinned": lambda: torch.ones(3).to(META, non_blocking=True),
    "into a tensor of the device": lambda: matrix(META).copy_(torch.ones(3)),
    "a list": lambda: torch.tensor([1.0, 2.0]).to(META) * matrix(META)[0, :2],
}
FREE = {
    "a number of the host": lambda: matrix(META) * torch.ones(3).sum().item(),
    "arithmetic": lambda: (matrix(META) @ matrix(META)).relu().to(torch.bfloat16),
    "an index": lambda: matrix(META)[torch.zeros(2, dtype=torch.int64, device=META)],
    "a copy on the device": lambda: matrix(META).copy_(matrix(META)),
    "an error of the network's own": lambda: [][0],
}


@pytest.mark.parametrize("name", WAITING)
def test_waits_are_found(name):
    assert "waits for" in (find_wait(WAITING[name], META) or "")


@pytest.mark.parametrize("name", FREE)
def test_what_does_not_wait_is_left_alone(name):
    assert find_wait(FREE[name], META) is None
