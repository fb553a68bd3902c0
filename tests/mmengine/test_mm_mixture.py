"""PointGMM under MMEngine, from configs alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner

import apml_plugin.hosts.mmengine  # noqa: F401  (registers)
from apml_plugin.errors import LossArgumentError
from apml_plugin.losses.mixture import HGMM, MixtureOutput

CONFIG = Path(__file__).parents[2] / "configs" / "pointgmm" / "pointgmm_shapes.py"
NET = dict(type="PointGMM", num_pred=64, dim_z=16, dim_h=16, levels=(4, 8), encoder=(8, 16, 32))


def test_the_shipped_config_trains_and_the_loss_falls(tmp_path: Path) -> None:
    cfg = Config.fromfile(CONFIG)
    sizes = dict(num_partial=64, num_gt=64)
    cfg.merge_from_dict(
        {
            "model.net": dict(NET),
            "train_dataloader.dataset": dict(size=32, **sizes),
            "train_dataloader.batch_size": 4,
            "val_dataloader.dataset": dict(size=4, **sizes),
            "train_cfg.max_epochs": 2,
            "optim_wrapper.optimizer.lr": 3e-3,
            "work_dir": str(tmp_path),
            "experiment_name": "tiny_pointgmm",
        }
    )
    runner = Runner.from_cfg(cfg)
    runner.train()
    values = torch.as_tensor(runner.message_hub.get_scalar("train/loss_mixture").data[0]).view(-1, 8).mean(1)
    assert values[1] < values[0]
    assert {"train/loss_points", "val/completion/EMD"} <= set(runner.message_hub.log_scalars)
    assert (tmp_path / "epoch_2.pth").exists()


def test_modes() -> None:
    model = MODELS.build(dict(type="MixtureModel", net=NET))
    inputs, gt = torch.rand(2, 40, 3), torch.rand(2, 50, 3)
    model.eval()
    output = model(inputs)
    assert isinstance(output, MixtureOutput)
    losses = model(inputs, gt, mode="loss")
    assert set(losses) == {"loss_mixture"}
    torch.testing.assert_close(losses["loss_mixture"], HGMM()(output, gt))
    predictions = model(inputs, gt, mode="predict")
    assert torch.equal(predictions[0]["pred"], output.points[0])
    assert torch.equal(predictions[1]["gt"], gt[1])
    ragged = model(list(inputs), [gt[0], gt[1, :20]], mode="loss")["loss_mixture"]
    torch.testing.assert_close(ragged, HGMM()(output, gt, None, [50, 20]))


def test_a_loss_on_clouds_alone_trains_it() -> None:
    model = MODELS.build(dict(type="CompletionModel", net=NET, loss=dict(type="APML", reduction="mean")))
    losses = model(torch.rand(2, 40, 3), torch.rand(2, 50, 3), mode="loss")
    sum(losses.values()).backward()
    assert set(losses) == {"loss_coarse", "loss_fine"}


def test_unusable_arguments_raise_when_built() -> None:
    with pytest.raises(LossArgumentError, match="predicts no mixture"):
        MODELS.build(dict(type="MixtureModel", net=dict(type="PCN", num_pred=64, encoder_channel=32, grid=2)))
    with pytest.raises(LossArgumentError, match="variational"):
        MODELS.build(dict(type="MixtureModel", net=NET, loss="LatentKL"))
    with pytest.raises(LossArgumentError, match="mode='loss' needs gt"):
        MODELS.build(dict(type="MixtureModel", net=NET))(torch.rand(2, 40, 3), mode="loss")
