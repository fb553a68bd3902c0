"""``DPCC``: all terms of the loss that trains a density-preserving point cloud codec, from one set of outputs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from apml_plugin.arguments import flag, one_of
from apml_plugin.losses.base import PointLoss, arguments_of, declare
from apml_plugin.losses.dpcc.outputs import LAYOUTS, DPCCOutputs, Stages
from apml_plugin.losses.dpcc.rate import Rate
from apml_plugin.losses.dpcc.terms import (
    DPCCDensity,
    DPCCDistortion,
    DPCCLatent,
    DPCCNormal,
    DPCCPointsNumber,
    DPCCTerm,
    add,
    evaluate,
)


@declare(takes="codec outputs", nested=("distortion",))
class DPCC(PointLoss):
    """The loss of D-PCC codecs: distortion + density + points number + latent points + normals + rate.

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
        layout: "BN3" for clouds (B, N, 3), "B3N" for (B, 3, N), as in D-PCC.
        check_finite: raise an error for NaN and Inf.
    """

    needs = (
        "DPCC needs the outputs of every stage, not two clouds: gt_xyzs, pred_xyzs, gt_dnums, gt_mdis, pred_unums, "
        "pred_mdis and likelihoods (a coefficient of 0 leaves a term out), with latent points latent_xyzs and "
        "pred_latent_xyzs, with normals gt_normals and features"
    )

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

    @property
    def parts(self) -> tuple[DPCCTerm, ...]:
        """The terms, in the order of the sum."""
        return self.distortion, self.density, self.points_number, self.latent, self.normal, self.rate

    def options(self) -> dict[str, Any]:
        together = {key: value for part in self.parts for key, value in part.options().items()}
        together |= {"layout": self.layout, "check_finite": self.check_finite}
        return {name: together[name] for name in arguments_of(DPCC)}

    def terms(self, outputs: DPCCOutputs | Any) -> dict[str, Tensor]:
        """Each term's value, 0-dim, coefficient included, in the order of the sum; terms left out are not in it."""
        values: dict[str, Tensor] = evaluate(self, self._terms, outputs)
        return values

    def forward(self, outputs: DPCCOutputs | Any, *clouds: Any) -> Tensor:
        return add(evaluate(self, self._terms, outputs, *clouds).values())

    def _terms(self, stages: Stages) -> dict[str, Tensor]:
        return {part.name: part.value(stages) for part in self.parts if part.applies(stages)}
