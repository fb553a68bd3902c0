"""The small host as a user runs it: a process in its own folder, alone, patched, resumed and on two processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import apml_plugin.studies.demo
from apml_plugin.shapes import dataset_config, write_dataset

SOURCE = Path(apml_plugin.studies.demo.__file__).parent / "host"
APML = [sys.executable, "-m", "apml_plugin"]


def run(command, folder):
    """The output of a command. Fails with the output unless the command succeeds."""
    root = str(Path(apml_plugin.__file__).parents[1])
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def write_yaml(host, name, epochs=1, **model):
    config = yaml.safe_load((host / "cfgs/PCN_models/PCN.yaml").read_text())
    config.update(total_bs=4, max_epoch=epochs)
    config["model"].update(num_pred=64, encoder_channel=32, **model)
    (host / f"cfgs/PCN_models/{name}.yaml").write_text(yaml.safe_dump(config))


def train(host, name, *words, start=(sys.executable,)):
    config = f"cfgs/PCN_models/{name}.yaml"
    return run([*start, "main.py", "--config", config, "--num_workers", "0", "--exp_name", "x", *words], host)


def checkpoint(host, name, which="ckpt-last"):
    return torch.load(host / f"experiments/{name}/PCN_models/x/{which}.pth", weights_only=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """An unpatched host with eight training shapes (two steps an epoch), trained for one epoch."""
    host = tmp_path_factory.mktemp("demo") / "host"
    shutil.copytree(SOURCE, host, ignore=shutil.ignore_patterns("__pycache__"))
    list(write_dataset(host / "data/PCN", train=2, test=1, points=64, partial=48))
    data = dataset_config(Path("data/PCN"), 64)
    (host / "cfgs/dataset_configs/PCN.yaml").write_text(yaml.safe_dump(data))
    write_yaml(host, "chamfer")
    write_yaml(host, "silent", loss="APML")
    write_yaml(host, "apml", epochs=1, loss={"NAME": "APML", "reduction": "mean"})
    train(host, "chamfer")
    return host


@pytest.fixture(scope="module")
def patched(plain, tmp_path_factory):
    host = tmp_path_factory.mktemp("demo") / "patched"
    shutil.copytree(plain, host, ignore=shutil.ignore_patterns("__pycache__"))
    output = run([*APML, "patch", str(host)], host)
    assert "+@takes_loss  # apml-plugin" in output
    return host


def test_checkpoints_have_pointrs_keys_and_load_strictly(plain):
    state = checkpoint(plain, "chamfer")
    assert set(state) == {"base_model", "optimizer", "epoch", "metrics", "best_metrics"}
    assert set(state["metrics"]) == {"F-Score", "CDL1", "CDL2"}
    code = (
        "import torch; from models import build_model_from_cfg; from utils.config import cfg_from_yaml_file as read;"
        "model = build_model_from_cfg(read('cfgs/PCN_models/chamfer.yaml').model);"
        "state = torch.load('experiments/chamfer/PCN_models/x/ckpt-best.pth', weights_only=True);"
        "print(model.load_state_dict(state['base_model'], strict=True))"
    )
    assert "All keys matched" in run([sys.executable, "-c", code], plain)


def test_unpatched_it_ignores_loss_silently(plain):
    train(plain, "silent")
    ours, plains = (checkpoint(plain, name)["base_model"] for name in ("silent", "chamfer"))
    assert all(torch.equal(ours[name], plains[name]) for name in plains)


def test_patched_it_trains_with_apml_from_a_chamfer_checkpoint_and_resumes(patched):
    start = "experiments/chamfer/PCN_models/x/ckpt-best.pth"
    output = train(patched, "apml", "--start_ckpts", start)
    assert "APML(p_min=0.8" in output
    first = checkpoint(patched, "apml")
    kept = patched / "experiments/apml/PCN_models/x/config.yaml"  # a resumed run reads the config it was begun with
    kept.write_text(kept.read_text().replace("max_epoch: 1", "max_epoch: 2"))
    assert "APML(p_min=0.8" in train(patched, "apml", "--resume")
    second = checkpoint(patched, "apml")
    assert (first["epoch"], second["epoch"]) == (0, 1)
    assert not torch.equal(first["base_model"]["mlp.0.weight"], second["base_model"]["mlp.0.weight"])
    steps = [state["optimizer"]["state"][0]["step"].item() for state in (first, second)]
    assert steps[1] == 2 * steps[0]


def test_two_processes_end_with_equal_weights(patched):
    write_yaml(patched, "both", loss="APML")
    dump = (
        "import atexit, os, torch, runpy, sys\n"
        "from torch.nn.parallel import DistributedDataParallel as D\n"
        "nets = []\n"
        "init = D.__init__\n"
        "def keep(self, *a, **k):\n"
        "    init(self, *a, **k)\n"
        "    nets.append(self)\n"
        "D.__init__ = keep\n"
        "atexit.register(lambda: torch.save(nets[0].module.state_dict(), f\"rank{os.environ['RANK']}.pth\"))\n"
        "sys.argv[0] = 'main.py'\n"
        "runpy.run_path('main.py', run_name='__main__')\n"
    )
    (patched / "keep_weights.py").write_text(dump)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29617"]
    words = ["--config", "cfgs/PCN_models/both.yaml", "--num_workers", "0", "--exp_name", "x", "--launcher", "pytorch"]
    output = run([*torchrun, "keep_weights.py", *words], patched)
    assert "2 process(es)" in output
    assert "APML(p_min=0.8" in output
    ours, other = (torch.load(patched / f"rank{rank}.pth", weights_only=True) for rank in (0, 1))
    start = checkpoint(patched, "chamfer")["base_model"]
    weights = [name for name in ours if "running" not in name and "num_batches" not in name]  # local statistics
    assert all(torch.equal(ours[name], other[name]) for name in weights)
    assert not torch.equal(ours["mlp.0.weight"], start["mlp.0.weight"])


def test_wrong_loss_names_stop_the_run_with_one_message(patched):
    write_yaml(patched, "wrong", loss={"NAME": "AMPL"})
    with pytest.raises(AssertionError, match="APML"):
        train(patched, "wrong")
