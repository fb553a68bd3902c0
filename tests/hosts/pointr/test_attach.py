"""The loss in a host's model: which calls it takes, what it leaves, what it costs and what it refuses."""

from __future__ import annotations

import copy
import functools
import io
import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from easydict import EasyDict
from torch import nn

from apml_plugin.errors import HostError, LossArgumentError, LossValueError, UnknownLossError
from apml_plugin.functional import apml_loss
from apml_plugin.hooks import takes_loss
from apml_plugin.hosts import calls, guard
from apml_plugin.hosts.pointr.attach import attach, attached
from apml_plugin.losses import ChamferL1, ChamferL2

SEVEN = ("PCN", "FoldingNet", "TopNet", "PoinTr", "AdaPoinTr", "GRNet", "SnowFlakeNet")
Importer = Callable[[str], ModuleType]


@pytest.fixture
def load(importable: tuple[Any, Importer]) -> Importer:
    return importable[1]


def config(name: str, loss: Any = None, **more: Any) -> EasyDict:
    return EasyDict(NAME=name, num_pred=32, **({} if loss is None else {"loss": loss}), **more)


def make(load: Importer, name: str, loss: Any = None, **more: Any) -> nn.Module:
    """A model as the host builds it, with ours attached."""
    torch.manual_seed(0)
    cfg = config(name, loss, **more)
    return attach(load("models").make_model(cfg), cfg)


def clouds() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 16, 3, generator=generator), torch.rand(2, 32, 3, generator=generator)


