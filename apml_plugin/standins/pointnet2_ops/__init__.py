"""Stand-in for ``pointnet2_ops``: its ``pointnet2_utils``, which samples, gathers and groups points, and its
``pointnet2_modules``, PointNet++'s layers (Qi et al. 2017), with the real ones' names of weights.

Shapes and names are the compiled package's. What it marks as not differentiable has no gradient here either.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from apml_plugin.errors import LossValueError
from apml_plugin.matching.exact import FAR, furthest, nearest, within
from apml_plugin.matching.search import squared_distance

ORIGIN = 1e-3
"""Points with x^2 + y^2 + z^2 at or below this are never sampled: the compiled code takes them for padding."""


def furthest_point_sample(xyz: Tensor, npoint: int) -> Tensor:
    """Indices int32 (B, npoint) of points of (B, N, 3), each the furthest from those before it.

    Starts at index 0. Points within sqrt(1e-3) of the origin are skipped, except index 0; where nothing else is
    left, index 0 repeats. Ties go to the lowest index. ``npoint`` may be a 0-dim tensor. No gradient.

    Raises:
        ValueError: the clouds are empty.
    """
    with torch.no_grad():
        padding = squared_distance(xyz, xyz.new_zeros(3)).double() <= ORIGIN
        return furthest(xyz, int(npoint), xyz.new_full(padding.shape, FAR).masked_fill_(padding, -1.0)).int()


def gather_operation(features: Tensor, idx: Tensor) -> Tensor:
    """Columns ``idx`` (B, m) of ``features`` (B, C, N) as (B, C, m); gradients go to ``features``."""
    return features.gather(2, idx.long()[:, None].expand(-1, features.shape[1], -1))


def grouping_operation(features: Tensor, idx: Tensor) -> Tensor:
    """Columns ``idx`` (B, p, s) of ``features`` (B, C, N) as (B, C, p, s); gradients go to ``features``."""
    batch, groups, size = idx.shape
    return gather_operation(features, idx.reshape(batch, groups * size)).view(batch, -1, groups, size)


def knn_query(nsample: int, xyz: Tensor, new_xyz: Tensor) -> tuple[Tensor, Tensor]:
    """The ``nsample`` nearest of ``xyz`` (B, N, 3) for each of ``new_xyz`` (B, p, 3).

    Returns Euclidean distances (B, p, nsample), nearest first, and int32 indices. With fewer points the rest have
    distance inf and index 0. No gradient.
    """
    shape = (*new_xyz.shape[:2], nsample)
    far, idx = new_xyz.new_full(shape, float("inf")), new_xyz.new_zeros(shape, dtype=torch.int32)
    if k := min(nsample, xyz.shape[1]):
        near, index = nearest(new_xyz.detach(), xyz.detach(), k)
        far[..., :k], idx[..., :k] = near.sqrt_(), index.int()
    return far, idx


def three_nn(unknown: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The three nearest of ``known`` (B, m, 3) for each of ``unknown`` (B, n, 3), as :func:`knn_query` gives them."""
    return knn_query(3, known, unknown)


