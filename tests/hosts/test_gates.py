"""Which cloud is the prediction, how clouds are laid out, what a call's further arguments mean, and how a run stops."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from apml_plugin.functional import apml_loss
from apml_plugin.hooks import training_loss, training_value, trains_with_loss
from apml_plugin.hosts import calls


@pytest.fixture(autouse=True)
def _apml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APML_LOSS", "{NAME: APML, reduction: mean}")
    monkeypatch.setattr(calls, "state", calls.State())


def chamfer(a: Tensor, b: Tensor) -> Tensor:
    d = torch.cdist(a, b)
    return d.min(2)[0].mean() + d.min(1)[0].mean()


def mean(pred: Tensor, gt: Tensor, **lengths: Tensor) -> Tensor:
    return apml_loss(pred, gt, reduction="mean", **lengths)


def test_three_points_with_six_features_are_three_points() -> None:
    pred, gt = torch.rand(2, 3, 6, requires_grad=True), torch.rand(2, 3, 6)
    torch.testing.assert_close(training_value(0.0, pred, gt), mean(pred, gt))
    torch.testing.assert_close(training_loss(chamfer)(pred, gt), mean(pred, gt))


def test_the_computed_cloud_is_the_prediction_when_both_require_a_gradient() -> None:
    x, gt = torch.rand(2, 16, 3, requires_grad=True), torch.rand(2, 24, 3).requires_grad_()
    pred = x * 2
    expected = mean(pred, gt)
    assert not torch.allclose(expected, mean(gt, pred))
    for own in (training_loss(chamfer), trains_with_loss(chamfer), lambda a, b: training_value(0.0, a, b)):
        torch.testing.assert_close(own(gt, pred), expected)
        torch.testing.assert_close(own(pred, gt), expected)
    turned = training_value(0.0, gt.transpose(1, 2), pred.transpose(1, 2))
    torch.testing.assert_close(turned, mean(gt, pred))  # both were computed now, so the first is the prediction


class Padded(nn.Module):
    """A Chamfer distance of padded clouds, with the lengths as third and fourth argument."""

    def forward(self, pred: Tensor, gt: Tensor, pred_length: Tensor, gt_length: Tensor) -> Tensor:
        values = [
            chamfer(p[None, :n], g[None, :m]) for p, g, n, m in zip(pred, gt, pred_length, gt_length, strict=True)
        ]
        return torch.stack(values).mean()


@pytest.mark.parametrize("swapped", [False, True])
def test_lengths_given_by_position_are_those_of_the_loss(swapped: bool) -> None:
    pred, gt = torch.rand(2, 16, 3, requires_grad=True), torch.rand(2, 24, 3)
    lengths = {"pred_lengths": torch.tensor([5, 16]), "gt_lengths": torch.tensor([24, 7])}
    own, (n, m) = training_loss(Padded()), lengths.values()
    value = own(gt, pred, m, n) if swapped else own(pred, gt, n, m)
    torch.testing.assert_close(value, mean(pred, gt, **lengths))


STOPPING = """
import threading

import torch
from apml_plugin.hosts import guard

guard.arm("a test asks for APML")
weight = torch.nn.Parameter(torch.ones(1))
optimizer = torch.optim.SGD([weight], lr=0.1)
step = threading.Thread(target=optimizer.step)
step.start()
step.join()
print("went on")
"""


def test_a_step_in_a_thread_stops_the_process_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(STOPPING)
    home = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, env={"PYTHONPATH": home}, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert "went on" not in done.stdout
    assert "[apml] stopped: a test asks for APML" in done.stderr
    assert "Traceback" not in done.stderr
