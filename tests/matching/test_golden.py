"""Values of APML that were computed elsewhere, in float64, on both backends."""

from __future__ import annotations

import pytest
import torch
from clouds import BACKENDS, helix, lattice, naive_apml, sphere

from apml_plugin.functional import apml_loss
from apml_plugin.losses import APML, AdaptiveProbabilisticMatchingLoss, APMLSparse

CASES = {
    "helix 64": (helix(64, 0.1), helix(64, 0.0), 6.4127292555, 81.38712759),
    "helix 40 and 100": (helix(40, 0.1, 0.9), helix(100, 0.0), 15.1365609291, 121.08619263),
    "far from the origin": (helix(64, 0.1) + 1000, helix(64, 0.0) + 1000, 6.4127292555, 81.38712759),
    "equal clouds": (helix(64, 0.0), helix(64, 0.0), 0.0494317234, None),
}


def waves() -> tuple[torch.Tensor, torch.Tensor]:
    i, j = torch.arange(64, dtype=torch.float64), torch.arange(96, dtype=torch.float64)
    x = torch.stack((torch.sin(0.7 * i), torch.cos(1.19 * i), torch.sin(0.21 * i + 1)), dim=-1)
    y = torch.stack((0.1 + torch.sin(0.71 * j), torch.cos(1.207 * j), torch.sin(0.213 * j + 1)), dim=-1)
    return x[None], y[None]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_helix(case: str, backend: str) -> None:
    pred, gt, value, slope = CASES[case]
    pred = pred.clone().requires_grad_()
    loss = apml_loss(pred, gt, backend=backend, threshold=1e-30)
    # The printed values have 10 decimals; equal clouds therefore 9 digits.
    assert loss.item() == pytest.approx(value, rel=1e-9, abs=6e-11)
    if slope is not None:
        (grad,) = torch.autograd.grad(loss, pred)
        assert grad.abs().sum().item() == pytest.approx(slope, rel=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("p_min", "value"), [(0.5, 6.4371137887), (0.99, 6.3980468075)])
def test_helix_at_other_probabilities(p_min: float, value: float, backend: str) -> None:
    loss = apml_loss(helix(64, 0.1), helix(64, 0.0), p_min=p_min, backend=backend, threshold=1e-30)
    assert loss.item() == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_waves_both_ways(backend: str) -> None:
    x, y = waves()
    options = {"backend": backend, "threshold": 1e-30}
    assert apml_loss(x, y, **options).item() == pytest.approx(28.734946239178086, rel=1e-9)
    assert apml_loss(y, x, **options).item() == pytest.approx(19.199232410960168, rel=1e-9)
    published = AdaptiveProbabilisticMatchingLoss(min_softmax_value=0.8, **options)
    assert published(x, y).item() == pytest.approx(28.734946239178086, rel=1e-9)


@pytest.mark.parametrize(("threshold", "value"), [(1e-10, 28.734943581496715), (1e-8, 28.73446924433853)])
def test_published_sparse_with_halves_summed(threshold: float, value: float) -> None:
    # The published kernel divides by the bare sums; eps is the whole difference, 1.5e-8.
    x, y = waves()
    loss = APMLSparse(p_min=0.8, threshold=threshold, eps=1e-30)
    assert loss(x, y).item() == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("spacing", [1.0, 0.37])
def test_closed_form_of_equidistant_points(n: int, spacing: float, backend: str) -> None:
    # n points at equal distance g from one another (a segment, a triangle, a tetrahedron) against themselves.
    corners = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)[:n]
    points = (corners * spacing / 8**0.5)[None]
    for p in (0.3, 0.8, 0.95):
        loss = apml_loss(points, points, p_min=p, backend=backend, threshold=1e-30)
        # The eps of Sinkhorn and the margin of the temperature keep it a few 1e-8 away.
        assert loss.item() == pytest.approx(n * spacing * (1 - p) / (2 - p), rel=2e-7)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ties", ["share", "uniform"])
@pytest.mark.parametrize(
    "pair",
    [
        (lattice(3, 0.1), lattice(3, 0.1)),
        (lattice(3, 0.1), lattice(3, 0.1) + 0.05),
        (lattice(3), lattice(3) + torch.tensor([0.5, 0, 0], dtype=torch.float64)),
        (helix(20, 0.1), helix(10, 0.0).repeat(1, 3, 1)),
        (helix(10, 0.1).repeat(1, 2, 1), helix(25, 0.0)),
        (helix(12, 0.0).repeat(1, 2, 1), helix(12, 0.0).repeat(1, 2, 1)),
    ],
    ids=["same lattice", "cell centres", "edge centres", "gt thrice", "pred twice", "all twice"],
)
def test_ties_against_plain_loops(pair: tuple[torch.Tensor, torch.Tensor], ties: str, backend: str) -> None:
    x, y = (cloud.clone().requires_grad_() for cloud in pair)
    value, x_grad, y_grad, _ = naive_apml(x[0].detach(), y[0].detach(), ties=ties)
    loss = apml_loss(x, y, ties=ties, backend=backend, threshold=1e-30)
    grads = torch.autograd.grad(loss, (x, y))
    assert loss.item() == pytest.approx(value, rel=1e-9)
    torch.testing.assert_close(grads[0][0], x_grad, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(grads[1][0], y_grad, rtol=1e-7, atol=1e-9)


def test_one_duplicated_point_under_both_rules() -> None:
    gt = torch.randn(1, 64, 3, dtype=torch.float64)
    pred = gt + 0.1 * torch.randn(1, 64, 3, dtype=torch.float64)
    twice = gt.clone()
    twice[0, 1] = twice[0, 0]
    share = apml_loss(pred, twice, backend="sparse").item()
    uniform = apml_loss(pred, twice, ties="uniform", backend="sparse").item()
    assert share < uniform  # one tied row spreads over all 64 points


@pytest.mark.parametrize("noise", [0.5, 0.02, 0.002])
def test_threshold_1e_20_on_spheres(noise: float) -> None:
    gt = sphere(1024, seed=1)
    start = gt + noise * sphere(1024, seed=2)
    results = []
    for backend in BACKENDS:
        pred, target = start.clone().requires_grad_(), gt.clone().requires_grad_()
        loss = apml_loss(pred, target, backend=backend, threshold=1e-20)
        results.append((loss, *torch.autograd.grad(loss, (pred, target))))
    for other in results[1:]:
        for exact, found in zip(results[0], other, strict=True):
            assert ((found - exact).norm() / exact.norm()).item() < 1e-6


def test_classes_as_published_readme_writes_them() -> None:
    x, y = waves()
    assert APML(p_min=0.8)(x, y).item() == pytest.approx(28.734946239178086, rel=1e-9)
    assert APMLSparse(p_min=0.8, threshold=1e-10)(x, y).item() == pytest.approx(28.7349, rel=1e-5)
