"""The options of the benchmarks, and the refusal to run them on a busy machine."""

from __future__ import annotations

import pytest
import torch

from ccfast.app.benchmark import cpu_load


def pytest_addoption(parser):
    parser.addoption("--busy", action="store_true", help="measure although other processes use the CPU")
    parser.addoption("--threads", type=int, default=1, help="CPU threads (default: 1)")


def pytest_sessionstart(session):
    torch.set_num_threads(session.config.getoption("--threads"))
    if session.config.getoption("--busy") or session.config.option.collectonly:
        return
    try:
        cpu_load.refuse_when_busy()
    except cpu_load.BusyError as error:
        pytest.exit(str(error), returncode=1)
