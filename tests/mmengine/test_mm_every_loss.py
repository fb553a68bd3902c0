"""Each loss by name in an MMEngine config: one step of its own optimizer wrapper."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from pointlosses import POINT_LOSSES, config_of

import apml_plugin.hosts.mmengine  # noqa: F401  (registers)


@pytest.mark.parametrize("name", POINT_LOSSES)
def test_a_config_trains(name: str) -> None:
    loss = {("type" if key == "NAME" else key): value for key, value in config_of(name).items()}
    net = dict(type="PCN", num_pred=32, encoder_channel=16, grid=2)
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(type="CompletionModel", net=net, loss=loss))
    wrapper = OptimWrapper(torch.optim.Adam(model.parameters(), lr=1e-3))
    generator = torch.Generator().manual_seed(1)
    partial, gt = torch.rand(2, 20, 3, generator=generator), torch.rand(2, 40, 3, generator=generator)
    before = [p.clone() for p in model.parameters()]
    logged = model.train_step((partial, gt), wrapper)
    assert all(torch.isfinite(value).all() for value in logged.values())
    assert any(not torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))
    assert all(torch.isfinite(p).all() for p in model.parameters())
