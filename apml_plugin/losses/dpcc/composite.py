"""``DPCC``: all terms of the loss that trains a density-preserving point cloud codec, from one set of outputs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from apml_plugin.errors import LossArgumentError
from apml_plugin.losses.base import PointLoss
from apml_plugin.losses.dpcc.outputs import LAYOUTS, DPCCOutputs, Stages
from apml_plugin.losses.dpcc.rate import Rate
from apml_plugin.losses.dpcc.terms import (
    DPCCDensity,
    DPCCDistortion,
    DPCCLatent,
    DPCCNormal,
    DPCCPointsNumber,
    evaluate,
)
from apml_plugin.matching.settings import flag, one_of


class DPCC(PointLoss):
    """Distortion + density + points number + latent points + normals + rate of a D-PCC decoder's outputs.

    The published terms with the published coefficients (Density-preserving Deep Point Cloud Compression, CVPR 2022).
    The nearest neighbours of each stage are searched for once and used by every term. The terms of latent points and
    of normals are left out where neither of their two fields is given, as D-PCC does in these modes; any other term
    is left out with a coefficient of 0. Means are over the points of a cloud, then over the batch.

    ``DPCC()(outputs)`` gives the sum; for logging, ``terms(outputs)`` the values it is made of::

        terms = loss.terms(outputs)  # {"distortion": ..., "density": ..., ...}, coefficients included
        total = sum(terms.values())  # what loss(outputs) gives

    Args:
        chamfer_coe, density_coe, mean_distance_coe, pts_num_coe, latent_xyzs_coe, normal_coe: as published.
        bpp_lambda: price of one bit per point; 1e-3 is what the published training script sets.
        distortion: another loss of two clouds in place of Chamfer, in YAML a name or mapping: ``distortion: APML``.
        layout: "BN3" for clouds (B, N, 3), "B3N" for (B, 3, N), D-PCC's own.
        check_finite: refuse NaN and Inf with an error.
    """

    needs = (
        "DPCC needs the outputs of every stage, not two clouds: gt_xyzs, pred_xyzs, gt_dnums, gt_mdis, pred_unums, "
        "pred_mdis and likelihoods (a coefficient of 0 leaves a term out), with latent points latent_xyzs and "
        "pred_latent_xyzs, with normals gt_normals and features"
    )
    nested = ("distortion",)

    def __init__(
        self,
        chamfer_coe: float = 0.1,
        density_coe: float = 1e-4,
        mean_distance_coe: float = 50.0,
        pts_num_coe: float = 5e-7,
        latent_xyzs_coe: float = 1e-2,
        normal_coe: float = 1e-2,
        bpp_lambda: float = 1e-3,
        distortion: nn.Module | None = None,
        layout: str = "BN3",
        check_finite: bool = True,
    ) -> None:
        super().__init__()
        self.layout = one_of("layout", layout, LAYOUTS)
        self.check_finite = flag("check_finite", check_finite)
        self.distortion = DPCCDistortion(chamfer_coe, distortion, layout)
        self.density = DPCCDensity(density_coe, mean_distance_coe, layout)
        self.points_number = DPCCPointsNumber(pts_num_coe, layout)
        self.latent = DPCCLatent(latent_xyzs_coe, layout)
        self.normal = DPCCNormal(normal_coe, layout)
        self.rate = Rate(bpp_lambda, layout)

    def options(self) -> dict[str, Any]:
        parts = (self.distortion, self.density, self.points_number, self.latent, self.normal, self.rate)
        together = {key: value for part in parts for key, value in part.options().items()}
        return {**{key: value for key, value in together.items() if key != "layout"}, "layout": self.layout}

    def terms(self, outputs: DPCCOutputs | Any) -> dict[str, Tensor]:
        """Each term's value, 0-dim, coefficient included, in the order of the sum; terms left out are not in it."""
        found: dict[str, Tensor] = evaluate(self, self._terms, outputs)
        return found

    def forward(self, outputs: DPCCOutputs | Any, *clouds: Any) -> Tensor:  # type: ignore[override]
        found = list(evaluate(self, self._terms, outputs, *clouds).values())
        total: Tensor = found[0]
        for term in found[1:]:
            total = total + term
        return total

    def _terms(self, stages: Stages) -> dict[str, Tensor]:
        found = {self.distortion.name: self.distortion.value(stages)}
        if self.density.density_coe:
            found[self.density.name] = self.density.value(stages)
        if self.points_number.pts_num_coe:
            found[self.points_number.name] = self.points_number.value(stages)
        if self.latent.latent_xyzs_coe and _given(stages, "pred_latent_xyzs", "latent_xyzs"):
            found[self.latent.name] = self.latent.value(stages)
        if self.normal.normal_coe and _given(stages, "gt_normals", "features"):
            found[self.normal.name] = self.normal.value(stages)
        if self.rate.bpp_lambda:
            found[self.rate.name] = self.rate.value(stages)
        return found


def _given(stages: Stages, *names: str) -> bool:
    """Whether all of these fields are given; an error if only some are, but for latent_xyzs, which may be alone."""
    missing = [name for name in names if getattr(stages.outputs, name) is None]
    if missing in ([], list(names), ["pred_latent_xyzs"]):
        return not missing
    there = next(name for name in names if name not in missing)
    raise LossArgumentError(f"{missing[0]} is missing, which {there} goes with: give both or neither")
