"""The acceptance table: its rows and verdicts. No measured value is checked."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch

from apml_plugin.studies.bench import acceptance, memory
from apml_plugin.studies.bench.memory import Memory
from apml_plugin.studies.bench.timing import clouds

SMALL = acceptance.Sizes(dense=32, usual=48, large=64, huge=80)


@pytest.fixture
def rows(monkeypatch) -> list[acceptance.Row]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(memory, "on_cpu", lambda case: Memory(150_000_000))
    return acceptance.run(SMALL)


def test_every_row_of_the_table_is_there(rows: list[acceptance.Row]) -> None:
    cpu = [row for row in rows if row.what.startswith("CPU")]
    assert [(r.must, r.aim, r.unit, r.at_least) for r in cpu] == [
        (1.5, 1.0, "x", False),
        (1.5, 1.0, "x", False),
        (150, 300, "times faster", True),
        (24, 19, "x", False),
        (400, 200, "MB", False),
        (12, 8, "x", False),
        (math.inf, 10, "s", False),
    ]
    assert all(row.measured is not None for row in cpu if "2 threads" not in row.what)
    assert cpu[4].measured == 150
    gpu = [row for row in rows if row.what.startswith("GPU")]
    assert len(gpu) == 5
    assert all(row.measured is None and row.problem and not row.broken for row in gpu)


def test_the_table_shows_met_and_not_met(rows: list[acceptance.Row]) -> None:
    result = acceptance.text(rows)
    assert "against the dense backend" in result
    assert "backend auto of APML: " in result
    assert "NOT MET" in result  # 32 points are no faster than dense
    memory_line = next(line for line in result.splitlines() if "extra peak memory" in line)
    assert memory_line.endswith("met, aim met")
    assert next(line for line in result.splitlines() if "one pair of 80" in line).split("runs")[1].endswith("met")
    assert "needs a CUDA device" in result


def measure_of(words: str):
    """How the row with these words is measured."""
    return next(measure for row, measure in acceptance.ROWS if words in row.what)


def test_with_a_gpu_its_rows_are_measured(monkeypatch) -> None:
    """The arithmetic of the rows, with CPU clouds in place of CUDA ones."""
    from apml_plugin.standins import chamfer as standin

    peaks = {"APML": Memory(3_000_000), "APML dense": Memory(600_000_000)}
    batches = []

    def small(kind: str, batch: int, points: int, dtype: torch.dtype, device: str, seed: int = 0):
        batches.append((points, batch))
        return clouds(kind, 1, points, torch.float32, "cpu")

    monkeypatch.setattr(acceptance, "clouds", small)
    monkeypatch.setattr(memory, "on_cuda", lambda one, x, y: peaks[one.name])
    monkeypatch.setattr(acceptance, "usable_cores", lambda: 1)
    monkeypatch.setitem(sys.modules, "chamfer", standin)
    memory_row, chamfer_row = measure_of("peak memory against dense"), measure_of("host's chamfer")
    assert memory_row(SMALL) == pytest.approx(0.5)
    assert chamfer_row(SMALL) > 0
    assert {(SMALL.dense, 8), (SMALL.usual, 32)} < set(batches)
    peaks["APML dense"] = Memory(None, "failed: out of memory")
    with pytest.raises(acceptance.PeerProblem, match="APML dense: failed: out of memory"):
        memory_row(SMALL)
    peaks["APML"] = Memory(None, "failed: out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        memory_row(SMALL)
    with pytest.raises(acceptance.PeerProblem, match="needs 2 cores"):
        measure_of("2 threads")(SMALL)


@pytest.mark.parametrize(
    ("measured", "at_least", "met"),
    [(1.5, False, True), (1.6, False, False), (1.5, True, True), (1.4, True, False), (math.inf, False, False)],
)
def test_bounds(measured: float, at_least: bool, met: bool) -> None:
    assert acceptance.Row("x", 1.5, 1.0, "x", at_least, measured).broken is not met


def test_a_failing_row_is_broken_and_one_that_cannot_be_measured_is_not(monkeypatch) -> None:
    def fails(case: acceptance.Case, sizes: acceptance.Sizes) -> float:
        raise RuntimeError("out of range")

    def open_(*given: object) -> float:
        raise acceptance.PeerProblem("not here")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(acceptance, "single", fails)
    for name in ("ratio", "peak", "share"):
        monkeypatch.setattr(acceptance, name, open_)
    rows = acceptance.run(SMALL)
    assert [row.what for row in rows if row.broken] == ["CPU, one pair of 80 points"]
    assert "out of range" in acceptance.text(rows)
    assert "not here" in acceptance.text(rows)
    assert json.loads(json.dumps(acceptance.as_json(rows)))["rows"][6]["must_met"] is False