def run(model: nn.Module, *epoch: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """(losses, gradients) of one step."""
    partial, gt = clouds()
    losses = model.get_loss(model(partial), gt, *epoch)
    model.zero_grad()
    sum(losses).backward()
    return list(losses), [p.grad.clone() for p in model.parameters()]


def equal(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for one, two in zip(a, b, strict=True) for x, y in zip(one, two, strict=True))


@pytest.mark.parametrize("name", SEVEN)
def test_without_loss_nothing_is_different(load: Importer, name: str) -> None:
    plain = run(make(load, name), 0)
    make(load, name, "APML")  # wraps get_loss of the class
    model = make(load, name)
    assert not attached(model)
    assert equal(run(model, 0), plain)


@pytest.mark.parametrize("name", ["PCN", "FoldingNet", "TopNet", "PoinTr"])
def test_both_stages_train_with_apml(load: Importer, name: str) -> None:
    model = make(load, name, "APML")
    losses, gradients = run(model, 0)
    partial, gt = clouds()
    expected = [apml_loss(cloud, gt) for cloud in model(partial)]
    model.zero_grad()
    sum(expected).backward()
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(gradients, [p.grad for p in model.parameters()])
    assert [loss.dim() for loss in losses] == [0, 0]


def test_adapointr_keeps_its_denoising_loss_unless_named(load: Importer) -> None:
    partial, gt = clouds()
    host = make(load, "AdaPoinTr")
    ours = make(load, "AdaPoinTr", {"NAME": "APML", "reduction": "mean"})
    (denoise, total), (kept, replaced) = (m.get_loss(m(partial), gt) for m in (host, ours))
    assert torch.equal(denoise, kept)
    coarse, _, _, fine = ours(partial)
    torch.testing.assert_close(replaced, sum(apml_loss(c, gt, reduction="mean") for c in (coarse, fine)))
    named = make(load, "AdaPoinTr", {"denoise": "APML"})
    changed, same = named.get_loss(named(partial), gt)
    assert not torch.equal(changed, denoise)
    assert torch.equal(same, total)


@pytest.mark.parametrize(("name", "kept"), [("GRNet", "loss_func_2"), ("SnowFlakeNet", "loss_func_PM")])
def test_other_terms_stay(load: Importer, name: str, kept: str) -> None:
    model = make(load, name, "APML")
    assert type(getattr(model, kept)).__name__ in ("GriddingLoss", "ChamferDistanceL1_PM")
    losses, _ = run(model, 0)
    host, _ = run(make(load, name), 0)
    assert not torch.equal(losses[1], host[1])


def test_per_stage_follows_the_order_of_the_calls(load: Importer) -> None:
    partial, gt = clouds()
    host, model = make(load, "SnowFlakeNet"), make(load, "SnowFlakeNet", {"p1": "APML"})
    c, p1, p2, fine, whole = model(partial)
    cd = model.loss_func_CD.own
    coarse = (cd(c, gt) + apml_loss(p1, gt) + cd(p2, gt) + model.loss_func_PM(whole, fine)) * 1000
    losses = model.get_loss(model(partial), gt, 3)
    torch.testing.assert_close(losses[0], coarse)
    assert torch.equal(losses[1], host.get_loss(host(partial), gt)[1])


def test_an_unknown_class_is_read_by_its_calls(load: Importer) -> None:
    partial, gt = clouds()
    model = make(load, "Fork", {"fine": "APML", "stage2": "ChamferL1"})
    ret = model(partial)
    first, rest = model.get_loss(ret, gt)
    host = make(load, "Fork")
    assert torch.equal(first, host.get_loss(host(partial), gt)[0])
    torch.testing.assert_close(rest, ChamferL1()(ret[1], gt) + apml_loss(ret[2], gt))


def test_a_stage_that_is_not_there(load: Importer) -> None:
    with pytest.raises(LossValueError, match=r"PCN has no stage 'denoise'; its stages are coarse, fine"):
        make(load, "PCN", {"coarse": "APML", "denoise": "APML"})


@pytest.mark.parametrize("name", ["FoldingNet", "TopNet"])
def test_the_same_pair_is_computed_once(load: Importer, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(load, name, "APML")
    inner = model.loss_func.chosen["fine"]
    calls, forward = [], type(inner).forward
    monkeypatch.setattr(type(inner), "forward", lambda self, *args: calls.append(1) or forward(self, *args))
    once = run(model)
    assert len(calls) == 1
    assert model.loss_func._memo == []
    monkeypatch.setattr("apml_plugin.hosts.pointr.hostloss.same_tensor", lambda a, b: False)
    twice = run(model)
    assert len(calls) == 3
    torch.testing.assert_close(once, twice)


def test_equal_values_from_elsewhere_are_not_the_same_pair(load: Importer) -> None:
    model = make(load, "FoldingNet", "APML")
    partial, gt = clouds()
    cloud = model(partial)[0]
    other = cloud.detach().clone().requires_grad_()
    sum(model.get_loss((cloud, other), gt)).backward()
    assert other.grad is not None
    assert other.grad.abs().sum() > 0


def test_a_cloud_changed_in_place_is_computed_again(load: Importer) -> None:
    model = make(load, "PCN", "APML")
    _, gt = clouds()
    cloud = gt.clone().requires_grad_() * 1
    model.loss_func.begin(None)
    first = model.loss_func(cloud, gt)
    second = model.loss_func(cloud.mul_(2), gt)
    third = model.loss_func(cloud, gt)
    third.add_(1.0)
    model.loss_func.end()
    torch.testing.assert_close([first, second], [apml_loss(gt, gt), apml_loss(2 * gt, gt)])
    with torch.inference_mode():
        model.get_loss((cloud, cloud), gt)


def test_a_different_loss_per_stage_is_not_shared(load: Importer) -> None:
    losses, _ = run(make(load, "FoldingNet", {"coarse": "APML", "fine": {"NAME": "APML", "reduction": "mean"}}))
    torch.testing.assert_close(losses[0], 32 * losses[1])


def test_a_schedule_follows_the_epoch(load: Importer) -> None:
    model = make(load, "PCN", {"NAME": "Schedule", "from": "ChamferL2", "to": "APML", "start": 0, "end": 4})
    host, ours = run(make(load, "PCN"), 0)[0], run(make(load, "PCN", "APML"), 0)[0]
    for epoch, share in ((0, 0.0), (1, 0.25), (4, 1.0), (9, 1.0)):
        losses, _ = run(model, epoch)
        torch.testing.assert_close(losses, [(1 - share) * a + share * b for a, b in zip(host, ours, strict=True)])
    partial, gt = clouds()
    torch.testing.assert_close(list(model.get_loss(model(partial), gt)), ours)  # no epoch given: the last one stands
    torch.testing.assert_close(list(model.get_loss(model(partial), gt, epoch=0)), host)


def test_a_schedule_needs_an_epoch(load: Importer) -> None:
    with pytest.raises(LossValueError, match=r"Fork\.get_loss does not take"):
        make(load, "Fork", {"NAME": "Schedule", "from": "ChamferL2", "to": "APML"})


def test_a_weighted_sum(load: Importer) -> None:
    losses, _ = run(make(load, "PCN", [{"NAME": "APML", "weight": 2}, {"NAME": "ChamferL2", "weight": 0.5}]))
    ours, host = run(make(load, "PCN", "APML"))[0], run(make(load, "PCN"))[0]
    torch.testing.assert_close(losses, [2 * a + 0.5 * b for a, b in zip(ours, host, strict=True)])


def test_options_beside_a_plain_name(load: Importer) -> None:
    model = make(load, "PCN", "APML", loss_opts={"p_min": 0.5, "reduction": "mean"})
    assert model.loss_func.chosen["fine"].settings.p_min == 0.5
    with pytest.raises(LossArgumentError, match=r"loss_opts=.* is given without loss:"):
        make(load, "PCN", loss_opts={"p_min": 0.5})


def test_checkpoints_are_the_hosts_own(load: Importer) -> None:
    released, model = make(load, "PCN").state_dict(), make(load, "PCN", "APML")
    assert list(model.state_dict()) == list(released)
    model.load_state_dict(released, strict=True)
    assert len(list(model.buffers())) == 0
    assert [n for n, _ in model.named_parameters()] == ["net.weight", "net.bias"]


def test_a_loss_with_weights_is_rejected(load: Importer) -> None:
    model = load("models").make_model(config("PCN"))
    model.loss_func.register_buffer("eps", torch.zeros(1))
    with pytest.raises(HostError, match=r"strict loading of checkpoints"):
        attach(model, config("PCN", "APML"))
    assert not attached(model)


def test_copies_and_pickles_work(load: Importer) -> None:
    model = make(load, "PCN", {"coarse": "APML"})
    expected = run(model, 0)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert equal(run(twin, 0), expected)
    assert pickle.loads(pickle.dumps(type(model))) is type(model)
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    cls = type(model)
    cls.get_loss = cls.get_loss.__wrapped__  # as in a fresh process, which has not attached anything yet
    twin = torch.load(stream, weights_only=False)
    assert equal(run(twin, 0), expected)


def test_under_dataparallel_and_no_grad(load: Importer) -> None:
    model = make(load, "FoldingNet", "APML")
    partial, gt = clouds()
    wrapped = nn.DataParallel(model)
    losses = wrapped.module.get_loss(wrapped(partial), gt, 0)
    with torch.no_grad():
        silent = model.get_loss(model(partial), gt)
    assert equal([losses], [model.get_loss(model(partial), gt)])
    # Without a gradient it is the host's own loss, to the last bit.
    host = make(load, "FoldingNet")
    with torch.no_grad():
        assert equal([silent], [host.get_loss(host(partial), gt)])


def test_attaching_is_idempotent(load: Importer, capsys: pytest.CaptureFixture[str]) -> None:
    model = make(load, "PCN", "APML")
    inner = model.loss_func
    attach(model, config("PCN", "ChamferL1"))
    assert model.loss_func is inner
    assert capsys.readouterr().err.count("[apml]") == 1


def test_a_misspelt_name(load: Importer) -> None:
    with pytest.raises(UnknownLossError, match=r"'APLM'.*'APML'"):
        make(load, "PCN", "APLM")


def test_errors_survive_the_registry(load: Importer) -> None:
    """The registry raises `type(e)(one string)` again; a decorated class attaches inside its constructor."""
    takes_loss(load("models.PCN").PCN)
    build = load("models").make_model
    for loss, error in (("APLM", UnknownLossError), ({"NAME": "APML", "p": 1}, LossArgumentError)):
        with pytest.raises(error, match=r"^PCN: "):
            build(config("PCN", loss))
    with pytest.raises(LossValueError, match=r"^PCN: .*no stage 'x'"):
        build(config("PCN", {"x": "APML"}))


def test_a_mapping_of_weights_is_not_a_loss(load: Importer) -> None:
    assert not attached(make(load, "PCN", {"sparse": 1.0, "dense": 2}))


def test_a_host_that_reads_the_key_itself_keeps_it() -> None:
    class Own(nn.Module):
        def __init__(self, config: Any) -> None:
            super().__init__()
            self.kind = config.loss

        def get_loss(self, ret: Any, gt: Any) -> None: ...

    own = Own(EasyDict(loss="cdl2"))
    assert attach(own, EasyDict(loss="cdl2")) is own


def test_a_model_without_a_loss_leaves_it_to_the_functions_it_calls() -> None:
    """Nothing hangs on it that could be replaced: the loss is that of every gate, and the guard waits for one."""

    class Bare(nn.Module):
        def get_loss(self, ret: Any, gt: Any) -> None: ...

    attach(Bare(), {"loss": "APML", "loss_opts": None})
    assert calls.state.named == ("APML", None)
    assert "APML" in guard.state.asked


def test_every_chamfer_object_of_a_model_is_found(load: Importer) -> None:
    chamfer = load("extensions.chamfer")

    class Wild(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 3)
            self.terms = {"shape": chamfer.ChamferDistanceL1(), "cover": chamfer.ChamferDistanceL1_PM()}
            self.stages = [chamfer.ChamferDistanceL2(), chamfer.ChamferDistanceL2()]
            self.inner = nn.Sequential(nn.Linear(3, 3), chamfer.ChamferDistanceL1())
            self.partly = functools.partial(chamfer.ChamferDistanceL2())

        def calls(self) -> list[Any]:
            return [self.terms["shape"], *self.stages, self.inner[1], self.partly]

    model = attach(Wild(), {"loss": {"NAME": "APML", "reduction": "mean"}})
    pred, gt = clouds()
    pred.requires_grad_()
    expected = apml_loss(pred, gt, reduction="mean")
    for own in model.calls():
        torch.testing.assert_close(own(pred, gt), expected)
        torch.testing.assert_close(
            own(gt, pred), expected
        )  # the truth first: the one with a gradient is the prediction
    assert type(model.terms["cover"]) is chamfer.ChamferDistanceL1_PM
    assert len(attached(model)) == 5


def test_what_a_class_adds_to_an_inherited_chamfer_stays(load: Importer) -> None:
    chamfer = load("extensions.chamfer")

    class Weighed(chamfer.ChamferDistanceL2):  # type: ignore[misc, name-defined]
        def forward(self, a: Any, b: Any) -> Any:
            return 3 * super().forward(a, b)

    model = nn.Module()
    model.criterion = Weighed()
    attach(model, {"loss": {"NAME": "APML", "reduction": "mean"}})
    pred, gt = clouds()
    with torch.no_grad():
        torch.testing.assert_close(model.criterion(pred, gt), 3 * ChamferL2()(pred, gt))
    pred.requires_grad_()
    torch.testing.assert_close(model.criterion(pred, gt), 3 * apml_loss(pred, gt, reduction="mean"))


def test_stages_of_a_loop_are_counted_when_it_runs(load: Importer) -> None:
    chamfer = load("extensions.chamfer")

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.criterion = chamfer.ChamferDistanceL2()

        def get_loss(self, ret: Any, gt: Any) -> Any:
            return sum(self.criterion(cloud, gt) for cloud in ret)

    pred, gt = clouds()
    ret = [pred.clone().requires_grad_() for _ in range(3)]
    model = attach(Loop(), {"loss": {"fine": "APML", "stage2": "ChamferL1"}})
    host = chamfer.ChamferDistanceL2()
    expected = host(ret[0], gt) + ChamferL1()(ret[1], gt) + apml_loss(ret[2], gt)
    for _ in range(2):
        torch.testing.assert_close(model.get_loss(ret, gt), expected)
    with pytest.raises(LossValueError, match=r"Loop has no stage 'p1'; its stages are coarse, stage2, fine"):
        attach(Loop(), {"loss": {"p1": "APML"}}).get_loss(ret, gt)


def test_reduction_none_is_rejected_when_called(load: Importer) -> None:
    with pytest.raises(LossValueError, match=r"shape \(2,\).*reduction: mean"):
        run(make(load, "PCN", {"NAME": "APML", "reduction": "none"}))


def test_a_call_after_an_error_starts_from_zero(load: Importer) -> None:
    model = make(load, "PCN", {"coarse": "APML"})
    partial, gt = clouds()
    expected = model.get_loss(model(partial), gt)
    with pytest.raises(LossValueError):
        model.get_loss((torch.full((2, 8, 3), float("nan"), requires_grad=True), gt), gt)
    torch.testing.assert_close(model.get_loss(model(partial), gt), expected)


def test_a_subclass_that_calls_super_counts_once(load: Importer) -> None:
    pcn = load("models.PCN").PCN

    class Child(pcn):  # type: ignore[misc, valid-type]
        def get_loss(self, ret: Any, gt: Any, epoch: int = 0) -> Any:
            losses = super().get_loss(ret, gt, epoch)
            assert self.loss_func.running  # still within the outer call
            return losses

    cfg = config("PCN", {"coarse": "ChamferL1", "fine": "APML"})
    torch.manual_seed(0)
    partner = make(load, "PCN", cfg.loss)
    torch.manual_seed(0)
    child = attach(Child(cfg), cfg)
    torch.testing.assert_close(run(child), run(partner))
