"""The fresh process that measures memory on the CPU."""

from __future__ import annotations

import subprocess
import sys

from apml_plugin.studies.bench import memory
from apml_plugin.studies.bench.memory import ChildCase


def test_a_fresh_process_measures_the_peak_of_one_call() -> None:
    dense = memory.on_cpu(ChildCase("APML dense", "sphere", 1, 1024, "float32", 1))
    assert dense.problem is None
    if sys.platform == "linux":
        assert 3 * 4 * 1024**2 < dense.peak < 30 * 4 * 1024**2  # some matrices of 4 MB each


def test_the_error_of_a_fresh_process_is_reported() -> None:
    assert "no loss is called 'Nonsense'" in memory.on_cpu(ChildCase("Nonsense", "cube", 1, 8, "float32", 1)).problem


def test_a_fresh_process_that_is_killed_or_late_is_reported(monkeypatch) -> None:
    case = ChildCase("APML", "cube", 1, 8, "float32", 1)
    assert memory.on_cpu(case, timeout=1e-3).problem.startswith("left out: its memory run took longer")
    killed = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: killed)
    assert memory.on_cpu(case).problem == "failed: killed by signal 9, most likely out of memory"
