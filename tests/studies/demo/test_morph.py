"""The morph study: what it measures, how it reads shapes, and that the command ends with a table and a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from apml_plugin.cli import main
from apml_plugin.errors import LossValueError
from apml_plugin.studies.demo import morph


def test_one_to_one_ends_nearer_than_chamfer() -> None:
    shapes = morph.generated(256)
    results = morph.run(shapes, ("ChamferL2", "FastEMD"), pairs=2, steps=150)
    assert [r.pair for r in results] == ["airplane to chair"] * 2 + ["airplane to lamp"] * 2
    assert morph.wins(results, "FastEMD") == {"ChamferL2": 2}
    assert all(r.covered > 0.95 for r in results if r.loss == "FastEMD")
    again = morph.run(shapes, ("FastEMD",), pairs=1, steps=150)
    assert torch.equal(again[0].points, results[1].points)
    name, value, *_ = morph.rows(results)[0]
    mean = (results[0].values["CD-L1"] + results[2].values["CD-L1"]) / 2
    assert name == "ChamferL2"
    assert float(value.split()[0]) == pytest.approx(mean, rel=1e-2)


def test_shapes_from_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "shapes.npy", np.random.default_rng(0).normal(3, 5, (6, 40, 3)))
    shapes = morph.from_file(tmp_path / "shapes.npy", 32)
    assert len(shapes) == 5
    for cloud in shapes.values():
        extent = cloud.amax(0) - cloud.amin(0)
        assert cloud.shape == (32, 3)
        assert extent.norm().item() == pytest.approx(1, rel=1e-5)
    with pytest.raises(LossValueError, match=r"at least 5 clouds of 41 points, \(S, N, 3\); got 6 of 40"):
        morph.from_file(tmp_path / "shapes.npy", 41)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "morph", "--quick", "--out", str(tmp_path), "--loss", "ChamferL1", "--loss", "FastEMD"]) == 0
    assert "FastEMD" in capsys.readouterr().out
    assert (tmp_path / "morph.png").read_bytes().startswith(b"\x89PNG")
