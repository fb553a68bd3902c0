"""Shared by all tests: clouds with known answers, devices, and hypothesis' settings."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Two test processes on two cores, and what they start: a thread each. More only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from apml_plugin.hosts import calls, guard

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # tests/gpu needs no more than torch, NumPy, SciPy and pytest
    pass
else:
    # CI machines are small and shared: no example is failed for being slow, and every run draws the same ones.
    settings.register_profile(
        "repo", deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("repo")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if item.get_closest_marker("pointr") and not os.environ.get("APML_POINTR"):
            item.add_marker(pytest.mark.skip(reason="needs a PoinTr clone: APML_POINTR=path"))
        if item.get_closest_marker("twin") and not os.environ.get("APML_EVERY_FORM"):
            item.add_marker(pytest.mark.skip(reason="is like another one: APML_EVERY_FORM=1"))
        if item.get_closest_marker("forks") and not os.environ.get("APML_FORKS"):
            item.add_marker(pytest.mark.skip(reason="needs clones of PoinTr's forks: APML_FORKS=folder"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_guard() -> Iterator[None]:
    """A test that asks for a loss leaves no guard behind for the optimisers of the next one."""
    yield
    for undo in guard.state.undo:
        undo()
    guard.state, calls.state.named = guard.State(), None
