"""HGMM and GMM against torch.distributions, against plain loops, and at the edges."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixtures import random_hierarchy, random_mixture, reference_nll
from torch.distributions import MultivariateNormal

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses.mixture import GMM, HGMM, Hierarchy, Mixture, MixtureOutput
from apml_plugin.losses.mixture.likelihood import held_out_nll, responsibilities
from apml_plugin.registry import build_loss


def cloud(n: int = 40, batch: int = 2, dim: int = 3) -> torch.Tensor:
    return torch.randn(batch, n, dim, dtype=torch.float64)


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 1000))
def test_equals_torch_distributions(components: int, dim: int, seed: int) -> None:
    mixture, points = random_mixture(components, dim=dim, seed=seed), cloud(dim=dim)
    expected = reference_nll(mixture, points).mean(1)
    torch.testing.assert_close(GMM("none")(mixture, points), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(HGMM("none")(mixture, points), expected, rtol=1e-10, atol=1e-10)


def naive_hgmm(hierarchy: Hierarchy, points: torch.Tensor, b: int) -> float:
    """One cloud by loops: each point walks down the tree."""
    total = 0.0
    for x in points[b]:
        among = range(hierarchy.sizes[0])
        for depth, level in enumerate(hierarchy.levels):
            weights = torch.stack([level.logits[b, k] for k in among]).softmax(0)
            normals = [MultivariateNormal(level.means[b, k], level.covariances()[b, k]) for k in among]
            weighted = [float(w) * math.exp(float(n.log_prob(x))) for w, n in zip(weights, normals, strict=True)]
            total -= math.log(sum(weighted))
            if depth + 1 < len(hierarchy.levels):
                best = list(among)[weighted.index(max(weighted))]
                children = hierarchy.sizes[depth + 1] // hierarchy.sizes[depth]
                among = range(best * children, (best + 1) * children)
    return total / len(points[b])


def test_the_hierarchy_routes_each_point_to_one_child() -> None:
    hierarchy, points = random_hierarchy(), cloud(12)
    values = HGMM("none")(hierarchy, points)
    for b in (0, 1):
        assert float(values[b]) == pytest.approx(naive_hgmm(hierarchy, points, b), abs=1e-10)
    assert HGMM()(list(hierarchy.levels), points) == values.mean()
    torch.testing.assert_close(HGMM("sum")(hierarchy, points), 12 * values.mean())


def test_the_last_level_of_a_hierarchy_weighs_by_the_tree_or_by_its_own_softmax() -> None:
    hierarchy, points = random_hierarchy((2, 6)), cloud()
    upper, lower = (level.logits for level in hierarchy.levels)
    tree = (upper.softmax(1)[..., None] * lower.view(2, 2, 3).softmax(2)).reshape(2, 6)
    torch.testing.assert_close(hierarchy.flat().logits.exp(), tree)
    expected = reference_nll(Mixture(tree.log(), *hierarchy.levels[1].tensors[1:]), points).mean()
    torch.testing.assert_close(GMM()(hierarchy, points), expected)
    torch.testing.assert_close(
        GMM(weights="softmax")(hierarchy, points), reference_nll(hierarchy.levels[1], points).mean()
    )


@pytest.mark.parametrize("loss", [HGMM(), GMM(), GMM(weights="softmax"), HGMM("sum")])
def test_gradcheck(loss: HGMM | GMM) -> None:
    hierarchy, points = random_hierarchy((2, 4), batch=1), cloud(4, 1)
    tensors = [t.clone().requires_grad_() for level in hierarchy.levels for t in level.tensors]

    def value(gt: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        return loss([Mixture(*given[:4]), Mixture(*given[4:])], gt)

    assert torch.autograd.gradcheck(value, (points.requires_grad_(), *tensors))


@pytest.mark.parametrize("loss", [HGMM(), GMM()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eigenvalue", [0.0, 1e-10, 1e-6])
@pytest.mark.parametrize("reach", [0.0, 1.0, 1e6])
def test_finite_with_collapsed_components_and_far_points(
    loss: HGMM | GMM, dtype: torch.dtype, eigenvalue: float, reach: float
) -> None:
    levels = []
    for k in (1, 4):
        logits, means, frames, eigenvalues = random_mixture(k, dtype=dtype).tensors
        levels.append([logits, means, frames, torch.full_like(eigenvalues, eigenvalue)])
    levels[1][0] = levels[1][0] - torch.tensor([0.0, 0.0, 0.0, 1e4], dtype=dtype)  # a weight that vanishes
    for level in levels:
        for t in level:
            t.requires_grad_()
    points = torch.randn(2, 30, 3, dtype=dtype)
    value = loss([Mixture(*level) for level in levels], points * reach)
    value.backward()
    assert torch.isfinite(value)
    for level in levels:
        for t in level:
            assert t.grad is None or torch.isfinite(t.grad).all()


def test_lengths_leave_padding_out() -> None:
    hierarchy, points = random_hierarchy(), cloud(10)
    points[1, 6:] = float("nan")
    for loss in (HGMM, GMM):
        values = loss("none")(hierarchy, points, gt_lengths=[10, 6])
        for b, n in enumerate((10, 6)):
            alone = hierarchy.map(lambda t, b=b: t[b : b + 1])
            torch.testing.assert_close(values[b], loss()(alone, points[b : b + 1, :n]))
        assert torch.isfinite(loss()(hierarchy, points, None, [10, 0]))
    assert HGMM("none")(hierarchy, points[:, :6], gt_lengths=[0, 6])[0] == 0


def test_order_of_points_and_of_siblings_does_not_matter() -> None:
    mixture, points = random_mixture(6), cloud()
    order = torch.randperm(6)
    shuffled = Mixture(*(t[:, order] for t in mixture.tensors))
    torch.testing.assert_close(GMM()(mixture, points), GMM()(shuffled, points[:, torch.randperm(40)]))


@pytest.mark.parametrize("name", ["HGMM", "GMM", "EigenPenalty", "LatentKL", "PoseLoss"])
def test_two_clouds_raise_an_error_that_says_what_is_needed(name: str) -> None:
    loss = build_loss(name)
    assert loss.needs
    assert not loss.state_dict()
    with pytest.raises(LossArgumentError, match=rf"{name} needs .*got a cloud \(2, 9, 3\).*ChamferL2"):
        loss(torch.rand(2, 9, 3), torch.rand(2, 9, 3))


def test_invalid_input_raises_an_error() -> None:
    mixture, points = random_mixture(3), cloud()
    with pytest.raises(
        LossArgumentError, match=r"^pred_lengths=\[3, 3\]: a mixture has no padding .*gt_lengths alone$"
    ):
        HGMM()(mixture, points, [3, 3])
    with pytest.raises(LossValueError, match="same batch size"):
        HGMM()(mixture, points[:1])
    with pytest.raises(LossValueError, match=r"gt\[0\] holds NaN"):
        GMM()(mixture, points * float("nan"))
    with pytest.raises(LossValueError, match="reduction='max'"):
        build_loss({"NAME": "HGMM", "reduction": "max"})
    for lower, got in (
        (random_mixture(6), r"6 components \(batch 2, 3 coordinates\)"),
        (random_mixture(8, batch=3), r"8 components \(batch 3, 3 coordinates\)"),
        (random_mixture(8, dim=2), r"8 components \(batch 2, 2 coordinates\)"),
    ):
        message = rf"^a level of {got} cannot follow one of 4 \(batch 2, 3 coordinates\): each component splits into"
        with pytest.raises(LossValueError, match=message):
            Hierarchy([random_mixture(4), lower])
    for levels in ([], [3], [mixture, points]):
        with pytest.raises(LossArgumentError, match=r"^levels must be one Mixture for each level, the smallest first$"):
            Hierarchy(levels)
    for wrong, got in ((3, "int"), ([], "list"), ([mixture, 3], "list"), (points, r"a cloud \(2, 40, 3\)")):
        with pytest.raises(
            LossArgumentError, match=rf"^HGMM needs .*; got {got}\. The model PointGMM gives a mixture; "
        ):
            HGMM()(wrong, points)
    logits, means, frames, eigenvalues = mixture.tensors
    for wrong, message in [
        (
            (logits[:, :2], means, frames, eigenvalues),
            r"^a mixture has .*; got logits \(2, 2\), means \(2, 3, 3\), frames \(2, 3, 3, 3\), eigenvalues \(2, 3,",
        ),
        ((logits[0], means, frames, eigenvalues), r"got logits \(3,\)"),
        ((logits, means[0], frames, eigenvalues), r"means \(3, 3\)"),
        (tuple(t[:, :0] for t in mixture.tensors), "K and D at least 1"),
        ((logits, means[..., :0], frames[..., :0, :0], eigenvalues[..., :0]), "K and D at least 1"),
        (
            (logits, means, frames, eigenvalues.to("meta")),
            "^logits, means, frames and eigenvalues must be on one device$",
        ),
        (
            (logits, means, 2 * frames, eigenvalues),
            "^frames are not orthonormal: .* up to 3; make them with apml_plugin.models.pointgmm.orthonormal_frames$",
        ),
        (
            (logits, means, frames, eigenvalues - 2),
            f"^eigenvalues must be 0 or more, the least is {float(eigenvalues.min() - 2):g}: they are variances$",
        ),
        ((logits * float("nan"), means, frames, eigenvalues), "^logits holds NaN or Inf; look for a diverged network$"),
        ((logits, means / 0, frames, eigenvalues), "^means holds NaN"),
        ((logits, means.long(), frames, eigenvalues), "^means must be a floating-point torch.Tensor, got torch.int64$"),
        (([0.5], means, frames, eigenvalues), "^logits must be a floating-point torch.Tensor, got list$"),
    ]:
        with pytest.raises((LossValueError, LossArgumentError), match=message):
            Mixture(*wrong)


@pytest.mark.parametrize(("dtype", "right", "wrong"), [(torch.float32, 4e-4, 6e-4), (torch.bfloat16, 0.008, 0.02)])
def test_frames_may_be_off_by_their_dtypes_precision(dtype: torch.dtype, right: float, wrong: float) -> None:
    logits, means, _, eigenvalues = (t.to(dtype) for t in random_mixture(1, batch=1).tensors)
    eye = torch.eye(3, dtype=dtype).expand(1, 1, 3, 3)
    assert Mixture(logits, means, eye * (1 + right), eigenvalues).components == 1
    with pytest.raises(LossValueError, match="not orthonormal"):
        Mixture(logits, means, eye * (1 + wrong), eigenvalues)


def test_responsibilities_are_those_of_bayes() -> None:
    mixture, points = random_mixture(4), cloud(5)
    found, total = responsibilities(points, mixture)
    normals = MultivariateNormal(mixture.means, mixture.covariances())
    weighted = (
        normals.log_prob(points.transpose(0, 1)[:, :, None]).transpose(0, 1).exp() * mixture.logits.softmax(1)[:, None]
    )
    torch.testing.assert_close(found, weighted / weighted.sum(-1, keepdim=True))
    torch.testing.assert_close(total, weighted.sum(-1).log())


def test_held_out_likelihood() -> None:
    hierarchy, points = random_hierarchy(), cloud()
    leaf = hierarchy.map(lambda t: t.clone().requires_grad_())
    assert held_out_nll(leaf, points) == pytest.approx(float(GMM()(hierarchy, points)))
    assert held_out_nll(MixtureOutput(hierarchy), points) == held_out_nll(hierarchy, points)


def test_half_precision_is_computed_in_float32() -> None:
    mixture, points = random_mixture(4, dtype=torch.float32), cloud().float()
    rounded = mixture.map(torch.Tensor.bfloat16)
    for loss in (GMM(), HGMM()):
        value = loss(rounded, points.bfloat16())
        assert value.dtype == torch.float32
        assert value == loss(rounded, points.bfloat16().float())
        assert loss(rounded, points.double()).dtype == torch.float64
