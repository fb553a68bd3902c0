"""Means of matched distances are the metrics and losses of the same name; quantiles are checked by sorting."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apml_plugin.errors import LossValueError
from apml_plugin.functional import apml_loss
from apml_plugin.metrics import cd_l1, emd, matched_distance_quantiles, matched_distances


def clouds(n, m, seed=0):
    generator = torch.Generator().manual_seed(seed)
    make = lambda k: torch.rand(k, 3, generator=generator, dtype=torch.float64)  # noqa: E731
    return make(n), make(m)


def test_the_means_are_those_of_the_metrics_and_of_the_loss():
    pred, gt = clouds(20, 20)
    mean = {}
    for matching in ("nearest", "emd", "apml"):
        distances, weights = matched_distances(pred, gt, matching)
        assert weights.sum().item() == pytest.approx(1, abs=1e-12)
        mean[matching] = float(distances @ weights)
    assert mean["nearest"] == pytest.approx(cd_l1(pred, gt).item(), rel=1e-12)
    assert mean["emd"] == pytest.approx(emd(pred, gt).item(), rel=1e-12)
    assert mean["apml"] == pytest.approx(apml_loss(pred[None], gt[None], reduction="mean").item(), rel=1e-7)


@given(seed=st.integers(0, 1000), n=st.integers(1, 30), q=st.floats(0, 1))
@settings(max_examples=30)
def test_a_quantile_is_the_smallest_distance_that_holds_the_share(seed, n, q):
    pred, gt = clouds(n, n, seed)
    apart = sorted(matched_distances(pred, gt, "emd")[0].tolist())
    result = matched_distance_quantiles(pred, gt, [q], "emd").item()
    within = sum(d <= result + 1e-15 for d in apart) / n
    assert within >= q - 1e-9
    below = [d for d in apart if d < result]
    assert len(below) / n < q or result == apart[0]


def test_quantiles_of_a_batch_and_half_the_weight_for_each_direction():
    pred, gt = torch.zeros(3, 3), torch.tensor([[0.0, 0, 0], [2, 0, 0]])
    # pred to gt: 0, 0, 0 (a sixth each); gt to pred: 0 and 2 (a quarter each)
    assert matched_distance_quantiles(pred, gt, [0.5, 0.74, 0.76, 1]).tolist() == [0, 0, 2, 2]
    pair = [torch.stack(c) for c in zip(clouds(6, 8, 1), clouds(6, 8, 2), strict=True)]
    rows = matched_distance_quantiles(*pair)
    assert rows.shape == (2, 3)
    assert torch.equal(rows[1], matched_distance_quantiles(pair[0][1], pair[1][1]))


def test_errors_name_what_cannot_be_matched():
    pred, gt = clouds(3, 4)
    with pytest.raises(LossValueError, match="matching='best' must be one of nearest"):
        matched_distances(pred, gt, "best")
    with pytest.raises(LossValueError, match="as many predicted as true points, got 3 and 4"):
        matched_distance_quantiles(pred, gt, [0.5], "emd")
    with pytest.raises(LossValueError, match=r"quantiles=\[1.5\]"):
        matched_distance_quantiles(pred, gt, [1.5])
    with pytest.raises(LossValueError, match="NaN"):
        matched_distances(pred * torch.nan, gt)
