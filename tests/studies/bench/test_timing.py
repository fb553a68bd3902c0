"""Medians, turns, and the clouds that are timed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from apml_plugin.studies.bench.timing import CLOUDS, Times, clouds, interleaved, timed


def fake(name: str, log: list[str], forwards: list[float], backward: float = 0.5):
    """A run that records its turn and takes the given seconds; the first is the warm-up."""
    left = list(forwards)

    def run() -> Times:
        log.append(name)
        return Times(left.pop(0), backward)

    return run


def test_runs_take_turns_and_the_warm_up_does_not_count() -> None:
    log: list[str] = []
    runs = {"fast": fake("f", log, [99, 1, 5, 2, 4, 3]), "slow": fake("s", log, [99, 10, 50, 20, 40, 30], 7)}
    outcomes = interleaved(runs, 5)
    assert "".join(log) == "fs" * 6
    assert [outcomes["fast"].median(w) for w in ("forward", "backward", "both")] == [3, 0.5, 3.5]
    assert [outcomes["slow"].median(w) for w in ("forward", "backward", "both")] == [30, 7, 37]


def test_a_run_that_raises_is_excluded_and_the_others_continue() -> None:
    log: list[str] = []

    def broken() -> Times:
        if len(log) > 2:
            raise ValueError("no more\nand why")
        return Times(1, 1)

    outcomes = interleaved({"good": fake("g", log, [1.0] * 6), "broken": broken}, 5)
    assert outcomes["broken"].problem == "failed: ValueError: no more"
    assert outcomes["broken"].times == []
    assert len(outcomes["good"].times) == 5


def test_a_case_is_left_out_if_its_warm_up_takes_too_long() -> None:
    log: list[str] = []
    outcomes = interleaved({"slow": fake("s", log, [3.0] * 6), "fast": fake("f", log, [0.1] * 6)}, 5, max_seconds=10)
    assert log.count("s") == 1
    assert outcomes["slow"].problem == "left out: would take about 21 s, more than --max-seconds 10"
    assert outcomes["fast"].problem is None


def test_out_of_memory_is_reported() -> None:
    def greedy() -> Times:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")

    assert interleaved({"greedy": greedy}, 5)["greedy"].problem == "failed: out of memory"


def test_timed_calls_forward_once_and_backward_into_pred_alone() -> None:
    seen = []

    def call(x: Tensor, y: Tensor) -> Tensor:
        seen.append((x.requires_grad, y.requires_grad))
        x.register_hook(lambda grad: seen.append(tuple(grad.shape)))
        return (x - y).square().sum(dim=(1, 2))  # (B,): as a loss with reduction none

    pred, gt = clouds("cube", 2, 4, torch.float32, "cpu")
    times = timed(call, pred, gt)
    assert seen == [(True, False), (2, 4, 3)]
    assert times.forward > 0
    assert times.backward > 0
    assert not pred.requires_grad


def test_timed_without_gradient_has_no_backward() -> None:
    pred, gt = clouds("cube", 1, 4, torch.float32, "cpu")
    assert timed(lambda x, y: None, pred, gt, gradient=False).backward == 0


@pytest.mark.parametrize("kind", CLOUDS)
def test_clouds_are_the_same_in_every_dtype_and_every_time(kind: str) -> None:
    wide = clouds(kind, 2, 50, torch.float64, "cpu")
    for a, b in zip(wide, clouds(kind, 2, 50, torch.float32, "cpu"), strict=True):
        assert a.shape == (2, 50, 3)
        assert torch.equal(a.float(), b)
    assert not torch.equal(*wide)


def test_clouds_are_what_they_are_called() -> None:
    pred, gt = clouds("sphere", 1, 2000, torch.float64, "cpu")
    assert torch.allclose(gt.norm(dim=-1), torch.ones(1, 2000, dtype=torch.float64))
    assert (pred - gt).std() == pytest.approx(0.02, rel=0.05)
    blob, gt = clouds("blob", 1, 2000, torch.float64, "cpu")
    assert blob.std() == pytest.approx(0.05, rel=0.05)
    assert gt.norm(dim=-1).min() > 0.99
    cube, _ = clouds("cube", 1, 2000, torch.float64, "cpu")
    assert cube.min() >= 0
    assert cube.max() <= 1
