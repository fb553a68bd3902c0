"""The eigenvalue penalty, both normalisations of the KL divergence, the pose loss, and sums with APML."""

from __future__ import annotations

import pytest
import torch
from mixtures import random_hierarchy
from torch.distributions import Normal, kl_divergence

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses import APML
from apml_plugin.losses.mixture import HGMM, EigenPenalty, LatentKL, MixtureOutput, PoseLoss, judge
from apml_plugin.losses.mixture.terms import check_terms, wants_points
from apml_plugin.registry import build_loss, set_epoch


def test_eigen_penalty_is_the_mean_least_eigenvalue_of_the_last_level() -> None:
    hierarchy = random_hierarchy((2, 4))
    last = hierarchy.levels[-1].eigenvalues
    expected = sum(float(last[b, k].min()) for b in range(2) for k in range(4)) / 8
    assert float(EigenPenalty()(hierarchy)) == pytest.approx(expected)
    assert EigenPenalty()(hierarchy, torch.rand(2, 5, 3)) == EigenPenalty()(hierarchy)
    tensors = [t.clone().requires_grad_() for t in (last,)]
    assert torch.autograd.gradcheck(lambda e: e.amin(-1).mean(), tensors)


def test_latent_kl_in_both_normalisations() -> None:
    mean, log_variance = torch.randn(4, 16, dtype=torch.float64), torch.randn(4, 16, dtype=torch.float64)
    true = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(LatentKL("sum")((mean, log_variance)), true)
    torch.testing.assert_close(LatentKL()((mean, log_variance)), true / 16)
    assert LatentKL()((0 * mean, 0 * mean)) == 0
    leaves = (mean.requires_grad_(), log_variance.requires_grad_())
    assert torch.autograd.gradcheck(lambda m, v: LatentKL("sum")((m, v)), leaves)
    with pytest.raises(LossValueError, match=r"^LatentKL needs .*; got shapes \(4, 16\) and \(4, 15\)$"):
        LatentKL()((mean, log_variance[:, 1:]))
    for wrong in ((mean[0], log_variance[0]), (mean[None], log_variance[None])):
        with pytest.raises(LossValueError, match="got shapes"):
            LatentKL()(wrong)
    for wrong, got in (((mean,), "tuple"), (3, "int"), ((mean, mean.long()), "tuple"), (mean, r"a cloud \(4, 16\)")):
        with pytest.raises(
            LossArgumentError, match=rf"^LatentKL needs .*; got {got}\. Between two clouds take ChamferL2"
        ):
            LatentKL()(wrong)
    assert LatentKL()([mean.half(), log_variance.half()]).dtype == torch.float32


def test_pose_loss_by_hand() -> None:
    shift, true_shift = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 2.5, 2.0]])
    turn, true_turn = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    assert float(PoseLoss()((shift, turn), (true_shift, true_turn))) == pytest.approx(50 * 0.5 - 10 * 0.6)
    assert float(PoseLoss(0, 1)((shift, turn), (shift, turn))) == pytest.approx(-1)
    leaves = [t.double().requires_grad_() for t in (shift, turn)]
    true = (true_shift.double(), true_turn.double())
    assert torch.autograd.gradcheck(lambda s, t: PoseLoss()((s, t), true), leaves)
    for pred, gt, got in (
        ((shift, shift), (shift, shift), r"translations \(1, 3\) and \(1, 3\), rotations \(1, 3\) and \(1, 3\)"),
        ((shift, turn), (turn, turn), r"translations \(1, 3\) and \(1, 2\), rotations \(1, 2\) and \(1, 2\)"),
        ((shift, turn), (shift, turn[:0]), r"translations \(1, 3\) and \(1, 3\), rotations \(1, 2\) and \(0, 2\)"),
    ):
        with pytest.raises(LossValueError, match=rf"^PoseLoss needs .*; got {got}$"):
            PoseLoss()(pred, gt)
    with pytest.raises(LossArgumentError, match=r"^PoseLoss needs two poses: .*; got NoneType\. "):
        PoseLoss()((shift, turn))
    with pytest.raises(LossValueError, match="rotation=-1"):
        PoseLoss(rotation=-1)


def output(**options: object) -> MixtureOutput:
    return MixtureOutput(random_hierarchy((2, 4)), torch.rand(2, 20, 3, dtype=torch.float64), **options)


def test_a_weighted_sum_hands_each_term_its_part() -> None:
    gt = torch.rand(2, 25, 3, dtype=torch.float64)
    latent = (torch.rand(2, 8), torch.rand(2, 8))
    out = output(latent=latent)
    terms = ["HGMM", {"NAME": "EigenPenalty", "weight": 10}, {"NAME": "LatentKL", "weight": 2}]
    loss = build_loss([*terms, {"NAME": "APML", "weight": 0.1}])
    of_mixture, of_points = judge(loss, out, gt)
    expected = HGMM()(out.hierarchy, gt) + 10 * EigenPenalty()(out.hierarchy) + 2 * LatentKL()(latent)
    torch.testing.assert_close(of_mixture, expected)
    torch.testing.assert_close(of_points, 0.1 * APML()(out.points, gt))
    assert wants_points(loss)
    assert not wants_points(build_loss(terms))
    assert judge(build_loss("APML"), out, gt)[0] == 0
    lengths = judge(loss, out, gt, [25, 10])
    torch.testing.assert_close(lengths[1], 0.1 * APML()(out.points, gt, None, [25, 10]))


def test_a_schedule_from_points_to_likelihood() -> None:
    gt, out = torch.rand(2, 25, 3, dtype=torch.float64), output()
    loss = build_loss({"NAME": "Schedule", "from": "APML", "to": "HGMM", "start": 0, "end": 2})
    set_epoch(loss, 1)
    of_mixture, of_points = judge(loss, out, gt)
    torch.testing.assert_close(of_mixture, 0.5 * HGMM()(out, gt))
    torch.testing.assert_close(of_points, 0.5 * APML()(out.points, gt))


def test_what_a_mixture_cannot_be_judged_by() -> None:
    gt = torch.rand(2, 25, 3, dtype=torch.float64)
    with pytest.raises(
        LossArgumentError, match=r"^a mixture model has no stages \(coarse, fine\): write a list, .*0.1}\]$"
    ):
        check_terms(build_loss({"coarse": "APML", "fine": "APML"}))
    with pytest.raises(LossArgumentError, match=r"^LatentKL needs .*; the model has none: give it variational: True$"):
        check_terms(build_loss("LatentKL"), variational=False)
    assert check_terms(loss := build_loss(["LatentKL", "HGMM", "APML"])) is loss
    with pytest.raises(
        LossArgumentError, match=r"^LatentKL needs .*; the model has none: build it with variational=True$"
    ):
        judge(build_loss("LatentKL"), output(), gt)
    with pytest.raises(LossArgumentError, match=r"^PoseLoss needs .*; a mixture model does not give that$"):
        check_terms(build_loss(["HGMM", "PoseLoss"]))
    with pytest.raises(LossArgumentError, match=r"^APML\(.*\) compares points, and the output has none: draw some$"):
        judge(build_loss("APML"), MixtureOutput(random_hierarchy((2, 4))), gt)
