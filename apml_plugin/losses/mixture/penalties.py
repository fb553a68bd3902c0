"""Losses that train mixture models besides the likelihood: flatness, a VAE's prior, a pose."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from apml_plugin.arguments import not_negative, one_of
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses.base import PointLoss, declare
from apml_plugin.losses.mixture.container import MixtureOutput, as_hierarchy


@declare(takes="a mixture")
class EigenPenalty(PointLoss):
    """Mean of the components' smallest eigenvalue on the last level: pulls them onto the surface.

    ``EigenPenalty()(mixture)``; a gt is accepted and ignored. In squared units; PointGMM weighs it with 10.
    """

    needs = "EigenPenalty needs a mixture: EigenPenalty()(Hierarchy([Mixture(logits, means, frames, eigenvalues)]))"

    def forward(self, pred: Any, *_: Any) -> Tensor:
        return as_hierarchy(self.needs, pred).levels[-1].eigenvalues.amin(-1).mean()


@declare(takes="a latent code")
class LatentKL(PointLoss):
    """Kullback-Leibler divergence of a VAE's code N(mean, exp(log_variance)) from N(0, 1), averaged over the batch.

    ``LatentKL()((mean, log_variance))``, both (B, Z), or on the :class:`MixtureOutput` of a variational model.

    Args:
        normalise: ``"dims"``: divided by Z, the published choice; ``"sum"``: summed over Z, the usual bound in nats.
    """

    needs = "LatentKL needs a code's mean and log-variance: LatentKL()((mean, log_variance)), both (B, Z)"

    def __init__(self, normalise: str = "dims") -> None:
        super().__init__()
        self.normalise = one_of("normalise", normalise, ("dims", "sum"))

    def forward(self, pred: Any, *_: Any) -> Tensor:
        if isinstance(pred, MixtureOutput):
            pred = pred.latent
            if pred is None:
                raise LossArgumentError(f"{self.needs}; the model has none: build it with variational=True")
        mean, log_variance = _pair(self.needs, pred)
        terms = 0.5 * (log_variance.exp() - 1 - log_variance + mean.square())
        each = terms.sum(-1) if self.normalise == "sum" else terms.mean(-1)
        return each.mean()


@declare(takes="two poses")
class PoseLoss(PointLoss):
    """Error of a rigid motion about one axis: ``translation * |t - t'|_1 - rotation * <r, r'>`` (PointGMM).

    ``PoseLoss()((t, r), (t', r'))``: translations (B, D) and rotations as unit (cos, sin), (B, 2). The L1 distance is
    a mean over the coordinates. The minimum is ``-rotation``.

    Args:
        translation, rotation: weights, 0 or more; 50 and 10 are published.
    """

    needs = "PoseLoss needs two poses: PoseLoss()((translation, (cos, sin)), (true translation, true (cos, sin)))"

    def __init__(self, translation: float = 50.0, rotation: float = 10.0) -> None:
        super().__init__()
        self.translation = not_negative("translation", translation)
        self.rotation = not_negative("rotation", rotation)

    def forward(self, pred: Any, gt: Any = None, *_: Any) -> Tensor:
        shift, turn = _pair(self.needs, pred, same=False)
        true_shift, true_turn = _pair(self.needs, gt, same=False)
        if shift.shape != true_shift.shape or turn.shape != true_turn.shape or turn.shape[-1:] != (2,):
            raise LossValueError(
                f"{self.needs}; got translations {tuple(shift.shape)} and {tuple(true_shift.shape)}, rotations "
                f"{tuple(turn.shape)} and {tuple(true_turn.shape)}"
            )
        apart = (shift - true_shift).abs().mean()
        return self.translation * apart - self.rotation * (turn * true_turn).sum(-1).mean()


def _pair(needs: str, given: Any, same: bool = True) -> tuple[Tensor, Tensor]:
    pair = isinstance(given, (tuple, list)) and len(given) == 2
    if not pair or not all(isinstance(t, Tensor) and t.is_floating_point() for t in given):
        got = f"a cloud {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
        raise LossArgumentError(f"{needs}; got {got}. Between two clouds take ChamferL2 or APML")
    first, second = given
    if first.dim() != 2 or second.dim() != 2 or (same and first.shape != second.shape):
        raise LossValueError(f"{needs}; got shapes {tuple(first.shape)} and {tuple(second.shape)}")
    dtype = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    return first.to(dtype), second.to(dtype)
