"""Sinkhorn divergences of weighted clouds, balanced and unbalanced: the loss and its algorithm."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from apml_plugin.arguments import between, flag, function, optional_positive, positive
from apml_plugin.losses.base import declare
from apml_plugin.losses.geom import engine as engines
from apml_plugin.losses.geom.base import GeometricLoss, Pair
from apml_plugin.losses.geom.softmin import (
    Cost,
    Softmin,
    damping,
    diameter_of,
    ground_cost,
    log_weights,
    order,
    softmin,
    temperatures,
)

MOST_ITERATIONS = 20_000

Side = tuple[Callable[[float, Tensor], Tensor], Tensor]
"""A softmin ``(eps, h)`` and the logarithms of the weights it sums over."""


class Potentials(NamedTuple):
    """Dual potentials. Those of each cloud with itself are None without debiasing."""

    pred: Tensor  # (n,) of pred to gt
    gt: Tensor  # (m,)
    pred_self: Tensor | None
    gt_self: Tensor | None

    def debiased(self) -> tuple[Tensor, Tensor]:
        """Those of pred and gt, less the ones of each cloud with itself."""
        f, g, f_self, g_self = self
        return (f, g) if f_self is None or g_self is None else (f - f_self, g - g_self)


class Masses(NamedTuple):
    """The last iteration's temperature, and the strength of the mass constraints (None: they hold exactly)."""

    eps: float
    rho: float | None


def solve(
    a: Tensor,
    x: Tensor,
    b: Tensor,
    y: Tensor,
    cost: Cost,
    eps_list: list[float],
    rho: float | None = None,
    *,
    debias: bool = True,
    keep: bool = True,
    tolerance: float | None = None,
) -> Potentials:
    """GeomLoss' symmetric Sinkhorn loop. It leaves the grad mode as it is.

    Args:
        a, x, b, y: weights (n,), points (n, D), weights (m,), points (m, D).
        cost: ground cost.
        eps_list: temperatures, the last one twice (once more for the returned potentials).
        rho: strength of the mass constraints; None: they hold exactly.
        debias: also the potentials of each cloud with itself.
        keep: hold the cost matrices in memory; otherwise a block of rows at a time is computed again.
        tolerance: go on at the last temperature until no potential changes by more than this share of it.

    Returns:
        Potentials whose derivative in the points is that of the loss (the envelope theorem: the loop itself is not
        differentiated). Weights get no gradient from here: theirs is the potential itself.
    """
    eps = eps_list[-1]
    with torch.no_grad():
        a_log, b_log = log_weights(a), log_weights(b)
        sides: list[Side] = [(Softmin(cost, x, y, keep), b_log), (Softmin(cost, y, x, keep), a_log)]
        if debias:
            sides += [(Softmin(cost, x, x, keep), a_log), (Softmin(cost, y, y, keep), b_log)]
        last, held = settle(sides, eps_list, rho, tolerance)
    ways = [(x, y), (y, x), (x, x), (y, y)][: len(sides)]
    if torch.is_grad_enabled():  # the last iteration once more, with a graph
        last = [
            damping(eps, rho) * softmin(cost, eps, target, source.detach(), h) if target.requires_grad else potential
            for (target, source), h, potential in zip(ways, held, last, strict=True)
        ]
    return Potentials(last[0], last[1], *(last[2:] if debias else (None, None)))


