"""MMEngine's own launcher: two processes under torchrun, gloo on the CPU, against one process on the same data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mmengine.dist.utils as launchers
import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import Runner

from apml_plugin.hosts.mmengine import compat

SCRIPT = """
import os, sys
import torch
from mmengine.config import Config
from mmengine.runner import Runner

folder = sys.argv[1]
runner = Runner.from_cfg(Config.fromfile(os.path.join(folder, "tiny.py")))
runner.train()
state = runner.model.module.state_dict()
judged = {key: buffer.current() for key, buffer in runner.message_hub.log_scalars.items() if key.startswith("val/")}
kind = type(runner.model).__name__, torch.distributed.get_backend(), torch.distributed.get_world_size()
torch.save(dict(state=state, judged=judged, kind=kind), os.path.join(folder, f"rank{os.environ['RANK']}.pt"))
"""


@pytest.fixture
def two_processes(tmp_path: Path, tiny) -> tuple[list[dict], Path]:
    """The final state of each of two processes after an epoch, and their folder."""
    cfg = tiny(tmp_path / "run", epochs=1, launcher="pytorch")  # nothing else in the config says that this is a CPU
    cfg.custom_hooks = [dict(type="PredictionPictureHook", samples=2)]
    cfg.val_dataloader.dataset.size = 5  # one more than the processes can share out evenly
    cfg.val_dataloader.batch_size = 2
    cfg.dump(tmp_path / "tiny.py")
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, str(tmp_path / "train.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**environment, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)], tmp_path


def test_two_processes_train_one_model_and_validate_it_as_one_process_does(two_processes, tiny) -> None:
    (first, second), folder = two_processes
    assert first["kind"] == second["kind"] == ("MMDistributedDataParallel", "gloo", 2)
    assert all(torch.equal(second["state"][key], value) for key, value in first["state"].items())
    assert [path.name for path in (folder / "run").glob("*/vis_data/vis_image/*")] == ["predictions_1.png"]

    cfg = tiny(folder / "alone", load_from=str(folder / "run" / "epoch_1.pth"))
    cfg.val_dataloader.dataset.size = 5
    del cfg.default_hooks.checkpoint["save_best"]  # MMEngine's hook looks for a best one of the training then
    runner = Runner.from_cfg(cfg)
    alone = runner.val()
    saved = runner.model.state_dict()
    assert all(torch.equal(saved[key], value) for key, value in first["state"].items())
    for name, value in alone.items():
        assert first["judged"][f"val/{name}"] == pytest.approx(value, rel=1e-5), name


def test_the_launcher_is_changed_once_and_only_where_there_is_no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    before = launchers._init_dist_pytorch, MMDistributedDataParallel.__init__
    compat.allow_cpu_launch()
    assert (launchers._init_dist_pytorch, MMDistributedDataParallel.__init__) == before

    def untouched(backend: str) -> None: ...

    monkeypatch.setattr(launchers, "_init_dist_pytorch", untouched)
    monkeypatch.setattr(compat, "get_device", lambda: "cuda")
    compat.allow_cpu_launch()
    assert launchers._init_dist_pytorch is untouched
