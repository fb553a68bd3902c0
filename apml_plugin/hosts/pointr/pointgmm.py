"""PointGMM as a model of a PoinTr-style host: ``model: {NAME: PointGMM, num_pred: 2048}``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from apml_plugin.announce import announce
from apml_plugin.arguments import reject_unknown
from apml_plugin.chosen import chosen_loss
from apml_plugin.errors import LossValueError
from apml_plugin.hosts.calls import building
from apml_plugin.losses.mixture import Hierarchy, Mixture, MixtureOutput, judge
from apml_plugin.losses.mixture.terms import check_terms
from apml_plugin.models.pointgmm.network import PointGMM as Network
from apml_plugin.registry import build_loss, describe, set_epoch

PER_LEVEL = 4
DEFAULT = "HGMM"


class PointGMM(Network):
    """:class:`apml_plugin.models.pointgmm.PointGMM`, made from a host's config and trained by its loop.

    ``forward`` gives what such a host expects: the coarse cloud first, the fine one last. Between them are the
    mixture's tensors, batch first, so that a host's parallel wrappers can gather them.

    Args:
        config: the host's ``model:``; the network's arguments, and ``loss:`` (by default HGMM), in which losses of
            mixtures take the mixture and all others the drawn points: ``[HGMM, {NAME: APML, weight: 0.1}]``.

    Raises:
        LossArgumentError, LossValueError, UnknownLossError: a key or a value that cannot be used.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        given = {key: value for key, value in config.items() if key not in ("NAME", "loss", "loss_opts")}
        reject_unknown("model: PointGMM", given, inspect.signature(Network).parameters)
        super().__init__(**given)
        with building():
            value, opts, _ = chosen_loss(config.get("loss"), config.get("loss_opts"))
            self.criterion = check_terms(build_loss(DEFAULT if value is None else value, opts), self.variational)
        announce(f"[apml] PointGMM trains with {describe(self.criterion)}")

    def forward(self, partial: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """(means, every level's logits, means, frames, eigenvalues, a VAE's mean and log-variance, drawn points)."""
        output = self.output(partial)
        assert output.points is not None
        levels = [tensor for level in output.hierarchy.levels for tensor in level.tensors]
        return (output.hierarchy.levels[-1].means.contiguous(), *levels, *(output.latent or ()), output.points)

    def get_loss(self, ret: tuple[Tensor, ...], gt: Tensor, epoch: int = 0) -> tuple[Tensor, Tensor]:
        """(loss of the mixture, loss of the drawn points); a host adds them."""
        set_epoch(self.criterion, epoch)
        output = self.read(ret)
        of_mixture, of_points = judge(self.criterion, output, gt)
        # Every output is used, because a distributed wrapper waits for the gradient of each.
        return of_mixture + 0.0 * sum(tensor.float().sum() for tensor in ret), of_points

    def read(self, ret: tuple[Tensor, ...]) -> MixtureOutput:
        """The output that :meth:`forward` laid out."""
        levels = len(self.decoder.levels)
        end = 1 + PER_LEVEL * levels
        if len(ret) != end + 1 + 2 * self.variational:
            raise LossValueError(f"ret has {len(ret)} tensors, not the {end + 1 + 2 * self.variational} of forward()")
        mixtures = [Mixture(*ret[i : i + PER_LEVEL]) for i in range(1, end, PER_LEVEL)]
        latent = (ret[end], ret[end + 1]) if self.variational else None
        return MixtureOutput(Hierarchy(mixtures), ret[-1], latent)
