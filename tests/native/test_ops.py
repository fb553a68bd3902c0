"""The compiled ops as PyTorch sees them, and what only they promise; parity with the definition is tested in
tests/matching for every backend alike."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from clouds import helix, lattice, naive_apml, sphere

from apml_plugin.functional import apml_loss, chamfer_distance, matching_plan, nearest_neighbours
from apml_plugin.matching import Settings, backends, dense, extension

ROOT = Path(__file__).parents[2]
ops = pytest.mark.skipif(extension.missing("cpu") is not None, reason=f"no compiled ops: {extension.missing('cpu')}")
DEFAULTS = (0.8, 1e-20, 20, 1e-8, False)


def clouds(n: int, m: int, batch: int = 2, d: int = 3, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [torch.randn(batch, k, d, dtype=dtype) for k in (n, m)]


def test_a_compiler_means_compiled_ops() -> None:
    """A broken build would otherwise only make the tests fewer."""
    sys.path.insert(0, str(ROOT / "cuda_ext"))
    from decide import look

    if os.environ.get("APML_BUILD") == "off" or look().compiler_problem:
        pytest.skip("no ops are wanted, or nothing to compile them with")
    assert extension.loading_problem() is None


@ops
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype: torch.dtype) -> None:
    pred, gt = clouds(20, 30, dtype=dtype)
    lengths = torch.tensor([20, 7]), torch.tensor([11, 30])
    x, y = pred.clone().requires_grad_(), gt.clone().requires_grad_()
    for arguments in ((x, y, None, None), (x, y, *lengths), (pred, gt, *lengths)):
        torch.library.opcheck(torch.ops.apml.match, (*arguments, *DEFAULTS, True, False))
        torch.library.opcheck(torch.ops.apml.chamfer, (*arguments, True, True))
    torch.library.opcheck(torch.ops.apml.match, (x, y, None, None, *DEFAULTS, True, True))
    torch.library.opcheck(torch.ops.apml.nearest, (pred, gt, *lengths))
    torch.library.opcheck(torch.ops.apml.plan, (pred, gt, *lengths, *DEFAULTS))
    for arguments in ((x, y, None, None), (x, y, *lengths), (pred, gt, *lengths)):
        torch.library.opcheck(torch.ops.apml.fast_emd, (*arguments, 0, 2, 8, 4, False, False, True))


@ops
@pytest.mark.parametrize("differentiate_plan", [False, True])
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 9), (9, 1), (2, 2), (33, 70), (300, 200)])
def test_gradients_against_dense(n: int, m: int, d: int, differentiate_plan: bool) -> None:
    results = []
    start = clouds(n, m, d=d)
    for backend in ("dense", "native"):
        x, y = (cloud.clone().requires_grad_() for cloud in start)
        loss = apml_loss(
            x, y, backend=backend, threshold=1e-30, differentiate_plan=differentiate_plan, reduction="none"
        )
        results.append((loss, *torch.autograd.grad(loss.sum(), (x, y))))
    for exact, found in zip(*results, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-9)


@ops
@pytest.mark.parametrize("ties", ["share", "uniform"])
def test_differentiated_plan_with_ties_of_the_uniform_rule(ties: str) -> None:
    # Every gt point twice: all rows tie, and under the uniform rule none has a softmin to differentiate.
    results = []
    for backend in ("dense", "native"):
        x, y = helix(30, 0.1).requires_grad_(), helix(20, 0.0).repeat(1, 2, 1).requires_grad_()
        loss = apml_loss(x, y, backend=backend, threshold=1e-30, differentiate_plan=True, ties=ties, iterations=7)
        results.append((loss, *torch.autograd.grad(loss, (x, y))))
    for exact, found in zip(*results, strict=True):
        # At an exact tie with ties="share" the temperature is 1e9: digits are lost on both sides.
        torch.testing.assert_close(found, exact, rtol=1e-5 if ties == "share" else 1e-9, atol=1e-6)


@ops
def test_iterations_too_many_to_differentiate_say_so() -> None:
    from apml_plugin.errors import BackendError

    pred, gt = (0.05 * sphere(300, seed=3) * torch.rand(1, 300, 1, dtype=torch.float64)).requires_grad_(), sphere(300)
    options = {"threshold": 0.2, "iterations": 3000, "backend": "native"}  # rows without a partner of their own grow
    assert torch.isfinite(apml_loss(pred, gt, **options))
    with pytest.raises(BackendError, match=r"iterations=3000 .* leave the range of float64; use fewer iterations"):
        apml_loss(pred, gt, differentiate_plan=True, **options)


@ops
@pytest.mark.parametrize("differentiate_plan", [False, True])
@pytest.mark.parametrize("kind", ["near", "blob", "far", "outlier"])
def test_float32_against_float64_dense(kind: str, differentiate_plan: bool) -> None:
    gt = sphere(700, seed=1)
    pred = {
        "near": gt + 0.02 * sphere(700, seed=2),
        "blob": 0.05 * torch.randn(1, 700, 3, dtype=torch.float64),
        "far": gt + 0.1 * sphere(700, seed=2) + 1e3,
        "outlier": torch.cat((sphere(699, seed=3), torch.full((1, 1, 3), 1e4, dtype=torch.float64)), dim=1),
    }[kind]
    pred, gt = (cloud + (1e3 if kind == "far" and cloud is gt else 0) for cloud in (pred, gt))
    pred, gt = pred.float(), gt.float()
    results = []
    for x, y, backend in ((pred.double(), gt.double(), "dense"), (pred, gt, "native")):
        x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
        loss = apml_loss(x, y, backend=backend, threshold=1e-30, differentiate_plan=differentiate_plan)
        results.append((loss, *torch.autograd.grad(loss, (x, y))))
    for exact, found in zip(*results, strict=True):
        assert ((found.double() - exact).norm() / exact.norm()).item() < 1e-5


@ops
def test_rows_as_long_as_the_cloud() -> None:
    # One pred point far out: its gap is wide, and its ball holds every gt point.
    gt = sphere(900)
    pred = torch.cat((gt[:, :5] + 0.01, torch.tensor([[[0.3, 0, 0]]], dtype=torch.float64)), dim=1)
    value, x_grad, y_grad, _ = naive_apml(pred[0], gt[0, :300])
    x, y = pred.requires_grad_(), gt[:, :300].clone().requires_grad_()
    loss = apml_loss(x, y, backend="native", threshold=1e-300)
    found = torch.autograd.grad(loss, (x, y))
    assert loss.item() == pytest.approx(value, rel=1e-9)
    torch.testing.assert_close(found[0][0], x_grad, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(found[1][0], y_grad, rtol=1e-8, atol=1e-9)


@ops
def test_padding_is_never_read() -> None:
    pred, gt = clouds(40, 50)
    pred[1, 30:], gt[0, 44:] = float("nan"), float("inf")
    x, y = pred.requires_grad_(), gt.requires_grad_()
    for loss in (apml_loss, chamfer_distance):
        value = loss(x, y, pred_lengths=[40, 30], gt_lengths=[44, 50])
        x_grad, y_grad = torch.autograd.grad(value, (x, y))
        assert torch.isfinite(value)
        assert not x_grad[1, 30:].any()
        assert not y_grad[0, 44:].any()
        assert torch.isfinite(x_grad).all()
        alone = [loss(pred[b : b + 1, :n], gt[b : b + 1, :m]) for b, n, m in ((0, 40, 44), (1, 30, 50))]
        assert value.item() == pytest.approx(sum(a.item() for a in alone) / 2, rel=1e-12)


@ops
@pytest.mark.parametrize("threshold", [1e-4, 1e-10, 1e-20])
@pytest.mark.parametrize("ties", ["share", "uniform"])
def test_same_support_and_bound_as_sparse(threshold: float, ties: str) -> None:
    for pred, gt in (clouds(80, 60), (lattice(4, 0.1), lattice(4, 0.1) + 0.05), (helix(30, 0.1), helix(30, 0.0))):
        options = {"threshold": threshold, "ties": ties, "return_bound": True}
        exact, exact_bound = matching_plan(pred, gt, backend="sparse", **options)
        found, bound = matching_plan(pred, gt, backend="native", **options)
        torch.testing.assert_close(found.to_dense(), exact.to_dense(), rtol=1e-9, atol=1e-300)
        assert bound == pytest.approx(exact_bound, rel=1e-9)


@ops
def test_the_bits_do_not_depend_on_the_run_or_the_threads() -> None:
    kept = torch.get_num_threads()
    for dtype in (torch.float32, torch.float64):
        pred, gt = clouds(3000, 2500, batch=1, dtype=dtype)
        runs = []
        try:
            for threads in (1, 2, 3, 1):
                torch.set_num_threads(threads)
                runs.append(
                    [
                        *torch.ops.apml.match(pred, gt, None, None, *DEFAULTS, True, False),
                        *torch.ops.apml.match(pred, gt, None, None, *DEFAULTS, True, True),
                        *torch.ops.apml.chamfer(pred, gt, None, None, False, True),
                    ]
                )
        finally:
            torch.set_num_threads(kept)
        for run in runs[1:]:
            assert all(torch.equal(a, b) for a, b in zip(runs[0], run, strict=True))


@ops
def test_callable_from_several_threads_at_once() -> None:
    pred, gt = clouds(400, 300)
    exact = apml_loss(pred, gt, backend="native", reduction="none")
    found: list[torch.Tensor] = []
    workers = [
        threading.Thread(target=lambda: found.append(apml_loss(pred, gt, backend="native", reduction="none")))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4
    assert all(torch.equal(one, exact) for one in found)


@ops
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_gives_the_definition(isa: str) -> None:
    code = """
