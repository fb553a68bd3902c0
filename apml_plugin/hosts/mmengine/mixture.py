"""A mixture network and its losses as an MMEngine model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import MessageHub, print_log
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn

from apml_plugin.errors import LossArgumentError
from apml_plugin.hosts.mmengine.arguments import names_arguments
from apml_plugin.hosts.mmengine.completion import MODES, CompletionModel, _stack
from apml_plugin.hosts.mmengine.config import loss_from_config
from apml_plugin.hosts.mmengine.padding import pad
from apml_plugin.losses.mixture import judge
from apml_plugin.losses.mixture.terms import check_terms, wants_points
from apml_plugin.registry import describe, set_epoch


@names_arguments
class MixtureModel(BaseModel):
    """``net``, a PointGMM, trained by the likelihood of the complete clouds, by losses on drawn points, or both.

    Args:
        net: a config (``dict(type='PointGMM')``) or a module with PointGMM's ``output``.
        loss: anything a ``loss:`` may be but a loss per stage. Losses of mixtures (HGMM, GMM, EigenPenalty, LatentKL)
            judge the mixture, all others the drawn points:
            ``['HGMM', dict(type='EigenPenalty', weight=10), dict(type='APML', weight=0.1)]``.
        data_preprocessor, init_cfg: as for every MMEngine model.

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
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.net: Any = net if isinstance(net, nn.Module) else MODELS.build(net)
        if not callable(getattr(self.net, "output", None)):
            raise LossArgumentError(
                f"net={type(self.net).__name__} gives no mixture: use dict(type='PointGMM'), or train this network "
                "with dict(type='CompletionModel')"
            )
        self.criterion = check_terms(loss_from_config(loss), bool(getattr(self.net, "variational", True)))
        print_log(f"loss: {describe(self.criterion)}", logger="current")

    def forward(
        self,
        inputs: Tensor | Sequence[Tensor],
        gt: Tensor | Sequence[Tensor] | None = None,
        mode: str = "tensor",
        **extra: Any,
    ) -> Any:
        """What MMEngine's loops call; clouds as :meth:`CompletionModel.forward` takes them.

        Returns:
            ``loss``: a dict of ``loss_mixture`` and, where a term compares points, ``loss_points``. ``predict``: for
            each sample a dict of ``pred`` and, where it was given, ``gt``. ``tensor``: the network's MixtureOutput.

        Raises:
            LossArgumentError: an unknown mode, or mode ``"loss"`` without gt.
            LossValueError: clouds of unusable shapes.
        """
        if mode not in MODES:
            raise LossArgumentError(f"mode={mode!r} must be one of {', '.join(MODES)}")
        partial = inputs if isinstance(inputs, Tensor) else _stack(inputs)
        if mode == "loss" and gt is None:
            raise LossArgumentError("mode='loss' needs gt, the complete clouds; the dataset must give 'gt' too")
        output = self.net.output(partial, draw=mode != "loss" or wants_points(self.criterion))
        if mode == "tensor":
            return output
        if mode == "predict":
            return CompletionModel._predictions(output.points, gt)
        assert gt is not None
        if self.training:
            self._follow_epoch()
        whole, sizes = (gt, None) if isinstance(gt, Tensor) else pad(gt)
        of_mixture, of_points = judge(self.criterion, output, whole, sizes)
        losses = {"loss_mixture": of_mixture}
        return {**losses, "loss_points": of_points} if output.points is not None else losses

    def _follow_epoch(self) -> None:
        epoch = MessageHub.get_current_instance().runtime_info.get("epoch")
        if epoch is not None:
            set_epoch(self.criterion, int(epoch))
