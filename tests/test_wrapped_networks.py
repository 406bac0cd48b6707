"""Networks inside what deploys them: exported programs, and the groups of processes of torch.distributed.

Each is compared with its plain twin, with every way in which a solver uses a network. The twin is in
``test_networks.py``.
"""

from __future__ import annotations

import pytest
import torch
from test_networks import EQUAL, SHAPE, USES, Plain, restored
from torch import distributed, nn

from ccfast.testing import relative_error


@pytest.fixture(scope="module")
def group():
    """A group of this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def exported():
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = ({0: batch}, {0: batch})
    return torch.export.export(Plain(), (torch.rand(2, *SHAPE), torch.rand(2)), dynamic_shapes=shapes)


def distributed_module():
    return nn.parallel.DistributedDataParallel(Plain())


def sharded_in_place():
    network = Plain()
    distributed.fsdp.fully_shard(network)
    return network


def sharded():
    return distributed.fsdp.FullyShardedDataParallel(Plain(), device_id=torch.device("cpu"))


@pytest.mark.parametrize("use", USES)
def test_an_exported_program(use, exported):
    assert relative_error(restored(exported.module(), USES[use]), restored(Plain(), USES[use])) < EQUAL


def test_an_exported_program_is_called_through_its_module(exported):
    with pytest.raises(RuntimeError, match=r"use `exported_program.module\(\)`"):
        restored(exported, USES["none"])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("wrapped", [distributed_module, sharded_in_place, sharded])
def test_a_group_of_processes(wrapped, use, group):
    network = wrapped()
    assert relative_error(restored(network, USES[use]), restored(Plain(), USES[use])) < EQUAL
    assert all(parameter.grad is None for parameter in network.parameters())