def three_interpolate(features: Tensor, idx: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of three columns of ``features`` (B, C, m) per point: ``idx``, ``weight`` (B, n, 3) -> (B, C, n).

    Gradients go to ``features`` only, as in the compiled package.
    """
    return (grouping_operation(features, idx) * weight.detach()[:, None]).sum(dim=-1)


def ball_query(radius: float, nsample: int, xyz: Tensor, new_xyz: Tensor) -> Tensor:
    """The first ``nsample`` indices of ``xyz`` (B, N, 3) closer than ``radius`` to each of ``new_xyz`` (B, p, 3).

    Returns int32 (B, p, nsample) in ascending order; free places repeat the first hit, 0 without any. No gradient.
    """
    return within(radius, nsample, xyz, new_xyz).int()


class QueryAndGroup(nn.Module):
    """The points within ``radius`` of each centre, or without one the nearest, seen from there, beside their features.

    ``use_xyz=False`` leaves the coordinates out, which then needs features.
    """

    def __init__(self, radius: float | None, nsample: int, use_xyz: bool = True) -> None:
        super().__init__()
        self.radius, self.nsample, self.use_xyz = radius, nsample, use_xyz

    def forward(self, xyz: Tensor, new_xyz: Tensor, features: Tensor | None = None) -> Tensor:
        """(B, N, 3), centres (B, p, 3) and features (B, C, N) give (B, 3 + C, p, nsample).

        Raises:
            LossValueError: neither coordinates nor features are wanted.
        """
        if self.radius is None:
            idx = knn_query(self.nsample, xyz, new_xyz)[1]
        else:
            idx = ball_query(self.radius, self.nsample, xyz, new_xyz)
        local = grouping_operation(xyz.transpose(1, 2).contiguous(), idx) - new_xyz.transpose(1, 2)[..., None]
        return _beside(local, None if features is None else grouping_operation(features, idx), self.use_xyz)


class GroupAll(nn.Module):
    """All points as one group, beside their features."""

    def __init__(self, use_xyz: bool = True) -> None:
        super().__init__()
        self.use_xyz = use_xyz

    def forward(self, xyz: Tensor, new_xyz: Tensor | None, features: Tensor | None = None) -> Tensor:
        """(B, N, 3) and features (B, C, N) give (B, 3 + C, 1, N); ``new_xyz`` is ignored.

        Raises:
            LossValueError: neither coordinates nor features are wanted.
        """
        return _beside(
            xyz.transpose(1, 2)[:, :, None], None if features is None else features[:, :, None], self.use_xyz
        )


def _beside(xyz: Tensor, features: Tensor | None, use_xyz: bool) -> Tensor:
    if features is None:
        if not use_xyz:
            raise LossValueError("grouping without features needs use_xyz=True")
        return xyz
    return torch.cat([xyz, features], dim=1) if use_xyz else features


def build_shared_mlp(mlp_spec: Sequence[int], bn: bool = True) -> nn.Sequential:
    """1 x 1 convolutions from width to width, each followed by a batch norm if ``bn``, and a ReLU."""
    layers: list[nn.Module] = []
    for before, after in pairwise(mlp_spec):
        layers += [nn.Conv2d(before, after, 1, bias=not bn), *([nn.BatchNorm2d(after)] if bn else []), nn.ReLU(True)]
    return nn.Sequential(*layers)


class PointnetSAModuleMSG(nn.Module):
    """Set abstraction at several radii: features of ``npoint`` centres, or of the whole cloud where it is None.

    ``use_xyz`` adds 3 to each first width, in the caller's lists too, as the real one does.
    """

    def __init__(
        self,
        npoint: int | None,
        radii: Sequence[float | None],
        nsamples: Sequence[int],
        mlps: Sequence[list[int]],
        bn: bool = True,
        use_xyz: bool = True,
    ) -> None:
        super().__init__()
        self.npoint = npoint
        self.groupers, self.mlps = nn.ModuleList(), nn.ModuleList()
        for radius, nsample, widths in zip(radii, nsamples, mlps, strict=True):
            whole = npoint is None
            self.groupers.append(GroupAll(use_xyz) if whole else QueryAndGroup(radius, nsample, use_xyz))
            widths[0] += 3 * use_xyz
            self.mlps.append(build_shared_mlp(widths, bn))

    def forward(self, xyz: Tensor, features: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """(B, N, 3) and (B, C, N) give the centres (B, npoint, 3) and their features (B, sum of widths, npoint)."""
        centres = None
        if self.npoint is not None:
            index = furthest_point_sample(xyz, self.npoint)
            centres = gather_operation(xyz.transpose(1, 2), index).transpose(1, 2).contiguous()
        groups = [mlp(group(xyz, centres, features)) for group, mlp in zip(self.groupers, self.mlps, strict=True)]
        return centres, torch.cat([group.max(dim=3).values for group in groups], dim=1)


class PointnetSAModule(PointnetSAModuleMSG):
    """Set abstraction at one radius."""

    def __init__(
        self,
        mlp: list[int],
        npoint: int | None = None,
        radius: float | None = None,
        nsample: int | None = None,
        bn: bool = True,
        use_xyz: bool = True,
    ) -> None:
        super().__init__(npoint, [radius], [nsample], [mlp], bn, use_xyz)  # type: ignore[list-item]


class PointnetFPModule(nn.Module):
    """Features of one cloud carried to another: means of the three nearest, weighted by 1 / (distance + 1e-8)."""

    def __init__(self, mlp: Sequence[int], bn: bool = True) -> None:
        super().__init__()
        self.mlp = build_shared_mlp(mlp, bn)

    def forward(
        self, unknown: Tensor, known: Tensor | None, unknow_feats: Tensor | None, known_feats: Tensor
    ) -> Tensor:
        """(B, n, 3), (B, m, 3), (B, C1, n) and (B, C2, m) give (B, last width, n); known None: C2 for all alike."""
        if known is None:
            features = known_feats.expand(-1, -1, unknown.shape[1])
        else:
            dist, idx = three_nn(unknown, known)
            weight = 1 / (dist + 1e-8)
            features = three_interpolate(known_feats, idx, weight / weight.sum(dim=2, keepdim=True))
        if unknow_feats is not None:
            features = torch.cat([features, unknow_feats], dim=1)
        return self.mlp(features[..., None])[..., 0]
