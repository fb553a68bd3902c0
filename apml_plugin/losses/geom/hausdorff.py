"""The Hausdorff divergence of one pair of weighted clouds, solved to its fixed point and differentiated there.

GeomLoss announces it but lacks it (0.3.1: ``KeyError``). Definition: Feydy et al., arXiv 1810.08278, and Séjourné et
al., arXiv 1910.12958 for ``rho``. Each cloud's symmetric problem ``f = softmin over alpha of (C - f)`` is solved;
its potential, evaluated at the other cloud, is compared with the potential of that cloud::

    H = 1/2 <alpha - beta, g - f>        (unbalanced: (rho + eps) (exp(-f / rho) - exp(-g / rho)) for g - f)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from apml_plugin._torch_private import is_transformed
from apml_plugin.arguments import between, function, optional_positive, positive
from apml_plugin.errors import BackendError, LossValueError
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

MOST_ITERATIONS = 2000


def hausdorff_divergence(
    a: Tensor, x: Tensor, b: Tensor, y: Tensor, cost: Cost, eps_list: list[float], rho: float | None, keep: bool
) -> Tensor:
    """The loss, 0-dim, differentiable in points and weights."""
    f_x, f_y, g_x, g_y = potentials(a, x, b, y, cost, eps_list, rho, keep)
    if rho is None:
        return ((a * (g_x - f_x)).sum() + (b * (f_y - g_y)).sum()) / 2
    f_x, f_y, g_x, g_y = (-torch.expm1(-f / rho) for f in (f_x, f_y, g_x, g_y))
    return (rho + eps_list[-1]) / 2 * ((a * (g_x - f_x)).sum() + (b * (f_y - g_y)).sum())


def potentials(
    a: Tensor, x: Tensor, b: Tensor, y: Tensor, cost: Cost, eps_list: list[float], rho: float | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The potential of pred at the points of pred and of gt, then that of gt at pred and at gt."""
    eps = eps_list[-1]
    damp = damping(eps, rho)
    a_log, b_log = log_weights(a), log_weights(b)
    f_x = symmetric_potential(a_log, x, cost, eps_list, rho, keep)
    g_y = symmetric_potential(b_log, y, cost, eps_list, rho, keep)
    f_y = damp * softmin(cost, eps, y, x, a_log + f_x / eps)
    g_x = damp * softmin(cost, eps, x, y, b_log + g_y / eps)
    return f_x, f_y, g_x, g_y


def symmetric_potential(
    log: Tensor, x: Tensor, cost: Cost, eps_list: list[float], rho: float | None, keep: bool
) -> Tensor:
    """The fixed point ``f(x_i) = softmin over the cloud of (C - f)``, with its derivative.

    Averaged iterations halve the error each time (the plan has no negative eigenvalues for p = 1 and 2). The
    derivative is that of the fixed point: ``(I + P) df`` equals what one iteration changes, P being the plan.
    """
    eps = eps_list[-1]
    with torch.no_grad():
        reduce = Softmin(cost, x, x, keep)
        f = torch.zeros_like(log)

        def averaged(f: Tensor, at: float) -> Tensor:
            return (f + damping(at, rho) * reduce(at, log + f / at)) / 2

        for at in eps_list:
            f = averaged(f, at)
        f = _fixed_point(lambda f: averaged(f, eps), f, eps)
    if not (torch.is_grad_enabled() and (x.requires_grad or log.requires_grad)):
        return f
    damp = damping(eps, rho)
    fresh = damp * softmin(cost, eps, x, x, log + f / eps)

    def to_source(grad: Tensor) -> Tensor:
        """``(I + P)'^-1 grad``."""
        with torch.enable_grad():
            source = f.detach().requires_grad_()
            one = damp * softmin(cost, eps, x.detach(), x.detach(), log.detach() + source / eps)

        def halved(adjoint: Tensor) -> Tensor:
            (back,) = torch.autograd.grad(one, source, adjoint, retain_graph=True)
            return (adjoint + grad + back) / 2

        return _fixed_point(halved, grad / 2, 0.0)

    value: Tensor = _AtFixedPoint.apply(fresh, to_source)  # type: ignore[no-untyped-call]
    return value


def _fixed_point(step: Callable[[Tensor], Tensor], start: Tensor, scale: float) -> Tensor:
    """Iterates until nothing changes beyond rounding."""
    value = start
    for _ in range(MOST_ITERATIONS):
        before, value = value, step(value)
        change = float((value - before).abs().max())
        if change <= 4 * torch.finfo(value.dtype).eps * max(float(value.abs().max()), scale):
            break
    return value


class _AtFixedPoint(torch.autograd.Function):
    """The identity; ``solve`` is applied to the gradient."""

    @staticmethod
    def forward(ctx: Any, fresh: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.solve = solve
        return fresh.view_as(fresh)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.solve(grad), None


@declare()
class HausdorffDivergence(GeometricLoss):
    """Hausdorff divergence: between a soft Chamfer distance (blur towards 0) and a kernel norm (large blur).

    GeomLoss announces it without an implementation. This one is solved to its fixed point, so ``scaling`` and
    ``diameter`` change the number of iterations and not the value. With p = 2 and blur towards 0 it is a quarter of
    ChamferL2.

    Args:
        p, blur, reach, diameter, scaling, cost: as :class:`Sinkhorn`; cost must be symmetric.
        potentials: return (gt's potential - pred's) / 2 at pred's points and the reverse at gt's.
        backend: ``"tensorized"`` (cost matrices in memory), ``"online"`` (memory O(N + M)) or ``"auto"``.
        reduction, ignore_zeros, check_finite: as :class:`Sinkhorn`.
    """

    def __init__(
        self,
        p: int = 2,
        blur: float = 0.05,
        reach: float | None = None,
        diameter: float | None = None,
        scaling: float = 0.5,
        cost: Callable[[Tensor, Tensor], Tensor] | None = None,
        potentials: bool = False,
        backend: str = "auto",
        reduction: str = "mean",
        ignore_zeros: bool = False,
        check_finite: bool = True,
    ) -> None:
        if backend == "multiscale":
            raise LossValueError("backend='multiscale': HausdorffDivergence has 'tensorized', 'online' and 'auto'")
        super().__init__(potentials, backend, "torch", reduction, ignore_zeros, check_finite)
        self.p = order(p)
        self.blur = positive("blur", blur)
        self.reach = optional_positive("reach", reach)
        self.diameter = optional_positive("diameter", diameter)
        self.scaling = between("scaling", scaling, 0, 1)
        self.cost = function("cost", cost)
        self.balanced = self.reach is None  # type: ignore[misc]

    def pair(self, pair: Pair) -> Any:
        _, x, _, y = pair
        if is_transformed(x) or is_transformed(y):
            raise BackendError(
                "HausdorffDivergence has no derivatives under torch.func: use backward() or torch.autograd.grad"
            )
        _, backend = engines.choose("torch", self.backend, "hausdorff", len(x), len(y), x.shape[1])
        diameter = self.diameter or diameter_of(x, y) or self.blur
        eps_list = temperatures(self.p, diameter, self.blur, self.scaling)
        rho = None if self.reach is None else self.reach**self.p
        arguments = (*pair, ground_cost(self.p, self.cost), eps_list, rho, backend == "tensorized")
        if self.potentials:
            f_x, f_y, g_x, g_y = potentials(*arguments)
            return (g_x - f_x) / 2, (f_y - g_y) / 2
        return hausdorff_divergence(*arguments)
