"""Every metric against plain float64 loops written from its definition."""

import itertools
import math

import pytest
import torch

from apml_plugin.errors import LossValueError
from apml_plugin.metrics import cd_l1, cd_l2, dcd, emd, f_score, uniformity

METRICS = [cd_l1, cd_l2, dcd, emd, f_score, uniformity]


def clouds(n, m, batch=None, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    lead = () if batch is None else (batch,)
    make = lambda k: torch.rand(*lead, k, 3, generator=generator, dtype=dtype)  # noqa: E731
    return make(n), make(m)


def nearest(xs, ys):
    return [min(math.dist(x, y) for y in ys) for x in xs]


def mean(values):
    return sum(values) / len(values)


def test_chamfer_distances_follow_pointrs_definition():
    pred, gt = clouds(23, 31)
    there, back = nearest(pred.tolist(), gt.tolist()), nearest(gt.tolist(), pred.tolist())
    assert cd_l1(pred, gt).item() == pytest.approx((mean(there) + mean(back)) / 2, rel=1e-12)
    squares = mean([d * d for d in there]) + mean([d * d for d in back])
    assert cd_l2(pred, gt).item() == pytest.approx(squares, rel=1e-12)


def test_emd_is_the_best_of_all_assignments():
    pred, gt = clouds(6, 6, seed=3)
    x, y = pred.tolist(), gt.tolist()
    best = min(mean([math.dist(a, y[j]) for a, j in zip(x, p, strict=True)]) for p in itertools.permutations(range(6)))
    assert emd(pred, gt).item() == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("threshold", [0.05, 0.2])
def test_f_score_counts_strictly_nearer_points(threshold):
    pred, gt = clouds(40, 50, seed=1)
    precision = mean([d < threshold for d in nearest(pred.tolist(), gt.tolist())])
    recall = mean([d < threshold for d in nearest(gt.tolist(), pred.tolist())])
    assert f_score(pred, gt, threshold).item() == pytest.approx(2 * precision * recall / (precision + recall))
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0]], dtype=torch.float64)
    assert f_score(line + torch.tensor([0, 0.5, 0]), line, 0.5).item() == 0  # at the threshold is not below it
    assert f_score(line, line, 0.5).item() == 1


def naive_uniformity(pred, gt, share, disks):
    centroid = [mean(axis) for axis in zip(*gt, strict=True)]
    seeds = [max(gt, key=lambda p: math.dist(p, centroid))]
    while len(seeds) < min(disks, len(gt)):
        seeds.append(max(gt, key=lambda p: min(math.dist(p, s) for s in seeds)))
    held = max(2, round(share * len(gt)))
    ratios = []
    for seed in seeds:
        reach = sorted(math.dist(p, seed) for p in gt)[held - 1]
        ratios.append(mean([math.dist(p, seed) <= reach for p in pred]) / (held / len(gt)))
    return math.sqrt(mean([(r - 1) ** 2 for r in ratios]))


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_uniformity_is_the_spread_of_the_fair_share(share):
    pred, gt = clouds(70, 60, seed=5)
    expected = naive_uniformity(pred.tolist(), gt.tolist(), share, 12)
    assert uniformity(pred, gt, share, 12).item() == pytest.approx(expected, rel=1e-9)


def test_uniformity_sees_clumps():
    pred, gt = clouds(500, 500, seed=7)
    clumped = torch.cat([pred[:100].repeat(4, 1), pred[400:]])
    assert uniformity(gt, gt).item() == 0
    assert uniformity(gt + 10, gt).item() == 1
    assert uniformity(pred[torch.randperm(500)], gt).item() == pytest.approx(uniformity(pred, gt).item())
    assert uniformity(clumped, gt) > 1.3 * uniformity(pred, gt)


@pytest.mark.parametrize("metric", METRICS)
def test_a_batch_is_its_pairs(metric):
    pred, gt = clouds(30, 30, batch=3)
    values = metric(pred, gt)
    assert values.shape == (3,)
    assert metric(pred[0], gt[0]).shape == ()
    assert torch.equal(values, torch.stack([metric(x, y) for x, y in zip(pred, gt, strict=True)]))
    assert metric(pred.float(), gt.float()).dtype == torch.float32


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("pred", "gt", "words"),
    [
        (torch.rand(4), torch.rand(4, 3), "pred must be"),
        (torch.rand(2, 4, 3), torch.rand(3, 4, 3), "batch size"),
        (torch.rand(4, 3), torch.full((4, 3), float("nan")), "gt holds NaN"),
        (torch.rand(0, 3), torch.rand(4, 3), "no points"),
        (torch.rand(3, 64), torch.rand(3, 64), r"3 points of 64 coordinates; .* use .transpose\(-1, -2\)"),
    ],
)
def test_errors_name_bad_clouds(metric, pred, gt, words):
    with pytest.raises(LossValueError, match=words):
        metric(pred, gt)


def test_errors_name_bad_parameters():
    pred, gt = clouds(5, 6)
    with pytest.raises(LossValueError, match="got 5 and 6"):
        emd(pred, gt)
    with pytest.raises(LossValueError, match="threshold=0"):
        f_score(pred, gt, 0)
    with pytest.raises(LossValueError, match="share=2"):
        uniformity(pred, gt, 2)
    with pytest.raises(LossValueError, match="disks=1"):
        uniformity(pred, gt, disks=1)


def test_dcd_has_the_published_values_and_those_of_its_definition():
    x = [(math.sin(0.7 * i), math.cos(1.19 * i), math.sin(0.21 * i + 1)) for i in range(64)]
    y = [(0.1 + math.sin(0.71 * j), math.cos(1.207 * j), math.sin(0.213 * j + 1)) for j in range(96)]
    x, y = torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
    assert dcd(x, y).item() == pytest.approx(0.9983654563379627, abs=1e-9)
    assert dcd(x, y, 40, 0.5).item() == pytest.approx(0.7870514082254578, abs=1e-9)
    assert dcd(x, y, 40, 0.5, non_reg=True).item() == pytest.approx(0.7412960606404477, abs=1e-9)
    assert dcd(y, x, 40, 0.5).item() == pytest.approx(dcd(x, y, 40, 0.5).item(), abs=1e-12)
    with pytest.raises(LossValueError, match="alpha=-1"):
        dcd(x, y, alpha=-1)
