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
from apml_plugin.losses.mixture import GMM, HGMM, Hierarchy, Mixture
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
    with pytest.raises(LossArgumentError, match="pred_lengths"):
        HGMM()(mixture, points, [3, 3])
    with pytest.raises(LossValueError, match="same batch size"):
        HGMM()(mixture, points[:1])
    with pytest.raises(LossValueError, match=r"gt\[0\] holds NaN"):
        GMM()(mixture, points * float("nan"))
    with pytest.raises(LossValueError, match="reduction='max'"):
        build_loss({"NAME": "HGMM", "reduction": "max"})
    with pytest.raises(LossValueError, match="cannot follow one of 4"):
        Hierarchy([random_mixture(4), random_mixture(6)])
    with pytest.raises(LossArgumentError, match="smallest first"):
        Hierarchy([])
    logits, means, frames, eigenvalues = mixture.tensors
    for wrong, message in [
        ((logits[:, :2], means, frames, eigenvalues), "logits"),
        ((logits, means, 2 * frames, eigenvalues), "not orthonormal"),
        ((logits, means, frames, -eigenvalues), "eigenvalues must be 0 or more"),
        ((logits * float("nan"), means, frames, eigenvalues), "logits holds NaN"),
        ((logits, means.long(), frames, eigenvalues), "means must be a floating-point"),
    ]:
        with pytest.raises((LossValueError, LossArgumentError), match=message):
            Mixture(*wrong)
