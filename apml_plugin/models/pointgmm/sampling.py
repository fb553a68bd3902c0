"""Points from mixtures, at random with gradients or evenly, and mixtures fitted to points by EM."""

from __future__ import annotations

import torch
from torch import Tensor

from apml_plugin.arguments import flag, positive, positive_whole, whole
from apml_plugin.errors import LossValueError
from apml_plugin.losses.mixture import Hierarchy, Mixture
from apml_plugin.losses.mixture.likelihood import FLOOR, flat_log_likelihood, responsibilities
from apml_plugin.matching.inputs import check_clouds

EMPTY = 1e-12
"""A component with less responsibility than this, in points, keeps its place and shape."""

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
        flatten: draw from discs: each component's smallest variance is taken as 1e-6. The mixture is not changed.
        generator: on the mixture's device; the global one by default.
        return_components: also the (B, points) component of each point.

    Raises:
        LossArgumentError, LossValueError: ``points`` is no count of at least 1.
    """
    flat = mixture.flat() if isinstance(mixture, Hierarchy) else mixture
    positive_whole("points", points)
    with torch.no_grad():
        weights = flat.logits.double().softmax(-1)
        chosen = torch.multinomial(weights, points, replacement=True, generator=generator).sort(-1).values
    drawn = _place(flat, chosen, flag("flatten", flatten), generator)
    return (drawn, chosen) if return_components else drawn


def mixture_to_points(
    mixture: Mixture | Hierarchy, points: int, *, flatten: bool = False, seed: int | None = 0
) -> Tensor:
    """(B, points, D): a cloud that represents a mixture, for metrics, files and hosts.

    As :func:`sample`, but each component gets its share of the points to within one, so that the density follows the
    weights exactly; the same mixture gives the same cloud.

    Args:
        points: how many.
        flatten: as :func:`sample`.
        seed: of the offsets within the components; None uses the global generator.
    """
    flat = mixture.flat() if isinstance(mixture, Hierarchy) else mixture
    positive_whole("points", points)
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
    # The root has no derivative at a variance of 0, so the gradient is 0 there.
    spread = torch.where(variances > 0, variances, 1.0).sqrt() * (variances > 0)
    return means + ((noise * spread)[..., None] * frames).sum(-2)


def interpolate(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """(steps, ...) codes on the line from ``start`` to ``end``, both included; ``steps`` at least 2."""
    if positive_whole("steps", steps) < 2:
        raise LossValueError(f"steps={steps} must be 2 or more: both ends are included")
    if start.shape != end.shape:
        raise LossValueError(f"start {tuple(start.shape)} and end {tuple(end.shape)} must have one shape")
    t = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device).view(-1, *[1] * start.dim())
    return torch.lerp(start[None], end[None], t)


def refine(mixture: Mixture | Hierarchy, points: Tensor, iterations: int = 10, min_eigenvalue: float = 1e-6) -> Mixture:
    """The mixture (of a hierarchy, its last level) after EM steps on ``points`` (B, N, D), which it then fits better.

    The mean log-likelihood of the points never falls: eigenvalues are bounded below by what maximises it under the
    bound, and EM ends where an iteration would not raise it. Computed in float64, rounded to the mixture's dtype at
    the end, without gradients.

    Args:
        iterations: how many; 0 returns the mixture unchanged.
        min_eigenvalue: bound of the variances. Where the mixture has smaller ones, the smallest is the bound.

    Raises:
        LossArgumentError, LossValueError: clouds that do not fit the mixture, numbers out of range.
    """
    flat = mixture.flat() if isinstance(mixture, Hierarchy) else mixture
    check_clouds(flat.means, points)
    if not points.shape[1]:
        raise LossValueError("points holds no points; EM needs at least one")
    settings = whole("iterations", iterations), positive("min_eigenvalue", min_eigenvalue)
    if settings[0] < 0:
        raise LossValueError(f"iterations={iterations!r} must be 0 or more")
    if not len(points):
        return flat
    with torch.no_grad():
        # Cloud by cloud, so that only (N, K, D) numbers are in memory.
        fitted = [
            _fit(flat.map(lambda t, b=b: t[b : b + 1].detach().double()), points[b : b + 1].detach().double(), settings)
            for b in range(len(points))
        ]
        columns = zip(*(one.tensors for one in fitted), strict=True)
        return Mixture(*(torch.cat(c).to(t.dtype) for c, t in zip(columns, flat.tensors, strict=True)))


def _fit(now: Mixture, points: Tensor, settings: tuple[int, float]) -> Mixture:
    """EM on a batch of one."""
    iterations, bound = settings
    floor = now.eigenvalues.amin().clamp(FLOOR, bound)
    best = float(flat_log_likelihood(points, now).mean())
    for _ in range(iterations):
        step = _step(now, points, floor)
        reached = float(flat_log_likelihood(points, step).mean())
        if not reached > best:
            break
        now, best = step, reached
    return now


def _step(mixture: Mixture, points: Tensor, floor: Tensor) -> Mixture:
    shares, _ = responsibilities(points, mixture)
    masses = shares.sum(1)
    filled = masses > EMPTY
    safe = torch.where(filled, masses, 1.0)
    means = (shares.mT @ points) / safe[..., None]
    # Differences from the new means: second moments about the origin would lose small shapes to rounding.
    offsets = (points[:, :, None] - means[:, None]) * shares.sqrt()[..., None]
    scatter = offsets.permute(0, 2, 3, 1) @ offsets.transpose(1, 2)
    scatter = scatter / safe[..., None, None]
    scatter = torch.where(filled[..., None, None], scatter, mixture.covariances())
    eigenvalues, vectors = torch.linalg.eigh(scatter)
    kept = filled[..., None]
    return Mixture(
        masses.clamp_min(1e-30).log(),
        torch.where(kept, means, mixture.means),
        torch.where(kept[..., None], vectors.mT, mixture.frames),
        torch.where(kept, eigenvalues.clamp_min(0).maximum(floor), mixture.eigenvalues),
    )
