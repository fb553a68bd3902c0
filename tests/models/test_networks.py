"""PCN and FoldingNet: shapes, structure, what enters a checkpoint, and sizes that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from apml_plugin import ChamferL2
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.models import PCN, FoldingNet
from apml_plugin.models.completion import PointEncoder, square_grid


def _small(kind: type[nn.Module]) -> nn.Module:
    return PCN(num_pred=64, encoder_channel=32, grid=2) if kind is PCN else FoldingNet(num_pred=64, encoder_channel=32)


BOTH = pytest.mark.parametrize("kind", [PCN, FoldingNet])


@BOTH
def test_shapes_and_gradients_reach_every_parameter(kind: type[nn.Module]) -> None:
    net = _small(kind)
    coarse, fine = net(torch.rand(3, 50, 3))
    assert coarse.shape == (3, 16 if kind is PCN else 64, 3)
    assert fine.shape == (3, 64, 3)
    assert coarse.is_contiguous()
    assert fine.is_contiguous()
    fine.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@BOTH
def test_the_order_of_the_partial_points_does_not_matter(kind: type[nn.Module]) -> None:
    net = _small(kind).eval()
    partial = torch.rand(2, 40, 3)
    for one, other in zip(net(partial), net(partial[:, torch.randperm(40)]), strict=True):
        torch.testing.assert_close(one, other)


@BOTH
def test_every_point_counts(kind: type[nn.Module]) -> None:
    net = _small(kind).eval()
    partial = torch.rand(1, 40, 3)
    moved = partial.clone()
    moved[0, 7] += 5
    assert not torch.allclose(net(partial)[1], net(moved)[1])


@BOTH
def test_the_grid_is_in_no_checkpoint_and_follows_the_dtype(kind: type[nn.Module]) -> None:
    net = _small(kind)
    assert not [name for name in net.state_dict() if "seed" in name]
    assert net.double()(torch.rand(2, 30, 3, dtype=torch.float64))[1].dtype == torch.float64


@BOTH
def test_overfits_one_cloud(kind: type[nn.Module]) -> None:
    net, loss = _small(kind), ChamferL2()
    partial, gt = torch.rand(2, 40, 3), torch.rand(2, 80, 3) - 0.5
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        value = loss(net(partial)[1], gt)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.3 * values[0]


def test_every_point_is_described_in_view_of_the_whole_cloud() -> None:
    encoder = PointEncoder(32).eval()
    seen: list[torch.Tensor] = []
    encoder.merge.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    encoder(torch.rand(2, 30, 3))
    own, whole = seen[0].chunk(2, dim=1)
    torch.testing.assert_close(whole, own.amax(dim=2, keepdim=True).expand(-1, -1, 30))


def test_pcn_folds_a_grid_around_each_coarse_point() -> None:
    net = PCN(num_pred=64, encoder_channel=32, grid=2).eval()
    for parameter in net.fold[-1].parameters():
        nn.init.zeros_(parameter)
    coarse, fine = net(torch.rand(2, 30, 3))
    torch.testing.assert_close(fine.view(2, 16, 4, 3), coarse[:, :, None].expand(-1, -1, 4, -1))


def test_pcn_gives_the_patches_of_two_coarse_points_the_same_grid() -> None:
    net = PCN(num_pred=18, encoder_channel=8, grid=3).eval()
    seen: list[torch.Tensor] = []
    net.fold.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    net(torch.rand(1, 30, 3))
    seeds = seen[0][0, -2:]
    torch.testing.assert_close(seeds[:, :9], seeds[:, 9:])
    assert len({tuple(seed) for seed in seeds[:, :9].T.tolist()}) == 9


def test_the_grid_is_even_and_centred() -> None:
    grid = square_grid(3, 0.5)
    assert sorted({round(v, 6) for v in grid[0].tolist()}) == [-0.5, 0.0, 0.5]
    torch.testing.assert_close(grid.sum(1), torch.zeros(2))
    assert len({tuple(point) for point in grid.T.tolist()}) == 9
    assert square_grid(1, 0.5).tolist() == [[0.0], [0.0]]


def test_the_papers_sizes_are_the_defaults() -> None:
    net = PCN()
    assert (net.num_pred, net.num_coarse, net.grid) == (16384, 1024, 4)
    assert net.encoder.channels == 1024
    assert [m.out_channels for m in net.encoder.modules() if isinstance(m, nn.Conv1d)] == [128, 256, 512, 1024]
    assert [m.out_channels for m in net.fold if isinstance(m, nn.Conv1d)] == [512, 512, 3]
    assert [m.out_features for m in net.coarse if isinstance(m, nn.Linear)] == [1024, 1024, 3072]


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: PCN(num_pred=100, grid=3), LossValueError, r"num_pred=100 .* grid \* grid = 9, such as 99"),
        (lambda: PCN(num_pred=0), LossValueError, "num_pred=0 must be at least 1"),
        (lambda: PCN(num_pred="2048"), LossArgumentError, "num_pred='2048' must be a whole number, got str"),
        (lambda: PCN(hidden=True), LossArgumentError, "hidden=True"),
        (lambda: FoldingNet(num_pred=2048), LossValueError, "num_pred=2048 .* 2025 or 2116"),
        (lambda: PointEncoder(100), LossValueError, "encoder_channel=100 must be a multiple of 8, such as 96"),
    ],
)
def test_sizes_that_do_not_fit_say_what_would(make, error, says) -> None:
    with pytest.raises(error, match=says):
        make()


@pytest.mark.parametrize("shape", [(30, 3), (2, 3, 30), (2, 0, 3)])
def test_a_partial_cloud_of_another_shape_raises_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(LossValueError, match="expected \\(B, N, 3\\)"):
        PointEncoder(8)(torch.rand(*shape))