import sys, torch
from clouds import lattice, naive_apml, sphere
from apml_plugin.functional import apml_loss
for pred, gt in ((sphere(60), sphere(70, seed=1)), (lattice(3), lattice(3) + 0.5)):
    for dtype in (torch.float64, torch.float32):
        x = pred.to(dtype).clone().requires_grad_()
        value, grad, _, _ = naive_apml(x.detach().double()[0], gt.to(dtype).double()[0])
        loss = apml_loss(x, gt.to(dtype), backend="native", threshold=1e-30)
        loss.backward()
        most = 1e-9 if dtype == torch.float64 else 1e-5
        assert abs(loss.item() / value - 1) < most, (loss, value)
        assert (x.grad[0].double() - grad).norm() / grad.norm() < most
"""
    environment = os.environ | {"APML_CPU": isa, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    if "not supported by this processor" in done.stderr:
        pytest.skip(f"this processor has no {isa}")
    assert done.returncode == 0, done.stderr


@ops
def test_nearest_neighbours_and_ties_by_index() -> None:
    queries, points = torch.randn(500, 3), torch.randn(400, 3)
    distance, index = nearest_neighbours(queries, points)
    exact = torch.cdist(queries.double(), points.double()).min(dim=-1)
    torch.testing.assert_close(distance.double(), exact.values, rtol=1e-6, atol=1e-7)
    assert (index == exact.indices).all()
    twice = torch.cat((points, points))
    assert nearest_neighbours(queries, twice)[1].max() < 400
    squared, none = torch.ops.apml.nearest(queries[None], points[None, :0], None, None)
    assert not squared.any()
    assert (none == -1).all()


@ops
@pytest.mark.parametrize("norm", ["L1", "L2"])
def test_chamfer_against_the_distance_matrix(norm: str) -> None:
    pred, gt = clouds(130, 90)
    results = []
    for by_matrix in (True, False):
        x, y = pred.clone().requires_grad_(), gt.clone().requires_grad_()
        if by_matrix:
            cost = dense.pairwise_cost(x, y)
            cost = cost if norm == "L1" else cost.square()
            loss = (cost.amin(2).mean(1) + cost.amin(1).mean(1)) / (2 if norm == "L1" else 1)
        else:
            loss = chamfer_distance(x, y, norm=norm, reduction="none")
        results.append((loss, *torch.autograd.grad(loss.sum(), (x, y))))
    for exact, found in zip(*results, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-12)


@ops
def test_half_precision_and_autocast() -> None:
    pred, gt = clouds(100, 100, dtype=torch.float16)
    x = pred.requires_grad_()
    with torch.autocast("cpu"):
        loss = apml_loss(x, gt, backend="native")
    loss.backward()
    assert loss.dtype == torch.float32
    assert x.grad is not None
    assert x.grad.dtype == torch.float16
    assert loss.item() == pytest.approx(apml_loss(pred.double(), gt.double(), backend="dense").item(), rel=1e-5)


@ops
def test_without_the_check_nan_is_an_error_all_the_same() -> None:
    from apml_plugin.errors import BackendError

    pred, gt = clouds(20, 20)
    pred[1, 3, 1] = float("nan")
    with pytest.raises(
        BackendError, match=r"loss is \[.*nan\]: use fewer iterations than 7, a larger eps than 1e-05 or "
    ):
        apml_loss(pred, gt, backend="native", check_finite=False, iterations=7, eps=1e-5)


@ops
def test_backward_without_gradients_raises_an_error() -> None:
    x, y = clouds(5, 5)
    losses = torch.ops.apml.match(x.requires_grad_(), y, None, None, *DEFAULTS, False, False)[0]
    with pytest.raises(RuntimeError, match="needs gradients=True"):
        losses.sum().backward()


@ops
def test_bad_arguments_of_the_op_itself() -> None:
    x, y = clouds(5, 6)
    for arguments, message in (
        ((x[0], y[0]), "must be .B, N, D."),
        ((x, y[:1]), "must agree in batch"),
        ((x, y.float()), "must both be float32 or float64"),
        ((x.repeat(1, 1, 2), y.repeat(1, 1, 2)), "1, 2 or 3 coordinates"),
    ):
        with pytest.raises(RuntimeError, match=message):
            torch.ops.apml.match(*arguments, None, None, *DEFAULTS, True, False)
    with pytest.raises(RuntimeError, match="lengths must be int64"):
        torch.ops.apml.match(x, y, torch.tensor([1.0, 2.0]), None, *DEFAULTS, True, False)
    with pytest.raises(RuntimeError, match="length 9 of cloud 1 must lie between 0 and 5"):
        torch.ops.apml.match(x, y, torch.tensor([1, 9]), None, *DEFAULTS, True, False)


def test_an_installation_for_another_torch_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    record = extension.Record(("cpu",), {}, "1.0.0", "cpython-38", None)
    monkeypatch.setattr(extension, "read_record", lambda: record)
    problem = extension.loading_problem.__wrapped__()
    assert "they were built for PyTorch 1.0.0 and cpython-38" in problem
    assert "builds them" in problem


def test_backends_say_why_not() -> None:
    assert "have 4" in (backends.NATIVE.problem(torch.empty(1, 5, 4)) or "")
    assert "meta" in (backends.NATIVE.problem(torch.empty(1, 5, 3, device="meta")) or "")
    assert backends.SPARSE.problem(torch.empty(1, 5, 4)) is backends.DENSE.problem(torch.empty(1, 5, 4)) is None
    assert Settings().threshold == "auto"


@ops
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_out_of_memory_says_how_large_the_support_was() -> None:
    code = """
import resource, torch
from apml_plugin.functional import apml_loss, matching_plan
torch.set_num_threads(1)
x = torch.rand(1, 20000, 3)
apml_loss(x[:, :50], x[:, :50])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20),) * 2)
for loss in (apml_loss, matching_plan):
    try:
        loss(x, x, backend="native", threshold=1e-300)
    except torch.OutOfMemoryError as error:
        print(error)
apml_loss(x, x)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for op in ("match", "plan"):
        assert f"apml::{op}: out of memory for pair 0 of 20000 and 20000 points, after " in done.stdout
    assert "after 0 entries" not in done.stdout
    assert "use a larger threshold than 1e-300 or fewer points" in done.stdout


@ops
def test_auto_threshold_tightens_for_a_differentiated_plan_too() -> None:
    pred, gt = torch.randn(1, 300, 3), torch.cat((torch.randn(1, 200, 3), torch.zeros(1, 100, 3)), dim=1)
    x, y = pred.double().requires_grad_(), gt.double()
    held = apml_loss(x, y, backend="native", threshold="auto")
    through = apml_loss(x, y, backend="native", threshold="auto", differentiate_plan=True)
    assert through.item() == pytest.approx(held.item(), rel=1e-9)
    assert through.item() != apml_loss(x, y, backend="native", threshold=1e-20).item()  # tightening changed something
    one, other = (torch.ops.apml.match(pred, gt, None, None, *DEFAULTS, True, through)[3] for through in (False, True))
    torch.testing.assert_close(one, other, rtol=1e-6, atol=0)


@ops
def test_scalings_that_drift_apart_are_differentiated() -> None:
    # r and 1/c move by M / N an iteration: 10^437 after 300 of them.
    results = []
    x, y = torch.randn(1, 9, 3, dtype=torch.float64), torch.randn(1, 257, 3, dtype=torch.float64)
    for backend in ("dense", "native"):
        pred = x.clone().requires_grad_()
        options = {"iterations": 300, "differentiate_plan": True, "threshold": 1e-30}
        loss = apml_loss(pred, y, backend=backend, **options)
        results.append((loss, *torch.autograd.grad(loss, pred)))
    for exact, found in zip(*results, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-10)


@ops
def test_far_outliers_on_both_sides() -> None:
    pred, gt = sphere(1500, seed=1), sphere(1400, seed=2)
    pred[0, 7], pred[0, 900], gt[0, 3] = 1e6, -3e8, 2e6
    results = []
    for backend in ("sparse", "native"):
        x = pred.clone().requires_grad_()
        loss = apml_loss(x, gt, backend=backend)
        results.append((loss, *torch.autograd.grad(loss, x)))
    for exact, found in zip(*results, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-9)


@ops
def test_what_cannot_be_computed_is_an_error() -> None:
    from apml_plugin.errors import BackendError, LossValueError

    x, y = clouds(30, 30)
    with pytest.raises(BackendError, match="beyond 1e150 cannot be squared"):
        apml_loss(1e200 * x, 1e200 * y, backend="native")
    with pytest.raises(BackendError, match="larger than float32 can hold"):
        apml_loss(1e38 * x.float(), 1e38 * y.float(), backend="native")
    with pytest.raises(ValueError, match=r"iterations >= 0 .* got 0.8, 1e-20, -1"):
        torch.ops.apml.match(x, y, None, None, 0.8, 1e-20, -1, 1e-8, False, True, False)
    y[0, 3] = float("nan")
    with pytest.raises(ValueError, match="pair 0 holds NaN"):
        matching_plan(x, y, backend="native", check_finite=False)
    with pytest.raises(LossValueError, match="points holds NaN"):
        nearest_neighbours(x[0], y[0])


@ops
def test_many_equal_points() -> None:
    pred, gt = torch.zeros(1, 500, 3), torch.zeros(1, 400, 3)
    pred[0, 300:], gt[0, 200:] = torch.randn(200, 3), torch.randn(200, 3)
    index = torch.ops.apml.nearest(pred, gt, None, None)[1][0]
    assert not index[:300].any()  # of equal points the first
    exact = torch.cdist(pred[0, 300:].double(), gt[0].double()).argmin(dim=1)
    assert torch.equal(index[300:], torch.where(exact < 200, 0, exact))
    for ties in ("share", "uniform"):
        found = apml_loss(pred.double(), gt.double(), backend="native", ties=ties, threshold=1e-30)
        exact_loss = apml_loss(pred.double(), gt.double(), backend="dense", ties=ties)
        assert found.item() == pytest.approx(exact_loss.item(), rel=1e-9)
