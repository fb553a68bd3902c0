"""The whole `loss:` grammar, and its error messages."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import yaml
from easydict import EasyDict
from mmengine.config import ConfigDict
from torch import nn

from apml_plugin import APML, ChamferL1, ChamferL2
from apml_plugin.errors import LossArgumentError, LossValueError, UnknownLossError
from apml_plugin.registry import (
    LOSSES,
    PerStage,
    Schedule,
    WeightedSum,
    build_loss,
    describe,
    looks_like_loss,
    set_epoch,
)

X, Y = torch.rand(2, 30, 3), torch.rand(2, 40, 3)


def from_yaml(text: str):
    return yaml.safe_load(text)["loss"]


def test_a_name() -> None:
    loss = build_loss("APML")
    assert isinstance(loss, APML)
    assert loss(X, Y) == APML()(X, Y)
    assert loss(X, Y).shape == ()


@pytest.mark.parametrize("wrap", [dict, EasyDict, ConfigDict])
@pytest.mark.parametrize("key", ["NAME", "type"])
def test_a_mapping_of_any_kind(wrap: type, key: str) -> None:
    cfg = wrap({key: "APML", "p_min": 0.9, "reduction": "mean"})
    before = dict(cfg)
    assert build_loss(cfg)(X, Y) == APML(p_min=0.9, reduction="mean")(X, Y)
    assert dict(cfg) == before


def test_numbers_as_yaml_reads_them() -> None:
    assert from_yaml("loss: {NAME: APML, threshold: 1e-20}")["threshold"] == "1e-20"  # YAML 1.1
    for written in ("1e-20", "1.0e-20"):
        loss = build_loss(from_yaml(f"loss: {{NAME: APML, threshold: {written}, p_min: 0.8}}"))
        assert loss.settings.threshold == 1e-20


def test_loss_opts_beside_a_name() -> None:
    assert build_loss("APML", {"p_min": 0.5}).settings.p_min == 0.5
    with pytest.raises(LossArgumentError, match=r"^loss_opts={'p_min': 0.5} goes with .*arguments into loss: itself$"):
        build_loss({"NAME": "APML"}, {"p_min": 0.5})
    with pytest.raises(LossArgumentError, match=r"^loss_opts=\[0.5\] must be a mapping of arguments, got list$"):
        build_loss("APML", [0.5])


def test_a_weighted_sum() -> None:
    loss = build_loss(from_yaml("loss: [{NAME: APML, weight: 1.0}, {NAME: ChamferL2, weight: 0.1}, ChamferL1]"))
    expected = APML()(X, Y) + 0.1 * ChamferL2()(X, Y) + ChamferL1()(X, Y)
    torch.testing.assert_close(loss(X, Y), expected)
    assert build_loss({"NAME": "APML", "weight": 2})(X, Y) == 2 * APML()(X, Y)
    lengths = loss(X, Y, [30, 10], [40, 20])
    assert lengths != expected


def test_stages() -> None:
    loss = build_loss(from_yaml("loss: {coarse: ChamferL1, fine: {NAME: APML, p_min: 0.7}}"))
    assert isinstance(loss, PerStage)
    assert loss.names == ("coarse", "fine")
    assert isinstance(loss.stage("coarse"), ChamferL1)
    assert loss.stage("fine").settings.p_min == 0.7
    assert loss.stage("denoise") is None
    assert loss.describe() == f"coarse: {ChamferL1().describe()}, fine: {APML(p_min=0.7).describe()}"
    wrong = (
        r"^a loss per stage \(coarse, fine\) cannot be called as one loss: .* \.stage\(name\), or give a single loss$"
    )
    with pytest.raises(LossArgumentError, match=wrong):
        loss(X, Y)
    assert build_loss({"keys": "APML"}).stage("keys") is not None  # a key that nn.ModuleDict rejects


def test_a_schedule_by_epoch() -> None:
    loss = build_loss(from_yaml("loss: {NAME: Schedule, from: ChamferL2, to: APML, start: 2, end: 4}"))
    assert isinstance(loss, Schedule)
    chamfer, apml = ChamferL2()(X, Y), APML()(X, Y)
    for epoch, share in ((0, 0.0), (2, 0.0), (3, 0.5), (4, 1.0), (9, 1.0)):
        set_epoch(loss, epoch)
        torch.testing.assert_close(loss(X, Y), (1 - share) * chamfer + share * apml)
    inside = build_loss([{"NAME": "Schedule", "from": "ChamferL2", "to": "APML", "start": 1, "end": 1}])
    set_epoch(inside, 1)
    torch.testing.assert_close(inside(X, Y), apml)


def test_first_and_last_mean_from_and_to() -> None:
    loss = build_loss({"type": "Schedule", "first": "ChamferL2", "last": "APML", "start": 2, "end": 4})
    assert isinstance(loss.first, ChamferL2)
    assert isinstance(loss.last, APML)
    assert loss.describe() == f"{ChamferL2().describe()} -> {APML().describe()} over epochs 2 to 4"
    assert (Schedule(loss.first, loss.last).start, Schedule(loss.first, loss.last).end) == (0, 10)


def test_every_part_of_a_loss_gets_the_lengths() -> None:
    """Parts whose value is the sum of the lengths that they are given."""

    class Lengths(nn.Module):
        def forward(self, pred: torch.Tensor, gt: torch.Tensor, pred_lengths: int, gt_lengths: int) -> torch.Tensor:
            return pred.mean() + 2 * gt.mean() + 10 * pred_lengths + 100 * gt_lengths

    given, value = (torch.ones(1), torch.full((1,), 3.0), 2, 5), 1 + 6 + 20 + 500
    assert WeightedSum([Lengths(), Lengths()], [1, 0.5])(*given) == 1.5 * value
    for epoch in (0, 3, 9):
        schedule = Schedule(Lengths(), Lengths(), 0, 6)
        schedule.set_epoch(epoch)
        assert schedule(*given) == value


@pytest.mark.parametrize(("losses", "weights"), [([], []), ([ChamferL1()], [1, 2])])
def test_a_weighted_sum_needs_a_weight_for_each_loss(losses: list[nn.Module], weights: list[float]) -> None:
    message = rf"^a weighted sum needs as many .* one, got {len(losses)} losses and {len(weights)} weights$"
    with pytest.raises(LossArgumentError, match=message):
        WeightedSum(losses, weights)
    with pytest.raises(LossValueError, match=r"^weights=\[0, 0.0\] are all 0: this loss would train nothing$"):
        WeightedSum([ChamferL1(), ChamferL1()], [0, 0.0])
    with pytest.raises(LossArgumentError, match=r"^weight='much' must be a number"):
        WeightedSum([ChamferL1()], ["much"])


def test_a_schedule_before_its_start_does_not_compute_the_other_loss() -> None:
    class Refuses(nn.Module):
        def forward(self, *_: object) -> torch.Tensor:
            raise AssertionError

    assert Schedule(ChamferL2(), Refuses(), 3, 5)(X, Y) == ChamferL2()(X, Y)


def test_a_module_is_taken_as_it_is() -> None:
    loss = nn.MSELoss()
    assert build_loss(loss) is loss


@pytest.mark.parametrize(
    ("cfg", "error", "message"),
    [
        ("APLM", UnknownLossError, r"no loss is called 'APLM': did you mean 'APML'"),
        ("chamferl2", UnknownLossError, r"did you mean 'ChamferL2'"),
        ("", UnknownLossError, r"^no loss is called ''; `apml losses` lists all names$"),
        ({"NAME": "APML", "pmin": 0.8}, LossArgumentError, r"no argument 'pmin': did you mean 'p_min'"),
        ({"NAME": "APMLSparse", "tie": "share"}, LossArgumentError, r"did you mean 'ties'"),
        ({"NAME": "APML", "p_min": 1}, LossValueError, r"p_min=1.0"),
        ({"NAME": "APML", "ignore_zeros": "False"}, LossArgumentError, r"ignore_zeros='False' must be true or false"),
        (
            {"NAME": "APML", "type": "APML"},
            LossArgumentError,
            r"'APML'} has both NAME and type; they mean the same, keep one$",
        ),
        ({"NAME": 3}, LossArgumentError, r"^the NAME of a loss must be a string, got 3$"),
        (
            {"sparse": 1.0, "dense": 0.5},
            LossArgumentError,
            r"^loss: {'sparse': 1.0, 'dense': 0.5} has neither NAME nor type, and 'sparse': 1.0 is no loss for a "
            r"stage; write {NAME: APML, ...} or {coarse: ChamferL1, fine: APML}$",
        ),
        ({1: "APML"}, LossArgumentError, r"and 1: 'APML' is no loss for a stage; write {NAME: APML, "),
        ({}, LossArgumentError, r"^loss: {} is empty; write a name such as APML$"),
        ([], LossArgumentError, r"^loss: the list is empty; name at least one loss, for example \[APML\]$"),
        ([3], LossArgumentError, r"^loss: the list entry 3 must be a name or a mapping with NAME \(and weight\)$"),
        ([{"NAME": "APML", "weight": "much"}], LossArgumentError, r"weight='much' must be a number"),
        ({"NAME": "APML", "weight": "much"}, LossArgumentError, r"^weight='much' must be a number"),
        (
            None,
            LossArgumentError,
            r"^loss: None must be a name, a mapping with NAME, a list of them or a mapping of stages, got NoneType$",
        ),
        (
            {"NAME": "Schedule", "to": "APML"},
            LossArgumentError,
            r"^Schedule: missing 'from'; write {NAME: Schedule, from: ..., to: ...} \(or first, last\)$",
        ),
        ({"NAME": "Schedule"}, LossArgumentError, r"^Schedule: missing 'from' and 'to'; write"),
        (
            {"NAME": "Schedule", "from": "APML", "first": "APML", "to": "APML"},
            LossArgumentError,
            r"^Schedule: from and first mean the same, keep one$",
        ),
        ({"NAME": "Schedule", "from": "APML", "to": "APML", "start": [0]}, LossArgumentError, r"^start=\[0\] must be"),
        ({"NAME": "Schedule", "from": "APML", "to": "APML", "end": [0]}, LossArgumentError, r"^end=\[0\] must be"),
        ({"NAME": "Schedule", "from": "ChamferL2", "to": "APML", "stop": 3}, LossArgumentError, r"no argument 'stop'"),
        (
            {"NAME": "Schedule", "from": "ChamferL2", "to": "APML", "start": 5, "end": 3},
            LossValueError,
            r"^start=5 must not lie after end=3$",
        ),
        ({"coarse": "APML", "fine": "APLM"}, UnknownLossError, r"'APLM'"),
    ],
)
def test_an_invalid_config_raises_an_error_when_built(cfg: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        build_loss(cfg)
    again = error(f"PCN: {caught.value}")  # as a PoinTr-style registry re-raises it
    assert str(caught.value) in str(again)


def test_what_looks_like_ours() -> None:
    for ours in ("APML", {"type": "ChamferL1"}, ["APML", {"NAME": "ChamferL2"}], {"coarse": "APML"}):
        assert looks_like_loss(ours), ours
    for theirs in (None, "cdl2", {"sparse": 1.0}, {}, [], 3, {"NAME": "PoinTr"}):
        assert not looks_like_loss(theirs), theirs


def test_your_own_loss_becomes_a_name() -> None:
    @LOSSES.register_module()
    class MyLoss(nn.Module):
        def __init__(self, power: int = 2) -> None:
            super().__init__()
            self.power = power

        def forward(self, pred, gt, pred_lengths=None, gt_lengths=None):
            return (pred.mean() - gt.mean()).abs() ** self.power

    try:
        loss = build_loss([{"NAME": "MyLoss", "power": 1}, "APML"])
        torch.testing.assert_close(loss(X, Y), (X.mean() - Y.mean()).abs() + APML()(X, Y))
        assert "MyLoss" in describe(loss)
    finally:
        LOSSES.module_dict.pop("MyLoss")


def test_mmengine_builds_from_the_registry() -> None:
    assert isinstance(LOSSES.build({"type": "APML", "p_min": 0.9}), APML)


@pytest.mark.parametrize("cfg", ["APML", "ChamferL2", [{"NAME": "APML"}], {"coarse": "APML"}])
def test_nothing_enters_a_state_dict(cfg: object) -> None:
    loss = build_loss(cfg)
    assert not loss.state_dict()
    assert not list(loss.parameters())


def test_description_names_the_resolved_parameters() -> None:
    assert describe(build_loss("APML")).startswith("APML(p_min=0.8, threshold=auto, iterations=20")
    both = build_loss(["APML", {"NAME": "ChamferL2", "weight": 0.1}])
    assert describe(both) == f"1 * {APML().describe()} + 0.1 * {ChamferL2().describe()}"
    assert (
        describe(ChamferL2(check_finite=False)) == "ChamferL2(reduction=mean, ignore_zeros=False, check_finite=False)"
    )
    assert describe(nn.MSELoss()) == "MSELoss"


def test_import_is_cheap_and_functional_needs_no_registry() -> None:
    script = (
        "import sys, apml_plugin; assert 'torch' not in sys.modules; assert 'mmengine' not in sys.modules;"
        "import apml_plugin.functional; assert 'mmengine' not in sys.modules; assert 'yaml' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_building_a_loss_draws_no_random_number() -> None:
    """Hosts seed, then meet their first loss call: data drawn after it must be what they are without us."""
    script = """
import random, numpy as np, torch
random.seed(1), np.random.seed(1), torch.manual_seed(1)
drawn = lambda: (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())
before = drawn()
from apml_plugin.registry import build_loss
x = torch.linspace(0, 1, 60).view(1, 20, 3).requires_grad_()
build_loss("APML")(x, torch.linspace(0, 2, 60).view(1, 20, 3)).backward()
assert drawn() == before
"""
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
