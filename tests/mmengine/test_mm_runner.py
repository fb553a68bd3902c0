"""MMEngine's own Runner on the shipped configs, made tiny: it trains, validates, saves, resumes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from launch.running import run
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner

import apml_plugin.hosts.mmengine  # noqa: F401  (registers)
from apml_plugin.losses import Schedule

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "mmengine"
NAMES = ["pcn_shapes_apml", "foldingnet_shapes_apml"]


def losses_by_epoch(runner: Runner, key: str = "train/loss") -> list[float]:
    values = torch.as_tensor(runner.message_hub.get_scalar(key).data[0])
    return values.view(-1, 8).mean(1).tolist()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_shipped_configs_train_and_the_loss_falls(name: str, seed: int, tmp_path: Path, tiny) -> None:
    runner = Runner.from_cfg(tiny(tmp_path, name, randomness=dict(seed=seed)))
    runner.train()
    first, second = losses_by_epoch(runner)
    assert second < 0.9 * first
    judged = runner.message_hub.log_scalars
    assert {"val/completion/CDL1", "val/completion/EMD", "val/completion/F-Score"} <= set(judged)
    assert (tmp_path / "epoch_2.pth").exists()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_config_trains_for_an_epoch(path: Path, tmp_path: Path, tiny) -> None:
    cfg = tiny(tmp_path, path.stem, epochs=1)
    cfg.train_dataloader.dataset.size = 8
    if cfg.get("load_from"):
        cfg.load_from = str(tmp_path / "first.pth")
        torch.save(MODELS.build(cfg.model).state_dict(), cfg.load_from)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert torch.isfinite(torch.as_tensor(runner.message_hub.get_scalar("train/loss").data[0])).all()


def test_the_fine_tuning_config_starts_from_the_checkpoint_it_names(tmp_path: Path, tiny) -> None:
    first = Runner.from_cfg(tiny(tmp_path / "a", "pcn_shapes_chamfer", epochs=1))
    first.train()
    cfg = tiny(tmp_path / "b", "pcn_shapes_finetune", load_from=str(tmp_path / "a" / "epoch_1.pth"))
    named = Path(Config.fromfile(CONFIGS / "pcn_shapes_finetune.py").load_from)
    chamfer = Config.fromfile(CONFIGS / "pcn_shapes_chamfer.py")
    assert named == Path(chamfer.work_dir) / f"epoch_{chamfer.train_cfg.max_epochs}.pth"
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    assert runner.epoch == 0
    torch.testing.assert_close(dict(runner.model.state_dict()), dict(first.model.state_dict()))
    assert runner.model.criterion.describe().startswith("APML(")


@pytest.mark.parametrize("loss", [dict(type="ChamferL2"), dict(type="APML", reduction="sum"), "ChamferL1"])
def test_one_line_switches_the_loss(loss: Any, tmp_path: Path, tiny) -> None:
    cfg = tiny(tmp_path)
    cfg.model.loss = loss
    runner = Runner.from_cfg(cfg)
    runner.train()
    first, second = losses_by_epoch(runner)
    assert second < 0.9 * first


def test_resuming_from_a_runners_checkpoint_with_another_loss(tmp_path: Path, tiny) -> None:
    Runner.from_cfg(tiny(tmp_path, epochs=1)).train()
    cfg = tiny(tmp_path, epochs=2, resume=True)
    cfg.model.loss = "ChamferL1"
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.epoch == 2
    assert len(losses_by_epoch(runner)) == 2  # the first epoch's history came out of the checkpoint


def test_fine_tuning_from_a_checkpoint_is_strict(tmp_path: Path, tiny) -> None:
    Runner.from_cfg(tiny(tmp_path / "a", epochs=1)).train()
    cfg = tiny(tmp_path / "b", load_from=str(tmp_path / "a" / "epoch_1.pth"))
    cfg.model.loss = dict(coarse="ChamferL1", fine="ChamferL2")
    runner = Runner.from_cfg(cfg)
    runner.load_checkpoint(cfg.load_from, strict=True)
    saved = torch.load(cfg.load_from)["state_dict"]
    torch.testing.assert_close(dict(runner.model.state_dict()), dict(saved))


def test_other_types_in_a_checkpoint_are_still_rejected(tmp_path: Path) -> None:
    class Reaches:
        def __reduce__(self) -> tuple[Any, ...]:
            return getattr, (HistoryBuffer, "__init__")

    torch.save({"a": Reaches()}, tmp_path / "bad.pth")
    with pytest.raises(Exception, match="only HistoryBuffer's statistics are admitted"):
        torch.load(tmp_path / "bad.pth")


class ShareRecorder(Hook):
    def __init__(self) -> None:
        self.shares: list[float] = []

    def after_train_epoch(self, runner: Runner) -> None:
        self.shares += [m.share for m in runner.model.modules() if isinstance(m, Schedule)]


def test_a_schedule_follows_the_epochs_also_after_resuming(tmp_path: Path, tiny) -> None:
    schedule = dict(type="Schedule", first="ChamferL2", last="ChamferL1", start=0, end=4)
    seen = []
    for epochs in (2, 4):
        cfg = tiny(tmp_path, epochs=epochs, resume=epochs > 2)
        cfg.model.loss = schedule
        runner, recorder = Runner.from_cfg(cfg), ShareRecorder()
        runner.register_hook(recorder)
        runner.train()
        seen += recorder.shares
    assert seen == [0.0, 0.25, 0.5, 0.75]


def test_the_hook_sets_the_epoch_of_schedules_in_any_model(tmp_path: Path, tiny) -> None:
    runner = Runner.from_cfg(tiny(tmp_path))
    runner.model.beside = Schedule(runner.model.criterion, runner.model.criterion, 0, 4)
    hook = HOOKS.build(dict(type="LossEpochHook"))
    assert runner.epoch == 0
    runner.train_loop._epoch = 3
    hook.before_train_epoch(runner)
    assert runner.model.beside.epoch == 3


def test_the_commands_of_the_configs_run_from_a_bare_interpreter(tmp_path: Path, tiny) -> None:
    cfg = tiny(tmp_path / "run", epochs=1)
    cfg.dump(tmp_path / "tiny.py")
    code = (
        "from mmengine.config import Config; from mmengine.runner import Runner; "
        f"Runner.from_cfg(Config.fromfile({str(tmp_path / 'tiny.py')!r})).train()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "loss: APML(" in done.stdout + done.stderr
    assert (tmp_path / "run" / "epoch_1.pth").exists()


OWN = """
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import nn


