"""APMLDistance and PackedLoss, checked pair by pair against the plain functions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from apml_plugin import APML, apml_loss
from apml_plugin.errors import LossArgumentError, LossValueError, UnknownLossError
from apml_plugin.hosts.mmengine.adapters import APMLDistance, PackedLoss


@given(
    source_keeps=st.lists(st.booleans(), min_size=12, max_size=12),
    target_weights=st.lists(st.sampled_from([0.0, 0.5, 2.0]), min_size=10, max_size=10),
)
def test_the_loss_of_a_target_is_that_of_its_matches_among_the_kept_points(source_keeps, target_weights) -> None:
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(2, 6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 5, 3, generator=generator, dtype=torch.float64)
    keep = torch.tensor(source_keeps).view(2, 6)
    weight = torch.tensor(target_weights, dtype=torch.float64).view(2, 5)
    zeros, costs = APMLDistance(reduction="none")(source, target, src_weight=0.25 * keep, dst_weight=weight)
    assert zeros.shape == (2, 6)
    assert not zeros.any()
    unweighted = APMLDistance(reduction="none")(source, target, keep.double(), (weight != 0).double())[1]
    torch.testing.assert_close(costs, weight * unweighted)
    for b in range(2):
        kept, wanted = source[b : b + 1, keep[b]], target[b : b + 1, weight[b] != 0]
        expected = apml_loss(kept, wanted, reduction="none", backend="dense")
        torch.testing.assert_close(unweighted[b].sum()[None], expected)
        assert not costs[b][weight[b] == 0].any()


def test_sum_and_mean_are_those_of_none_and_the_gradient_is_apmls() -> None:
    source, target = torch.rand(2, 30, 3, requires_grad=True), torch.rand(2, 20, 3)
    costs = APMLDistance(reduction="none")(source, target)[1]
    for reduction in ("sum", "mean"):
        first, second = APMLDistance(reduction=reduction, loss_dst_weight=10.0)(source, target)
        assert first == 0
        torch.testing.assert_close(second, 10 * getattr(costs, reduction)())
        override = APMLDistance(loss_dst_weight=10.0)(source, target, reduction_override=reduction)[1]
        torch.testing.assert_close(override, second)
    ours = torch.autograd.grad(APMLDistance()(source, target)[1], source)[0]
    torch.testing.assert_close(ours, torch.autograd.grad(APML(reduction="mean")(source, target), source)[0])


def test_weights_that_broadcast_and_half_precision() -> None:
    source, target = torch.rand(4, 1, 3), torch.rand(4, 3, 3)
    weight = torch.tensor([[1.0], [0.0], [2.0], [1.0]])  # one for each pair, as vote modules give them
    costs = APMLDistance(reduction="none")(source, target, dst_weight=weight)[1]
    torch.testing.assert_close(costs, weight * torch.cdist(source, target)[:, 0])
    masked = APMLDistance(reduction="none")(source, target, src_weight=weight > 0, dst_weight=weight > 0)[1]
    torch.testing.assert_close(masked, (weight > 0) * torch.cdist(source, target)[:, 0])
    with torch.autocast("cpu", torch.bfloat16):
        low = APMLDistance()(source.bfloat16(), target.bfloat16())[1]
    assert low.dtype == torch.float32


def test_nothing_to_match_is_zero() -> None:
    source, target = torch.rand(2, 4, 3, requires_grad=True), torch.rand(2, 4, 3)
    total = sum(APMLDistance()(source, target, dst_weight=0.0))
    assert total == 0
    total.backward()
    assert not source.grad.any()
    assert sum(APMLDistance()(source, torch.rand(2, 0, 3))) == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (dict(src_weight=torch.tensor([[1.0, 2.0, 1.0]])), LossArgumentError, "src_weight runs from 1 to 2"),
        (dict(dst_weight=torch.rand(7)), LossValueError, r"dst_weight of shape \(7,\).*\(1, 3\)"),
        (dict(dst_weight=torch.tensor(-1.0)), LossValueError, "dst_weight must hold finite numbers"),
        (dict(src_weight=-1.0), LossValueError, "src_weight=-1.0"),
        (dict(return_indices=True), LossArgumentError, "return_indices=True.*matching_plan"),
        (dict(reduction_override="max"), Exception, "reduction_override='max'"),
    ],
)
def test_invalid_calls_raise(call: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        APMLDistance()(torch.rand(1, 3, 3), torch.rand(1, 3, 3), **call)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: APMLDistance(mode="l2"), LossArgumentError, "APMLDistance takes no argument 'mode'"),
        (lambda: APMLDistance(loss_dst_wieght=1), LossArgumentError, "did you mean 'loss_dst_weight'"),
        (lambda: APMLDistance(p_min=2), LossValueError, "p_min"),
        (lambda: PackedLoss("APLM"), UnknownLossError, "did you mean 'APML'"),
        (lambda: PackedLoss(dict(type="APML", p_mim=1)), LossArgumentError, "did you mean 'p_min'"),
    ],
)
def test_bad_arguments(build: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        build()


def test_packed_clouds_are_compared_one_by_one() -> None:
    preds = [torch.rand(n, 3) for n in (20, 12, 9)]
    targets = [torch.rand(n, 3) for n in (15, 22, 9)]
    ends = [torch.tensor([len(c) for c in clouds]).cumsum(0) for clouds in (preds, targets)]
    got = PackedLoss(dict(type="APML", reduction="mean"))(torch.cat(preds), torch.cat(targets), *ends)
    each = [APML(reduction="mean")(p[None], t[None]) for p, t in zip(preds, targets, strict=True)]
    torch.testing.assert_close(got, torch.stack(each).mean())
    torch.testing.assert_close(PackedLoss()(preds[0], targets[0]), APML()(preds[0][None], targets[0][None]))


def test_packed_clouds_of_one_size_go_to_losses_that_take_no_lengths() -> None:
    class Plain(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return (a - b).abs().mean()

    a, b, ends = torch.rand(6, 3), torch.rand(6, 3), torch.tensor([3, 6])
    torch.testing.assert_close(PackedLoss(Plain())(a, b, ends, ends), (a - b).abs().mean())


@pytest.mark.parametrize(
    ("pred_ends", "target_ends", "message"),
    [
        ([2, 5], [2, 6], r"pred_offset=\[2, 5\].*the last 6"),
        ([4, 3, 6], [2, 4, 6], "increasing numbers"),
        ([3, 6], [6], "as many clouds, got 2 and 1"),
    ],
)
def test_offsets_that_do_not_fit(pred_ends, target_ends, message: str) -> None:
    with pytest.raises(LossValueError, match=message):
        PackedLoss()(torch.rand(6, 3), torch.rand(6, 3), torch.tensor(pred_ends), torch.tensor(target_ends))
    with pytest.raises(LossValueError, match=r"pred must have shape"):
        PackedLoss()(torch.rand(1, 6, 3), torch.rand(6, 3))
