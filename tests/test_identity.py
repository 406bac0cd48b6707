"""The identity of a module: what changes it, what does not, and how seldom a module is read whole."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from ccfast import Denoiser, Sampler
from ccfast.engine import identity
from ccfast.engine.identity import Identity, identity_of
from ccfast.operators import AveragePooling
from ccfast.schedules import VP


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.act, self.drop = nn.Linear(2, 2), nn.ReLU(), nn.Dropout(0.0)
        self.blocks, self.nothing = nn.ModuleList([nn.Identity(), nn.Sequential()]), None
        self.register_buffer("table", torch.zeros(3))
        self.register_module("absent", None)
        self.scale, self.count, self.loose, self.mode = 1, 0, torch.zeros(2), "zeros"
        self.hook = self.act.register_forward_hook(lambda *_: None)


def hook_again(m):
    m.hook.remove()
    m.hook = m.act.register_forward_hook(lambda *_: None)  # Its function often has the address of the one before.


def another_activation(m):
    m.act = None
    m.act = nn.SiLU()  # It often has the address of the one before.


def pointer(m):
    m.linear.weight.data = m.linear.weight.data.clone()


def assigned(m):
    m.load_state_dict({name: value.clone() for name, value in m.state_dict().items()}, assign=True)


CHANGES = {
    "a hook in place of another": hook_again,
    "a hook removed": lambda m: m.hook.remove(),
    "a hook where there was none": lambda m: m.linear.register_forward_pre_hook(lambda *_: None),
    "a backward hook": lambda m: m.linear.register_full_backward_hook(lambda *_: None),
    "an activation in place of another": another_activation,
    "a module where there was none": lambda m: setattr(m, "absent", nn.ReLU()),
    "a module in a module without any": lambda m: m.linear.add_module("adapter", nn.Linear(2, 2)),
    "a module in an empty list": lambda m: m.blocks[1].append(nn.ReLU()),
    "a module fewer": lambda m: delattr(m, "drop"),
    "an integer scale that becomes a float": lambda m: setattr(m, "scale", 0.5),
    "an attribute that becomes a tensor": lambda m: setattr(m, "mode", torch.zeros(2)),
    "a string": lambda m: setattr(m, "mode", "reflect"),
    "a float of a part": lambda m: setattr(m.drop, "p", 0.5),
    "a new attribute": lambda m: setattr(m, "lora", 0.5),
    "an attribute fewer": lambda m: delattr(m, "mode"),
    "the mode": lambda m: m.train(),
    "the mode of a part": lambda m: m.act.train(),
    "a weight at another address": pointer,
    "other weights": assigned,
    "a buffer": lambda m: setattr(m, "table", torch.zeros(3)),
    "a tensor that is no buffer": lambda m: setattr(m, "loose", torch.zeros(2)),
    "a weight more": lambda m: m.act.register_parameter("slope", nn.Parameter(torch.zeros(1))),
    "a weight fewer": lambda m: setattr(m.linear, "bias", None),
}
KEEPS = {
    "nothing": lambda m: None,
    "a counter": lambda m: setattr(m, "count", 7),
    "weights in place": lambda m: m.linear.weight.data.mul_(2),
    "a buffer in place": lambda m: m.table.add_(1),
    "a state dict": lambda m: m.load_state_dict({name: value + 1 for name, value in m.state_dict().items()}),
    "hooks of others": lambda m: nn.ReLU().register_forward_hook(lambda *_: None),
    "the mode there and back": lambda m: m.train().eval(),
}


@pytest.mark.parametrize("name", [*CHANGES, *KEEPS])
def test_changes_are_seen_and_nothing_else(name):
    module, own = Layer().eval(), Identity()
    before = own.of(module)
    assert before == own.of(module) == identity_of(module)
    (CHANGES | KEEPS)[name](module)
    assert own.of(module) == own.of(module) == identity_of(module)
    assert (own.of(module) != before) == (name in CHANGES)


def test_a_scripted_part():
    module, own = nn.Sequential(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), nn.ReLU()).eval(), Identity()
    before = own.of(module)
    assert before == own.of(module)
    module[0].train()
    assert own.of(module) != before


def test_another_module_has_another_identity():
    own = Identity()
    first, second = Layer(), Layer()
    assert own.of(first) != own.of(second)
    assert own.of(first) == identity_of(first)
    assert own.of(None) == 0


def test_no_weight_is_kept_alive():
    module, own = Layer(), Identity()
    own.of(module)
    kept = [weakref.ref(part) for part in (module, module.act, module.linear.weight, module.table)]
    module.act, module.linear.weight, module.table = nn.SiLU(), nn.Parameter(torch.zeros(2, 2)), None
    gc.collect()
    assert [part() is not None for part in kept] == [True, False, False, False]
    del module
    gc.collect()
    assert kept[0]() is None


def test_a_network_is_read_whole_once(monkeypatch):
    """Later calls ask every weight for its address once, and nothing else of the network one by one."""
    whole, addresses = [], []
    parts, address = identity._parts, torch.Tensor.data_ptr

    class Weight(nn.Parameter):
        def data_ptr(self):
            addresses.append(self)
            return address(self)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(1, 1, 1) for _ in range(4))
            for layer in self.layers:
                layer.weight = Weight(layer.weight.data)

        def forward(self, x, t):
            return 0.5 * self.layers[0](x)

    monkeypatch.setattr(identity, "_parts", lambda module: whole.append(module) or parts(module))
    network = Network().eval()
    sampler = Sampler(Denoiser(network, VP()), AveragePooling((1, 8, 8), 2))
    y = torch.zeros(1, 1, 4, 4)
    sampler(y, seed=0)
    whole.clear(), addresses.clear()
    for _ in range(3):
        sampler(y, seed=0)
    assert not whole
    assert len(addresses) == 3 * 4
    network.layers[3] = nn.Conv2d(1, 1, 1)
    sampler(y, seed=0)
    assert whole[0] is network
