"""Models for MMEngine's loops: a network together with its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from mmengine.logging import MessageHub, print_log
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn

from apml_plugin.arguments import number
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.hosts.mmengine.config import loss_of_run
from apml_plugin.losses import PerStage
from apml_plugin.losses.mixture import judge
from apml_plugin.losses.mixture.terms import check_terms, wants_points
from apml_plugin.registry import describe, set_epoch

STAGES = ("coarse", "fine")
MODES = ("loss", "predict", "tensor")


class CloudModel(BaseModel):
    """A network for partial clouds, and a loss that follows the epoch. Subclasses define :meth:`answer`."""

    criterion: nn.Module

    def __init__(
        self,
        net: Mapping[str, Any] | nn.Module,
        data_preprocessor: Mapping[str, Any] | nn.Module | None,
        init_cfg: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.net: Any = net if isinstance(net, nn.Module) else MODELS.build(net)

    def forward(
        self,
        inputs: Tensor | Sequence[Tensor],
        gt: Tensor | Sequence[Tensor] | None = None,
        mode: str = "tensor",
        **extra: Any,
    ) -> Any:
        """One batch, as MMEngine's loops call it.

        Args:
            inputs: partial clouds, (B, N, 3), or a list of (N, 3) of one size.
            gt: complete clouds, (B, M, 3), or a list of (M_i, 3) of any sizes.
            mode: ``"loss"``, ``"predict"`` or ``"tensor"``.
            extra: what else the dataset gives for each sample (labels, file names); not used.

        Returns:
            ``loss``: a dict of losses. ``predict``: for each sample a dict of ``pred`` and, where it was given,
            ``gt``, as CompletionMetric reads them. ``tensor``: the output of the network.

        Raises:
            LossArgumentError: an unknown mode, or mode ``"loss"`` without gt.
            LossValueError: clouds of unusable shapes.
        """
        if mode not in MODES:
            raise LossArgumentError(f"mode={mode!r} must be one of {', '.join(MODES)}")
        if mode == "loss" and gt is None:
            raise LossArgumentError("mode='loss' needs gt, the complete clouds; the dataset must give 'gt' too")
        if mode == "loss" and self.training:
            self._follow_epoch()
        result, clouds = self.answer(inputs if isinstance(inputs, Tensor) else _stack(inputs), gt, mode)
        if mode != "predict":
            return result
        if gt is None:
            return [{"pred": cloud} for cloud in clouds]
        return [{"pred": cloud, "gt": whole} for cloud, whole in zip(clouds, gt, strict=True)]

    def answer(self, partial: Tensor, gt: Tensor | Sequence[Tensor] | None, mode: str) -> tuple[Any, Any]:
        """(result for ``mode``, predicted clouds (B, n, 3)); ``predict`` uses only the clouds, ``loss`` the result."""
        raise NotImplementedError

    @torch.compiler.disable
    def _follow_epoch(self) -> None:
        # A Runner keeps the epoch in the hub, also after a resume. Without a Runner there is no epoch.
        epoch = MessageHub.get_current_instance().runtime_info.get("epoch")
        if epoch is not None:
            set_epoch(self.criterion, int(epoch))


class CompletionModel(CloudModel):
    """Completes partial clouds with ``net`` and compares both stages with the ground truth.

    Args:
        net: a network ``partial (B, N, 3) -> (coarse, fine)``: a config (``dict(type='PCN')``) or a module.
        loss: as ``loss:`` in a YAML: a name, a dict, a list with ``weight``, one per stage, a Schedule. A single
            loss applies to both stages; a loss per stage names ``coarse`` and ``fine``.
        stage_weights: factor of each stage's loss; a stage of weight 0 is not computed.
        data_preprocessor, init_cfg: as for every MMEngine model.

    :meth:`forward` gives for ``loss`` a dict of ``loss_coarse`` and ``loss_fine``, for ``tensor`` ``(coarse, fine)``.

    Raises:
        LossArgumentError, LossValueError, UnknownLossError: a loss or a weight that cannot be used, when built.
    """

    def __init__(
        self,
        net: Mapping[str, Any] | nn.Module,
        loss: Any,
        stage_weights: Mapping[str, float] | None = None,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(net, data_preprocessor, init_cfg)
        self.stage_weights = _stage_weights(stage_weights or {})
        # Our losses have no state, so a checkpoint trained with another loss loads strictly.
        self.criterion = loss_of_run(loss)
        _check_stages(self.criterion, self.stage_weights)
        print_log(f"loss: {describe(self.criterion)}", logger="current")

    def answer(self, partial: Tensor, gt: Tensor | Sequence[Tensor] | None, mode: str) -> tuple[Any, Any]:
        stages = dict(zip(STAGES, self.net(partial), strict=True))
        if mode != "loss":
            return tuple(stages.values()), stages["fine"]
        assert gt is not None
        whole, sizes = (gt, None) if isinstance(gt, Tensor) else pad(gt)
        lengths = () if sizes is None else (None, sizes)  # losses of other projects may take only clouds
        losses: dict[str, Tensor] = {}
        for name, weight in self.stage_weights.items():
            loss = self.criterion.stage(name) if isinstance(self.criterion, PerStage) else self.criterion
            assert loss is not None  # __init__ has checked that every stage has one
            value = loss(stages[name], whole, *lengths)
            # Losses of other projects may return one value per direction.
            losses[f"loss_{name}"] = weight * (reduce(torch.add, value) if isinstance(value, (tuple, list)) else value)
        return losses, None


class MixtureModel(CloudModel):
    """``net``, a PointGMM, trained by the likelihood of the complete clouds, by losses on drawn points, or both.

    Args:
        net: a config (``dict(type='PointGMM')``) or a module with PointGMM's ``output``.
        loss: as ``loss:`` in a YAML, except a loss per stage. Losses of mixtures (HGMM, GMM, EigenPenalty, LatentKL)
            apply to the mixture, all others to the drawn points:
            ``['HGMM', dict(type='EigenPenalty', weight=10), dict(type='APML', weight=0.1)]``.
        data_preprocessor, init_cfg: as for every MMEngine model.

    :meth:`forward` gives for ``loss`` a dict of ``loss_mixture`` and, where a term compares points, ``loss_points``;
    for ``tensor`` the network's MixtureOutput.

    Raises:
        LossArgumentError, LossValueError, UnknownLossError: a loss that cannot be used, when built.
    """

    def __init__(
        self,
        net: Mapping[str, Any] | nn.Module,
        loss: Any = "HGMM",
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(net, data_preprocessor, init_cfg)
        if not callable(getattr(self.net, "output", None)):
            raise LossArgumentError(
                f"net={type(self.net).__name__} predicts no mixture: use dict(type='PointGMM'), or train this network "
                "with dict(type='CompletionModel')"
            )
        self.criterion = check_terms(loss_of_run(loss), bool(getattr(self.net, "variational", True)))
        print_log(f"loss: {describe(self.criterion)}", logger="current")

    def answer(self, partial: Tensor, gt: Tensor | Sequence[Tensor] | None, mode: str) -> tuple[Any, Any]:
        output = self.net.output(partial, draw=mode != "loss" or wants_points(self.criterion))
        if mode != "loss":
            return output, output.points
        assert gt is not None
        whole, sizes = (gt, None) if isinstance(gt, Tensor) else pad(gt)
        of_mixture, of_points = judge(self.criterion, output, whole, sizes)
        losses = {"loss_mixture": of_mixture}
        return ({**losses, "loss_points": of_points} if output.points is not None else losses), None


def _stage_weights(given: Mapping[str, float]) -> dict[str, float]:
    if unknown := [name for name in given if name not in STAGES]:
        raise LossArgumentError(f"stage_weights: {unknown[0]!r} is not a stage; the stages are {', '.join(STAGES)}")
    weights = {name: number(f"stage_weights[{name!r}]", given.get(name, 1.0)) for name in STAGES}
    kept = {name: weight for name, weight in weights.items() if weight != 0}
    if not kept or min(kept.values()) < 0:
        raise LossValueError(f"stage_weights={dict(given)!r} must not be negative, nor all 0")
    return kept


def _check_stages(criterion: nn.Module, weights: Mapping[str, float]) -> None:
    if not isinstance(criterion, PerStage):
        return
    unknown = [name for name in criterion.names if name not in STAGES]
    missing = [name for name in weights if name not in criterion.names]
    if unknown:
        raise LossArgumentError(
            f"loss: {unknown[0]!r} is not a stage of CompletionModel; its stages are {', '.join(STAGES)}"
        )
    if missing:
        raise LossArgumentError(
            f"loss has no entry for the stage {missing[0]!r}: add one, or leave the stage out with "
            f"stage_weights=dict({missing[0]}=0)"
        )


def pad(clouds: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Clouds (M_i, D) as one (B, max M_i, D), and their lengths (B,), or None where all are of one size."""
    whole = nn.utils.rnn.pad_sequence(list(clouds), batch_first=True)
    sizes = [len(cloud) for cloud in clouds]
    return whole, None if len(set(sizes)) == 1 else torch.tensor(sizes, device=whole.device)


def _stack(clouds: Sequence[Tensor]) -> Tensor:
    sizes = [tuple(cloud.shape) for cloud in clouds]
    if len(set(sizes)) != 1:
        raise LossValueError(f"inputs have the shapes {sizes}; sample the partial clouds to one size in the dataset")
    return torch.stack(list(clouds))
