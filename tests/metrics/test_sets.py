"""Metrics of sets of clouds against plain loops written from their definitions."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apml_plugin.errors import LossValueError
from apml_plugin.metrics import cd_l2, coverage, emd, jsd, minimum_matching_distance, pairwise_distances


def make(count, points, seed=0, spread=0.4):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.rand(points, 3, generator=generator, dtype=torch.float64) * 2 - 1) * spread for _ in range(count)]


def loop_jsd(samples, references, resolution, low, high):
    def shares(clouds):
        cells = Counter()
        for cloud in clouds:
            for point in cloud.tolist():
                cells[tuple(min(int((c - low) / (high - low) * resolution), resolution - 1) for c in point)] += 1
        total = sum(cells.values())
        return {cell: n / total for cell, n in cells.items()}

    p, q = shares(samples), shares(references)
    total = 0.0
    for cell in {*p, *q}:
        a, b = p.get(cell, 0.0), q.get(cell, 0.0)
        m = (a + b) / 2
        total += sum(0.5 * x * math.log2(x / m) for x in (a, b) if x > 0)
    return total


@given(seed=st.integers(0, 1000), resolution=st.sampled_from([1, 2, 5, 28]))
@settings(max_examples=20)
def test_jsd_is_the_divergence_of_the_two_histograms(seed, resolution):
    one, two = make(3, 20, seed), make(2, 30, seed + 1, spread=0.5)
    assert jsd(one, two, resolution).item() == pytest.approx(loop_jsd(one, two, resolution, -0.5, 0.5), abs=1e-12)


def test_jsd_is_0_for_equal_sets_1_for_disjoint_ones_and_symmetric():
    one = make(2, 50)
    assert jsd(one, one).item() == 0
    left, right = [c.abs() * torch.tensor([-1, 1, 1]) - 0.05 for c in one], [c.abs() + 0.05 for c in one]
    assert jsd(left, right, 10).item() == pytest.approx(1, abs=1e-12)
    other = make(4, 25, seed=9)
    assert jsd(one, other).item() == pytest.approx(jsd(other, one).item(), abs=1e-15)


def test_jsd_rejects_points_outside_and_uses_the_joint_cube_without_bounds():
    one, two = make(2, 30, spread=3.0), make(2, 30, seed=1, spread=2.0)
    with pytest.raises(LossValueError, match=r"points lie outside bounds=\(-0.5, 0.5\)"):
        jsd(one, two)
    points = torch.cat([*one, *two])
    low, high = points.min().item(), points.max().item()
    assert jsd(one, two, 4, bounds=None).item() == pytest.approx(loop_jsd(one, two, 4, low, high), abs=1e-12)


def test_pairwise_distances_are_those_of_each_pair():
    samples, references = make(3, 12), make(4, 15, seed=5)
    result = pairwise_distances(samples, references)
    for s, sample in enumerate(samples):
        for r, reference in enumerate(references):
            assert result[s, r].item() == pytest.approx(cd_l2(sample, reference).item(), rel=1e-12)
    equal = make(4, 12, seed=5)
    assert pairwise_distances(samples, equal, "EMD")[1, 2] == pytest.approx(emd(samples[1], equal[2]).item(), rel=1e-12)


def test_coverage_and_mmd_by_hand():
    references = [torch.tensor([[float(x), 0, 0]]) for x in (0, 10, 20, 30)]
    samples = [torch.tensor([[float(x), 0, 0]]) for x in (1, 9, 11)]  # nearest: 0, 10, 10
    assert coverage(samples, references).item() == 0.5
    nearest = [1, 1, 9, 19]
    assert minimum_matching_distance(samples, references, "CDL1").item() == pytest.approx(sum(nearest) / 4)
    squares = [2 * d * d for d in nearest]
    assert minimum_matching_distance(torch.stack(samples), torch.stack(references)).item() == sum(squares) / 4


@given(seed=st.integers(0, 1000))
@settings(max_examples=10)
def test_a_set_covers_itself(seed):
    clouds = make(5, 8, seed)
    assert coverage(clouds, clouds).item() == 1
    assert minimum_matching_distance(clouds, clouds).item() == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "empty set"),
        ([torch.zeros(0, 3)], r"samples\[0\]"),
        ([torch.zeros(2, 3), torch.full((2, 3), math.nan)], r"samples\[1\] holds NaN"),
        ([torch.zeros(2, 3), torch.zeros(2, 2)], r"samples\[1\] has 2 coordinates"),
        ([torch.zeros(1, 2, 3)], r"\(N, D\)"),
    ],
)
@pytest.mark.parametrize("metric", [jsd, coverage, minimum_matching_distance])
def test_errors_name_unusable_sets(metric, bad, message):
    with pytest.raises(LossValueError, match=message):
        metric(bad, make(2, 5))


def test_errors_name_bad_arguments():
    with pytest.raises(LossValueError, match="resolution=0"):
        jsd(make(1, 3), make(1, 3), resolution=0)
    with pytest.raises(LossValueError, match="bounds="):
        jsd(make(1, 3), make(1, 3), bounds=(1, -1))
    with pytest.raises(LossValueError, match="distance='CD' must be one of CDL1"):
        coverage(make(1, 3), make(1, 3), "CD")
