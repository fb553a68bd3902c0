"""A mixture network and its losses as an MMEngine model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from apml_plugin.errors import LossArgumentError
from apml_plugin.hosts.mmengine.completion import CloudModel, pad
from apml_plugin.hosts.mmengine.config import loss_from_config
from apml_plugin.losses.mixture import judge
from apml_plugin.losses.mixture.terms import check_terms, wants_points
from apml_plugin.registry import describe


class MixtureModel(CloudModel):
    """``net``, a PointGMM, trained by the likelihood of the complete clouds, by losses on drawn points, or both.

    Args:
        net: a config (``dict(type='PointGMM')``) or a module with PointGMM's ``output``.
        loss: anything a ``loss:`` may be but a loss per stage. Losses of mixtures (HGMM, GMM, EigenPenalty, LatentKL)
            judge the mixture, all others the drawn points:
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
                f"net={type(self.net).__name__} gives no mixture: use dict(type='PointGMM'), or train this network "
                "with dict(type='CompletionModel')"
            )
        self.criterion = check_terms(loss_from_config(loss), bool(getattr(self.net, "variational", True)))
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
