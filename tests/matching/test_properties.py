"""What must hold for any clouds: invariances, masses, edge sizes, dtypes, lengths."""

from __future__ import annotations

import math

import pytest
import torch
from clouds import BACKENDS, naive_apml
from hypothesis import given
from hypothesis import strategies as st

from apml_plugin.errors import BackendError, LossValueError
from apml_plugin.functional import apml_loss, chamfer_distance, matching_plan
from apml_plugin.matching import dense, inputs, search, sparse_matrix

backends = st.sampled_from(BACKENDS)
sizes = st.integers(1, 40)
seeds = st.integers(0, 10_000)


def clouds(n: int, m: int, seed: int, d: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, n, d, dtype=torch.float64, generator=generator)
    y = torch.randn(1, m, d, dtype=torch.float64, generator=generator)
    return x, y


@given(n=st.integers(1, 12), m=st.integers(1, 12), seed=seeds, backend=backends, p_min=st.floats(0.0, 0.99))
def test_any_clouds_against_plain_loops(n: int, m: int, seed: int, backend: str, p_min: float) -> None:
    x, y = clouds(n, m, seed)
    value, x_grad, y_grad, plan = naive_apml(x[0], y[0], p_min=p_min)
    x.requires_grad_(), y.requires_grad_()
    loss = apml_loss(x, y, p_min=p_min, backend=backend, threshold=1e-30)
    found = torch.autograd.grad(loss, (x, y))
    assert loss.item() == pytest.approx(value, rel=1e-9)
    torch.testing.assert_close(found[0][0], x_grad, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found[1][0], y_grad, rtol=1e-7, atol=1e-9)
    held = matching_plan(x, y, p_min=p_min, backend=backend, threshold=1e-30)
    torch.testing.assert_close(held.to_dense()[0], plan, rtol=1e-7, atol=1e-12)


@given(n=sizes, m=sizes, seed=seeds, backend=backends)
def test_permutation(n: int, m: int, seed: int, backend: str) -> None:
    x, y = clouds(n, m, seed)
    one = apml_loss(x, y, backend=backend)
    other = apml_loss(x[:, torch.randperm(n)], y[:, torch.randperm(m)], backend=backend)
    assert other.item() == pytest.approx(one.item(), rel=1e-12)


@given(n=sizes, m=sizes, seed=seeds, backend=backends, angle=st.floats(0, 6.28))
def test_translation_and_rotation(n: int, m: int, seed: int, backend: str, angle: float) -> None:
    x, y = clouds(n, m, seed)
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)
    moved = apml_loss(x @ turn + 3.0, y @ turn + 3.0, backend=backend)
    assert moved.item() == pytest.approx(apml_loss(x, y, backend=backend).item(), rel=1e-7)


@given(n=sizes, m=sizes, seed=seeds, backend=backends, scale=st.sampled_from([1e-2, 0.5, 7.0, 1e6]))
def test_scaling(n: int, m: int, seed: int, backend: str, scale: float) -> None:
    # Exact but for the margin of 1e-8 on the gap, which does not scale.
    x, y = clouds(n, m, seed)
    once = apml_loss(x, y, backend=backend).item()
    assert apml_loss(scale * x, scale * y, backend=backend).item() == pytest.approx(scale * once, rel=2e-4)


@given(n=sizes, m=sizes, seed=seeds, backend=backends)
def test_float32_far_from_the_origin(n: int, m: int, seed: int, backend: str) -> None:
    x, y = ((cloud + 1e4).float() for cloud in clouds(n, m, seed))
    exact = apml_loss(x.double(), y.double(), backend="dense").item()
    assert apml_loss(x, y, backend=backend).item() == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [1e6, 1e-6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_and_small_coordinates(scale: float, dtype: torch.dtype, backend: str) -> None:
    x, y = ((scale * cloud).to(dtype) for cloud in clouds(50, 60, 3))
    value, grad, _, _ = naive_apml(x[0].double(), y[0].double())
    x.requires_grad_()
    loss = apml_loss(x, y, backend=backend)
    loss.backward()
    tolerance = 1e-9 if dtype == torch.float64 else 2e-5
    assert loss.item() == pytest.approx(value, rel=max(tolerance, 1e-6 if backend == "sparse" else 0))
    torch.testing.assert_close(x.grad[0].double(), grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 5), (5, 1), (2, 2), (2, 1), (1, 2), (2, 7)])
