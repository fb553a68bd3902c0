"""CompletionMetric: the package's measures, averaged over samples."""

from __future__ import annotations

import pytest
import torch

from apml_plugin import metrics
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.hosts.mmengine.metric import CompletionMetric

MEASURES = [name for name, metric in metrics.METRICS.items() if not metric.of_sets]


def _samples(n: int = 3, points: int = 60) -> list[dict[str, torch.Tensor]]:
    return [{"pred": torch.rand(points, 3), "gt": torch.rand(80, 3)} for _ in range(n)]


def test_the_means_are_those_of_the_packages_metrics() -> None:
    samples = _samples()
    metric = CompletionMetric(measures=MEASURES, f_threshold=0.1)
    metric.process(None, samples[:2])
    metric.process(None, samples[2:])
    got = metric.evaluate(size=3)
    assert list(got) == [f"completion/{name}" for name in MEASURES]

    def mean(measure) -> float:
        return sum(float(measure(s["pred"], s["gt"])) for s in samples) / 3

    assert got["completion/CDL1"] == pytest.approx(1000 * mean(metrics.cd_l1), rel=1e-6)
    assert got["completion/CDL2"] == pytest.approx(1000 * mean(metrics.cd_l2), rel=1e-6)
    assert got["completion/F-Score"] == pytest.approx(mean(lambda p, g: metrics.f_score(p, g, 0.1)), rel=1e-6)
    assert got["completion/Uniformity"] == pytest.approx(mean(metrics.uniformity), rel=1e-6)
    assert got["completion/EMD"] > got["completion/CDL1"]


def test_emd_of_whole_clouds_and_of_samples() -> None:
    pred, gt = torch.rand(50, 3), torch.rand(50, 3)
    whole, some = CompletionMetric(measures=["EMD"], scale=1), CompletionMetric(measures=["EMD"], scale=1, emd_points=9)
    for metric in (whole, some, some):
        metric.process(None, [{"pred": pred, "gt": gt}])
    assert whole.results[0]["EMD"] == pytest.approx(float(metrics.emd(pred, gt)))
    assert some.results[0] == some.results[1] != whole.results[0]


def test_a_perfect_completion() -> None:
    cloud = torch.rand(40, 3)
    metric = CompletionMetric()
    metric.process(None, [{"pred": cloud, "gt": cloud.clone()}])
    assert metric.evaluate(1) == {
        "completion/CDL1": 0,
        "completion/CDL2": 0,
        "completion/F-Score": 1,
        "completion/EMD": 0,
    }


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(measures=["CD"]), LossArgumentError, r"measures=\['CD'\].*CDL1, CDL2"),
        (dict(measures="EMD"), LossArgumentError, "measures='EMD' must be a list"),
        (dict(emd_points=0), LossValueError, "emd_points=0"),
        (dict(scale="much"), LossArgumentError, "scale='much'"),
    ],
)
def test_bad_arguments(options, error, message) -> None:
    with pytest.raises(error, match=message):
        CompletionMetric(**options)


def test_a_sample_without_ground_truth_is_named() -> None:
    with pytest.raises(LossArgumentError, match="no 'gt'"):
        CompletionMetric().process(None, [{"pred": torch.rand(5, 3)}])


def test_measures_of_sets_and_of_percentiles() -> None:
    samples = _samples(4)
    names = ["P95", "DCD", "JSD", "MMD", "Coverage", "CDL1"]
    metric = CompletionMetric(measures=names)
    metric.process(None, samples[:3])
    metric.process(None, samples[3:])
    got = metric.evaluate(size=4)
    assert list(got) == [f"completion/{name}" for name in names]
    pred, gt = [s["pred"] for s in samples], [s["gt"] for s in samples]
    far = [float(metrics.matched_distance_quantiles(p, g, [0.95])) for p, g in zip(pred, gt, strict=True)]
    assert got["completion/P95"] == pytest.approx(1000 * sum(far) / 4, rel=1e-6)
    assert got["completion/JSD"] == pytest.approx(float(metrics.jsd(pred, gt, bounds=None)), rel=1e-9)
    assert got["completion/Coverage"] == float(metrics.coverage(pred, gt))
    assert got["completion/MMD"] == pytest.approx(1000 * float(metrics.minimum_matching_distance(pred, gt)), rel=1e-9)
