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
    bound, and EM ends where an iteration would not raise it. Computed in float64, rounded to the mixture's dtype in
    the end, without gradients.

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
    settings = whole("iterations", iterations), number("min_eigenvalue", min_eigenvalue)
    if settings[0] < 0:
        raise LossValueError(f"iterations={iterations!r} must be 0 or more")
    if not 0 < settings[1] < float("inf"):
        raise LossValueError(f"min_eigenvalue={min_eigenvalue!r} must be positive and finite")
    if not len(points):
        return flat
    with torch.no_grad():
        # Cloud by cloud: (N, K, D) numbers at once are enough.
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
    # About the new means, point by point: about the origin, small shapes would be lost.
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
