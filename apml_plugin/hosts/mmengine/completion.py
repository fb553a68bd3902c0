"""A completion network and a loss as an MMEngine model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from mmengine.logging import MessageHub, print_log
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.hosts.mmengine.config import loss_from_config
from apml_plugin.losses import PerStage
from apml_plugin.matching.settings import number
from apml_plugin.registry import describe, set_epoch

STAGES = ("coarse", "fine")
MODES = ("loss", "predict", "tensor")


class CloudModel(BaseModel):
    """What our models for MMEngine's loops share: a network for partial clouds, and a loss that follows the epoch.

    A subclass says in :meth:`answer` what becomes of a batch.
    """

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
        """What MMEngine's loops call.

        Args:
            inputs: partial clouds, (B, N, 3), or a list of (N, 3) of one size.
            gt: complete clouds, (B, M, 3), or a list of (M_i, 3) of any sizes.
            mode: ``"loss"``, ``"predict"`` or ``"tensor"``.
            extra: whatever else the dataset gives for each sample (labels, file names); not used.

        Returns:
            ``loss``: a dict of losses. ``predict``: for each sample a dict of ``pred`` and, where it was given,
            ``gt``, as CompletionMetric reads them. ``tensor``: what the network gives.

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
        """(what ``mode`` asks for, the predicted clouds (B, n, 3)); for ``predict`` the clouds are enough."""
        raise NotImplementedError

    @torch.compiler.disable
    def _follow_epoch(self) -> None:
        # Runner keeps the epoch in the hub, also after a resume; without a Runner there is none to follow.
        epoch = MessageHub.get_current_instance().runtime_info.get("epoch")
        if epoch is not None:
            set_epoch(self.criterion, int(epoch))


class CompletionModel(CloudModel):
    """Completes partial clouds with ``net`` and compares both of its stages with the ground truth.

    Args:
        net: a network ``partial (B, N, 3) -> (coarse, fine)``: a config (``dict(type='PCN')``) or a module.
        loss: anything a ``loss:`` may be: a name, a dict, a list with ``weight``, one per stage, a Schedule.
            One loss judges both stages; a loss per stage names ``coarse`` and ``fine``.
        stage_weights: what each stage's loss is multiplied by; a stage of weight 0 is not computed.
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
        # Of modules that are ours, none has state: a checkpoint made with another loss loads strictly.
        self.criterion = loss_from_config(loss)
        _check_stages(self.criterion, self.stage_weights)
        print_log(f"loss: {describe(self.criterion)}", logger="current")

    def answer(self, partial: Tensor, gt: Tensor | Sequence[Tensor] | None, mode: str) -> tuple[Any, Any]:
        stages = dict(zip(STAGES, self.net(partial), strict=True))
        if mode != "loss":
            return tuple(stages.values()), stages["fine"]
        assert gt is not None
        whole, sizes = (gt, None) if isinstance(gt, Tensor) else pad(gt)
        lengths = () if sizes is None else (None, sizes)  # losses of others may take clouds alone
        losses: dict[str, Tensor] = {}
        for name, weight in self.stage_weights.items():
            loss = self.criterion.stage(name) if isinstance(self.criterion, PerStage) else self.criterion
            assert loss is not None  # every stage was found to have one when this was built
            value = loss(stages[name], whole, *lengths)
            # Losses of others may give one value per direction.
            losses[f"loss_{name}"] = weight * (reduce(torch.add, value) if isinstance(value, (tuple, list)) else value)
        return losses, None


def _stage_weights(given: Mapping[str, float]) -> dict[str, float]:
    if strange := [name for name in given if name not in STAGES]:
        raise LossArgumentError(f"stage_weights: {strange[0]!r} is no stage; the stages are {', '.join(STAGES)}")
    weights = {name: number(f"stage_weights[{name!r}]", given.get(name, 1.0)) for name in STAGES}
    kept = {name: weight for name, weight in weights.items() if weight != 0}
    if not kept or min(kept.values()) < 0:
        raise LossValueError(f"stage_weights={dict(given)!r} must not be negative, nor all 0")
    return kept


def _check_stages(criterion: nn.Module, weights: Mapping[str, float]) -> None:
    if not isinstance(criterion, PerStage):
        return
    strange = [name for name in criterion.names if name not in STAGES]
    lacking = [name for name in weights if name not in criterion.names]
    if strange:
        raise LossArgumentError(f"loss: {strange[0]!r} is no stage of CompletionModel; they are {', '.join(STAGES)}")
    if lacking:
        raise LossArgumentError(
            f"loss names no loss for the stage {lacking[0]!r}: name one, or leave the stage out with "
            f"stage_weights=dict({lacking[0]}=0)"
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
