"""A real PoinTr clone on two processes, started as its README does and as today's launchers do.

Opt in with APML_POINTR=path-of-a-clone (it is copied, never touched). gloo on the CPU: --sync_bn needs GPUs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hosts.real_pointr import apml_run, changed, checkpoint, copy_clone, patch, pcn_data, train, weights, write_config

pytestmark = [pytest.mark.pointr, pytest.mark.slow]

LAUNCHERS = {
    "torchrun": ["torchrun", "--nproc_per_node", "2"],
    "launch": [sys.executable, "-m", "torch.distributed.launch", "--nproc_per_node", "2"],
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("patched", [False, True])
def test_two_processes(tmp_path: Path, launcher: str, patched: bool) -> None:
    clone, data = (
        copy_clone(tmp_path / "PoinTr"),
        pcn_data(tmp_path / "data", test=20),
    )  # the host wants ten of them on each process
    path = write_config(tmp_path, data, "PCN", loss={"NAME": "APML", "reduction": "mean"})
    if patched:
        patch(clone)
    arguments = ["--launcher", "pytorch", "--config", str(path), "--exp_name", "two", "--seed", "7"]
    start = [*LAUNCHERS[launcher], "--master_port", "29631", "main.py", *arguments]
    output = apml_run(clone, [*start, "--num_workers", "1"])
    assert output.count("PCN trains with APML(") == 1
    assert "local_rank" in output
    assert output.count("[Validation] EPOCH: 0") == 1
    two = weights(checkpoint(clone, path, "two"))
    assert all(torch.isfinite(value).all() for value in two.values())

    resumed = apml_run(clone, [*start, "--num_workers", "0", "--resume"])
    assert "RESUME INFO" in resumed

    # A checkpoint of two processes is one of one process.
    train(clone, path, "one", "--start_ckpts", str(checkpoint(clone, path, "two")))
    if patched:
        patch(clone, "--revert")
    assert changed(clone) == ""
