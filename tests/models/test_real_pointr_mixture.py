"""PointGMM in a real PoinTr clone, by its name in a YAML alone. Opt in with APML_POINTR=path-of-a-clone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from hosts.real_pointr import changed, checkpoint, copy_clone, patch, pcn_data, train, weights, write_config

pytestmark = [pytest.mark.pointr, pytest.mark.slow]

MODEL = {"NAME": "PointGMM", "num_pred": 512, "dim_z": 32, "dim_h": 32, "levels": [8, 32], "encoder": [16, 32, 64]}
LOSS = [{"NAME": "HGMM"}, {"NAME": "EigenPenalty", "weight": 10.0}, {"NAME": "APML", "weight": 0.1}]


@pytest.mark.parametrize("patched", [False, True])
def test_trains_validates_and_saves(patched: bool, tmp_path: Path) -> None:
    clone = copy_clone(tmp_path / "PoinTr")
    path = write_config(tmp_path / "yaml", pcn_data(tmp_path / "data"), "PCN", loss=LOSS)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "model": MODEL}))
    if patched:
        patch(clone)
    output = train(clone, path, "mixture")
    assert output.count("[apml] PointGMM trains with 1 * HGMM(reduction=mean) + 10 * EigenPenalty()") == 1
    assert "[Validation] EPOCH: 0" in output
    saved = weights(checkpoint(clone, path, "mixture"))
    assert all(torch.isfinite(tensor).all() for tensor in saved.values())
    if patched:
        patch(clone, "--revert")
    assert changed(clone) == ""
