"""A loss from a YAML on a mixture model's output: each term gets the part of the output that it is about."""

from __future__ import annotations

from torch import Tensor, nn

from apml_plugin.errors import LossArgumentError
from apml_plugin.losses.base import TWO_CLOUDS, PointLoss, describe
from apml_plugin.losses.combine import PerStage, Schedule, WeightedSum
from apml_plugin.losses.mixture.container import MixtureOutput
from apml_plugin.losses.mixture.likelihood import Likelihood
from apml_plugin.losses.mixture.penalties import EigenPenalty, LatentKL
from apml_plugin.matching import Lengths

OF_OUTPUT = (Likelihood, EigenPenalty, LatentKL)
"""Losses that take the output itself; all others compare the drawn points with gt."""


def judge(loss: nn.Module, output: MixtureOutput, gt: Tensor, gt_lengths: Lengths = None) -> tuple[Tensor, Tensor]:
    """(terms of the mixture, terms between the drawn points and gt), each a 0-dim tensor; 0 without such terms.

    ``build_loss([{NAME: HGMM}, {NAME: EigenPenalty, weight: 10}, {NAME: APML, weight: 0.1}])`` on one output: HGMM and
    EigenPenalty take the mixture, APML the points, through which its gradient reaches means, frames and eigenvalues.

    Raises:
        LossArgumentError: a loss per stage, a loss that needs something else, or no drawn points for a loss of points.
    """
    of_mixture = of_points = output.hierarchy.levels[0].means.new_zeros(())
    for weight, term in _terms(loss, 1.0):
        if isinstance(term, OF_OUTPUT):
            of_mixture = of_mixture + weight * term(output, gt, None, gt_lengths)
        else:
            if output.points is None:
                raise LossArgumentError(f"{describe(term)} compares points, and the output has none: draw some")
            lengths = () if gt_lengths is None else (None, gt_lengths)
            of_points = of_points + weight * term(output.points, gt, *lengths)
    return of_mixture, of_points


def check_terms(loss: nn.Module, variational: bool = True) -> nn.Module:
    """``loss`` if :func:`judge` can use all of it; LossArgumentError otherwise."""
    for _, term in _terms(loss, 1.0):
        if isinstance(term, PointLoss) and term.takes != TWO_CLOUDS and not isinstance(term, OF_OUTPUT):
            raise LossArgumentError(f"{term.needs}; a mixture model does not give that")
        if isinstance(term, LatentKL) and not variational:
            raise LossArgumentError(f"{term.needs}; the model has none: give it variational: True")
    return loss


def wants_points(loss: nn.Module) -> bool:
    """Whether any term compares drawn points."""
    return any(not isinstance(term, OF_OUTPUT) for _, term in _terms(loss, 1.0))


def _terms(loss: nn.Module, weight: float) -> list[tuple[float, nn.Module]]:
    if isinstance(loss, WeightedSum):
        pairs = zip(loss.weights, loss.losses, strict=True)
        return [term for mine, part in pairs for term in _terms(part, weight * mine)]
    if isinstance(loss, Schedule):
        ends = ((1.0 - loss.share, loss.first), (loss.share, loss.last))
        return [term for share, part in ends if share > 0 for term in _terms(part, weight * share)]
    if isinstance(loss, PerStage):
        raise LossArgumentError(
            f"a mixture model has no stages ({', '.join(loss.names)}): write a list, such as [HGMM, {{NAME: APML, "
            "weight: 0.1}]"
        )
    return [(weight, loss)]
