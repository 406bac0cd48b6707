"""Every solver gives on every operator and schedule the result that is recorded in ``recorded.npz``."""

from __future__ import annotations

import numpy as np
import pytest
import recorded
import torch

from ccfast.kernels import reference

pytestmark = pytest.mark.filterwarnings("ignore:jacobian. 'exact' is stable")

TABLE = np.load(recorded.TABLE)
VALUES = dict(zip(TABLE["keys"].tolist(), TABLE["values"], strict=True))
BOUND = 1e-12
"""The bound relative to a case's values, for sums in another order and exponentials of another processor."""


@pytest.mark.parametrize("name", [*recorded.SOLVERS])
def test_results_are_those_recorded(name, monkeypatch):
    monkeypatch.setattr(reference, "normal", recorded.noise)
    left = {place for place in np.ndindex(VALUES[name].shape[:3]) if sum(place) % 2 == 0}
    left = {place for place in left if not np.isnan(VALUES[name][place][0])}
    for operator, path, std, probes in recorded.cases(recorded.SOLVERS[name], every=False):
        place = (
            list(recorded.OPERATORS).index(operator),
            list(recorded.SCHEDULES).index(path),
            recorded.NOISES.index(std),
        )
        expected = torch.from_numpy(VALUES[name][place])
        error = float((probes - expected).norm() / expected.norm())
        assert error < BOUND, (operator, path, std, error)
        left.discard(place)
    assert not left, "these combinations were taken and are now refused"


def test_everything_that_is_recorded_is_run():
    assert VALUES.keys() == recorded.SOLVERS.keys()
