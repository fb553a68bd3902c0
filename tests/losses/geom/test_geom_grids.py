"""Pictures and volumes against the same mass as point clouds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from losses.geom.pairs import slope

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses.geom import ImagesSinkhorn, Sinkhorn, VolumesSinkhorn, grids
from apml_plugin.registry import build_loss


def densities(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(*shape, dtype=torch.float64, generator=generator) + 0.05 for _ in range(2))
    space = tuple(range(2, len(shape)))
    return a / a.sum(space, keepdim=True), b / b.sum(space, keepdim=True)


def cells(sizes: tuple[int, ...], axes: tuple[tuple[float, float], ...]) -> torch.Tensor:
    lines = [
        low + torch.arange(n, dtype=torch.float64) * (high - low) / n
        for n, (low, high) in zip(sizes, axes, strict=True)
    ]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1).reshape(1, -1, len(sizes))


def city_block(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x[:, :, None] - y[:, None]).abs().sum(dim=-1)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("options", [{}, {"reach": 0.7}, {"debias": False}])
@pytest.mark.parametrize(
    ("cls", "sizes", "axes"),
    [
        (ImagesSinkhorn, (5, 7), ((-1.0, 2.0), (0.0, 0.5))),
        (VolumesSinkhorn, (4, 2, 3), ((0.0, 1.0), (0.0, 2.0), (-0.5, 0.5))),
    ],
)
def test_equal_to_point_clouds(cls: type, sizes: tuple[int, ...], axes: Any, p: int, options: dict[str, Any]) -> None:
    a, b = densities(1, 1, *sizes)
    grid = cls(p=p, blur=0.2, axes=axes, **options)
    span = sum((high - low) ** 2 for low, high in axes) ** 0.5
    cost = city_block if p == 1 else None
    points = Sinkhorn(p=p, blur=0.2, diameter=span, cost=cost, engine="torch", **options)
    at = cells(sizes, axes)
    wanted = points(at, at, pred_weights=a.reshape(1, -1), gt_weights=b.reshape(1, -1))
    assert grid(a, b).item() == pytest.approx(wanted.item(), rel=1e-10)


def test_channels_batches_and_potentials() -> None:
    a, b = densities(3, 2, 6, 4)
    loss = ImagesSinkhorn(reduction="none")
    values = loss(a, b)
    assert values.shape == (3,)
    single = loss(a[1:2, :1], b[1:2, :1]) + loss(a[1:2, 1:], b[1:2, 1:])
    assert values[1].item() == pytest.approx(single.item(), rel=1e-12)
    assert ImagesSinkhorn()(a, b).item() == pytest.approx(values.mean().item())
    f, g = ImagesSinkhorn(potentials=True)(a, b)
    assert (f.shape, g.shape) == (a.shape, b.shape)
    assert loss(a, a).abs().max() < 1e-15
    assert loss(a[:0], b[:0]).shape == (0,)


def test_a_large_grid_is_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = densities(2, 1, 6, 4)
    whole, sizes, real = ImagesSinkhorn()(a, b), [], torch.Tensor.logsumexp
    monkeypatch.setattr(grids, "ENTRIES", 72)
    monkeypatch.setattr(torch.Tensor, "logsumexp", lambda t, dim: [sizes.append(t.numel()), real(t, dim=dim)][1])
    torch.testing.assert_close(ImagesSinkhorn()(a, b), whole, rtol=1e-13, atol=0)
    assert set(sizes) == {2 * 36, 4 * 16}


def test_defaults_are_the_unit_square_and_a_pixel() -> None:
    """Of pixels that are not square, the smallest side."""
    a, b = densities(1, 1, 4, 8)
    expected = ImagesSinkhorn(axes=[(0, 1), (0, 1)], blur=1 / 8)(a, b)
    assert ImagesSinkhorn()(a, b) == expected
    assert ImagesSinkhorn(axes=[(3, 4), (-1, 0)], blur=1 / 8)(a, b) == expected


def test_moving_a_spot_costs_half_its_squared_way() -> None:
    a, b = torch.zeros(1, 1, 32, 20), torch.zeros(1, 1, 32, 20)
    a[0, 0, 4, 5] = b[0, 0, 20, 10] = 3.0
    way = (16 / 32) ** 2 + (5 / 20) ** 2
    assert ImagesSinkhorn(scaling=0.8)(a, b).item() == pytest.approx(3 * way / 2, rel=1e-3)
    assert ImagesSinkhorn(scaling=0.8, normalize=True)(a, b / 3).item() == pytest.approx(way / 2, rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [{"reach": 0.7}, {"reach": 0.7, "debias": False}, {"normalize": True}, {"debias": False, "normalize": True}],
)
def test_gradients(options: dict[str, Any]) -> None:
    a, b = densities(1, 1, 4, 6)
    a = a * 1.5 if "reach" in options else a
    loss = ImagesSinkhorn(blur=0.4, tolerance=1e-12, **options)
    along = torch.randn(a.shape, dtype=a.dtype, generator=torch.Generator().manual_seed(1))
    found, wanted = slope(lambda a: loss(a, b), a, along, step=1e-5)
    assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision(half: torch.dtype) -> None:
    a, b = (grid.to(half) for grid in densities(1, 1, 8, 8))
    loss = ImagesSinkhorn(normalize=True)
    assert loss(a, b).dtype == torch.float32
    assert loss(a, b).item() == pytest.approx(loss(a.float(), b.float()).item(), rel=1e-6)


def test_bad_input() -> None:
    a, b = densities(2, 1, 4, 4)
    loss = build_loss("ImagesSinkhorn")
    cloud = torch.rand(2, 10, 3)
    with pytest.raises(LossValueError, match=r"compares pictures.*\(B, C, H, W\).*for point clouds.*use Sinkhorn"):
        loss(cloud, cloud)
    with pytest.raises(LossValueError, match=r"compares volumes.*\(B, C, X, Y, Z\)"):
        build_loss("VolumesSinkhorn")(a, b)
    for bad, error, message in (
        (a * float("nan"), LossValueError, r"{} holds NaN or Inf \(check_finite=False skips this check\)$"),
        (a - 1, LossValueError, f"{{}} is a density and must not be negative, got {float(a.min() - 1):g}$"),
        (a * torch.tensor([[[[1.0]]], [[[0.0]]]]), LossValueError, "a channel of {} is 0 everywhere; it needs mass$"),
        (a[:, :0], LossValueError, r"{} of shape \(2, 0, 4, 4\) is empty$"),
        (a[:, :, :, :0], LossValueError, r"{} of shape \(2, 1, 4, 0\) is empty$"),
        (a.long(), LossArgumentError, r"{} must be a floating-point tensor \(B, C, H, W\), got torch.int64$"),
        (3, LossArgumentError, r"{} must be a floating-point tensor \(B, C, H, W\), got int$"),
    ):
        for name, given in (("pred", (bad, b)), ("gt", (b, bad))):
            with pytest.raises(error, match=f"^ImagesSinkhorn: {message.format(name)}"):
                loss(*given)
    with pytest.raises(
        LossValueError, match=r"one shape and device, got \(2, 1, 3, 4\) on cpu and \(2, 1, 4, 4\) on cpu$"
    ):
        loss(a[:, :, :3], b)
    heavy = a * torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
    with pytest.raises(
        LossValueError, match=r"pair 1 sum to 2 \(pred\) and 1 \(gt\).*; normalize=True does it, or give"
    ):
        loss(heavy, b)
    with pytest.raises(LossValueError, match=r"pair 0 sum to 1 \(pred\) and 2 "):  # a pair of two channels
        loss(a.view(1, 2, 4, 4), heavy.view(1, 2, 4, 4))
    for lengths in ([4, 4], None), (None, [4, 4]):
        with pytest.raises(LossArgumentError, match=r"^ImagesSinkhorn compares pictures, which have no lengths$"):
            loss(a, b, *lengths)
    for axes in ([(0, 1)], [(0, 1), (1, 1)], [(0, 1), (0, float("inf"))]):
        with pytest.raises(LossValueError, match=r"^ImagesSinkhorn: axes=.* must be 2 pairs .*, for H, W, low < high$"):
            ImagesSinkhorn(axes=axes)
    for axes in ([0, 1], [(0, 1), ("low", "high")]):
        with pytest.raises(
            LossArgumentError, match=r"^ImagesSinkhorn: axes=.* must be 2 pairs of numbers .*, for H, W$"
        ):
            ImagesSinkhorn(axes=axes)
