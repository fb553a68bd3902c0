"""Real clones of PoinTr's forks and relatives: patched, trained by their own scripts, validated, reverted.

Opt in with APML_FORKS=folder-of-clones; each of `FORKS` found there is copied, never touched. Nothing of the hosts
needs to be compiled. What they import beyond that (einops, h5py, opencv, ...) must be there, or the host is skipped.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hosts.real_forks import FORKS, MEAN, data_for_forks, every_byte, run_fork, status
from hosts.real_pointr import patch

pytestmark = [pytest.mark.forks, pytest.mark.slow]

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
    return target


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_for_forks(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("name", FORKS)
def test_trains_with_apml_and_leaves_no_trace(name: str, data: Path, tmp_path: Path) -> None:
    """Unpatched with its Chamfer; patched; unpatched by `apml run --loss` alone, where it learns.

    The learning rate of the first two is zero, so that their weights, and with them all numbers of the validation,
    are the same to the last digit unless something other than the training loss has changed.
    """
    fork, clone = FORKS[name], copy_fork(name, tmp_path / name)
    if fork.missing():
        pytest.skip(f"{name} needs {', '.join(fork.missing())}")
    known, before = status(clone), every_byte(clone)
    host = run_fork(fork, clone, data, 0.0)
    assert not host.announced
    assert not host.spied["values"]

    patch(clone)
    assert every_byte(clone) != before
    ours = run_fork(fork, clone, data, 0.0, MEAN)
    patch(clone, "--revert")
    assert status(clone) == known
    assert every_byte(clone) == before

    assert len(ours.announced) == 1
    assert "trains with APML(" in ours.announced[0]
    assert "from APML_LOSS" in ours.announced[0]
    assert ours.spied["without_gradient"] == 0
    assert ours.spied["worst"] < 1e-6  # the value of functional.apml_loss on the same clouds
    first = ours.spied["values"][: fork.calls]
    assert ours.losses == pytest.approx([value * 1000 for value in first], abs=1e-3)
    assert all(mine != theirs for mine, theirs in zip(ours.losses, host.losses, strict=True))
    assert ours.validation == host.validation
    assert bool(host.validation) is bool(fork.validation)

    alone = run_fork(fork, clone, data, 1e-4, MEAN)
    assert alone.losses == ours.losses
    assert len(alone.announced) == 1
    assert alone.spied["without_gradient"] == 0
    if fork.validation:
        assert alone.validation != ours.validation  # it learned
    assert status(clone) == known


@pytest.mark.parametrize("name", REASONS)
def test_what_is_left_alone_says_why(name: str, tmp_path: Path) -> None:
    """Asking changes nothing, and gives the reason; what is broken in a clone is reported, not repaired."""
    clone = copy_fork(name, tmp_path / name)
    before = every_byte(clone)
    assert REASONS[name] in patch(clone, "--explain")
    assert every_byte(clone) == before
