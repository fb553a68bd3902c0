"""The loss object of a patched script against its parts computed one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apml_plugin import APML
from apml_plugin.errors import HostError, LossArgumentError, LossValueError
from apml_plugin.hosts import csi2pointcloud
from apml_plugin.hosts.csi2pointcloud.training import TrainingLoss, real_lengths

MEAN = {"NAME": "APML", "reduction": "mean"}


@pytest.fixture
def own(host: Path, load: Callable[[Path], ModuleType]):  # type: ignore[no-untyped-def]
    """The host's loss as its script makes it."""
    return load(host / "scripts" / "train.py").CloudLoss(chamfer_weight=0.85, regularization_weight=0.15)


def clouds(pred: int = 12, gt: int = 10) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    return torch.randn(2, pred, 3, requires_grad=True), torch.randn(2, gt, 3), torch.randn(2, 4, 6, requires_grad=True)


def off_identity(features: torch.Tensor) -> torch.Tensor:
    return torch.stack([(f @ f.T - torch.eye(len(f))).square().sum().sqrt() for f in features]).mean()


def test_two_terms_with_the_scripts_weights(own) -> None:  # type: ignore[no-untyped-def]
    pred, gt, features = clouds()
    loss = csi2pointcloud.loss(own, {"loss": MEAN})
    value = loss(pred, gt, features)
    matched = torch.stack(
        [APML(reduction="mean", backend="dense")(p[None], g[None]) for p, g in zip(pred, gt, strict=True)]
    )
    torch.testing.assert_close(value, 0.85 * matched.mean() + 0.15 * off_identity(features))
    wanted = torch.autograd.grad(0.15 * off_identity(features), features)[0]
    torch.testing.assert_close(torch.autograd.grad(value, features, retain_graph=True)[0], wanted)
    assert torch.autograd.grad(value, pred)[0].abs().sum() > 0
    # Without features the host has one term and no weights; so have we.
    torch.testing.assert_close(loss(pred, gt), matched.mean())


def test_weights_of_the_yaml(own) -> None:  # type: ignore[no-untyped-def]
    pred, gt, features = clouds()
    loss = csi2pointcloud.loss(own, {"loss": MEAN, "chamfer_weight": 2, "regularization_weight": 0})
    torch.testing.assert_close(loss(pred, gt, features), 2 * APML(reduction="mean")(pred, gt))
    assert (own.chamfer_weight, own.regularization_weight) == (0.85, 0.15)
    only_weights = csi2pointcloud.loss(own, {"regularization_weight": 0.0})
    torch.testing.assert_close(only_weights(pred, gt, features), 0.85 * own(pred, gt))


def test_calls_that_do_not_train_are_the_hosts(own) -> None:  # type: ignore[no-untyped-def]
    pred, gt, features = clouds()
    loss = csi2pointcloud.loss(own, {"loss": "APML"})
    with torch.no_grad():
        assert torch.equal(loss(pred, gt, features), own(pred, gt, features))
    assert torch.equal(loss(pred.detach(), gt, features.detach()), own(pred.detach(), gt, features.detach()))
    assert list(loss.parameters()) == list(own.parameters()) == []
    assert loss.state_dict() == {}


def test_nothing_asked_is_nothing_changed(own) -> None:  # type: ignore[no-untyped-def]
    for config in ({}, {"loss": None}, {"split_to_use": "x"}, None):
        assert csi2pointcloud.loss(own, config) is own
    csi2pointcloud.batch(own, torch.zeros(1, 2, 3), 4)
    assert csi2pointcloud.epochs(7, {}) == 7
    assert csi2pointcloud.dataset_root("/a", {}) == "/a"