@pytest.mark.parametrize("ties", ["share", "uniform"])
def test_tiny_clouds(n: int, m: int, ties: str, backend: str) -> None:
    x, y = clouds(n, m, 5)
    value, grad, _, _ = naive_apml(x[0], y[0], ties=ties)
    x.requires_grad_()
    loss = apml_loss(x, y, ties=ties, backend=backend)
    loss.backward()
    assert loss.item() == pytest.approx(value, rel=1e-9)
    torch.testing.assert_close(x.grad[0], grad)


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
@pytest.mark.parametrize("differentiate_plan", [False, True])
@pytest.mark.parametrize(("batch", "n", "m"), [(2, 0, 4), (2, 4, 0), (2, 0, 0), (0, 4, 4)])
def test_empty_clouds(batch: int, n: int, m: int, differentiate_plan: bool, backend: str) -> None:
    if differentiate_plan and backend == "sparse":
        pytest.skip("not supported by design")
    x = torch.randn(batch, n, 3, requires_grad=True)
    y = torch.randn(batch, m, 3, requires_grad=True)
    for reduction in ("sum", "mean"):
        loss = apml_loss(x, y, backend=backend, differentiate_plan=differentiate_plan, reduction=reduction)
        grads = torch.autograd.grad(loss, (x, y), allow_unused=False)
        assert loss.item() == 0.0
        assert all(not grad.any() for grad in grads)
    assert apml_loss(x, y, backend=backend, reduction="none").shape == (batch,)


@pytest.mark.parametrize("differentiate_plan", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_lengths_equal_unpadded(backend: str, differentiate_plan: bool) -> None:
    if differentiate_plan and backend == "sparse":
        pytest.skip("not supported by design")
    options = {"backend": backend, "differentiate_plan": differentiate_plan}
    x, y = torch.randn(4, 30, 3, dtype=torch.float64), torch.randn(4, 40, 3, dtype=torch.float64)
    n, m = [30, 17, 0, 1], [40, 5, 9, 2]
    padded_x, padded_y = x.clone(), y.clone()
    for b in range(4):
        padded_x[b, n[b] :] = float("nan")  # padding may hold anything
        padded_y[b, m[b] :] = 1e30
    padded_x.requires_grad_(), padded_y.requires_grad_()
    losses = apml_loss(padded_x, padded_y, pred_lengths=n, gt_lengths=torch.tensor(m), reduction="none", **options)
    losses.sum().backward()
    for b in range(4):
        one, two = x[b : b + 1, : n[b]].clone().requires_grad_(), y[b : b + 1, : m[b]].clone().requires_grad_()
        alone = apml_loss(one, two, **options)
        grads = torch.autograd.grad(alone, (one, two))
        assert losses[b].item() == pytest.approx(alone.item(), rel=1e-12)
        torch.testing.assert_close(padded_x.grad[b, : n[b]], grads[0][0], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(padded_y.grad[b, : m[b]], grads[1][0], rtol=1e-12, atol=1e-13)
        assert not padded_x.grad[b, n[b] :].any()
        assert not padded_y.grad[b, m[b] :].any()
    mean = apml_loss(padded_x, padded_y, pred_lengths=n, gt_lengths=m, reduction="mean", **options)
    assert mean.item() == pytest.approx((losses / torch.tensor(m)).mean().item(), rel=1e-12)


@pytest.mark.parametrize("loss", [apml_loss, chamfer_distance])
def test_ignore_zeros_drops_zero_points_and_only_those(loss) -> None:
    x, y = torch.randn(2, 20, 3, dtype=torch.float64), torch.randn(2, 25, 3, dtype=torch.float64)
    x[0, 3] = torch.tensor([1.0, -1.0, 0.0])  # sums to zero, yet is a point
    holes_x, holes_y = x.clone(), y.clone()
    holes_x[1, 4:9] = 0
    holes_y[0, ::2] = 0
    holes_x.requires_grad_()
    found = loss(holes_x, holes_y, ignore_zeros=True, reduction="none")
    found.sum().backward()
    assert not holes_x.grad[1, 4:9].any()
    expected = [
        loss(x[:1], holes_y[:1, 1::2], reduction="none"),
        loss(torch.cat((x[1:, :4], x[1:, 9:]), dim=1), y[1:], reduction="none"),
    ]
    torch.testing.assert_close(found.detach(), torch.cat(expected), rtol=1e-10, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, backend: str) -> None:
    x = torch.randn(2, 50, 3).to(dtype).requires_grad_()
    y = torch.randn(2, 60, 3).to(dtype)
    loss = apml_loss(x, y, backend=backend)
    loss.backward()
    assert loss.dtype == torch.float32
    assert x.grad.dtype == dtype
    wide = x.detach().double().requires_grad_()
    exact = apml_loss(wide, y.double(), backend="dense")
    exact.backward()
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_changes_nothing(backend: str) -> None:
    x, y = torch.randn(1, 80, 3), torch.randn(1, 90, 3)
    plain = apml_loss(x, y, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = apml_loss(x, y, backend=backend)
        mixed = apml_loss(x.bfloat16(), y, backend=backend)
    assert inside.dtype == mixed.dtype == torch.float32
    assert inside.item() == plain.item()


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "sparse"])
def test_differentiated_plan_passes_gradcheck(backend: str) -> None:
    options = {"backend": backend, "differentiate_plan": True}
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: apml_loss(a, b, **options), (x, y))
    lengths = {"pred_lengths": [5, 3], "gt_lengths": [2, 6]}
    assert torch.autograd.gradcheck(lambda a, b: apml_loss(a, b, **options, **lengths), (x, y))
    frozen = apml_loss(x, y)
    assert apml_loss(x, y, **options).item() == pytest.approx(frozen.item(), rel=1e-12)


