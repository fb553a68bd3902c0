"""Drawing from mixtures: distribution, gradients, flattening, clouds that stand for mixtures, interpolation."""

from __future__ import annotations

import pytest
import torch
from mixtures import random_hierarchy, random_mixture

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses.mixture import Mixture
from apml_plugin.metrics import cd_l2, emd
from apml_plugin.models import PointGMM
from apml_plugin.models.pointgmm import mixture_to_points, sample
from apml_plugin.models.pointgmm.sampling import interpolate


@pytest.mark.parametrize("draw", [sample, mixture_to_points])
def test_moments_are_the_mixtures(draw) -> None:
    mixture = random_mixture(5)
    points = draw(mixture, 40_000)
    weights = mixture.logits.softmax(-1)[..., None]
    mean = (weights * mixture.means).sum(1)
    apart = mixture.means - mean[:, None]
    spread = (weights[..., None] * (mixture.covariances() + apart[..., None] * apart[:, :, None])).sum(1)
    torch.testing.assert_close(points.mean(1), mean, atol=0.03, rtol=0)
    centred = points - points.mean(1, keepdim=True)
    torch.testing.assert_close(centred.mT @ centred / 40_000, spread, atol=0.06, rtol=0)


def test_counts_follow_the_tree() -> None:
    hierarchy = random_hierarchy((2, 6))
    expected = hierarchy.flat().logits.softmax(-1)
    _, chosen = sample(hierarchy, 20_000, return_components=True)
    assert bool((chosen.diff() >= 0).all())
    shares = torch.nn.functional.one_hot(chosen, 6).double().mean(1)
    torch.testing.assert_close(shares, expected, atol=0.02, rtol=0)


def test_gradients_reach_means_frames_and_eigenvalues() -> None:
    leaves = [t.requires_grad_() for t in random_mixture(4).tensors]
    sample(Mixture(*leaves), 200).square().sum().backward()
    assert leaves[0].grad is None
    assert all(t.grad is not None and bool((t.grad != 0).any()) for t in leaves[1:])
    collapsed = [leaves[0].detach(), leaves[1].detach(), leaves[2].detach(), torch.zeros(2, 4, 3).requires_grad_()]
    points = sample(Mixture(*(t.double() if i < 3 else t for i, t in enumerate(collapsed))), 50)
    points.sum().backward()
    assert torch.isfinite(collapsed[3].grad).all()


def test_flattening_draws_discs_and_leaves_the_mixture_untouched() -> None:
    mixture = random_mixture(1)
    before = [t.clone() for t in mixture.tensors]
    points = sample(mixture, 500, flatten=True)
    assert all(torch.equal(a, b) for a, b in zip(before, mixture.tensors, strict=True))
    along = torch.einsum("bij,bnj->bni", mixture.frames[:, 0], points - mixture.means)
    smallest = mixture.eigenvalues[:, 0].argmin(-1)
    variances = along.var(1)
    assert all(float(variances[b, smallest[b]]) < 1e-5 for b in range(2))
    assert float(variances.amax()) > 0.05


def test_a_mixture_as_a_cloud_for_metrics() -> None:
    hierarchy, gt = random_hierarchy(), torch.rand(2, 64, 3, dtype=torch.float64)
    cloud = mixture_to_points(hierarchy, 64)
    assert torch.equal(cloud, mixture_to_points(hierarchy, 64))
    assert cloud.shape == gt.shape
    assert torch.isfinite(cd_l2(cloud, gt)).all()
    assert torch.isfinite(emd(cloud[0], gt[0]))
    _, means, frames, eigenvalues = random_mixture(4, batch=1).tensors
    apart = Mixture(torch.zeros(1, 4), 1e3 * torch.arange(4.0)[None, :, None] + means, frames, eigenvalues)
    nearest = torch.cdist(mixture_to_points(apart, 10), apart.means)[0].argmin(-1)
    assert sorted(nearest.bincount().tolist()) == [2, 2, 3, 3]  # equal weights: shares to within one


def test_the_same_generator_draws_the_same_points() -> None:
    mixture = random_mixture(4)
    one, other = (sample(mixture, 50, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, other)
    for wrong in (0, -1):
        with pytest.raises(LossValueError, match="points"):
            sample(mixture, wrong)
    with pytest.raises(LossArgumentError, match="points"):
        sample(mixture, 1.5)


def test_interpolation_begins_and_ends_at_the_shapes() -> None:
    net = PointGMM(num_pred=32, dim_z=16, dim_h=16, levels=(4, 8), encoder=(8, 16, 32)).eval()
    start, end = torch.rand(30, 3), torch.rand(50, 3) - 1
    between = net.between(start, end, 5)
    assert len(between) == 5
    for i, cloud in ((0, start), (4, end)):
        torch.testing.assert_close(between.levels[-1].means[i], net.mixture(cloud[None]).levels[-1].means[0])
    with pytest.raises(LossValueError, match="steps=1"):
        interpolate(torch.rand(4), torch.rand(4), 1)