def test_padding_is_seen_before_it_is_standardised(own) -> None:  # type: ignore[no-untyped-def]
    pred, gt, _ = clouds()
    gt[0, 7:] = 0
    gt[1, 2] = 0  # a point at the origin that is no padding
    padded = (gt - gt.mean()) / gt.std()
    loss = csi2pointcloud.loss(own, {"loss": MEAN, "chamfer_weight": 1})
    csi2pointcloud.batch(loss, gt, 0)
    value = loss(pred, padded)
    wanted = [APML(reduction="mean")(pred[b : b + 1], padded[b : b + 1, :n]) for b, n in ((0, 7), (1, 10))]
    torch.testing.assert_close(value, torch.stack(wanted).mean())
    # Each batch's lengths are used once: the next call without lengths counts every point.
    torch.testing.assert_close(loss(pred, padded), APML(reduction="mean")(pred, padded))
    csi2pointcloud.batch(loss, gt[:1], 0)  # of another shape than what comes: not this batch's
    torch.testing.assert_close(loss(pred, padded), APML(reduction="mean")(pred, padded))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 2**31))
def test_lengths_of_padded_clouds(lengths: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = [torch.rand(n, 3, generator=generator) + 0.1 for n in lengths]
    batch = torch.nn.utils.rnn.pad_sequence(points, batch_first=True)
    found = real_lengths(batch)
    if len(set(lengths)) == 1:
        assert found is None
    else:
        assert found is not None
        assert found.tolist() == lengths


def test_schedule_learns_the_epoch(own) -> None:  # type: ignore[no-untyped-def]
    pred, gt, _ = clouds()
    blend = {"NAME": "Schedule", "from": "ChamferL2", "to": MEAN, "start": 0, "end": 2}
    loss = csi2pointcloud.loss(own, {"loss": blend})
    with pytest.raises(LossValueError, match="needs the epoch"):
        loss(pred, gt)
    from apml_plugin.losses import ChamferL2

    ends = ChamferL2()(pred, gt), APML(reduction="mean")(pred, gt)
    for epoch, share in ((0, 0.0), (1, 0.5), (2, 1.0), (5, 1.0)):
        csi2pointcloud.batch(loss, gt, epoch)
        torch.testing.assert_close(loss(pred, gt), (1 - share) * ends[0] + share * ends[1])


def test_the_environment_wins(own, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("APML_LOSS", "{NAME: APML, reduction: mean}")
    loss = csi2pointcloud.loss(own, {"loss": "ChamferL2"})
    assert isinstance(loss.matching, APML)
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "APML_LOSS" in message
    assert "0.15 * its regulariser" in message
    assert "validation keeps its Chamfer" in message
    assert csi2pointcloud.loss(loss, {}) is loss


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({"loss": "APLM"}, LookupError, "APML"),
        ({"loss": {"coarse": "APML"}}, LossValueError, "one cloud"),
        ({"loss": {"NAME": "APML", "reduction": "none"}}, LossValueError, "mean or sum"),
        ({"loss_opts": {"p_min": 0.9}}, LossArgumentError, "without loss:"),
        ({"regularization_weight": -1}, LossValueError, "regularization_weight=-1"),
        ({"chamfer_weight": "much"}, LossArgumentError, "chamfer_weight"),
    ],
)
def test_refusals_come_with_the_config(config: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        csi2pointcloud.dataset_root("/a", config)


def test_refusals_of_paths_and_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for wrong in (0, 2.5, True, "many"):
        with pytest.raises(LossValueError, match=f"epochs={wrong!r}"):
            csi2pointcloud.epochs(3, {"epochs": wrong})
    with pytest.raises(HostError, match="not a folder"):
        csi2pointcloud.dataset_root("/a", {"dataset_root": str(tmp_path / "not")})
    with pytest.raises(LossArgumentError, match="must be a path"):
        csi2pointcloud.dataset_root("/a", {"dataset_root": 3})
    monkeypatch.setenv("APML_CONFIG", str(tmp_path / "no.yaml"))
    with pytest.raises(HostError, match="is not a file"):
        csi2pointcloud.config_file("a.yaml")


def test_a_loss_that_cannot_be_taken_apart() -> None:
    with pytest.raises(HostError, match="no chamfer_weight and no regularization_weight"):
        csi2pointcloud.loss(torch.nn.MSELoss(), {"loss": "APML"})
    assert not isinstance(csi2pointcloud.loss(torch.nn.MSELoss(), {}), TrainingLoss)