def settle(
    sides: list[Side], eps_list: list[float], rho: float | None, tolerance: float | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """The loop: every potential becomes the mean of itself and the softmin over its source; at the end the softmin.

    Args:
        sides: softmins and logarithms of the weights they sum over: pred from gt, gt from pred, and, to debias,
            pred from pred and gt from gt.
        eps_list, rho, tolerance: as :func:`solve`.

    Returns:
        The potentials, and the last softmins' arguments ``log(weights) + potential / eps``.
    """
    sources = (1, 0, 2, 3)[: len(sides)]
    eps = eps_list[0]
    potentials = [damping(eps, rho) * reduce(eps, log) for reduce, log in sides]

    def arguments(eps: float) -> list[Tensor]:
        return [log + potentials[source] / eps for (_, log), source in zip(sides, sources, strict=True)]

    def fresh(eps: float, held: list[Tensor]) -> list[Tensor]:
        return [damping(eps, rho) * reduce(eps, h) for (reduce, _), h in zip(sides, held, strict=True)]

    def averaged(eps: float) -> list[Tensor]:
        return [(old + new) / 2 for old, new in zip(potentials, fresh(eps, arguments(eps)), strict=True)]

    for eps in eps_list:
        potentials = averaged(eps)
    if tolerance is not None:
        for _ in range(MOST_ITERATIONS):
            before, potentials = potentials, averaged(eps)
            # Potentials of a cloud with itself converge at once; the other two converge four times as fast in turns.
            for side in (0, 1):
                (reduce, log), source = sides[side], sources[side]
                potentials[side] = damping(eps, rho) * reduce(eps, log + potentials[source] / eps)
            change = max(float((u - v).abs().max()) for u, v in zip(before, potentials, strict=True))
            rounding = 8 * torch.finfo(potentials[0].dtype).eps * max(float(u.abs().max()) for u in potentials)
            if change <= max(tolerance * eps, rounding):
                break
        else:
            warnings.warn(
                f"Sinkhorn did not reach tolerance={tolerance:g} in {MOST_ITERATIONS} iterations at temperature "
                f"{eps:g}; raise blur, or tolerance",
                stacklevel=2,
            )
    held = arguments(eps)
    return fresh(eps, held), held


def divergence(
    a: Tensor, b: Tensor, potentials: Potentials, masses: Masses, dims: int | tuple[int, ...] = -1
) -> Tensor:
    """The value from the potentials, debiased if they hold those of each cloud with itself; sums over ``dims``."""
    eps, rho = masses
    f, g, f_self, g_self = potentials
    if rho is None:
        if f_self is None or g_self is None:
            return (a * f).sum(dims) + (b * g).sum(dims)
        return (a * (f - f_self)).sum(dims) + (b * (g - g_self)).sum(dims)
    if f_self is not None and g_self is not None:
        gained = a * (_gain(f, rho) - _gain(f_self, rho)), b * (_gain(g, rho) - _gain(g_self, rho))
        whole = gained[0].sum(dims) + gained[1].sum(dims)
        return rho * whole + eps * _half_held(whole)
    whole = (a * _gain(f, rho)).sum(dims) + (b * _gain(g, rho)).sum(dims)
    mass_a, mass_b = a.sum(dims), b.sum(dims)
    # For two masses of 1 the masses cancel; GeomLoss leaves them out.
    return rho * whole + eps * (_half_held(whole - mass_a - mass_b) + mass_a * mass_b)


def _gain(f: Tensor, rho: float) -> Tensor:
    """``1 - exp(-f / rho)``."""
    return -torch.expm1(-f / rho)


def _half_held(total: Tensor) -> Tensor:
    """Half of it, with the derivative of the whole.

    ``(rho + eps/2)`` in the value and ``(rho + eps)`` in the gradient are both right (Séjourné et al., arXiv
    1910.12958, proposition 12): with the potentials held at their optimum, the other half is not visible.
    """
    value: Tensor = _HalfHeld.apply(total)  # type: ignore[no-untyped-call]
    return value


class _HalfHeld(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, total: Tensor) -> Tensor:
        return total / 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


@declare(package="geomloss")
class Sinkhorn(GeometricLoss):
    """Sinkhorn divergence: entropic optimal transport, debiased; GeomLoss' ``SamplesLoss("sinkhorn")``.

    Cost d (p = 1) or d^2/2 (p = 2) between points; 0 for equal clouds. As in GeomLoss, the number of iterations is
    that of the schedule, so the value depends on ``scaling`` (0.5 is coarse, 0.9 is close to the limit).

    Two engines give the same values: GeomLoss itself (``pip install geomloss pykeops``) and this package's in PyTorch.
    ``engine="auto"`` takes GeomLoss for the online and multiscale backends where KeOps is installed, unless there is a
    tolerance or a cost function. It never takes GeomLoss' tensorized backend, whose squared distances are inexact in
    float32 and which has no distance below 1e-4 (p = 1).

    With ``reach``, the gradient is the derivative of the value, by either engine. GeomLoss' own is too small by
    (rho + eps/2) / (rho + eps), rho = reach^p and eps = blur^p.

    Args:
        p: 1 or 2.
        blur: the temperature is ``blur^p``; distances below it do not count. In the unit of the coordinates.
        reach: masses need not match: mass is moved about this far at most (unbalanced). None: they must match.
        diameter: where the schedule starts; None: the diameter of each pair.
        scaling: ratio of successive scales of the schedule, in (0, 1).
        truncate: multiscale: pairs of cells further than this many blurs apart are left out; None: none.
        cost: instead of p: a function (B, N, D), (B, M, D) -> (B, N, M), or a KeOps formula of X and Y.
        cluster_scale: multiscale: side of the coarse cells.
        debias: subtract what each cloud costs with itself.
        potentials: return the dual potentials (B, N), (B, M) instead of the loss.
        backend: ``"tensorized"`` (cost matrices in memory), ``"online"`` (memory O(N + M)), ``"multiscale"`` (GeomLoss
            with pykeops, for large clouds in up to 3 coordinates: fast; it starts from coarse cells, so that its value
            differs from the others by some per cent at scaling 0.5), or ``"auto"``: tensorized up to 5000 x 5000
            points, multiscale above 10,000 x 10,000 (p = 2) where it can run, else online.
        engine: ``"auto"``, ``"torch"`` or ``"geomloss"``.
        tolerance: engine torch: go on at the blur until no potential changes by more than this share of the
            temperature: the loss itself instead of the schedule's approximation, with its exact gradient.
        reduction: ``"mean"`` over the batch or ``"none"`` for (B,).
        ignore_zeros: drop points whose coordinates are all 0.
        check_finite: raise an error for NaN and Inf.
    """

    def __init__(
        self,
        p: int = 2,
        blur: float = 0.05,
        reach: float | None = None,
        diameter: float | None = None,
        scaling: float = 0.5,
        truncate: float | None = 5,
        cost: Callable[[Tensor, Tensor], Tensor] | str | None = None,
        cluster_scale: float | None = None,
        debias: bool = True,
        potentials: bool = False,
        backend: str = "auto",
        engine: str = "auto",
        tolerance: float | None = None,
        reduction: str = "mean",
        ignore_zeros: bool = False,
        check_finite: bool = True,
    ) -> None:
        super().__init__(potentials, backend, engine, reduction, ignore_zeros, check_finite)
        self.p = order(p)
        self.blur = positive("blur", blur)
        self.reach = optional_positive("reach", reach)
        self.diameter = optional_positive("diameter", diameter)
        self.scaling = between("scaling", scaling, 0, 1)
        self.truncate = optional_positive("truncate", truncate)
        self.cost = function("cost", cost, or_formula=True)
        self.cluster_scale = optional_positive("cluster_scale", cluster_scale)
        self.debias = flag("debias", debias)
        self.tolerance = optional_positive("tolerance", tolerance)
        self.balanced = self.reach is None  # type: ignore[misc]

    def pair(self, pair: Pair) -> Any:
        a, x, b, y = pair
        engine, backend = engines.choose(
            self.engine,
            self.backend,
            "sinkhorn",
            len(x),
            len(y),
            x.shape[1],
            p=self.p,
            given=self.cost,
            tolerance=self.tolerance,
        )
        diameter = self.diameter or diameter_of(x, y) or self.blur
        eps_list = temperatures(self.p, diameter, self.blur, self.scaling)
        masses = Masses(self.blur**self.p, None if self.reach is None else self.reach**self.p)
        if engine == "torch":
            dual = solve(
                a,
                x,
                b,
                y,
                ground_cost(self.p, self.cost),
                eps_list,
                masses.rho,
                debias=self.debias,
                keep=backend == "tensorized",
                tolerance=self.tolerance,
            )
        elif self.reach is None:
            return self._geomloss(pair, backend, diameter, self.debias, self.potentials)
        else:  # GeomLoss' unbalanced sum has a wrong gradient, multiscale a wrong value; its potentials are right
            f, g = self._geomloss(pair, backend, diameter, False, True)
            selves = [
                self._geomloss((w, z, w, z.detach()), backend, diameter, False, True)[0] if self.debias else None
                for w, z in ((a, x), (b, y))
            ]
            dual = Potentials(f, g, *selves)
        return dual.debiased() if self.potentials else divergence(a, b, dual, masses)

    def _geomloss(self, pair: Pair, backend: str, diameter: float, debias: bool, potentials: bool) -> Any:
        return engines.call(
            "sinkhorn",
            *pair,
            backend,
            p=self.p,
            blur=self.blur,
            reach=self.reach,
            diameter=diameter,
            scaling=self.scaling,
            truncate=self.truncate,
            cost=self.cost,
            cluster_scale=self.cluster_scale,
            debias=debias,
            potentials=potentials,
        )
