"""Which cloud is the prediction, how clouds are laid out, what a call's further arguments mean, and how a run stops."""

from __future__ import annotations

import copy
import functools
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from apml_plugin.errors import LossValueError
from apml_plugin.functional import apml_loss
from apml_plugin.hooks import training_loss, training_value, trains_with_loss
from apml_plugin.hosts import calls
from apml_plugin.hosts.gates import gated


@pytest.fixture(autouse=True)
def _apml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APML_LOSS", "{NAME: APML, reduction: mean}")
    monkeypatch.setattr(calls, "state", calls.State())


def chamfer(a: Tensor, b: Tensor) -> Tensor:
    d = torch.cdist(a, b)
    return d.min(2)[0].mean() + d.min(1)[0].mean()


def mean(pred: Tensor, gt: Tensor, **lengths: Tensor) -> Tensor:
    return apml_loss(pred, gt, reduction="mean", **lengths)


def test_three_points_with_six_features_are_three_points() -> None:
    pred, gt = torch.rand(2, 3, 6, requires_grad=True), torch.rand(2, 3, 6)
    torch.testing.assert_close(training_value(0.0, pred, gt), mean(pred, gt))
    torch.testing.assert_close(training_loss(chamfer)(pred, gt), mean(pred, gt))


def test_the_computed_cloud_is_the_prediction_when_both_require_a_gradient() -> None:
    x, gt = torch.rand(2, 16, 3, requires_grad=True), torch.rand(2, 24, 3).requires_grad_()
    pred = x * 2
    expected = mean(pred, gt)
    assert not torch.allclose(expected, mean(gt, pred))
    for own in (training_loss(chamfer), trains_with_loss(chamfer), lambda a, b: training_value(0.0, a, b)):
        torch.testing.assert_close(own(gt, pred), expected)
        torch.testing.assert_close(own(pred, gt), expected)
    turned = training_value(0.0, gt.transpose(1, 2), pred.transpose(1, 2))
    torch.testing.assert_close(turned, mean(gt, pred))  # both were computed now, so the first is the prediction


class Padded(nn.Module):
    """A Chamfer distance of padded clouds, with the lengths as third and fourth argument."""

    def forward(self, pred: Tensor, gt: Tensor, pred_length: Tensor, gt_length: Tensor) -> Tensor:
        values = [
            chamfer(p[None, :n], g[None, :m]) for p, g, n, m in zip(pred, gt, pred_length, gt_length, strict=True)
        ]
        return torch.stack(values).mean()


@pytest.mark.parametrize("swapped", [False, True])
def test_lengths_given_by_position_are_those_of_the_loss(swapped: bool) -> None:
    pred, gt = torch.rand(2, 16, 3, requires_grad=True), torch.rand(2, 24, 3)
    lengths = {"pred_lengths": torch.tensor([5, 16]), "gt_lengths": torch.tensor([24, 7])}
    own, (n, m) = training_loss(Padded()), lengths.values()
    value = own(gt, pred, m, n) if swapped else own(pred, gt, n, m)
    torch.testing.assert_close(value, mean(pred, gt, **lengths))
    if not swapped:  # both are alike now, so the first is the prediction
        torch.testing.assert_close(own(pred, gt.requires_grad_(), n, m), mean(pred, gt, **lengths))


class Distance(nn.Module):
    """A Chamfer module."""

    def forward(self, pred: Tensor, gt: Tensor) -> Tensor:
        return chamfer(pred, gt)


class Plain:
    """A Chamfer object that is no module."""

    name = "plain"

    def __call__(self, pred: Tensor, gt: Tensor) -> Tensor:
        return chamfer(pred, gt)


class Losses:
    """A Chamfer method."""

    def chamfer(self, pred: Tensor, gt: Tensor) -> Tensor:
        return chamfer(pred, gt)


def method(gate: Callable[[Any], Any]) -> Any:
    return type("Host", (), {"chamfer": gate(Losses.chamfer)})().chamfer


