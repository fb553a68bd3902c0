"""CompletionModel: its modes, its log names, and every form of ``loss``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS
from torch import Tensor, nn

import apml_plugin.hosts.mmengine  # noqa: F401  (registers)
from apml_plugin import APML, ChamferL1, ChamferL2
from apml_plugin.errors import LossArgumentError, LossValueError, UnknownLossError
from apml_plugin.losses import PerStage, Schedule, WeightedSum

CONFIGS = Path(__file__).parents[2] / "configs" / "mmengine"
NET = dict(type="PCN", num_pred=32, encoder_channel=16, grid=2)


def model(loss: Any = "APML", **options: Any) -> nn.Module:
    return MODELS.build(ConfigDict(type="CompletionModel", net=NET, loss=loss, **options))


@pytest.fixture
def clouds() -> tuple[Tensor, Tensor]:
    return torch.rand(3, 20, 3), torch.rand(3, 40, 3)


def test_tensor_mode_gives_both_stages(clouds) -> None:
    coarse, fine = model().eval()(clouds[0])
    assert (coarse.shape, fine.shape) == ((3, 8, 3), (3, 32, 3))


def test_loss_mode_gives_one_readable_entry_for_each_stage(clouds) -> None:
    net = model(dict(type="ChamferL1")).eval()
    losses = net(*clouds, mode="loss")
    assert list(losses) == ["loss_coarse", "loss_fine"]
    coarse, fine = net(clouds[0])
    torch.testing.assert_close(losses["loss_coarse"], ChamferL1()(coarse, clouds[1]))
    torch.testing.assert_close(losses["loss_fine"], ChamferL1()(fine, clouds[1]))
    total, logged = net.parse_losses(losses)
    assert list(logged) == ["loss", "loss_coarse", "loss_fine"]
    torch.testing.assert_close(total, losses["loss_coarse"] + losses["loss_fine"])


def test_predict_mode_gives_one_result_for_each_sample(clouds) -> None:
    samples = model().eval()(*clouds, mode="predict")
    assert [sorted(sample) for sample in samples] == [["gt", "pred"]] * 3
    assert samples[2]["pred"].shape == (32, 3)
    torch.testing.assert_close(samples[2]["gt"], clouds[1][2])
    assert list(model().eval()(clouds[0], mode="predict")[0]) == ["pred"]


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_every_reduction_trains(reduction: str, clouds) -> None:
    net = model(dict(type="APML", reduction=reduction))
    losses = net(*clouds, mode="loss")
    assert losses["loss_fine"].shape == ((3,) if reduction == "none" else ())
    total, _ = net.parse_losses(losses)
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        ("APML", APML),
        ("apml.APML", APML),
        (dict(NAME="APML", p_min=0.7), APML),
        (dict(type="apml_plugin.losses.apml.APML", p_min=0.7), APML),
        (dict(type=APML), APML),
        (["APML", dict(type="ChamferL2", weight=0.1)], WeightedSum),
        (dict(type="ChamferL2", weight=3), WeightedSum),
        (dict(coarse="ChamferL1", fine=dict(type="APML")), PerStage),
        ({"type": "Schedule", "from": "ChamferL2", "to": "APML"}, Schedule),
        (dict(type="Schedule", first="ChamferL2", last=[dict(type="APML", weight=2)], end=5), Schedule),
    ],
)
def test_every_form_of_loss(loss: Any, kind: type, clouds) -> None:
    net = model(loss)
    assert type(net.criterion) is kind
    assert torch.isfinite(net.parse_losses(net(*clouds, mode="loss"))[0])


def test_the_lines_that_the_config_offers_all_build() -> None:
    text = (CONFIGS / "pcn_shapes_apml.py").read_text()
    lines = re.findall(r"^#?\s*(loss = .*)$", text, re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        cfg = Config.fromstring(line, ".py")
        assert Config.fromstring(cfg.pretty_text, ".py").loss == cfg.loss  # Runner writes it out and reads it back
        assert isinstance(model(cfg.loss), nn.Module)


def test_the_config_is_not_changed_by_building() -> None:
    cfg = ConfigDict(type="Schedule", first=dict(type="ChamferL2"), last=dict(type="APML", p_min=0.7), end=2)
    before = cfg.to_dict()
    model(cfg)
    assert cfg.to_dict() == before


def test_stages_have_their_own_losses_and_weights(clouds) -> None:
    net = model(dict(coarse="ChamferL1", fine="ChamferL2"), stage_weights=dict(coarse=0.5)).eval()
    coarse, fine = net(clouds[0])
    losses = net(*clouds, mode="loss")
    torch.testing.assert_close(losses["loss_coarse"], 0.5 * ChamferL1()(coarse, clouds[1]))
    torch.testing.assert_close(losses["loss_fine"], ChamferL2()(fine, clouds[1]))


def test_a_stage_of_weight_zero_is_left_out(clouds) -> None:
    assert list(model(dict(fine="APML"), stage_weights=dict(coarse=0))(*clouds, mode="loss")) == ["loss_fine"]


def test_complete_clouds_of_different_sizes(clouds) -> None:
    net = model("ChamferL1").eval()
    wholes = [torch.rand(n, 3) for n in (40, 25, 33)]
    got = net(list(clouds[0]), wholes, mode="loss")["loss_fine"]
    fine = net(clouds[0])[1]
    each = [ChamferL1()(fine[b : b + 1], whole[None]) for b, whole in enumerate(wholes)]
    torch.testing.assert_close(got, torch.stack(each).mean())


def test_a_loss_of_another_project_in_models_works(clouds) -> None:
    class Directions(nn.Module):
        def forward(self, source: Tensor, target: Tensor, weight: float = 1.0) -> tuple[Tensor, Tensor]:
            d = torch.cdist(source, target)
            return weight * d.amin(1).mean(), weight * d.amin(2).mean()

    MODELS.register_module(name="DirectionsOfOthers", module=Directions)
    try:
        net = model(dict(coarse="ChamferL1", fine=dict(type="DirectionsOfOthers"))).eval()
        there, back = Directions()(net(clouds[0])[1], clouds[1])
        torch.testing.assert_close(net(*clouds, mode="loss")["loss_fine"], there + back)
    finally:
        del MODELS.module_dict["DirectionsOfOthers"]


def test_a_checkpoint_of_one_loss_loads_strictly_under_another() -> None:
    saved = model("ChamferL2").state_dict()
    other = model(dict(type="Schedule", first="ChamferL1", last=["APML", "ChamferL2"]))
    other.load_state_dict(saved, strict=True)
    assert all(name.startswith("net.") for name in saved)


@pytest.mark.parametrize(
    ("loss", "options", "error", "message"),
    [
        ("APLM", {}, UnknownLossError, "did you mean 'APML'"),
        (dict(type="APML", p_mim=0.8), {}, LossArgumentError, "did you mean 'p_min'"),
        (dict(type="APML", p_min=2), {}, LossValueError, "p_min"),
        (dict(fine="APML"), {}, LossArgumentError, r"'coarse'.*stage_weights=dict\(coarse=0\)"),
        (dict(coarse="APML", dense="APML"), {}, LossArgumentError, "'dense' is not a stage .* coarse, fine"),
        ("APML", dict(stage_weights=dict(dense=1)), LossArgumentError, "'dense' is not a stage"),
        ("APML", dict(stage_weights=dict(coarse=0, fine=0)), LossValueError, "nor all 0"),
        ("APML", dict(stage_weights=dict(coarse=-1)), LossValueError, "negative"),
        (dict(type="Schedule", first="APML"), {}, LossArgumentError, "missing 'to'"),
    ],
)
def test_an_unusable_loss_raises_when_built(loss, options, error, message) -> None:
    with pytest.raises(error, match=message):
        model(loss, **options)


def test_invalid_calls_raise(clouds) -> None:
    net = model()
    with pytest.raises(LossArgumentError, match="mode='train' must be one of loss, predict, tensor"):
        net(*clouds, mode="train")
    with pytest.raises(LossArgumentError, match="needs gt"):
        net(clouds[0], mode="loss")
    with pytest.raises(LossValueError, match="sample the partial clouds to one size"):
        net([torch.rand(5, 3), torch.rand(6, 3)])
