"""Real clones, PoinTr's forks and hosts of other kinds: trained by their own scripts, validated, patched, reverted.

Opt in with APML_FORKS=folder-of-clones; each host found there is copied, never touched. Nothing of the hosts needs to
be compiled. What they import beyond that (einops, h5py, opencv, ...) must be there, or the host is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hosts.real_forks import FORKS, MEAN, Fork, Run, data_for_forks, every_byte, run_fork, status
from hosts.real_pointr import patch
from hosts.real_unseen import UNSEEN, data_for_unseen

pytestmark = [pytest.mark.forks, pytest.mark.slow]

HOSTS = {**FORKS, **UNSEEN}
REASONS = {
    "SnowflakeNet": "PU/utils.py:76 PULoss.chamfer_radius: a further argument takes part in its value",
    "seedformer": "chamfer_single_side_sqrt: measures one direction only (partial matching)",
    "NeurIPS2023-InfoCD": "calc_cd_one_side_like_InfoV2: measures one direction only",
    "SVDFormer_PointSea": "SDG.forward: self.cd_distance is used inside the network",
    "ProxyFormer": "imports build_model_from_cfg from models, which is not in this clone",
    "D-PCC": "two-sided Chamfer in layer_chamfer; the indices stay its own",
    "PointAttN": "calc_cd: two-sided Chamfer, one value per sample",
    "Density_aware_Chamfer_Distance": "loss chosen by the string self.train_loss, known 'cd'",
}
"""What `--explain` must say of a clone, among other things."""


def copy_fork(name: str, target: Path) -> Path:
    source = Path(os.environ["APML_FORKS"]) / name
    if not (source / ".git").exists():
        pytest.skip(f"no clone {source}")
    shutil.copytree(source, target)
    subprocess.run(["git", "reset", "-q"], cwd=target, check=True)  # some clones come without an index
    return target


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_for_unseen(data_for_forks(tmp_path_factory.mktemp("data")))


@pytest.mark.parametrize("name", HOSTS)
def test_trains_with_apml_and_leaves_no_trace(name: str, data: Path, tmp_path: Path) -> None:
    """With its own Chamfer; by `apml run --loss`; patched, where nothing but the patch attaches, and learning.

    The learning rate of the first two is zero, so that their weights, and with them all numbers of the validation,
    are the same to the last digit unless something other than the training loss has changed.
    """
    fork = HOSTS[name]
    clone = copy_fork(name.partition(":")[0], tmp_path / "clone")
    if fork.missing():
        pytest.skip(f"{name} needs {', '.join(fork.missing())}")
    known, before = status(clone), every_byte(clone)
    host = run_fork(fork, clone, data, 0.0)
    assert not host.announced
    assert not host.spied["values"]
    assert bool(host.validation) is bool(fork.validation)

    ours = run_fork(fork, clone, data, 0.0, MEAN)
    assert status(clone) == known
    check_training(fork, ours)
    assert all(mine != theirs for mine, theirs in zip(ours.losses, host.losses, strict=True))
    assert ours.validation == host.validation

    patch(clone)
    written = every_byte(clone)
    executed = {Path(file).relative_to(clone.resolve()).as_posix(): text for file, text in ours.executed.items()}
    assert executed
    assert executed == {file: written[file].decode() for file in executed}
    alone = run_fork(fork, clone, data, 1e-4, MEAN, ["--no-attach"])
    assert not alone.executed
    patch(clone, "--revert")
    assert status(clone) == known
    assert every_byte(clone) == before

    check_training(fork, alone)
    assert alone.spied["values"][0] == ours.spied["values"][0]
    if fork.validation and not fork.dies:
        assert alone.validation != ours.validation  # it learned


def check_training(fork: Fork, run: Run) -> None:
    """Every call with a gradient was APML, has its value, and is what the host printed."""
    assert len(run.announced) == 1
    assert "trains with APML(" in run.announced[0]
    assert "from APML_LOSS" in run.announced[0]
    assert run.spied["without_gradient"] == 0
    assert run.spied["worst"] < 1e-6  # the value of functional.apml_loss on the same clouds
    assert len(run.spied["values"]) == fork.calls * fork.iterations
    first = fork.shown(run.spied["values"][: fork.calls])
    assert run.losses == pytest.approx(first, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("name", REASONS)
def test_what_is_left_alone_says_why(name: str, tmp_path: Path) -> None:
    """Asking changes nothing, and gives the reason; what is broken in a clone is reported, not repaired."""
    clone = copy_fork(name, tmp_path / name)
    before = every_byte(clone)
    assert REASONS[name] in patch(clone, "--explain")
    assert every_byte(clone) == before
