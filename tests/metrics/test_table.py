"""The table of metrics: spellings, factors, and that one entry adds a metric everywhere."""

import pytest
import torch

from apml_plugin.errors import LossArgumentError
from apml_plugin.metrics import METRICS, Accumulator, Metric, Pair, cd_l1, f_score, find, matched_distance_quantiles
from apml_plugin.metrics.pairs import of_pairs


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("CDL1", "CDL1"), ("CD-L1", "CDL1"), ("cd-l2", "CDL2"), ("F", "F-Score"), ("uniformity", "Uniformity"),
     ("p95", "P95"), ("MMD-CD-L2", "MMD"), ("F-Score@1%", "F-Score")],
)  # fmt: skip
def test_a_metric_has_several_spellings(spelling, name):
    assert find(spelling) is METRICS[name]


def test_percentiles_and_thresholds_are_part_of_a_name():
    pair = Pair(torch.rand(20, 3), torch.rand(30, 3))
    at_99 = matched_distance_quantiles(pair.pred, pair.gt, [0.99]).item()
    assert find("p99").of_pair(pair, scale=1.0) == pytest.approx(at_99)
    for spelling in ("F@5%", "F@0.05"):
        assert find(spelling).of_pair(pair) == pytest.approx(f_score(pair.pred, pair.gt, 0.05).item())


@pytest.mark.parametrize("name", ["CD", "p101", "Uniformty", ""])
def test_unknown_names_are_rejected_with_the_nearest_one(name):
    with pytest.raises(LossArgumentError, match=f"no metric is called '{name}'"):
        find(name)


def test_factors_and_scales():
    pair = Pair(torch.rand(20, 3), torch.rand(20, 3))
    value = cd_l1(pair.pred, pair.gt).item()
    assert METRICS["CDL1"].of_pair(pair) == pytest.approx(1000 * value)
    assert METRICS["CDL1"].of_pair(pair, scale=10) == pytest.approx(10 * value)
    assert METRICS["DCD"].of_pair(pair, scale=10) == METRICS["DCD"].of_pair(pair)  # it has no unit


def test_one_entry_adds_a_metric(monkeypatch):
    @of_pairs
    def centroid(pair: Pair) -> float:
        """Distance of the two centroids."""
        return float((pair.pred.mean(0) - pair.gt.mean(0)).norm())

    monkeypatch.setitem(METRICS, "Centroid", Metric("Centroid", "centroid", centroid, "length", 1000))
    assert Accumulator("Centroid")(torch.zeros(2, 4, 3), torch.ones(2, 5, 3)).item() == pytest.approx(3**0.5)
    from apml_plugin.studies.evaluate.evaluation import Choice, measure

    pair = Pair(torch.zeros(4, 3), torch.ones(5, 3))
    assert measure(pair, Choice(("centroid",), scale=1.0)) == {"centroid": pytest.approx(3**0.5)}
