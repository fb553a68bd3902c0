"""Expectation and maximisation from a predicted mixture: beyond PointGMM, which has none."""

from __future__ import annotations

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.losses.mixture import Hierarchy, Mixture
from apml_plugin.losses.mixture.density import FLOOR, flat_log_likelihood, responsibilities
from apml_plugin.matching.inputs import check_clouds
from apml_plugin.matching.settings import number, whole

EMPTY = 1e-12
"""A component with less responsibility than this, in points, keeps its place and shape."""


def refine(mixture: Mixture | Hierarchy, points: Tensor, iterations: int = 10, min_eigenvalue: float = 1e-6) -> Mixture:
    """The mixture (of a hierarchy, its last level) after EM steps on ``points`` (B, N, D), which fit it better.

    The mean log-likelihood of the points never falls: eigenvalues are bounded below by what maximises it under the
    bound, and a cloud whose likelihood an iteration would lower by rounding keeps what it had. Computed in float64,
    rounded to the mixture's dtype in the end, without gradients.

    Args:
        iterations: how many; 0 returns the mixture as it is.
        min_eigenvalue: bound of the variances. Where the mixture has smaller ones, the smallest is the bound.

    Raises:
        LossArgumentError, LossValueError: clouds that do not fit the mixture, numbers out of range.
    """
    flat = mixture.flat() if isinstance(mixture, Hierarchy) else mixture
    check_clouds(flat.means, points)
    if not points.shape[1]:
        raise LossValueError("points holds no points; EM needs at least one")
    if whole("iterations", iterations) < 0:
        raise LossValueError(f"iterations={iterations!r} must be 0 or more")
    if not 0 < number("min_eigenvalue", min_eigenvalue) < float("inf"):
        raise LossValueError(f"min_eigenvalue={min_eigenvalue!r} must be positive and finite")
    with torch.no_grad():
        now, x = flat.map(lambda t: t.detach().double()), points.detach().double()
        floor = now.eigenvalues.amin((1, 2)).clamp(FLOOR, min_eigenvalue)
        best = flat_log_likelihood(x, now).mean(1)
        for _ in range(whole("iterations", iterations)):
            step = _step(now, x, floor)
            reached = flat_log_likelihood(x, step).mean(1)
            better = reached > best
            if not bool(better.any()):
                break
            now = _where(better, step, now)
            best = torch.where(better, reached, best)
        dtypes = [t.dtype for t in flat.tensors]
        return Mixture(*(t.to(dtype) for t, dtype in zip(now.tensors, dtypes, strict=True)))


def _step(mixture: Mixture, points: Tensor, floor: Tensor) -> Mixture:
    shares, _ = responsibilities(points, mixture)
    masses = shares.sum(1)
    filled = masses > EMPTY
    safe = torch.where(filled, masses, 1.0)
    means = (shares.mT @ points) / safe[..., None]
    # Cloud by cloud: (N, K, D, D) numbers at once are enough.
    scatter = torch.stack([_scatter(*given) for given in zip(shares, points, means, strict=True)])
    scatter = scatter / safe[..., None, None]
    scatter = torch.where(filled[..., None, None], scatter, mixture.covariances())
    eigenvalues, vectors = torch.linalg.eigh(scatter)
    kept = filled[..., None]
    return Mixture(
        masses.clamp_min(1e-30).log(),
        torch.where(kept, means, mixture.means),
        torch.where(kept[..., None], vectors.mT, mixture.frames),
        torch.where(kept, eigenvalues.clamp_min(0).maximum(floor[:, None, None]), mixture.eigenvalues),
    )


def _scatter(shares: Tensor, points: Tensor, means: Tensor) -> Tensor:
    """(K, D, D) sums of squares about the new means, point by point: about the origin, small shapes would be lost."""
    offsets = (points[:, None] - means) * shares.sqrt()[..., None]
    return offsets.permute(1, 2, 0) @ offsets.transpose(0, 1)


def _where(better: Tensor, step: Mixture, now: Mixture) -> Mixture:
    chosen = (
        torch.where(better.view(-1, *[1] * (a.dim() - 1)), a, b) for a, b in zip(step.tensors, now.tensors, strict=True)
    )
    return Mixture(*chosen)
