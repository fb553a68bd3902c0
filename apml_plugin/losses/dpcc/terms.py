"""The terms of D-PCC's loss, each as a loss: distortion, density, points number, latent points, normals.

Written from the formulas; the published coefficients are the defaults.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from apml_plugin.arguments import flag, not_negative, one_of
from apml_plugin.eager import eager
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses.base import TWO_CLOUDS, PointLoss, declare, describe
from apml_plugin.losses.combine import PerStage
from apml_plugin.losses.dpcc.outputs import LAYOUTS, Stages, as_outputs, batch_mean, both, without_padding


class DPCCTerm(PointLoss):
    """One term: called with DPCCOutputs (or a mapping of its fields), gives a 0-dim tensor, its coefficient included.

    Args:
        layout: "BN3" for clouds (B, N, 3), "B3N" for (B, 3, N), as in D-PCC.
        check_finite: raise an error for NaN and Inf.
    """

    name: ClassVar[str]
    """The key of its value in ``DPCC.terms``."""
    coefficient: ClassVar[str]
    """The argument that leaves the term out of ``DPCC`` if it is 0."""
    fields: ClassVar[tuple[str, ...]] = ()
    """``DPCC`` leaves the term out if none of these fields of the outputs is given."""

    def __init__(self, layout: str = "BN3", check_finite: bool = True) -> None:
        super().__init__()
        self.layout = one_of("layout", layout, LAYOUTS)
        self.check_finite = flag("check_finite", check_finite)

    def applies(self, stages: Stages) -> bool:
        """Whether ``DPCC`` computes it for these outputs. Raises LossArgumentError if only some fields are given."""
        if not getattr(self, self.coefficient):
            return False
        missing = [name for name in self.fields if getattr(stages.outputs, name) is None]
        # latent_xyzs may be given alone: the density term uses it too.
        if not missing or missing == list(self.fields) or missing == ["pred_latent_xyzs"]:
            return not missing
        given = next(name for name in self.fields if name not in missing)
        raise LossArgumentError(f"{missing[0]} is missing, which belongs to {given}: give both or neither")

    def value(self, stages: Stages) -> Tensor:
        """The term of checked outputs."""
        raise NotImplementedError

    def forward(self, outputs: Any, *clouds: Any) -> Tensor:
        value: Tensor = evaluate(self, self.value, outputs, *clouds)
        return value


@eager()
def evaluate(loss: Any, of: Callable[[Stages], Any], outputs: Any, *clouds: Any) -> Any:
    """`of` the outputs, checked with the settings of `loss`, without autocast."""
    stages = Stages(loss.needs, as_outputs(loss.needs, outputs, *clouds), loss.layout, loss.check_finite)
    with torch.autocast(stages.gts[0].device.type, enabled=False):
        return of(stages)


def add(terms: Iterable[Tensor]) -> Tensor:
    """The sum of one or more tensors."""
    return functools.reduce(operator.add, terms)


@declare(takes="codec outputs", nested=("distortion",))
class DPCCDistortion(DPCCTerm):
    """Distance between each decoder stage and its encoder stage; the last has weight 1, the others ``chamfer_coe``.

    Published: Chamfer, the sum of both mean squared nearest distances, and ``chamfer_coe`` 0.1.

    Args:
        chamfer_coe: weight of every stage but the last.
        distortion: another loss of two clouds in place of Chamfer; in YAML a name or a mapping (``APML``,
            ``{NAME: APML, reduction: mean}``).
        layout, check_finite: as for every term.
    """

    name, coefficient = "distortion", "chamfer_coe"
    needs = "DPCCDistortion needs the clouds of every stage: gt_xyzs (encoder, finest first), pred_xyzs (decoder)"

    def __init__(
        self,
        chamfer_coe: float = 0.1,
        distortion: nn.Module | None = None,
        layout: str = "BN3",
        check_finite: bool = True,
    ) -> None:
        super().__init__(layout, check_finite)
        self.chamfer_coe = not_negative("chamfer_coe", chamfer_coe)
        if distortion is not None and not isinstance(distortion, nn.Module):
            raise LossArgumentError(
                f"distortion={distortion!r} must be a loss such as APML(reduction='mean'); to give a name, use "
                f"build_loss({{'NAME': {type(self).__name__!r}, 'distortion': {distortion!r}}})"
            )
        if isinstance(distortion, PerStage) or (isinstance(distortion, PointLoss) and distortion.takes != TWO_CLOUDS):
            raise LossArgumentError(
                f"distortion={describe(distortion)} cannot be called with two clouds; give one such as APML"
            )
        self.distortion = distortion

    def applies(self, stages: Stages) -> bool:
        return True

    def value(self, stages: Stages) -> Tensor:
        *others, last = [self._stage(stages, i) for i in range(stages.count)]
        return add([*(self.chamfer_coe * term for term in others), last])

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


@declare(takes="codec outputs")
class DPCCDensity(DPCCTerm):
    """Error of the predicted density: mean absolute errors of the counts and of the mean distances.

    Stage 0 is compared by position, its points being the encoder's last; stage i >= 1 with what the nearest gt point
    of each point of pred_xyzs[i - 1] has. ``density_coe * sum of (counts + mean_distance_coe * mean distances)``.

    Args:
        density_coe, mean_distance_coe: published 1e-4 and 50.
        layout, check_finite: as for every term.
    """

    name, coefficient = "density", "density_coe"
    needs = "DPCCDensity needs gt_dnums, gt_mdis, pred_unums, pred_mdis, and gt_xyzs and pred_xyzs to match them by"

    def __init__(
        self,
        density_coe: float = 1e-4,
        mean_distance_coe: float = 50.0,
        layout: str = "BN3",
        check_finite: bool = True,
    ) -> None:
        super().__init__(layout, check_finite)
        self.density_coe = not_negative("density_coe", density_coe)
        self.mean_distance_coe = not_negative("mean_distance_coe", mean_distance_coe)

    def value(self, stages: Stages) -> Tensor:
        return self.density_coe * add(self._stage(stages, i) for i in range(stages.count))

    def _stage(self, stages: Stages, i: int) -> Tensor:
        counts = self._error(stages, i, "pred_unums", "gt_dnums")
        return counts + self.mean_distance_coe * self._error(stages, i, "pred_mdis", "gt_mdis")

    def _error(self, stages: Stages, i: int, pred_name: str, gt_name: str) -> Tensor:
        s = stages.count - 1 - i
        pred = stages.per_point(pred_name, i, *stages.taken(i))
        gt = stages.per_point(gt_name, s, *stages.kept(s))
        mask = stages.taken_mask(i)
        if i > 0:
            gt, has_neighbour = stages.gather(i - 1, gt)
            mask = both(mask, has_neighbour)
        pred = stages.finite(f"{pred_name}[{i}]", pred, mask)
        gt = stages.finite(f"{gt_name}[{s}]", gt, mask)
        return batch_mean((pred - gt).abs(), mask)


@declare(takes="codec outputs")
class DPCCPointsNumber(DPCCTerm):
    """Difference between the number of points each decoder stage predicts and the encoder's, over the whole batch.

    Args:
        pts_num_coe: published 5e-7.
        layout, check_finite: as for every term.
    """

    name, coefficient = "points_number", "pts_num_coe"
    needs = "DPCCPointsNumber needs pred_unums (decoder) and gt_xyzs (encoder), one entry for each stage"

    def __init__(self, pts_num_coe: float = 5e-7, layout: str = "BN3", check_finite: bool = True) -> None:
        super().__init__(layout, check_finite)
        self.pts_num_coe = not_negative("pts_num_coe", pts_num_coe)

    def value(self, stages: Stages) -> Tensor:
        return self.pts_num_coe * add(self._stage(stages, i) for i in range(stages.count))

    def _stage(self, stages: Stages, i: int) -> Tensor:
        given = stages.several("pred_unums")[i]
        # Without the decoder's clouds the numbers themselves say how many there must be.
        alone = i > 0 and stages.outputs.pred_xyzs is None and isinstance(given, Tensor) and given.dim() == 2
        points, of = (given.shape[1], f"pred_xyzs[{i - 1}]") if alone else stages.taken(i)
        numbers = stages.per_point("pred_unums", i, points, of)
        numbers = stages.finite(f"pred_unums[{i}]", numbers, None if alone else stages.taken_mask(i))
        return (numbers.sum() - stages.gt_points(stages.count - 1 - i)).abs()


class _Squares(DPCCTerm):
    def squares(self, stages: Stages, pred: Tensor, gt: Tensor, mask: Tensor | None) -> Tensor:
        """Mean squared difference over points and coordinates; both have no padding left."""
        apart = (pred - gt).square().mean(dim=2)
        if stages.check_finite and not bool(torch.isfinite(apart.detach()).all()):
            raise LossValueError(f"{self.name}: NaN or Inf; look for a diverged network ({self.needs})")
        return batch_mean(apart, mask)


@declare(takes="codec outputs")
class DPCCLatent(_Squares):
    """Mean squared error of the decoded latent points.

    Args:
        latent_xyzs_coe: published 1e-2.
        layout, check_finite: as for every term.
    """

    name, coefficient, fields = "latent", "latent_xyzs_coe", ("pred_latent_xyzs", "latent_xyzs")
    needs = "DPCCLatent needs latent_xyzs (encoder), pred_latent_xyzs (decoded) and gt_xyzs"

    def __init__(self, latent_xyzs_coe: float = 1e-2, layout: str = "BN3", check_finite: bool = True) -> None:
        super().__init__(layout, check_finite)
        self.latent_xyzs_coe = not_negative("latent_xyzs_coe", latent_xyzs_coe)

    def value(self, stages: Stages) -> Tensor:
        gt, pred = stages.single("latent_xyzs"), stages.single("pred_latent_xyzs")
        if gt.shape != pred.shape or len(gt) != stages.batch:
            raise LossValueError(
                f"latent_xyzs and pred_latent_xyzs must have the same shape and {stages.batch} clouds, got "
                f"{tuple(gt.shape)} and {tuple(pred.shape)} (as (B, N, 3))"
            )
        mask = stages.mask("latent_lengths", stages.outputs.latent_lengths, gt.shape[1])
        return self.latent_xyzs_coe * self.squares(stages, without_padding(pred, mask), without_padding(gt, mask), mask)


@declare(takes="codec outputs")
class DPCCNormal(_Squares):
    """Mean squared error of the normals, ``tanh(features)``, against that of each point's nearest gt point.

    Args:
        normal_coe: published 1e-2.
        layout, check_finite: as for every term.
    """

    name, coefficient, fields = "normal", "normal_coe", ("gt_normals", "features")
    needs = "DPCCNormal needs features (decoder, at pred_xyzs[-1]), gt_normals (at gt_xyzs[0]), gt_xyzs and pred_xyzs"

    def __init__(self, normal_coe: float = 1e-2, layout: str = "BN3", check_finite: bool = True) -> None:
        super().__init__(layout, check_finite)
        self.normal_coe = not_negative("normal_coe", normal_coe)

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
