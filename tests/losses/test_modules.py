"""The loss modules where training code puts them: compiled, copied, pickled, scaled."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from apml_plugin.losses import APML, DCD, EMD, ChamferL2, Sinkhorn


@pytest.mark.parametrize("loss", [APML(), ChamferL2(), DCD(), EMD(), Sinkhorn()])
@pytest.mark.parametrize("n", [50, 700])
def test_inside_torch_compile(loss: torch.nn.Module, n: int) -> None:
    head = torch.nn.Linear(3, 3)
    x, y = torch.rand(2, n, 3), torch.rand(2, n, 3)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return loss(head(x), y)

    compiled = torch.compile(step, backend="eager")(x, y)
    torch.testing.assert_close(compiled, step(x, y))
    compiled.backward()
    assert head.weight.grad is not None
    assert torch.isfinite(head.weight.grad).all()


def test_copies_and_pickles_equal_the_original() -> None:
    loss = APML(p_min=0.7, reduction="mean", ties="uniform")
    x, y = torch.rand(2, 30, 3), torch.rand(2, 40, 3)
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert twin(x, y) == loss(x, y)
        assert twin.describe() == loss.describe()


def test_inside_data_parallel_and_with_scaled_gradients() -> None:
    head = torch.nn.DataParallel(torch.nn.Linear(3, 3))
    x, y = torch.rand(2, 30, 3), torch.rand(2, 40, 3)
    APML()(head(x), y).backward()
    once = head.module.weight.grad.clone()
    head.zero_grad()
    (APML()(head(x), y) * 1024).backward()
    torch.testing.assert_close(head.module.weight.grad / 1024, once)