def test_differentiated_plan_is_finite_at_coincidence() -> None:
    x = torch.randn(1, 12, 3, dtype=torch.float64)
    x[0, 1] = x[0, 0]
    pred = x.clone().requires_grad_()
    apml_loss(pred, x, differentiate_plan=True).backward()
    assert torch.isfinite(pred.grad).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_only_where_it_is_wanted(backend: str) -> None:
    x, y = torch.randn(1, 20, 3), torch.randn(1, 20, 3, requires_grad=True)
    apml_loss(x, y, backend=backend).backward()
    assert x.grad is None
    assert y.grad is not None
    with torch.no_grad():
        assert not apml_loss(x, y, backend=backend).requires_grad


@pytest.mark.parametrize("backend", BACKENDS)
def test_incoming_gradient_scales_each_pair(backend: str) -> None:
    x, y = torch.randn(3, 20, 3, dtype=torch.float64, requires_grad=True), torch.randn(3, 25, 3, dtype=torch.float64)
    losses = apml_loss(x, y, reduction="none", backend=backend)
    (once,) = torch.autograd.grad(losses.sum(), x, retain_graph=True)
    (scaled,) = torch.autograd.grad((losses * torch.tensor([1.0, -2.0, 0.0])).sum(), x)
    torch.testing.assert_close(scaled, once * torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)[:, None, None])


@pytest.mark.parametrize("d", [1, 2, 5, 12])
def test_other_dimensions(d: int) -> None:
    x, y = clouds(15, 18, 1, d)
    value = naive_apml(x[0], y[0])[0]
    assert apml_loss(x, y).item() == pytest.approx(value, rel=1e-9)
    assert apml_loss(x, y, backend="sparse", threshold=1e-30).item() == pytest.approx(value, rel=1e-9)


@given(n=sizes, m=sizes, seed=seeds, radius=st.floats(0.0, 3.0))
def test_the_two_searches_agree(n: int, m: int, seed: int, radius: float) -> None:
    x, y = (cloud[0] for cloud in clouds(n, m, seed))
    tree, blocks = search.TreeNeighbours(y), search.BlockNeighbours(y)
    k = min(2, m)
    assert torch.equal(tree.nearest(x, k), blocks.nearest(x, k))
    radii = torch.full((n,), radius, dtype=torch.float64)
    found = []
    for one in (tree, blocks):
        counts, index = one.within(x, radii)
        rows = torch.repeat_interleave(torch.arange(n), counts)
        found.append(sorted(zip(rows.tolist(), index.tolist(), strict=True)))
    assert found[0] == found[1]


