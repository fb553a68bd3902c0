"""Points from mixtures: drawn at random with gradients, or spread evenly; the mixture stays as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.losses.mixture import Hierarchy, Mixture
from apml_plugin.matching.settings import flag
from apml_plugin.models.layers import positive

FLAT = 1e-6
"""Variance that a flattened component keeps across its disc."""


def sample(
    mixture: Mixture | Hierarchy,
    points: int,
    *,
    flatten: bool = False,
    generator: torch.Generator | None = None,
    return_components: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """``points`` points from each mixture, (B, points, D), by reparameterisation; of a hierarchy, its last level.

    Which component a point comes from is drawn by the weights, without a gradient; where it lies in it carries the
    gradient to mean, frame and eigenvalues. Points of one component are neighbours in the result.

    Args:
        flatten: draws from discs: each component's smallest variance counts as 1e-6. The mixture is not changed.
        generator: on the mixture's device; the global one by default.
        return_components: also the (B, points) component of each point.

    Raises:
        LossArgumentError, LossValueError: ``points`` is no count of at least 1.
    """
    flat = mixture.flat() if isinstance(mixture, Hierarchy) else mixture
    positive("points", points)
    with torch.no_grad():
        weights = flat.logits.double().softmax(-1)
        chosen = torch.multinomial(weights, points, replacement=True, generator=generator).sort(-1).values
    drawn = _place(flat, chosen, flag("flatten", flatten), generator)
    return (drawn, chosen) if return_components else drawn


def mixture_to_points(
    mixture: Mixture | Hierarchy, points: int, *, flatten: bool = False, seed: int | None = 0
) -> Tensor:
    """(B, points, D): the cloud that stands for a mixture, where a metric, a file or a host wants one.

    As :func:`sample`, but each component gets its share of the points to within one, so that the cloud's density
    follows the weights without chance; the same mixture gives the same cloud.

    Args:
        points: how many.
        flatten: as :func:`sample`.
        seed: of the offsets within the components; None draws from the global generator.
    """
    flat = mixture.flat() if isinstance(mixture, Hierarchy) else mixture
    positive("points", points)
    generator = None if seed is None else torch.Generator(flat.means.device).manual_seed(seed)
    with torch.no_grad():
        upto = flat.logits.double().softmax(-1).cumsum(-1)
        steps = (torch.arange(points, dtype=upto.dtype, device=upto.device) + 0.5) / points
        chosen = torch.searchsorted(upto, steps.expand(len(flat), -1).contiguous()).clamp_max(flat.components - 1)
    return _place(flat, chosen, flag("flatten", flatten), generator)


def _place(flat: Mixture, chosen: Tensor, flatten: bool, generator: torch.Generator | None) -> Tensor:
    rows = torch.arange(len(flat), device=chosen.device)[:, None]
    means, frames, variances = (t[rows, chosen] for t in flat.tensors[1:])
    if flatten:
        smallest = torch.nn.functional.one_hot(variances.argmin(-1), flat.dim).bool()
        variances = torch.where(smallest, variances.clamp_max(FLAT), variances)
    noise = torch.randn(means.shape, generator=generator, dtype=means.dtype, device=means.device)
    # The root of a variance of 0 has no gradient; none is asked for there.
    spread = torch.where(variances > 0, variances, 1.0).sqrt() * (variances > 0)
    return means + ((noise * spread)[..., None] * frames).sum(-2)


def interpolate(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """(steps, ...) codes on the line from ``start`` to ``end``, both included; ``steps`` at least 2."""
    if positive("steps", steps) < 2:
        raise LossValueError(f"steps={steps} must be 2 or more: both ends are included")
    if start.shape != end.shape:
        raise LossValueError(f"start {tuple(start.shape)} and end {tuple(end.shape)} must have one shape")
    t = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device).view(-1, *[1] * start.dim())
    return torch.lerp(start[None], end[None], t)
