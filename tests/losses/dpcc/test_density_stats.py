"""density_stats against loops, with what the published division leaves undefined."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses import density_stats


def slow(points: Tensor, samples: Tensor, k: int) -> tuple[list[list[float]], list[list[float]]]:
    """Counts and mean distances, point by point; 0 for a count of 0."""
    counts, means = [], []
    for x, y in zip(points.double().tolist(), samples.double().tolist(), strict=True):
        apart = [[sum((u - v) ** 2 for u, v in zip(p, q, strict=True)) ** 0.5 for q in y] for p in x]
        owner = [row.index(min(row)) for row in apart]
        count = [float(owner.count(j)) for j in range(len(y))]
        total = []
        for j in range(len(y)):
            near = sorted(range(len(x)), key=lambda i: apart[i][j])[:k]
            total.append(sum(apart[i][j] for i in near if owner[i] == j))
        counts.append(count)
        means.append([t / c if c else 0.0 for t, c in zip(total, count, strict=True)])
    return counts, means


@given(
    batch=st.integers(1, 2), n=st.integers(1, 70), m=st.integers(1, 12), k=st.integers(1, 20), seed=st.integers(0, 99)
)
def test_equals_loops(batch: int, n: int, m: int, k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(batch, n, 3, dtype=torch.float64, generator=generator)
    samples = torch.cat((points[:, : min(m, n)], torch.randn(batch, max(m - n, 0), 3, dtype=torch.float64)), dim=1)
    counts, means = slow(points, samples, k)
    for layout, turn in (("BN3", False), ("B3N", True)):
        x, y = (c.transpose(1, 2) if turn else c for c in (points, samples))
        found = density_stats(x, y, k, layout=layout)
        assert found.counts.tolist() == counts
        torch.testing.assert_close(found.mean_distances, torch.tensor(means, dtype=torch.float64))
    assert found.counts.sum() == batch * n


def test_by_hand_on_a_line() -> None:
    points = torch.tensor([[[x, 0.0, 0.0] for x in (0, 1, 2, 10, 13)]])
    samples = torch.tensor([[[0.0, 0, 0], [10.0, 0, 0]]])
    counts, means = density_stats(points, samples)
    assert counts.tolist() == [[3, 2]]
    assert means.tolist() == [[1.0, 1.5]]
    # Of three points that belong to the first only the two nearest are summed; all are counted, as published.
    assert density_stats(points, samples, k=2).mean_distances[0, 0] == pytest.approx(1 / 3)


def test_a_duplicate_sample_has_count_0_and_distance_0() -> None:
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [5, 0, 0]]], requires_grad=True)
    samples = torch.tensor([[[0.0, 0, 0], [0, 0, 0], [5, 0, 0]]])
    counts, means = density_stats(points, samples)
    assert sorted(counts[0, :2].tolist()) == [0, 2]
    assert torch.isfinite(means).all()
    assert sorted(means[0, :2].tolist()) == [0, 0.5]
    means.sum().backward()
    assert points.grad is not None
    assert torch.isfinite(points.grad).all()


def test_predicted_distances_are_differentiable_in_the_predicted_counts() -> None:
    points, samples = torch.rand(1, 9, 3, dtype=torch.float64), torch.rand(1, 3, 3, dtype=torch.float64)
    counts = torch.rand(1, 3, dtype=torch.float64) + 1
    plain = density_stats(points, samples)
    found = density_stats(points, samples, counts=counts)
    torch.testing.assert_close(found.mean_distances * counts, plain.mean_distances * plain.counts)
    assert torch.autograd.gradcheck(
        lambda x, y, c: density_stats(x, y, 4, counts=c).mean_distances,
        (points.requires_grad_(), samples.requires_grad_(), counts.requires_grad_()),
    )


def test_padding_belongs_to_no_sample() -> None:
    points, samples = torch.rand(2, 20, 3, dtype=torch.float64), torch.rand(2, 5, 3, dtype=torch.float64)
    padded = [torch.cat((c, torch.full_like(c, torch.nan)), dim=1) for c in (points, samples)]
    found = density_stats(*padded, points_lengths=[20, 20], samples_lengths=[5, 0])
    torch.testing.assert_close(found.counts[0, :5], density_stats(points, samples).counts[0])
    torch.testing.assert_close(found.mean_distances[0, :5], density_stats(points, samples).mean_distances[0])
    assert (found.counts[0, 5:] == 0).all()
    assert (found.counts[1] == 0).all()
    assert (found.mean_distances[1] == 0).all()


def test_samples_of_an_empty_cloud_have_count_0_and_distance_0() -> None:
    points, samples = torch.rand(2, 4, 3, requires_grad=True), torch.rand(2, 5, 3, requires_grad=True)
    found = density_stats(points, samples, points_lengths=[4, 0])
    assert found.counts.sum(1).tolist() == [4, 0]
    assert not found.mean_distances[1].any()
    found.mean_distances[1].sum().backward()
    for cloud in (points, samples):
        assert cloud.grad is not None
        assert not cloud.grad.any()


def test_a_large_cloud_needs_no_matrix() -> None:
    points = torch.rand(1, 60_000, 3)
    counts, means = density_stats(points, points[:, ::3])
    assert counts.sum() == 60_000
    assert torch.isfinite(means).all()


def test_bad_input() -> None:
    x = torch.rand(1, 5, 3)
    for wrong, message in (({"k": 0}, "^k=0 must be 1 or more; 16 is usual$"), ({"k": 1.5}, "^k=1.5 must"),
                           ({"layout": "BCN"}, "^layout='BCN' must be one of 'BN3', 'B3N'$"),
                           ({"counts": torch.ones(1, 4)}, r"^counts must have shape \(1, 5\), .*, got \(1, 4\)$"),
                           ({"counts": [1]}, r"^counts must have shape \(1, 5\), one for each sample, got list$"),
                           ({"counts": -torch.ones(1, 5)}, "^counts holds a negative number"),
                           ({"counts": torch.full((1, 5), torch.inf)}, "^counts holds a negative number, NaN or Inf"),
                           ({"points_lengths": [6]}, r"^density_stats, .*: points_lengths\[0\]=6 must"),
                           ({"samples_lengths": [6]}, r"^density_stats, .*: samples_lengths\[0\]=6 must")):  # fmt: skip
        with pytest.raises((LossValueError, LossArgumentError), match=message):
            density_stats(x, x, **wrong)
    with pytest.raises(
        LossValueError, match=r"^density_stats, points \(pred\) and samples \(gt\): pred\[0\] holds NaN"
    ):
        density_stats(x * torch.nan, x)
