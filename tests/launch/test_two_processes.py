"""`--launcher pytorch` on two processes under `apml run`: a host whose parser knows `--local_rank` alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from forking import clean_environment
from hosts.real_pointr import pcn_data
from launch.running import APML, demo_host

NOW = '"--local_rank", "--local-rank", type=int, default=int(os.environ.get("LOCAL_RANK", 0))'
OLD = '"--local_rank", type=int, default=0'
INIT = '        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")\n'
EDITS = {
    NOW: OLD,
    # What hosts of that time do: workers are spawned, and the two ranks must agree.
    INIT: INIT
    + '        torch.multiprocessing.set_start_method("spawn")\n        assert args.local_rank == dist.get_rank()\n',
    "    if args.local_rank == 0:\n": "    if True:\n",
    'prefix + ".pth"': 'f"{prefix}-{args.local_rank}.pth"',
}


@pytest.fixture
def host(tmp_path: Path) -> Path:
    clone = demo_host(tmp_path / "host")
    text = (clone / "main.py").read_text()
    for old, new in EDITS.items():
        assert old in text
        text = text.replace(old, new)
    (clone / "main.py").write_text(text)
    data = str(pcn_data(tmp_path / "data", points=128, train=8, test=2, views=1))
    config = yaml.safe_load((clone / "cfgs/PCN_models/PCN.yaml").read_text())
    for part in config["dataset"].values():
        part["_base_"] = data
    config["model"] = {
        "NAME": "PCN", "num_pred": 64, "encoder_channel": 16, "loss": {"NAME": "APML", "reduction": "mean"},
    }  # fmt: skip
    config.update(total_bs=4, max_epoch=1)
    (clone / "two.yaml").write_text(yaml.safe_dump(config))
    return clone


def test_both_ranks_train_the_same_network(host: Path) -> None:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = ["main.py", "--launcher", "pytorch", "--config", "two.yaml", "--num_workers", "1"]
    done = subprocess.run(
        [*APML, *start, *words], cwd=host, env=clean_environment(), capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr[-4000:]
    files = [next((host / "experiments").rglob(f"ckpt-last-{rank}.pth")) for rank in range(2)]
    one, two = (torch.load(file, weights_only=True)["base_model"] for file in files)
    means = [name for name in one if "running" not in name]  # BatchNorm's are each process's own without --sync_bn
    assert all(torch.equal(one[name], two[name]) for name in means)
    assert any(not torch.equal(one[name], two[name]) for name in one)
    output = done.stdout + done.stderr
    assert output.count("PCN trains with APML(") == 1
    assert output.count("--local_rank is not given: it gets LOCAL_RANK") == 1
    assert "Distributed training: True, 2 process(es)" in output
