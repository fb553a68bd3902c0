"""Contestants at several sizes: what is measured, what is left out, and what the report shows."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from torch import Tensor

from apml_plugin.studies.bench import memory
from apml_plugin.studies.bench import run as runner
from apml_plugin.studies.bench.contestants import Contestant, our
from apml_plugin.studies.bench.memory import Memory
from apml_plugin.studies.bench.report import seconds, text
from apml_plugin.studies.bench.run import Options, Report, line_up
from apml_plugin.studies.bench.timing import Times
from apml_plugin.studies.machine import machine


def test_a_backend_given_by_name_counts_as_ours() -> None:
    options = Options(sizes=(8,), memory=False)
    report = runner.run(line_up(["APML"], ["dense"], options), options)
    assert [c.name for c in report.cases if c.ours] == ["APML", "APML dense"]
    assert [c.name for c in report.cases].count("APML dense") == 1


def test_cases_predicted_to_take_too_long_are_left_out(monkeypatch) -> None:
    took = []

    def fake_timed(call, pred: Tensor, gt: Tensor, gradient: bool = True) -> Times:
        took.append(pred.shape[1])
        return Times((pred.shape[1] / 1024) ** 2, 0.0)  # a second at 1024, quadratic

    monkeypatch.setattr(runner, "timed", fake_timed)
    slow = Contestant("slow", lambda: lambda x, y: None, True, growth=2.0)
    options = Options(sizes=(16, 1024, 2048, 4096), max_seconds=30, memory=False)
    report = runner.run([slow], options, others=())
    assert [c.problem for c in report.cases] == [
        None,
        None,
        None,
        "left out: would take about 96 s, more than --max-seconds 30",
    ]
    assert max(took) == 2048
    took.clear()
    runner.run([slow], Options(sizes=(8192,), max_seconds=30, memory=False), others=())
    assert took == [64, 1024]  # never run at its size: a small one told enough
    assert "slow at 4096 points: left out" in text(report)


def test_a_loss_that_fails_at_a_size_is_reported_and_the_rest_is_measured() -> None:
    def picky(x: Tensor, y: Tensor) -> Tensor:
        if x.shape[1] > 10:
            raise ValueError("ten at most")
        return (x - y).sum()

    options = Options(sizes=(8, 16), memory=False)
    report = runner.run([Contestant("picky", lambda: picky, True)], options, others=("cdist Chamfer",))
    assert [(c.name, c.points, c.problem) for c in report.cases] == [
        ("picky", 8, None),
        ("cdist Chamfer", 8, None),
        ("picky", 16, "failed: ValueError: ten at most"),
        ("cdist Chamfer", 16, None),
    ]
    assert len(report.ratios()) == 1


def test_a_case_whose_memory_run_dies_is_not_timed(monkeypatch) -> None:
    monkeypatch.setattr(memory, "on_cpu", lambda case, timeout: Memory(None, "failed: killed by signal 9"))
    monkeypatch.setattr(runner, "interleaved", lambda runs, *rest: pytest.fail("timed") if runs else {})
    report = runner.run([our("APML")], Options(sizes=(8,)), others=())
    assert report.cases[0].problem == "failed: killed by signal 9"


def test_a_report_without_times(tmp_path: Path) -> None:
    from apml_plugin.errors import LossValueError
    from apml_plugin.studies.bench.report import draw

    empty = Report(machine(), asdict(Options()), (), {}, {}, {})
    assert "Nothing was timed." in text(empty)
    with pytest.raises(LossValueError, match="nothing to draw"):
        draw(empty, tmp_path / "b.png")


def test_seconds_are_readable() -> None:
    assert [seconds(s) for s in (12.345, 0.0351, 2.5e-5, None)] == ["12.3 s", "35.1 ms", "25.0 µs", "-"]


def test_measuring_needs_only_torch_numpy_and_scipy() -> None:
    script = """
import sys
for name in ("mmengine", "typer", "rich", "yaml", "easydict", "matplotlib"):
    sys.modules[name] = None
from apml_plugin.studies.bench import acceptance, memory, run
options = run.Options(sizes=(8,), memory=False)
report = run.run(run.line_up((), (), options), options)
assert all(case.problem is None for case in report.cases), report.cases
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
