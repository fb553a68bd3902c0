"""Sinkhorn divergences of one pair of weighted clouds, balanced and unbalanced, with right gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from apml_plugin.losses.geom.annealing import damping
from apml_plugin.losses.geom.softmin import Cost, Softmin, log_weights, softmin

MOST_ITERATIONS = 20_000

Side = tuple[Callable[[float, Tensor], Tensor], Tensor]
"""A softmin ``(eps, h)`` and the logarithms of the weights it sums over."""


class Potentials(NamedTuple):
    """Dual potentials. Those of each cloud with itself are None without debiasing."""

    pred: Tensor  # (n,) of pred to gt
    gt: Tensor  # (m,)
    pred_self: Tensor | None
    gt_self: Tensor | None


class Masses(NamedTuple):
    """How strictly masses must be met, and how soft the plan is, in the last iteration."""

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
    """GeomLoss' symmetric Sinkhorn loop, without its switching of the grad mode.

    Args:
        a, x, b, y: weights (n,), points (n, D), weights (m,), points (m, D).
        cost: ground cost.
        eps_list: temperatures, the last one twice (once more for the returned potentials).
        rho: strength of the mass constraints; None: they hold exactly.
        debias: also the potentials of each cloud with itself.
        keep: hold the cost matrices in memory; otherwise a block of rows at a time is computed anew.
        tolerance: go on at the last temperature until no potential changes by more than this share of it.

    Returns:
        Potentials whose derivative in the points is that of the loss (the envelope theorem: the loop itself is not
        differentiated). None flows to the weights: their gradient is the potential itself.
    """
    eps = eps_list[-1]
    with torch.no_grad():
        a_log, b_log = log_weights(a), log_weights(b)
        sides: list[Side] = [(Softmin(cost, x, y, keep), b_log), (Softmin(cost, y, x, keep), a_log)]
        if debias:
            sides += [(Softmin(cost, x, x, keep), a_log), (Softmin(cost, y, y, keep), b_log)]
        last, held = settle(sides, eps_list, rho, tolerance)
    ways = [(x, y), (y, x), (x, x), (y, y)][: len(sides)]
    if torch.is_grad_enabled():  # the last iteration once more, for those who want a gradient
        last = [
            damping(eps, rho) * softmin(cost, eps, here, there.detach(), h) if here.requires_grad else found
            for (here, there), h, found in zip(ways, held, last, strict=True)
        ]
    return Potentials(last[0], last[1], *(last[2:] if debias else (None, None)))


def settle(
    sides: list[Side], eps_list: list[float], rho: float | None, tolerance: float | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """The loop: every potential by the softmin over its source, averaged with what it was; then once, unaveraged.

    Args:
        sides: softmins and logarithms of the weights they sum over: pred from gt, gt from pred, and, to debias,
            pred from pred and gt from gt.
        eps_list, rho, tolerance: as :func:`solve`.

    Returns:
        The potentials, and the last softmins' arguments ``log(weights) + potential / eps``.
    """
    sources = (1, 0, 2, 3)[: len(sides)]
    eps = eps_list[0]
    found = [damping(eps, rho) * reduce(eps, log) for reduce, log in sides]

    def arguments(eps: float) -> list[Tensor]:
        return [log + found[source] / eps for (_, log), source in zip(sides, sources, strict=True)]

    def fresh(eps: float, held: list[Tensor]) -> list[Tensor]:
        return [damping(eps, rho) * reduce(eps, h) for (reduce, _), h in zip(sides, held, strict=True)]

    def averaged(eps: float) -> list[Tensor]:
        return [(old + new) / 2 for old, new in zip(found, fresh(eps, arguments(eps)), strict=True)]

    for eps in eps_list:
        found = averaged(eps)
    if tolerance is not None:
        for _ in range(MOST_ITERATIONS):
            before, found = found, averaged(eps)
            # Clouds with themselves settle at once; the two with one another do in turns, four times as fast.
            for side in (0, 1):
                (reduce, log), source = sides[side], sources[side]
                found[side] = damping(eps, rho) * reduce(eps, log + found[source] / eps)
            change = max(float((u - v).abs().max()) for u, v in zip(before, found, strict=True))
            rounding = 8 * torch.finfo(found[0].dtype).eps * max(float(u.abs().max()) for u in found)
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
    """The value from the potentials, debiased where those of the clouds themselves are there; sums over ``dims``."""
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
    1910.12958, proposition 12): potentials held at their optimum hide the other half.
    """
    return _HalfHeld.apply(total)


class _HalfHeld(torch.autograd.Function):
    @staticmethod
    def forward(ctx, total: Tensor) -> Tensor:  # type: ignore[override]
        return total / 2

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad
