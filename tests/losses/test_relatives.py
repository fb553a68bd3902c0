"""Chamfer's relatives against full distance matrices and plain sums in float64."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses import DCD, ChamferL1, ChamferL2, Hausdorff, HyperCD, InfoCD, OneSidedChamfer
from apml_plugin.matching import extension
from apml_plugin.registry import build_loss

REST = (
    "ChamferL1", "ChamferL2", "DCD", "HyperCD", "InfoCD", "Hausdorff", "OneSidedChamfer",
    {"NAME": "ChamferL1", "reduction": "sum"},
    {"NAME": "ChamferL2", "reduction": "sum"},
    {"NAME": "OneSidedChamfer", "direction": "pred_to_gt", "norm": "L2"},
    {"NAME": "DCD", "alpha": 3, "n_lambda": 0.5, "non_reg": True},
    {"NAME": "HyperCD", "alpha": 2.5, "direction": "gt_to_pred"},
    {"NAME": "InfoCD", "tau": 0.3, "lambda_": 0.4, "reduction": "sum"},
    {"NAME": "Hausdorff", "direction": "pred_to_gt"},
)  # fmt: skip


def golden() -> tuple[Tensor, Tensor]:
    i, j = torch.arange(64, dtype=torch.float64), torch.arange(96, dtype=torch.float64)
    x = torch.stack((torch.sin(0.7 * i), torch.cos(1.19 * i), torch.sin(0.21 * i + 1)), dim=-1)
    y = torch.stack((0.1 + torch.sin(0.71 * j), torch.cos(1.207 * j), torch.sin(0.213 * j + 1)), dim=-1)
    return x[None], y[None]


def clouds(batch: int = 2, n: int = 12, m: int = 15, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, n, 3, dtype=torch.float64, generator=generator)
    return x, torch.randn(batch, m, 3, dtype=torch.float64, generator=generator)


class Slow:
    """The formulas in plain Python numbers, of one pair of clouds, written without the package's code."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.n, self.m = len(x), len(y)
        square = [[sum((u - v) ** 2 for u, v in zip(a, b, strict=True)) for b in y.tolist()] for a in x.tolist()]
        self.of_x = [min(range(self.m), key=lambda j: square[i][j]) for i in range(self.n)]
        self.of_y = [min(range(self.n), key=lambda i: square[i][j]) for j in range(self.m)]
        self.d_x = [square[i][self.of_x[i]] for i in range(self.n)]
        self.d_y = [square[self.of_y[j]][j] for j in range(self.m)]

    def chamfer_l1(self) -> float:
        return (sum(map(math.sqrt, self.d_x)) / self.n + sum(map(math.sqrt, self.d_y)) / self.m) / 2

    def chamfer_l2(self) -> float:
        return sum(self.d_x) / self.n + sum(self.d_y) / self.m

    def chamfer_sums(self) -> tuple[float, float]:
        return (sum(map(math.sqrt, self.d_x)) + sum(map(math.sqrt, self.d_y))) / 2, sum(self.d_x) + sum(self.d_y)

    def hausdorff(self) -> float:
        return math.sqrt(max(*self.d_x, *self.d_y))

    def dcd(self, alpha: float, power: float, non_reg: bool) -> float:
        def side(d: list[float], nearest: list[int], own: int, other: int) -> float:
            ratio = max(1.0, own / other) if non_reg else own / other
            shared = [nearest.count(k) for k in nearest]
            terms = (1 - math.exp(-alpha * v) * ratio / (c**power + 1e-6) for v, c in zip(d, shared, strict=True))
            return sum(terms) / own

        return (side(self.d_x, self.of_x, self.n, self.m) + side(self.d_y, self.of_y, self.m, self.n)) / 2

    def infocd(self, tau: float, weight: float, mean: bool) -> float:
        def side(d: list[float]) -> float:
            apart = [math.sqrt(v) for v in d]
            inside = math.log(sum(math.exp(-v / tau) for v in apart))
            return sum(v / tau + weight * inside for v in apart) / (len(d) if mean else 1)

        return (side(self.d_x) + side(self.d_y)) / 2

    def hypercd(self, alpha: float, least: float = 0.0) -> float:
        def side(d: list[float]) -> float:
            return sum(math.acosh(1 + max(alpha * v, least)) for v in d) / len(d)

        return side(self.d_x) + side(self.d_y)


@pytest.mark.parametrize(
    ("loss", "value"),
    [
        (ChamferL2(), 0.128428220762088),
        (ChamferL1(), 0.22880625858800763),
        (Hausdorff(), 0.563381922696258),
        (DCD(), 0.9983654563379627),
        (DCD(alpha=40, n_lambda=0.5), 0.7870514082254578),
        (DCD(alpha=40, n_lambda=0.5, non_reg=True), 0.7412960606404477),
        (InfoCD(reduction="sum"), 9.302385907681867),
        (InfoCD(reduction="published"), 9.302385907681867),
        (HyperCD(), 0.6424200372732514),
        (HyperCD(published=True), 0.6424200372732514),
    ],
    ids=repr,
)
def test_golden_values(loss: torch.nn.Module, value: float) -> None:
    assert loss(*golden()).item() == pytest.approx(value, abs=1e-9)


@given(n=st.integers(1, 30), m=st.integers(1, 30), seed=st.integers(0, 10_000), scale=st.sampled_from([0.01, 1, 30]))
def test_values_are_those_of_the_formulas(n: int, m: int, seed: int, scale: float) -> None:
    x, y = (scale * cloud for cloud in clouds(1, n, m, seed))
    slow = Slow(x[0], y[0])
    sum_l1, sum_l2 = slow.chamfer_sums()
    for loss, value in (
        (ChamferL1(), slow.chamfer_l1()),
        (ChamferL2(), slow.chamfer_l2()),
        (ChamferL1(reduction="sum"), sum_l1),
        (ChamferL2(reduction="sum"), sum_l2),
        (OneSidedChamfer(), sum(map(math.sqrt, slow.d_y)) / m),
        (OneSidedChamfer("pred_to_gt", "L2"), sum(slow.d_x) / n),
        (OneSidedChamfer("pred_to_gt", "L2", reduction="sum"), sum(slow.d_x)),
        (Hausdorff(), slow.hausdorff()),
        (Hausdorff("gt_to_pred"), math.sqrt(max(slow.d_y))),
        (DCD(), slow.dcd(1000, 1, False)),
        (DCD(2, 0.5), slow.dcd(2, 0.5, False)),
        (DCD(2, 0.5, True), slow.dcd(2, 0.5, True)),
        (InfoCD(), slow.infocd(2, 1e-7, True)),
        (InfoCD(0.5, 0.3, reduction="sum"), slow.infocd(0.5, 0.3, False)),
        (HyperCD(), slow.hypercd(1)),
        (HyperCD(7.0), slow.hypercd(7)),
        (HyperCD(7.0, published=True), slow.hypercd(7, 1e-5)),
    ):
        assert loss(x, y).item() == pytest.approx(value, rel=1e-9, abs=1e-11), loss