@MODELS.register_module()
class Own(BaseModel):
    def __init__(self, loss, data_preprocessor=None, **unused):
        super().__init__(data_preprocessor)
        self.layer, self.criterion = nn.Linear(3, 3), MODELS.build(loss)

    def forward(self, inputs, gt=None, mode="tensor", **unused):
        clouds = self.layer(inputs)
        if mode == "loss":
            return {"loss": self.criterion(clouds, gt)}
        return [{"pred": cloud, "gt": whole} for cloud, whole in zip(clouds, gt)]


"""
TRAIN = """
from mmengine.config import Config
from mmengine.runner import Runner
Runner.from_cfg(Config.fromfile("tiny.py")).train()
"""


@pytest.mark.parametrize("own", [False, True])
def test_the_loss_of_the_command_line_is_what_a_runner_trains_with(own: bool, tmp_path: Path, tiny) -> None:
    """Our models take it in place of the config's; a run of a model that cannot take it stops."""
    cfg = tiny(tmp_path / "run", epochs=1, **{"model.loss": dict(type="ChamferL2", _delete_=True)})
    if own:
        cfg.model.type = "Own"
    cfg.dump(tmp_path / "tiny.py")
    (tmp_path / "train.py").write_text((OWN if own else "") + TRAIN)
    done = run(tmp_path, "train.py", loss="{NAME: APML, reduction: mean}")
    if own:
        assert done.returncode == 1, done.said
        assert "asks for APML" in done.stderr
        assert "no value of that loss was differentiated before an optimiser steps" in done.stderr
        assert not (tmp_path / "run" / "epoch_1.pth").exists()
    else:
        assert done.returncode == 0, done.said
        assert "(from APML_LOSS) replaces loss={'type': 'ChamferL2'} of the config" in done.stderr
        assert "loss: APML(" in done.stdout + done.stderr
        assert (tmp_path / "run" / "epoch_1.pth").exists()


class LowPrecision(OptimWrapper):
    """Forward passes under autocast, as AmpOptimWrapper makes them; that one needs a GPU."""

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield


@pytest.mark.parametrize("loss", [dict(type="APML"), dict(type="ChamferL1")])
def test_mixed_precision_keeps_the_loss_in_float32(loss: dict[str, Any], tmp_path: Path, tiny) -> None:
    cfg = tiny(tmp_path, epochs=1)
    cfg.model.loss = loss
    runner = Runner.from_cfg(cfg)
    batch = next(iter(runner.train_dataloader))
    net = runner.model.eval()
    with torch.autocast("cpu", torch.bfloat16):
        coarse, fine = net(batch["inputs"])
        assert fine.dtype == torch.bfloat16
        losses = net(**batch, mode="loss")
    assert {value.dtype for value in losses.values()} == {torch.float32}
    torch.testing.assert_close(losses["loss_coarse"], net.criterion(coarse.float(), batch["gt"].float()))

    wrapper = LowPrecision(torch.optim.Adam(net.parameters(), lr=3e-3))
    logs = [net.train().train_step(batch, wrapper)["loss"].item() for _ in range(10)]
    assert torch.isfinite(torch.tensor(logs)).all()
    assert logs[-1] < logs[0]