@pytest.mark.parametrize(("candidates", "p_min"), [(2, 0.5), (3, 0.0), (100, 0.9), (2, 0.0), (1, 0.8)])
def test_at_the_support_radius_the_similarity_is_the_threshold(candidates: int, p_min: float) -> None:
    nearest, gap = torch.tensor([0.5, 2.0], dtype=torch.float64), torch.tensor([0.1, 0.0], dtype=torch.float64)
    inverse = dense.inverse_temperature(gap, candidates, p_min)
    radius = dense.support_radius(nearest, inverse, torch.tensor(1e-3, dtype=torch.float64))
    if candidates == 1 or (candidates, p_min) == (2, 0.0):  # every candidate has similarity 1
        assert radius.tolist() == [math.inf] * 2
        return
    torch.testing.assert_close(inverse, math.log((candidates - 1) / (1 - p_min)) / (gap + dense.MARGIN))
    torch.testing.assert_close(torch.exp((nearest - radius) * inverse), torch.full_like(gap, 1e-3), rtol=1e-6, atol=0)


def test_the_cpu_searches_a_tree() -> None:
    assert isinstance(search.neighbours_of(torch.rand(5, 3)), search.TreeNeighbours)


def test_small_blocks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = clouds(200, 150, 0)
    whole = apml_loss(x, y, backend="sparse", ties="uniform").item()
    monkeypatch.setattr(search, "TREE_ENTRIES", 37)
    monkeypatch.setattr(search, "BLOCK_ENTRIES", 100)
    monkeypatch.setattr("apml_plugin.matching.sparse.BLOCK_ENTRIES", 64)
    assert apml_loss(x, y, backend="sparse", ties="uniform").item() == whole
    monkeypatch.setattr("apml_plugin.matching.sparse.neighbours_of", search.BlockNeighbours)
    assert apml_loss(x, y, backend="sparse").item() == pytest.approx(whole, rel=1e-12)
    monkeypatch.undo()
    tied = torch.round(x * 2) / 2
    one = apml_loss(tied, torch.round(y * 2) / 2, backend="sparse", ties="uniform").item()
    monkeypatch.setattr("apml_plugin.matching.sparse.BLOCK_ENTRIES", 64)
    assert apml_loss(tied, torch.round(y * 2) / 2, backend="sparse", ties="uniform").item() == pytest.approx(one)


def test_auto_threshold_where_a_fixed_one_is_not_enough() -> None:
    gt = torch.nn.functional.normalize(torch.randn(1, 500, 3, dtype=torch.float64), dim=-1)
    cases = {
        "hundred gt points at the origin": (gt + 0.02 * torch.randn_like(gt), gt.index_fill(1, torch.arange(100), 0)),
        "tight blob three units away": (0.05 * torch.randn_like(gt) + 3, gt),
    }
    for name, (pred, target) in cases.items():
        exact = apml_loss(pred, target, backend="dense").item()
        fixed = apml_loss(pred, target, backend="sparse", threshold=1e-20).item()
        auto = apml_loss(pred, target, backend="sparse").item()
        assert abs(fixed / exact - 1) > 1e-6, name
        assert auto == pytest.approx(exact, rel=1e-11), name
        _, (bound,) = matching_plan(pred, target, backend="sparse", return_bound=True)
        assert bound <= 1e-12 * 500, name


