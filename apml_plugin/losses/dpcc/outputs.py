"""The outputs of a D-PCC codec for its loss: checked, as (B, N, D), and with each neighbour search done once."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from apml_plugin.arguments import reject_unknown
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.matching import Lengths, check_clouds
from apml_plugin.matching.inputs import Clouds
from apml_plugin.matching.nearest import Nearest, both_ways, ways

LAYOUTS = ("BN3", "B3N")
"""Whether clouds are (B, N, 3) or (B, 3, N)."""


@dataclass(frozen=True)
class DPCCOutputs:
    """Encoder, decoder and entropy model of one step. L stages; clouds in the loss's `layout`.

    Encoder stage s (the finest is 0) takes gt_xyzs[s] and keeps the points of gt_xyzs[s + 1], the last one those of
    latent_xyzs. Decoder stage i takes latent_xyzs (i = 0) or pred_xyzs[i - 1] and gives pred_xyzs[i], which is compared
    with gt_xyzs[L - 1 - i].

    Args:
        gt_xyzs: L clouds, the encoder's inputs, finest first.
        pred_xyzs: L clouds, the decoder's outputs, coarsest first.
        gt_dnums, gt_mdis: L tensors (B, points kept by stage s): how many points each of them stands for, and their
            mean distance to it (``density_stats``).
        pred_unums, pred_mdis: L tensors (B, points that stage i takes): the same two, predicted.
        latent_xyzs, pred_latent_xyzs: the encoder's last points, and their decoded version.
        gt_normals: the normals at gt_xyzs[0]. features: the decoder's, at pred_xyzs[-1], before tanh.
        likelihoods: of all latents, from any entropy model: a tensor, or a list or mapping of tensors.
        pred2gt: L tensors (B, points of pred_xyzs[i]): each one's nearest of gt_xyzs[L - 1 - i]; searched for where
            not given.
        gt_lengths, pred_lengths: for each cloud of gt_xyzs and pred_xyzs, (B,) numbers of its valid points (None
            where all are); latent_lengths: (B,) those of latent_xyzs. The rest is padding.
    """

    gt_xyzs: Sequence[Tensor] | None = None
    pred_xyzs: Sequence[Tensor] | None = None
    gt_dnums: Sequence[Tensor] | None = None
    gt_mdis: Sequence[Tensor] | None = None
    pred_unums: Sequence[Tensor] | None = None
    pred_mdis: Sequence[Tensor] | None = None
    latent_xyzs: Tensor | None = None
    pred_latent_xyzs: Tensor | None = None
    gt_normals: Tensor | None = None
    features: Tensor | None = None
    likelihoods: Any = None
    pred2gt: Sequence[Tensor] | None = None
    gt_lengths: Sequence[Lengths] | None = None
    pred_lengths: Sequence[Lengths] | None = None
    latent_lengths: Lengths = None


NAMES = tuple(f.name for f in fields(DPCCOutputs))


def as_outputs(needs: str, given: Any, *clouds: Any) -> DPCCOutputs:
    """The outputs from a DPCCOutputs or a mapping of its fields; otherwise an error that says what is needed."""
    if isinstance(given, DPCCOutputs) and not any(cloud is not None for cloud in clouds):
        return given
    if not isinstance(given, Mapping) or any(cloud is not None for cloud in clouds):
        got = "two clouds" if clouds and clouds[0] is not None else f"one {type(given).__name__}"
        raise LossArgumentError(
            f"{needs}; got {got}. Call it with DPCCOutputs(gt_xyzs=[...], pred_xyzs=[...], ...) or a mapping of these; "
            "for two clouds take ChamferL2 or APML"
        )
    reject_unknown("DPCCOutputs", given, NAMES, "field")
    return DPCCOutputs(**given)


class Stages:
    """The outputs in one call of a loss. Each part is checked when it is first used."""

    def __init__(self, needs: str, outputs: DPCCOutputs, layout: str, check_finite: bool) -> None:
        self.needs, self.outputs, self.layout, self.check_finite = needs, outputs, layout, check_finite
        self.gts = [self._cloud(f"gt_xyzs[{s}]", cloud) for s, cloud in enumerate(self.several("gt_xyzs"))]
        self.count, self.batch = len(self.gts), len(self.gts[0])
        self._pairs: dict[int, Clouds] = {}
        self._nearest: dict[int, Nearest] = {}
        self._indices: dict[int, Tensor] = {}
        for s, cloud in enumerate(self.gts):
            if len(cloud) != self.batch:
                raise LossValueError(
                    f"gt_xyzs[{s}] holds {len(cloud)} clouds and gt_xyzs[0] {self.batch}: all stages must have as many"
                )

    @functools.cached_property
    def preds(self) -> list[Tensor]:
        return [self._cloud(f"pred_xyzs[{i}]", cloud) for i, cloud in enumerate(self.several("pred_xyzs"))]

    def several(self, name: str, optional: bool = False) -> list[Any]:
        """A field with one entry for each stage."""
        value = getattr(self.outputs, name)
        if value is None:
            if optional:
                return [None] * self.count
            raise LossArgumentError(f"{self.needs}; {name} is missing")
        if isinstance(value, Tensor | str | Mapping) or not isinstance(value, Sequence):
            raise LossArgumentError(
                f"{name} must be a list with one entry for each stage, got {type(value).__name__}: write [{name}] for "
                "a single stage"
            )
        expected = len(value) if name == "gt_xyzs" else self.count
        if not value or len(value) != expected:
            raise LossValueError(f"{name} must hold one entry for each of the {expected or 1} stages, got {len(value)}")
        return list(value)

    def single(self, name: str) -> Tensor:
        """A field that is one cloud, as (B, N, D)."""
        value = getattr(self.outputs, name)
        if value is None:
            raise LossArgumentError(f"{self.needs}; {name} is missing")
        return self._cloud(name, value, coordinates=False)

    def pair(self, i: int) -> Clouds:
        """Decoder stage i's prediction and the cloud it is compared with."""
        if i not in self._pairs:
            s = self.count - 1 - i
            pred_lengths, gt_lengths = self.several("pred_lengths", True)[i], self.several("gt_lengths", True)[s]
            pred, gt = self.preds[i], self.gts[s]
            try:
                self._pairs[i] = check_clouds(pred, gt, pred_lengths, gt_lengths, check_finite=self.check_finite)
            except (LossValueError, LossArgumentError) as error:
                where = f"pred_xyzs[{i}] (pred) and gt_xyzs[{s}] (gt, as (B, N, 3)), stage {i}"
                raise type(error)(f"{where}: {error}") from None
        return self._pairs[i]

    def nearest(self, i: int) -> Nearest:
        """Both searches between the clouds of stage i, once."""
        if i not in self._nearest:
            self._nearest[i] = both_ways(self.pair(i))
        return self._nearest[i]

    def pred2gt(self, i: int) -> Tensor:
        """(B, points of pred_xyzs[i]): each one's nearest gt point; -1 where there is none (padding)."""
        if i not in self._indices:
            given = self.several("pred2gt", True)[i]
            if given is not None:
                self._indices[i] = self._index(i, given)
            elif i in self._nearest:
                self._indices[i] = self._nearest[i].idx_xy
            else:
                with torch.no_grad():
                    self._indices[i] = ways(self.pair(i), "pred_to_gt")[0].idx
        return self._indices[i]

    def gather(self, i: int, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """`values` (B, M, ...) of the gt cloud at the nearest point of each point of pred_xyzs[i]; and a mask, or None.

        The mask says which points have a nearest one; None where all have.
        """
        index = self.pred2gt(i)
        if values.shape[1] == 0:
            return values.new_zeros(*index.shape, *values.shape[2:]), torch.zeros_like(index, dtype=torch.bool)
        at = index.clamp_min(0).reshape(*index.shape, *[1] * (values.dim() - 2))
        gathered = values.gather(1, at.expand(*index.shape, *values.shape[2:]))
        known = index >= 0
        return gathered, None if bool(known.all()) else known

    def per_point(self, name: str, index: int, points: int, of: str) -> Tensor:
        """Entry `index` of a field (B, points), as floating point."""
        value = self.several(name)[index]
        shown = f"{name}[{index}]"
        if not isinstance(value, Tensor):
            raise LossArgumentError(f"{shown} must be a torch.Tensor of shape (B, N), got {type(value).__name__}")
        if tuple(value.shape) != (self.batch, points):
            raise LossValueError(
                f"{shown} must have shape {(self.batch, points)}, one number for each point of {of}, got "
                f"{tuple(value.shape)}"
            )
        if value.device != self.gts[0].device:
            raise LossValueError(f"{shown} is on {value.device} and gt_xyzs[0] on {self.gts[0].device}: move one")
        return value

    def finite(self, name: str, values: Tensor, mask: Tensor | None) -> Tensor:
        """`values` in float32 at least, and 0 outside the mask. Raises LossValueError for NaN or Inf inside it."""
        values = widened(values)
        if mask is not None:
            values = values.where(mask, 0.0)
        if self.check_finite and not bool(torch.isfinite(values.detach()).all()):
            raise LossValueError(
                f"{name} holds NaN or Inf: a mean distance over 0 points, or a diverged network; density_stats gives 0 "
                "for a sample without points"
            )
        return values

    def kept(self, s: int) -> tuple[int, str]:
        """How many points encoder stage s keeps, and where they are."""
        if s + 1 < self.count:
            return self.gts[s + 1].shape[1], f"gt_xyzs[{s + 1}]"
        if self.outputs.latent_xyzs is not None:
            return self.single("latent_xyzs").shape[1], "latent_xyzs"
        taken = self.several("pred_unums")[0]
        return taken.shape[-1] if isinstance(taken, Tensor) and taken.dim() else 0, "the latent cloud, as pred_unums[0]"

    def taken(self, i: int) -> tuple[int, str]:
        """How many points decoder stage i takes, and where they are."""
        return self.kept(self.count - 1) if i == 0 else (self.preds[i - 1].shape[1], f"pred_xyzs[{i - 1}]")

    def taken_mask(self, i: int) -> Tensor | None:
        """Which of the points that decoder stage i takes are valid; None where all are."""
        name = "latent_lengths" if i == 0 else f"pred_lengths[{i - 1}]"
        lengths = self.outputs.latent_lengths if i == 0 else self.several("pred_lengths", True)[i - 1]
        return self.mask(name, lengths, self.taken(i)[0])

    def mask(self, name: str, lengths: Lengths, points: int) -> Tensor | None:
        """(B, points) bool from lengths; None where all points are valid."""
        if lengths is None:
            return None
        device = self.gts[0].device
        try:
            dummy = torch.empty(self.batch, points, 1, device=device)
            counts = check_clouds(dummy, dummy, lengths, check_finite=False).pred_lengths
        except (LossValueError, LossArgumentError) as error:
            raise type(error)(str(error).replace("pred_lengths", name)) from None
        if counts is None:
            return None
        return torch.arange(points, device=device) < torch.tensor(counts, device=device)[:, None]

    def gt_points(self, s: int) -> int:
        """How many valid points the clouds of encoder stage s have together."""
        mask = self.mask(f"gt_lengths[{s}]", self.several("gt_lengths", True)[s], self.gts[s].shape[1])
        return self.batch * self.gts[s].shape[1] if mask is None else int(mask.sum())

    def _cloud(self, name: str, cloud: Any, coordinates: bool = True) -> Tensor:
        shape = "(B, N, 3)" if self.layout == "BN3" else "(B, 3, N)"
        if not isinstance(cloud, Tensor):
            raise LossArgumentError(f"{name} must be a torch.Tensor of shape {shape}, got {type(cloud).__name__}")
        if cloud.dim() != 3:
            raise LossValueError(f"{name} must have shape {shape}, got {tuple(cloud.shape)}")
        if not cloud.is_floating_point():
            raise LossArgumentError(f"{name} must be floating point, got {cloud.dtype}: use .float()")
        turned = cloud if self.layout == "BN3" else cloud.transpose(1, 2)
        if coordinates and turned.shape[2] not in (2, 3):
            other = "B3N" if self.layout == "BN3" else "BN3"
            raise LossValueError(
                f"{name} has {turned.shape[2]} coordinates with layout={self.layout!r}: its shape must be {shape}, got "
                f"{tuple(cloud.shape)}; use layout={other!r} if its points are along the other axis"
            )
        return turned

    def _index(self, i: int, given: Any) -> Tensor:
        n, m = self.preds[i].shape[1], self.gts[self.count - 1 - i].shape[1]
        name = f"pred2gt[{i}]"
        if not isinstance(given, Tensor) or given.is_floating_point():
            kind = given.dtype if isinstance(given, Tensor) else type(given).__name__
            raise LossArgumentError(f"{name} must be a torch.Tensor of whole numbers (B, N), got {kind}")
        if tuple(given.shape) != (self.batch, n):
            raise LossValueError(
                f"{name} must have shape {(self.batch, n)}, an index for each point of pred_xyzs[{i}], got "
                f"{tuple(given.shape)}"
            )
        index = given.long()
        if index.numel() and (int(index.max()) >= m or int(index.min()) < -1):
            s = self.count - 1 - i
            raise LossValueError(
                f"{name} reaches from {int(index.min())} to {int(index.max())}, but gt_xyzs[{s}] has {m} points: give "
                "the nearest gt point of each predicted one (the fourth output of a Chamfer op called with gt first)"
            )
        return index


def widened(values: Tensor) -> Tensor:
    """In float32 at least."""
    kind = values.dtype if values.is_floating_point() else torch.float32
    return values.to(torch.promote_types(kind, torch.float32))


def without_padding(cloud: Tensor, mask: Tensor | None) -> Tensor:
    """(B, N, D) in float32 at least, and 0 outside the mask."""
    cloud = widened(cloud)
    return cloud if mask is None else cloud.where(mask[..., None], 0.0)


def batch_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over each cloud's numbers (B, N) in the mask, then over the batch; 0 for an empty mask."""
    if mask is None:
        return values.mean() if values.numel() else values.sum()
    counts = mask.sum(dim=1).clamp_min(1)
    return (values.where(mask, 0.0).sum(dim=1) / counts).sum() / max(len(values), 1)


def both(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """What is in both masks; None is everything."""
    return second if first is None else first if second is None else first & second
