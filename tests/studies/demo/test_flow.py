"""The flow demo: what it measures, and that its picture is drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from apml_plugin.studies.demo import flow


def test_target_and_starts() -> None:
    target = flow.target_shape(100)
    assert target.shape == (100, 3)
    assert (target[:80].abs() <= 0.2).all()
    assert (target[80:, :2].norm(dim=-1) - 1).abs().max() < 0.1
    assert torch.equal(flow.start_cloud("blob", 50), flow.start_cloud("blob", 50))


def test_judge_of_a_perfect_and_of_a_collapsed_cloud() -> None:
    target = flow.target_shape(60)
    perfect = flow.judge("blob", "APML", target[torch.randperm(60)], target)
    assert perfect.emd == pytest.approx(0, abs=1e-7)
    assert perfect.covered == 1.0
    collapsed = flow.judge("blob", "APML", target[:1].expand(60, 3), target)
    assert collapsed.covered == 1 / 60
    assert collapsed.emd == pytest.approx((target - target[0]).norm(dim=-1).mean().item(), rel=1e-5)


def test_apml_spreads_what_chamfer_piles_up(tmp_path: Path) -> None:
    results, picture = flow.run(tmp_path, steps=120, points=128)
    by_loss = {r.loss: r for r in results if r.start == "blob"}
    assert by_loss["APML"].covered > 2 * by_loss["ChamferL2"].covered
    assert by_loss["APML"].emd < by_loss["ChamferL2"].emd
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(results) == 8
    assert by_loss["FastEMD"].covered > by_loss["APML"].covered
