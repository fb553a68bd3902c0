"""What the guard counts as training with the loss that was asked for; whole runs are in tests/launch/test_guard.py."""

from __future__ import annotations

import pytest
import torch

from apml_plugin import build_loss
from apml_plugin.errors import LossValueError
from apml_plugin.hosts import guard


def differentiate(name: object) -> None:
    pred, gt = torch.rand(1, 8, 3, requires_grad=True), torch.rand(1, 8, 3)
    build_loss(name)(pred, gt).backward()


@pytest.mark.parametrize("asked", ["APML", "{NAME: APML, reduction: mean}", "[{NAME: ChamferL1}, {NAME: APML}]"])
def test_another_loss_of_this_package_is_another_loss(asked: str) -> None:
    guard.arm(f"APML_LOSS asks for {asked!r}")
    differentiate("ChamferL2")
    differentiate("APMLSparse")
    assert not guard.state.trained
    differentiate("APML")
    assert guard.state.trained


@pytest.mark.parametrize("backward", [torch.Tensor.backward, lambda loss: torch.autograd.backward(loss)])
def test_every_way_backward_is_counted_once(backward: object) -> None:
    guard.arm("a loss was asked for")
    backward(torch.ones((), requires_grad=True) * 2)  # type: ignore[operator]
    assert guard.state.backwards == 1


def test_a_number_of_steps_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(guard.FROM_STEP, "abc")
    with pytest.raises(LossValueError, match=r"='abc' must be a number of steps"):
        guard.arm("a loss was asked for")