@given(seed=seeds, noise=st.sampled_from([0.01, 0.1, 1.0]), threshold=st.sampled_from([1e-4, 1e-8, 1e-14]))
def test_the_bound_holds_for_the_mass_of_what_was_dropped(seed: int, noise: float, threshold: float) -> None:
    y, shift = clouds(60, 60, seed)
    x = y + noise * shift
    plan, (bound,) = matching_plan(x, y, backend="sparse", threshold=threshold, return_bound=True, iterations=0)
    exact = matching_plan(x, y, backend="dense", iterations=0).to_dense()[0]
    kept = torch.zeros(60, 60, dtype=torch.bool)
    kept[tuple(plan.indices()[1:])] = True
    assert exact[~kept].sum().item() <= bound


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "dense"])
@pytest.mark.parametrize("iterations", [0, 3, 20])
@pytest.mark.parametrize("p_min", [0.0, 0.8])
def test_support_and_bound_are_those_of_the_definition(p_min: float, iterations: int, backend: str) -> None:
    """Kept: similarities above the threshold. Each dropped one is below it, divided by its denominator and scaled."""
    x, y = clouds(25, 18, 4)
    threshold, eps = 0.05, 1e-3
    cost = torch.cdist(x[0], y[0], compute_mode="donot_use_mm_for_euclid_dist")
    half, below = torch.zeros_like(cost), torch.zeros_like(cost)
    for d, p, b in ((cost, half, below), (cost.T, half.T, below.T)):
        near = d.sort(dim=1).values[:, :2]
        inverse = math.log((d.shape[1] - 1) / (1 - p_min)) / (near[:, 1:] - near[:, :1] + 1e-8)
        similarity = torch.exp(-(d - near[:, :1]) * inverse)
        kept = similarity.where(similarity > threshold, 0.0)
        p += kept / kept.sum(dim=1, keepdim=True) / 2
        b += threshold / kept.sum(dim=1, keepdim=True) / 2
        assert (kept == 0).any(dim=1).all()
    r, c = torch.ones(25, 1, dtype=torch.float64), torch.ones(1, 18, dtype=torch.float64)
    for _ in range(iterations):
        r = r / ((r * half * c).sum(dim=1, keepdim=True) + eps)
        c = c / ((r * half * c).sum(dim=0, keepdim=True) + eps)
    options = {"p_min": p_min, "threshold": threshold, "iterations": iterations, "eps": eps, "backend": backend}
    plan, (bound,) = matching_plan(x, y, return_bound=True, **options)
    torch.testing.assert_close(plan.to_dense()[0], r * half * c, rtol=1e-9, atol=1e-14)
    assert bound == pytest.approx((r * below * c).sum().item(), rel=1e-9)
    assert apml_loss(x, y, **options).item() == pytest.approx((r * half * c * cost).sum().item(), rel=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_dropped_is_bound_zero_for_each_pair(backend: str) -> None:
    x, y = torch.rand(3, 6, 3), torch.rand(3, 5, 3)
    lengths = {"pred_lengths": [6, 0, 2], "gt_lengths": [5, 5, 1]}
    plan, bounds = matching_plan(x, y, backend=backend, threshold=1e-300, return_bound=True, **lengths)
    assert bounds == [0.0, 0.0, 0.0]
    assert plan.shape == (3, 6, 5)
    assert not plan.to_dense()[1].any()
    torch.testing.assert_close(plan.to_dense()[2, :2, 0].sum(), torch.tensor(1.0))
    dense = matching_plan(x, y, backend="dense", **lengths)
    torch.testing.assert_close(plan.to_dense(), dense.to_dense(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ties", ["share", "uniform"])
@pytest.mark.parametrize("dtypes", [(torch.float16, torch.float64), (torch.float32, torch.float16)], ids=str)
def test_clouds_of_different_dtypes(dtypes: tuple[torch.dtype, torch.dtype], ties: str, backend: str) -> None:
    x, y = torch.randn(2, 12, 3).to(dtypes[0]).requires_grad_(), torch.randn(2, 9, 3).to(dtypes[1]).requires_grad_()
    y = torch.cat((y, y), dim=1)  # ties
    wide = torch.float64 if torch.float64 in dtypes else torch.float32
    options = {"backend": backend, "ties": ties}
    for function in (apml_loss, lambda *a, **k: matching_plan(*a, **k).to_dense()):
        value, same = function(x, y, **options), function(x.to(wide), y.to(wide), **options)
        assert value.dtype == wide
        torch.testing.assert_close(value, same, rtol=1e-6, atol=1e-8)
    grads = torch.autograd.grad(apml_loss(x, y, **options), (x, y))
    assert (grads[0].dtype, grads[1].dtype) == dtypes
    if backend != "sparse":
        through = apml_loss(x, y, differentiate_plan=True, **options)
        assert through.dtype == wide
        assert through.item() == pytest.approx(apml_loss(x, y, **options).item(), rel=1e-5)


def test_what_float64_cannot_hold_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = clouds(30, 20, 0)
    with pytest.raises(LossValueError, match="exceed what float64 can hold: scale them down"):
        apml_loss(1e200 * x, 1e200 * y, backend="sparse")

    def diverge(kernel: sparse_matrix.Kernel, iterations: int, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        kernel.sparse.values[0] = torch.inf
        return kernel.u + 1, kernel.v + 1

    monkeypatch.setattr("apml_plugin.matching.sparse.sinkhorn", diverge)
    words = r"after iterations=20 with eps=1e-08: use fewer iterations, a smaller threshold or backend='dense'"
    with pytest.raises(BackendError, match=words):
        apml_loss(x, y, backend="sparse")


def test_many_iterations_stay_finite() -> None:
    pred = 0.05 * torch.randn(1, 400, 3, dtype=torch.float64)
    gt = torch.nn.functional.normalize(torch.randn(1, 400, 3, dtype=torch.float64), dim=-1)
    for ties in ("share", "uniform"):
        loss = apml_loss(pred, gt, iterations=200, backend="sparse", threshold=1e-30, ties=ties)
        exact = apml_loss(pred, gt, iterations=200, backend="dense", ties=ties)
        assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
    tied = torch.cat((gt, gt), dim=1)
    loss = apml_loss(pred, tied, iterations=200, backend="sparse", threshold=1e-30, ties="uniform")
    exact = apml_loss(pred, tied, iterations=200, backend="dense", ties="uniform")
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


def test_plan_is_what_the_loss_is_made_of() -> None:
    x, y = torch.randn(2, 300, 3, dtype=torch.float64), torch.randn(2, 200, 3, dtype=torch.float64)
    plans = matching_plan(x, y, backend="sparse", gt_lengths=[200, 120])
    assert plans.is_sparse
    assert plans.is_coalesced()
    assert plans.shape == (2, 300, 200)
    b, i, j = plans.indices()
    losses = torch.zeros(2, dtype=torch.float64).index_add_(0, b, plans.values() * (x[b, i] - y[b, j]).norm(dim=-1))
    torch.testing.assert_close(losses, apml_loss(x, y, backend="sparse", gt_lengths=[200, 120], reduction="none"))
    columns = plans.to_dense().sum(dim=1)
    torch.testing.assert_close(columns[0], torch.ones(200, dtype=torch.float64), rtol=1e-6, atol=0)
    assert not columns[1, 120:].any()


def test_two_runs_give_the_same_bits() -> None:
    x, y = torch.randn(1, 3000, 3), torch.randn(1, 3000, 3)
    runs = []
    for _ in range(2):
        pred = x.clone().requires_grad_()
        loss = apml_loss(pred, y, backend="sparse")
        loss.backward()
        runs.append((loss.detach(), pred.grad))
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])


def test_masses_are_the_valid_gt_points() -> None:
    checked = inputs.check_clouds(torch.rand(2, 4, 3), torch.rand(2, 5, 3), gt_lengths=[5, 2])
    assert checked.masses == [5, 2]


def test_zeros_and_padding_are_dropped_together_and_the_order_stays() -> None:
    x = torch.arange(1.0, 601.0).repeat(2, 1)[..., None]
    x[:, ::3] = 0
    kept = [[i + 1.0 for i in range(n) if i % 3] for n in (600, 50)]
    checked = inputs.check_clouds(x, x, [600, 50], ignore_zeros=True)
    assert [checked.pair(b)[0][:, 0].tolist() for b in range(2)] == kept
    assert checked.pred_lengths == [len(points) for points in kept]
    assert checked.gt_lengths == [400, 400]
    assert inputs.check_clouds(x[:, 1:3], x[:, 1:3], [2, 1], ignore_zeros=True)[2:] == ([2, 1], None)
