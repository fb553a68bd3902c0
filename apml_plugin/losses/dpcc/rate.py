"""The rate of a codec: bits per point from the likelihoods of any entropy model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from apml_plugin.arguments import not_negative, whole
from apml_plugin.eager import eager
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses.base import declare
from apml_plugin.losses.dpcc.outputs import NAMES, DPCCOutputs, Stages, as_outputs, widened
from apml_plugin.losses.dpcc.terms import DPCCTerm


def bits(likelihoods: Any, name: str = "likelihoods") -> Tensor:
    """Sum of ``-log2`` over all likelihoods: a tensor, or a list or mapping of them, in float32 at least.

    A likelihood is the probability of the cell that a latent was quantised to, CDF(z + 1/2) - CDF(z - 1/2).

    Raises:
        LossArgumentError: no tensor in it. LossValueError: one outside (0, 1], NaN included.
    """
    total = None
    for where, values in _tensors(likelihoods, name):
        if not isinstance(values, Tensor) or not values.is_floating_point():
            kind = values.dtype if isinstance(values, Tensor) else type(values).__name__
            raise LossArgumentError(f"{where} must be a floating-point torch.Tensor, got {kind}")
        values = widened(values)
        inside = (values.detach() > 0) & (values.detach() <= 1)
        if not bool(inside.all()):
            worst = values.detach()[~inside].flatten()[0]
            raise LossValueError(
                f"{where} holds {int((~inside).sum())} of {values.numel()} numbers outside (0, 1], the first "
                f"{float(worst):g}: likelihoods are probabilities, not their "
                "logarithms; bound them below, as CompressAI does with 1e-9"
            )
        part = -torch.log2(values).sum()
        total = part if total is None else total + part
    if total is None:
        raise LossArgumentError(f"{name} is empty: give the tensor that the entropy model returns beside its latents")
    return total


@declare(takes="likelihoods")
class Rate(DPCCTerm):
    """Rate of a codec: ``bpp_lambda`` times the bits per point, ``sum(-log2 likelihoods) / points``.

    ``Rate()(likelihoods, points)`` is added to any distortion; ``Rate()(outputs)`` takes D-PCC's outputs. In batches
    with padding set the likelihoods of padded latents to 1: they cost nothing.

    CompressAI's EntropyBottleneck gives the likelihoods; its ``loss()`` trains its quantiles, with a
    separate optimiser (see configs/dpcc)::

        latent_hat, likelihoods = bottleneck(latent)  # (B, C, n), training: with noise
        loss = distortion + Rate(bpp_lambda=1e-3)(likelihoods, points=B * N)
        bottleneck.loss().backward()  # the auxiliary loss, stepped by a second optimiser

    Args:
        bpp_lambda: price of one bit per point. D-PCC's train.py sets 1e-3 and ignores its argument.
        layout: "BN3", or "B3N" if the clouds of the outputs are (B, 3, N).
    """

    needs = (
        "Rate needs likelihoods and the number of points they are for: Rate()(likelihoods, points=B * N), or D-PCC's "
        "outputs with likelihoods and gt_xyzs"
    )
    name, coefficient = "rate", "bpp_lambda"

    def __init__(self, bpp_lambda: float = 1e-3, layout: str = "BN3") -> None:
        super().__init__(layout)
        self.bpp_lambda = not_negative("bpp_lambda", bpp_lambda)

    def value(self, stages: Stages) -> Tensor:
        if stages.outputs.likelihoods is None:
            raise LossArgumentError(f"{stages.needs}; likelihoods is missing")
        return self._price(stages.outputs.likelihoods, stages.gt_points(0))

    def forward(self, outputs: Any, points: Any = None, *clouds: Any) -> Tensor:
        return _rate(self, outputs, points, *clouds)

    def _price(self, likelihoods: Any, points: int) -> Tensor:
        if points < 1:
            raise LossValueError(f"points={points!r} must be 1 or more: the rate is per point")
        return bits(likelihoods) / points * self.bpp_lambda


@eager()
def _rate(loss: Rate, outputs: Any, points: Any, *clouds: Any) -> Tensor:
    if isinstance(points, Tensor | list | tuple) or any(cloud is not None for cloud in clouds):
        raise LossArgumentError(f"{loss.needs}; got two clouds")
    fields = outputs.keys() & set(NAMES) if isinstance(outputs, Mapping) else set()
    is_outputs = isinstance(outputs, DPCCOutputs) or bool(fields)
    if is_outputs and points is None:
        return loss.value(Stages(loss.needs, as_outputs(loss.needs, outputs), loss.layout, True))
    if is_outputs:
        outputs = outputs.likelihoods if isinstance(outputs, DPCCOutputs) else outputs.get("likelihoods")
    if points is None or outputs is None:
        raise LossArgumentError(f"{loss.needs}; got no {'likelihoods' if outputs is None else 'points'}")
    return loss._price(outputs, whole("points", points))


def _tensors(likelihoods: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(likelihoods, Mapping):
        for key, value in likelihoods.items():
            yield from _tensors(value, f"{name}[{key!r}]")
    elif isinstance(likelihoods, Sequence) and not isinstance(likelihoods, str):
        for i, value in enumerate(likelihoods):
            yield from _tensors(value, f"{name}[{i}]")
    else:
        yield name, likelihoods
