"""Distortion, density, points number, latent points, normals: each term of D-PCC's loss alone.

Written from the formulas; the published coefficients are the defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from apml_plugin.eager import eager
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses.base import PointLoss
from apml_plugin.losses.combine import PerStage, describe
from apml_plugin.losses.dpcc.outputs import LAYOUTS, Stages, as_outputs, batch_mean, both, without_padding
from apml_plugin.losses.dpcc.settings import coefficient
from apml_plugin.matching.settings import flag, one_of


class DPCCTerm(PointLoss):
    """One term: called with DPCCOutputs (or a mapping of its fields), gives a 0-dim tensor, its coefficient included.

    Args:
        layout: "BN3" for clouds (B, N, 3), "B3N" for (B, 3, N), D-PCC's own.
        check_finite: refuse NaN and Inf with an error.
    """

    name: ClassVar[str]
    """What its value is called in ``DPCC.terms``."""

    def __init__(self, layout: str = "BN3", check_finite: bool = True) -> None:
        super().__init__()
        self.layout = one_of("layout", layout, LAYOUTS)
        self.check_finite = flag("check_finite", check_finite)

    def value(self, stages: Stages) -> Tensor:
        """The term of checked outputs."""
        raise NotImplementedError

    def forward(self, outputs: Any, *clouds: Any) -> Tensor:  # type: ignore[override]
        return evaluate(self, self.value, outputs, *clouds)


@eager()
def evaluate(loss: Any, of: Callable[[Stages], Any], outputs: Any, *clouds: Any) -> Any:
    """What `of` makes of the outputs, checked as `loss` asks for; outside of autocast."""
    stages = Stages(loss.needs, as_outputs(loss.needs, outputs, *clouds), loss.layout, loss.check_finite)
    with torch.autocast(stages.gts[0].device.type, enabled=False):
        return of(stages)


class DPCCDistortion(DPCCTerm):
    """Stage-weighted distance between each decoder stage and its encoder stage: the last counts once, others less.

    Published: Chamfer, the sum of both mean squared nearest distances, and ``chamfer_coe`` 0.1.

    Args:
        chamfer_coe: weight of every stage but the last.
        distortion: another loss of two clouds in place of Chamfer; in YAML a name or a mapping (``APML``,
            ``{NAME: APML, reduction: mean}``).
        layout, check_finite: as for every term.
    """

    name = "distortion"
    needs = "DPCCDistortion needs the clouds of every stage: gt_xyzs (encoder, finest first), pred_xyzs (decoder)"
    nested = ("distortion",)

    def __init__(
        self,
        chamfer_coe: float = 0.1,
        distortion: nn.Module | None = None,
        layout: str = "BN3",
        check_finite: bool = True,
    ) -> None:
        super().__init__(layout, check_finite)
        self.chamfer_coe = coefficient("chamfer_coe", chamfer_coe)
        if distortion is not None and not isinstance(distortion, nn.Module):
            raise LossArgumentError(
                f"distortion={distortion!r} must be a loss such as APML(reduction='mean'); for a name build the whole "
                f"with build_loss({{'NAME': {type(self).__name__!r}, 'distortion': {distortion!r}}})"
            )
        if isinstance(distortion, PerStage) or (isinstance(distortion, PointLoss) and distortion.needs):
            raise LossArgumentError(
                f"distortion={distortion!r} cannot be called with two clouds; give one such as APML"
            )
        self.distortion = distortion

    def options(self) -> dict[str, Any]:
        named = "Chamfer" if self.distortion is None else describe(self.distortion)
        return {"chamfer_coe": self.chamfer_coe, "distortion": named, "layout": self.layout}

    def value(self, stages: Stages) -> Tensor:
        total = None
        for i in range(stages.count):
            term = self._stage(stages, i)
            term = term if i == stages.count - 1 else self.chamfer_coe * term
            total = term if total is None else total + term
        assert total is not None
        return total

    def _stage(self, stages: Stages, i: int) -> Tensor:
        if self.distortion is None:
            near = stages.nearest(i)
            values = near.xy.mean(near.dist_xy) + near.yx.mean(near.dist_yx)
            return values.mean() if len(values) else values.sum()
        clouds = stages.pair(i)
        value: Tensor = self.distortion(clouds.pred, clouds.gt, clouds.pred_lengths, clouds.gt_lengths)
        if value.dim() != 0:
            raise LossValueError(
                f"distortion={describe(self.distortion)} gave a tensor of shape {tuple(value.shape)}, one number is "
                "needed: use reduction: mean or reduction: sum"
            )
        return value


class DPCCDensity(DPCCTerm):
    """How well the decoder knows the density it has to restore: mean absolute error of count and mean distance.

    Stage 0 is compared by position, its points being the encoder's last; stage i >= 1 with what the nearest gt point
    of each point of pred_xyzs[i - 1] has. ``density_coe * sum of (counts + mean_distance_coe * mean distances)``.

    Args:
        density_coe, mean_distance_coe: published 1e-4 and 50.
        layout, check_finite: as for every term.
    """

    name = "density"
    needs = "DPCCDensity needs gt_dnums, gt_mdis, pred_unums, pred_mdis, and gt_xyzs and pred_xyzs to match them by"

    def __init__(
        self,
        density_coe: float = 1e-4,
        mean_distance_coe: float = 50.0,
        layout: str = "BN3",
        check_finite: bool = True,
    ) -> None:
        super().__init__(layout, check_finite)
        self.density_coe = coefficient("density_coe", density_coe)
        self.mean_distance_coe = coefficient("mean_distance_coe", mean_distance_coe)

    def options(self) -> dict[str, Any]:
        return {
            "density_coe": self.density_coe,
            "mean_distance_coe": self.mean_distance_coe,
            "layout": self.layout,
        }

    def value(self, stages: Stages) -> Tensor:
        total = None
        for i in range(stages.count):
            counts = self._error(stages, i, "pred_unums", "gt_dnums")
            distances = self._error(stages, i, "pred_mdis", "gt_mdis")
            term = counts + self.mean_distance_coe * distances
            total = term if total is None else total + term
        assert total is not None
        return self.density_coe * total

    def _error(self, stages: Stages, i: int, pred_name: str, gt_name: str) -> Tensor:
        s = stages.count - 1 - i
        pred = stages.per_point(pred_name, i, *stages.taken(i))
        gt = stages.per_point(gt_name, s, *stages.kept(s))
        mask = stages.taken_mask(i)
        if i > 0:
            gt, found = stages.gather(i - 1, gt)
            mask = both(mask, found)
        pred = stages.finite(f"{pred_name}[{i}]", pred, mask)
        gt = stages.finite(f"{gt_name}[{s}]", gt, mask)
        return batch_mean((pred - gt).abs(), mask)


class DPCCPointsNumber(DPCCTerm):
    """How far the number of points each decoder stage asks for is from the encoder's, over the whole batch.

    Args:
        pts_num_coe: published 5e-7.
        layout, check_finite: as for every term.
    """

    name = "points_number"
    needs = "DPCCPointsNumber needs pred_unums (decoder) and gt_xyzs (encoder), one entry for each stage"

    def __init__(self, pts_num_coe: float = 5e-7, layout: str = "BN3", check_finite: bool = True) -> None:
        super().__init__(layout, check_finite)
        self.pts_num_coe = coefficient("pts_num_coe", pts_num_coe)

    def options(self) -> dict[str, Any]:
        return {"pts_num_coe": self.pts_num_coe, "layout": self.layout}

    def value(self, stages: Stages) -> Tensor:
        total = None
        for i in range(stages.count):
            given = stages.several("pred_unums")[i]
            # Without the decoder's clouds there is nothing to hold the numbers against but themselves.
            alone = i > 0 and stages.outputs.pred_xyzs is None and isinstance(given, Tensor) and given.dim() == 2
            points, of = (given.shape[1], f"pred_xyzs[{i - 1}]") if alone else stages.taken(i)
            numbers = stages.per_point("pred_unums", i, points, of)
            mask = None if alone else stages.taken_mask(i)
            numbers = stages.finite(f"pred_unums[{i}]", numbers, mask)
            term = (numbers.sum() - stages.gt_points(stages.count - 1 - i)).abs()
            total = term if total is None else total + term
        assert total is not None
        return self.pts_num_coe * total


class _Squares(DPCCTerm):
    def squares(self, stages: Stages, pred: Tensor, gt: Tensor, mask: Tensor | None) -> Tensor:
        """Mean squared difference over points and coordinates, both free of padding."""
        apart = (pred - gt).square().mean(dim=2)
        if stages.check_finite and not bool(torch.isfinite(apart.detach()).all()):
            raise LossValueError(f"{self.name}: NaN or Inf; look for a diverged network ({self.needs})")
        return batch_mean(apart, mask)


class DPCCLatent(_Squares):
    """Mean squared error of the decoded latent points.

    Args:
        latent_xyzs_coe: published 1e-2.
        layout, check_finite: as for every term.
    """

    name = "latent"
    needs = "DPCCLatent needs latent_xyzs (encoder), pred_latent_xyzs (decoded) and gt_xyzs"

    def __init__(self, latent_xyzs_coe: float = 1e-2, layout: str = "BN3", check_finite: bool = True) -> None:
        super().__init__(layout, check_finite)
        self.latent_xyzs_coe = coefficient("latent_xyzs_coe", latent_xyzs_coe)

    def options(self) -> dict[str, Any]:
        return {"latent_xyzs_coe": self.latent_xyzs_coe, "layout": self.layout}

    def value(self, stages: Stages) -> Tensor:
        gt, pred = stages.single("latent_xyzs"), stages.single("pred_latent_xyzs")
        if gt.shape != pred.shape or len(gt) != stages.batch:
            raise LossValueError(
                f"latent_xyzs and pred_latent_xyzs must have the same shape and {stages.batch} clouds, got "
                f"{tuple(gt.shape)} and {tuple(pred.shape)} (as (B, N, 3))"
            )
        mask = stages.mask("latent_lengths", stages.outputs.latent_lengths, gt.shape[1])
        return self.latent_xyzs_coe * self.squares(stages, without_padding(pred, mask), without_padding(gt, mask), mask)


class DPCCNormal(_Squares):
    """Mean squared error of the normals, ``tanh(features)``, against that of each point's nearest gt point.

    Args:
        normal_coe: published 1e-2.
        layout, check_finite: as for every term.
    """

    name = "normal"
    needs = "DPCCNormal needs features (decoder, at pred_xyzs[-1]), gt_normals (at gt_xyzs[0]), gt_xyzs and pred_xyzs"

    def __init__(self, normal_coe: float = 1e-2, layout: str = "BN3", check_finite: bool = True) -> None:
        super().__init__(layout, check_finite)
        self.normal_coe = coefficient("normal_coe", normal_coe)

    def options(self) -> dict[str, Any]:
        return {"normal_coe": self.normal_coe, "layout": self.layout}

    def value(self, stages: Stages) -> Tensor:
        last = stages.count - 1
        normals, features = stages.single("gt_normals"), stages.single("features")
        for name, given, cloud, of in (
            ("gt_normals", normals, stages.gts[0], "gt_xyzs[0]"),
            ("features", features, stages.preds[last], f"pred_xyzs[{last}]"),
        ):
            if given.shape[:2] != cloud.shape[:2] or given.shape[2] != normals.shape[2]:
                raise LossValueError(
                    f"{name} must hold {normals.shape[2]} numbers for each point of {of}, "
                    f"{(*cloud.shape[:2], normals.shape[2])} as (B, N, 3), got {tuple(given.shape)}"
                )
        nearest, mask = stages.gather(last, normals)
        pred, gt = torch.tanh(without_padding(features, mask)), without_padding(nearest, mask)
        return self.normal_coe * self.squares(stages, pred, gt, mask)
