"""One YAML line for each loss trains a PoinTr-style host's model."""

from __future__ import annotations

import pytest
import torch
import yaml
from easydict import EasyDict
from pointlosses import POINT_LOSSES, config_of

from apml_plugin.hosts.pointr.attach import attach
from apml_plugin.registry import build_loss


@pytest.fixture(scope="module")
def partial_and_gt():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 16, 3, generator=generator), torch.rand(2, 32, 3, generator=generator)


@pytest.mark.parametrize("name", POINT_LOSSES)
def test_a_yaml_line_trains(name, importable, partial_and_gt) -> None:
    line = yaml.safe_load(yaml.safe_dump({"loss": config_of(name)}))
    config = EasyDict(NAME="PCN", num_pred=32, **line)
    torch.manual_seed(0)
    model = attach(importable[1]("models").make_model(config), config)
    partial, gt = partial_and_gt
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    totals = []
    for _ in range(4):
        coarse, fine = model(partial)
        losses = model.get_loss((coarse, fine), gt, 0)
        if not totals:
            own = build_loss(line["loss"])  # one for both: FastEMD's trees follow from the number of the call
            expected = [own(cloud, gt) for cloud in (coarse, fine)]
            for loss, value in zip(losses, expected, strict=True):
                torch.testing.assert_close(loss, value)
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
        totals.append(sum(losses).item())
    assert totals[-1] < totals[0]
