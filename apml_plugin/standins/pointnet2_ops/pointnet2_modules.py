"""Stand-in for ``pointnet2_ops.pointnet2_modules``: PointNet++'s layers, with the weights' names of the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from apml_plugin.standins.absent import absent

from . import pointnet2_utils as utils


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
            self.groupers.append(utils.GroupAll(use_xyz) if whole else utils.QueryAndGroup(radius, nsample, use_xyz))
            widths[0] += 3 * use_xyz
            self.mlps.append(build_shared_mlp(widths, bn))

    def forward(self, xyz: Tensor, features: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """(B, N, 3) and (B, C, N) give the centres (B, npoint, 3) and their features (B, sum of widths, npoint)."""
        centres = None
        if self.npoint is not None:
            index = utils.furthest_point_sample(xyz, self.npoint)
            centres = utils.gather_operation(xyz.transpose(1, 2), index).transpose(1, 2).contiguous()
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
            dist, idx = utils.three_nn(unknown, known)
            weight = 1 / (dist + 1e-8)
            features = utils.three_interpolate(known_feats, idx, weight / weight.sum(dim=2, keepdim=True))
        if unknow_feats is not None:
            features = torch.cat([features, unknow_feats], dim=1)
        return self.mlp(features[..., None])[..., 0]


__getattr__ = absent(
    "pointnet2_ops.pointnet2_modules",
    "Install the real package: https://github.com/erikwijmans/Pointnet2_PyTorch (needs a CUDA compiler)",
)