@pytest.mark.parametrize("cfg", REST, ids=repr)
def test_gradcheck_and_permutation(cfg: object) -> None:
    loss = build_loss(cfg)
    x, y = clouds(2, 6, 7)
    # The density-aware loss is flat a step away from its neighbours; nearer clouds have something to check.
    x, y = (0.3 * x).requires_grad_(), (0.3 * y).requires_grad_()
    assert torch.autograd.gradcheck(loss, (x, y))
    rows, columns = torch.randperm(6), torch.randperm(7)
    torch.testing.assert_close(loss(x[:, rows], y[:, columns]), loss(x, y), rtol=1e-12, atol=1e-12)
    grad = torch.autograd.grad(loss(x, y), x)[0]
    permuted = torch.autograd.grad(loss(x[:, rows], y[:, columns]), x)[0]
    torch.testing.assert_close(permuted, grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cfg", REST, ids=repr)
def test_padding_changes_nothing_and_empty_pairs_give_nothing(cfg: object) -> None:
    loss = build_loss(cfg)
    loss.reduction = "none" if loss.reduction == "mean" else loss.reduction
    x, y = clouds(4, 20, 25)
    x[1, 11:], y[1, 7:] = torch.nan, 1e9
    x.requires_grad_()
    y.requires_grad_()
    n, m = [20, 11, 0, 20], [25, 7, 25, 0]
    losses = loss(x, y, n, m)
    losses.sum().backward()
    singles = [loss(x[b : b + 1, : n[b]], y[b : b + 1, : m[b]]) for b in range(4)]
    alone = torch.cat(singles) if loss.reduction == "none" else torch.stack(singles).mean()
    torch.testing.assert_close(losses, alone, rtol=1e-12, atol=1e-12)
    assert not singles[2].any()
    assert not singles[3].any()
    for cloud, lengths in ((x, n), (y, m)):
        assert torch.isfinite(cloud.grad).all()
        assert not cloud.grad[2:].any()
        assert not cloud.grad[1, lengths[1] :].any()
    singles[2].sum().backward()  # part of the graph, with nothing in it
    assert loss(torch.rand(0, 5, 3), torch.rand(0, 6, 3)).sum() == 0


@pytest.mark.parametrize("cfg", REST, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_are_finite_where_points_coincide(cfg: object, dtype: torch.dtype) -> None:
    x = clouds(2, 30, 1)[0].to(dtype).requires_grad_()
    y = x.detach().clone().requires_grad_()
    value = build_loss(cfg)(x, y)
    value.backward()
    assert value.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.isfinite(value)
    for cloud in (x, y):
        assert cloud.grad.dtype == dtype
        assert torch.isfinite(cloud.grad).all()


@pytest.mark.parametrize("cfg", REST, ids=repr)
def test_without_compiled_ops_and_in_more_dimensions(cfg: object, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = build_loss(cfg)
    x, y = clouds(3, 20, 25)
    with_ops = loss(x, y, [20, 5, 0], [25, 25, 3])
    lifted = loss(
        *(torch.cat((cloud, torch.zeros(3, 1, 3)[:, :, :1].expand(-1, cloud.shape[1], 2)), 2) for cloud in (x, y))
    )
    torch.testing.assert_close(lifted, loss(x, y), rtol=1e-12, atol=1e-12)
    monkeypatch.setattr(extension, "missing", lambda device: "taken away by a test")
    torch.testing.assert_close(loss(x, y, [20, 5, 0], [25, 25, 3]), with_ops, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cfg", REST, ids=repr)
def test_unusable_clouds_raise_an_error(cfg: object) -> None:
    loss = build_loss(cfg)
    x, y = clouds()
    spoilt = x.clone()
    spoilt[1, 3, 0] = torch.nan
    for pred, gt, lengths, error in (
        (spoilt, y, None, LossValueError),
        (x, y[:1], None, LossValueError),
        (x[0], y[0], None, LossValueError),
        (x, y[..., :2], None, LossValueError),
        (x.long(), y, None, LossArgumentError),
        (x, [1, 2], None, LossArgumentError),
        (x, y, [12, 13], LossValueError),
    ):
        with pytest.raises(error):
            loss(pred, gt, lengths)


@pytest.mark.parametrize(
    ("cfg", "error", "message"),
    [
        ({"NAME": "DCD", "alpha": 0}, LossValueError, "alpha=0 must be positive"),
        ({"NAME": "DCD", "n_lambda": -1}, LossValueError, "n_lambda=-1"),
        ({"NAME": "DCD", "non_reg": "yes"}, LossArgumentError, "non_reg='yes'"),
        ({"NAME": "HyperCD", "alpha": "inf"}, LossValueError, "alpha='inf'"),
        ({"NAME": "HyperCD", "direction": "up"}, LossValueError, "direction='up'"),
        ({"NAME": "InfoCD", "tau": 0}, LossValueError, "tau=0"),
        ({"NAME": "InfoCD", "lambda_": -0.1}, LossValueError, "lambda_=-0.1"),
        ({"NAME": "InfoCD", "lambda": 0.1}, LossArgumentError, "did you mean 'lambda_'"),
        ({"NAME": "Hausdorff", "reduction": "sum"}, LossValueError, "reduction='sum'"),
        ({"NAME": "OneSidedChamfer", "direction": "both"}, LossValueError, "direction='both'"),
        ({"NAME": "OneSidedChamfer", "norm": "L3"}, LossValueError, "norm='L3'"),
        ({"NAME": "ChamferL1", "reduction": "total"}, LossValueError, "reduction='total'"),
    ],
)
def test_invalid_arguments_raise_an_error(cfg: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_loss(cfg)


def test_hypercd_near_zero_and_far_away() -> None:
    def slope(distance: float, dtype: torch.dtype, **options: object) -> tuple[float, float]:
        x = torch.tensor([[[distance, 0.0, 0.0]]], dtype=dtype, requires_grad=True)
        value = HyperCD(direction="pred_to_gt", **options)(x, torch.zeros(1, 1, 3, dtype=dtype))
        return value.item(), torch.autograd.grad(value, x)[0][0, 0, 0].item()

    for alpha in (0.5, 1.0, 9.0):
        for distance in (1e-4, 1e-12):
            for dtype in (torch.float32, torch.float64):  # arcosh(1 + u) itself is 0 here in float32
                value, gradient = slope(distance, dtype, alpha=alpha)
                assert value == pytest.approx(math.sqrt(2 * alpha) * distance, rel=1e-6)
                assert gradient == pytest.approx(math.sqrt(2 * alpha), rel=1e-6)
        assert slope(1e6, torch.float64, alpha=alpha)[0] == pytest.approx(math.log(2 * alpha * 1e12), rel=1e-9)
    # The published clamp: dead below 3.2e-3, and never 0.
    assert slope(3.1e-3, torch.float64, published=True) == (pytest.approx(4.472e-3, rel=1e-3), 0.0)
    assert slope(3.3e-3, torch.float64, published=True)[1] == pytest.approx(math.sqrt(2), rel=1e-4)
    x = torch.rand(1, 9, 3)
    assert HyperCD()(x, x).item() == 0
    assert HyperCD(published=True)(x, x).item() == pytest.approx(8.95e-3, rel=1e-3)


def test_infocd_published_sums_over_the_batch_and_is_nearly_chamfer() -> None:
    x, y = clouds(3)
    pairs = InfoCD(reduction="sum")
    total = sum(pairs(x[b : b + 1], y[b : b + 1]) for b in range(3))
    torch.testing.assert_close(InfoCD(reduction="published")(x, y), total)
    torch.testing.assert_close(pairs(x, y), total / 3)
    torch.testing.assert_close(InfoCD()(x, y), ChamferL1()(x, y) / 2, rtol=1e-6, atol=0)
    far = InfoCD(tau=1e-4, lambda_=0.5)(x, y + 100)
    assert torch.isfinite(far)


def test_dcd_against_a_doubled_cloud() -> None:
    x = clouds(1, 50)[0]
    doubled = torch.cat((x, x), dim=1)
    assert DCD()(x, doubled).item() == pytest.approx(0.25, abs=1e-5)
    assert DCD(non_reg=True)(x, doubled).item() == pytest.approx(0, abs=1e-5)
    assert DCD()(x, x).item() == pytest.approx(0, abs=2e-6)


def test_one_sided_chamfer_lets_the_other_cloud_reach_further() -> None:
    whole = clouds(1, 40)[0]
    part = whole[:, :10]
    assert OneSidedChamfer()(whole, part).item() == 0
    assert OneSidedChamfer()(part, whole).item() > 0.1
    assert OneSidedChamfer(direction="pred_to_gt")(part, whole).item() == 0
    both = OneSidedChamfer()(whole, part) + OneSidedChamfer(direction="pred_to_gt")(whole, part)
    torch.testing.assert_close(both / 2, ChamferL1()(whole, part))


def test_ignore_zeros_drops_zeros() -> None:
    x, y = clouds(2, 12, 15)
    padded = torch.cat((x, torch.zeros(2, 5, 3)), dim=1)
    for cfg in ("DCD", "HyperCD", "InfoCD", "Hausdorff", "OneSidedChamfer"):
        loss = build_loss({"NAME": cfg, "ignore_zeros": True})
        torch.testing.assert_close(loss(padded, y), loss(x, y), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cfg", ["DCD", "InfoCD"])
def test_in_training_code(cfg: str) -> None:
    loss = build_loss(cfg)
    x, y = torch.rand(2, 50, 3, requires_grad=True), torch.rand(2, 60, 3)
    assert not loss.state_dict()
    assert pickle.loads(pickle.dumps(loss))(x, y) == copy.deepcopy(loss)(x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved = loss(x, y)
    torch.testing.assert_close(halved, loss(x, y))


def test_memory_grows_with_the_points_alone() -> None:
    x, y = torch.rand(1, 131_072, 3, requires_grad=True), torch.rand(1, 131_072, 3)  # N x M would be 64 GiB
    for loss in (DCD(), Hausdorff()):
        loss(x, y).backward()
    assert torch.isfinite(x.grad).all()