FORMS: dict[str, tuple[Callable[[], Any], str]] = {
    "function": (lambda: training_loss(chamfer), "test_gates.chamfer"),
    "method": (lambda: method(training_loss), "test_gates.Losses.chamfer"),
    "module": (lambda: training_loss(Distance()), "Distance"),
    "class of modules": (
        lambda: training_loss(type("Ours", (Distance,), {"forward": Distance.forward}))(),
        "test_gates.Distance.forward",
    ),
    "class": (
        lambda: training_loss(type("Ours", (Plain,), {"__call__": Plain.__call__}))(),
        "test_gates.Plain.__call__",
    ),
    "object": (lambda: training_loss(Plain()), "Plain"),
    "partial": (lambda: training_loss(functools.partial(chamfer)), "chamfer"),
    "decorated function": (lambda: trains_with_loss(chamfer), "test_gates.chamfer"),
    "decorated method": (lambda: method(trains_with_loss), "test_gates.Losses.chamfer"),
    "value": (lambda: lambda pred, gt: training_value(lambda: chamfer(pred, gt), pred, gt), "the host's loss"),
    "value with a label": (
        lambda: lambda pred, gt: training_value(chamfer(pred, gt), pred, gt, label="train.py:3"),
        "train.py:3",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_chamfer_is_replaced_in_training_only(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, label = FORMS[form]
    own = make()
    pred, gt = torch.rand(2, 16, 3, requires_grad=True), torch.rand(2, 24, 3)
    with torch.no_grad():
        assert own(pred, gt) == chamfer(pred, gt)
    assert own(pred.detach(), gt) == chamfer(pred, gt)
    assert capsys.readouterr().err == ""
    for _ in range(2):
        torch.testing.assert_close(own(pred, gt), mean(pred, gt))
    assert re.fullmatch(
        rf"\[apml\] {re.escape(label)} trains with APML\(.*reduction=mean.*\) \(from APML_LOSS\); calls without a "
        "gradient, such as validation's, keep the host's own\n",
        capsys.readouterr().err,
    )


def test_gating_is_idempotent_and_keeps_what_the_object_is() -> None:
    module, plain, ours = Distance(), Plain(), type("Ours", (Distance,), {"forward": Distance.forward})
    function, gated_plain, decorated = training_loss(chamfer), training_loss(plain), trains_with_loss(chamfer)
    assert training_loss(module) is module
    assert training_loss(ours) is ours
    forward = ours.forward
    for once in (function, module, gated_plain, ours):
        assert training_loss(once) is once
    assert ours.forward is forward
    assert trains_with_loss(decorated) is decorated
    assert function.__name__ == decorated.__name__ == "chamfer"
    assert isinstance(ours(), Distance)
    assert "forward" not in vars(training_loss(type("Derived", (ours,), {})))  # it inherits the gated one
    assert (gated_plain.own, gated_plain.name) == (plain, "plain")
    with pytest.raises(AttributeError, match="missing"):
        gated_plain.missing  # noqa: B018


@pytest.mark.parametrize("make", [Plain, Distance])
def test_copies_and_pickles_of_a_gated_object_stay_gated(make: Callable[[], Any]) -> None:
    own = training_loss(make())
    pred, gt = torch.rand(2, 16, 3, requires_grad=True), torch.rand(2, 24, 3)
    for again in (copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        assert training_loss(again) is again
        torch.testing.assert_close(again(pred, gt), mean(pred, gt))


def each(pred: Tensor, gt: Tensor, reduction: str, **lengths: Tensor) -> Tensor:
    """The loss of every sample by itself, (B,)."""
    if reduction == "none":
        return apml_loss(pred, gt, reduction="none", **lengths)
    return torch.stack([
        mean(pred[i : i + 1], gt[i : i + 1], **{name: n[i : i + 1] for name, n in lengths.items()})
        for i in range(len(pred))
    ])  # fmt: skip


class Terms(NamedTuple):
    loss: Tensor
    pred_mean: Tensor


def per_sample(pred: Tensor, gt: Tensor) -> Tensor:
    d = torch.cdist(pred, gt)
    return d.min(2)[0].mean(1) + d.min(1)[0].mean(1)


RESULTS: dict[str, tuple[Callable[..., Any], type]] = {
    "one number": (chamfer, Tensor),
    "per sample": (per_sample, Tensor),
    "a number first in a tuple": (lambda pred, gt: (chamfer(pred, gt), pred.mean()), tuple),
    "a number first in a list": (lambda pred, gt: [chamfer(pred, gt), pred.mean()], list),
    "a number first in a named tuple": (lambda pred, gt: Terms(chamfer(pred, gt), pred.mean()), tuple),
    "per sample first in a tuple": (lambda pred, gt: (per_sample(pred, gt), pred.mean()), tuple),
    "both numbers of a tuple": (lambda pred, gt: (chamfer(pred, gt), 2 * chamfer(pred, gt)), tuple),
    "both of a list, per sample": (lambda pred, gt: [per_sample(pred, gt), 2 * per_sample(pred, gt)], list),
}


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("result", RESULTS)
def test_the_loss_takes_the_place_and_the_shape_of_the_hosts_value(
    result: str, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APML_LOSS", f"{{NAME: APML, reduction: {reduction}}}")
    function, kind = RESULTS[result]
    own = training_loss(function)
    pred, gt = torch.rand(2, 16, 3, requires_grad=True), torch.rand(2, 24, 3)
    if "sample" in result:
        expected = each(pred, gt, reduction)
    elif reduction == "none":
        with pytest.raises(
            LossValueError,
            match=r"shape \(2,\), but test_gates\..* returns one number: use reduction: mean or reduction: sum",
        ):
            own(pred, gt)
        return
    else:
        expected = mean(pred, gt)
    value = own(pred, gt)
    assert type(value) is kind
    if kind is not Tensor:
        value, rest = value
        torch.testing.assert_close(rest, expected if "both" in result else pred.mean())
    torch.testing.assert_close(value, expected)
    assert value.requires_grad


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("as_type", [tuple, list, lambda entries: Terms(*entries[:2])])
def test_a_decorated_function_per_sample(as_type: Any, reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APML_LOSS", f"{{NAME: APML, reduction: {reduction}}}")

    @trains_with_loss(per_sample=True)
    def both(gt: Tensor, pred: Tensor) -> Any:
        d = per_sample(pred, gt)
        return as_type([d, d.sum(), d])

    pred, gt = torch.rand(2, 16, 3, requires_grad=True), torch.rand(2, 24, 3)
    expected = each(pred, gt, reduction)
    value = both(gt, pred)
    assert type(value) is (tuple if as_type is tuple else list)
    torch.testing.assert_close(value[0], expected)
    torch.testing.assert_close(list(value[1:]), [per_sample(pred, gt).sum(), per_sample(pred, gt)][: len(value) - 1])
    torch.testing.assert_close(trains_with_loss(per_sample, per_sample=True)(pred, gt), expected)


def test_a_ground_truth_named_first_decides_between_two_clouds_alike() -> None:
    a, b = torch.rand(2, 16, 3, requires_grad=True), torch.rand(2, 24, 3, requires_grad=True)

    class Host:
        @trains_with_loss
        def loss(self, Target: Tensor, pred: Tensor) -> Tensor:
            return chamfer(pred, Target)

    torch.testing.assert_close(Host().loss(a, b), mean(b, a))
    torch.testing.assert_close(Host().loss(pred=b, Target=a), mean(b, a))
    torch.testing.assert_close(Host().loss(a, pred=b), mean(b, a))
    torch.testing.assert_close(trains_with_loss(chamfer)(a, b), mean(a, b))
    detached = Host().loss(a, b.detach())  # only one requires a gradient
    torch.testing.assert_close(detached, mean(a, b))


class PerSamplePadded(Padded):
    def forward(self, pred: Tensor, gt: Tensor, pred_length: Any = None, gt_length: Any = None) -> Tensor:
        n = [len(pred[0])] * 2 if pred_length is None else pred_length
        m = [len(gt[0])] * 2 if gt_length is None else gt_length
        return torch.stack([Padded.forward(self, pred[i : i + 1], gt[i : i + 1], [n[i]], [m[i]]) for i in range(2)])


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_lengths_reach_each_sample(reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APML_LOSS", f"{{NAME: APML, reduction: {reduction}}}")
    pred, gt = torch.rand(2, 16, 3, requires_grad=True), torch.rand(2, 24, 3)
    n, m = torch.tensor([5, 16]), torch.tensor([24, 7])
    own = training_loss(PerSamplePadded())
    torch.testing.assert_close(own(pred, gt, n, m), each(pred, gt, reduction, pred_lengths=n, gt_lengths=m))
    torch.testing.assert_close(own(pred, gt, pred_length=n), each(pred, gt, reduction, pred_lengths=n))
    torch.testing.assert_close(own(gt, pred, gt_length=n), each(pred, gt, reduction, pred_lengths=n))


def test_the_kind_of_result_is_found_once_for_each_further_argument() -> None:
    probed: list[int] = []

    def own(pred: Tensor, gt: Tensor, single: bool = False, reduce: bool = True) -> Tensor:
        probed.append(pred.shape[0])
        one = chamfer(pred, gt) * 0 if single else chamfer(pred, gt)
        return one if reduce else per_sample(pred, gt)

    call = training_loss(own)
    pred, gt = torch.rand(3, 16, 3, requires_grad=True), torch.rand(3, 24, 3)
    for _ in range(2):
        assert call(pred, gt).shape == ()
        assert call(pred, gt, reduce=False).shape == call(pred, gt, False, False).shape == (3,)
        assert call(pred, gt, True) == 0  # no distance: it stays the host's
    assert probed.count(2) == 4 * 3  # three pairs of clouds for each way to call it
    assert probed.count(3) == 2  # and the two calls that stay the host's


def test_a_chamfer_that_takes_only_clouds_of_the_host_is_known_by_the_shape_of_its_result() -> None:
    def own(pred: Tensor, gt: Tensor, weight: Any = 1) -> Tensor:
        assert pred.shape[1] == 24, "needs 24 points"
        assert not calls.trains(pred, gt), "asked without training"
        return per_sample(pred, gt) if pred.shape[0] == 3 else per_sample(pred, gt)[0]

    pred, gt = torch.rand(3, 24, 3, requires_grad=True), torch.rand(3, 24, 3)
    value = training_loss(own)(pred, gt)
    torch.testing.assert_close(value, each(pred, gt, "mean"))


def test_why_a_chamfer_stays_the_hosts(capsys: pytest.CaptureFixture[str]) -> None:
    def distances(pred: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
        d = torch.cdist(pred, gt)
        return d.min(2)[0], d.min(1)[0]

    pred, gt = torch.rand(2, 16, 3, requires_grad=True), torch.rand(2, 24, 3)
    torch.testing.assert_close(training_loss(distances)(pred, gt), distances(pred, gt))
    said = capsys.readouterr().err
    assert (
        "distances returns raw distances or indices, which the host's code uses; this call stays the host's own" in said
    )
    assert "test_gates.py:" in said


def test_a_loss_given_by_the_caller_needs_no_announcement(capsys: pytest.CaptureFixture[str]) -> None:
    pred, gt = torch.rand(2, 16, 3, requires_grad=True), torch.rand(2, 24, 3)
    given = functools.partial(apml_loss, reduction="mean")
    for own in (chamfer, per_sample):
        value = gated(own, (pred, gt), {}, "own", SimpleNamespace(), loss=given)
        torch.testing.assert_close(value.mean(), mean(pred, gt))
    assert capsys.readouterr().err == ""


STOPPING = """
import threading

import torch
from apml_plugin.hosts import guard

guard.arm("a test asks for APML")
weight = torch.nn.Parameter(torch.ones(1))
weight.grad = torch.ones(1)
optimizer = torch.optim.SGD([weight], lr=0.1)
step = threading.Thread(target=optimizer.step)
step.start()
step.join()
print("went on")
"""


def test_a_step_in_a_thread_stops_the_process_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(STOPPING)
    home = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, env={"PYTHONPATH": home}, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert "went on" not in done.stdout
    assert "[apml] stopped: a test asks for APML" in done.stderr
    assert "Traceback" not in done.stderr
