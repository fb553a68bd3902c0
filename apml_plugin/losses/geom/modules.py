"""GeomLoss' losses between point clouds under their names, with lengths, weights and batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from apml_plugin.eager import eager
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses.base import PointLoss
from apml_plugin.losses.geom import engine as engines
from apml_plugin.losses.geom import hausdorff, kernels
from apml_plugin.losses.geom.annealing import diameter_of, temperatures
from apml_plugin.losses.geom.arguments import between, optional_positive, order, own_function, positive
from apml_plugin.losses.geom.sinkhorn import Masses, Potentials, divergence, solve
from apml_plugin.losses.geom.softmin import ground_cost
from apml_plugin.losses.geom.weights import check_weights, same_mass
from apml_plugin.matching.inputs import Lengths, check_clouds, compute_dtype
from apml_plugin.matching.settings import flag, one_of

Pair = tuple[Tensor, Tensor, Tensor, Tensor]  # weights (n,), points (n, D), weights (m,), points (m, D)


class _Geometric(PointLoss):
    """Goes through a batch pair by pair, so that no pair's value hangs on its neighbours or on padding."""

    balanced: ClassVar[bool] = False

    def _common(
        self, potentials: bool, backend: str, engine: str, reduction: str, ignore_zeros: bool, check_finite: bool
    ) -> None:
        self.potentials = flag("potentials", potentials)
        self.backend = one_of("backend", backend, engines.BACKENDS)
        self.engine = one_of("engine", engine, engines.ENGINES)
        self.reduction = one_of("reduction", reduction, ("mean", "none"))
        self.ignore_zeros = flag("ignore_zeros", ignore_zeros)
        self.check_finite = flag("check_finite", check_finite)

    def _shown(self) -> dict[str, Any]:
        names = ("potentials", "backend", "engine", "reduction", "ignore_zeros")
        return {name: getattr(self, name) for name in names}

    def _pair(self, pair: Pair) -> Any:
        raise NotImplementedError

    def forward(  # type: ignore[override]
        self,
        pred: Tensor,
        gt: Tensor,
        pred_lengths: Lengths = None,
        gt_lengths: Lengths = None,
        pred_weights: Tensor | None = None,
        gt_weights: Tensor | None = None,
    ) -> Any:
        """The loss of clouds (B, N, D) and (B, M, D).

        Args:
            pred_lengths, gt_lengths: (B,) numbers of valid points; the rest is padding.
            pred_weights, gt_weights: (B, N) and (B, M), not negative; by default every valid point of a cloud has
                the same, 1 in all. Differentiable.

        Returns:
            0-dim, (B,) for ``reduction="none"``, or with ``potentials=True`` a pair (B, N), (B, M), padding 0.
            A pair with an empty side contributes 0.
        """
        return _batch(self, pred, gt, pred_lengths, gt_lengths, pred_weights, gt_weights)


@eager()
def _batch(
    loss: _Geometric,
    pred: Tensor,
    gt: Tensor,
    pred_lengths: Lengths,
    gt_lengths: Lengths,
    pred_weights: Tensor | None,
    gt_weights: Tensor | None,
) -> Any:
    clouds = check_clouds(
        pred, gt, pred_lengths, gt_lengths, ignore_zeros=loss.ignore_zeros, check_finite=loss.check_finite
    )
    if loss.ignore_zeros and (pred_weights is not None or gt_weights is not None):
        raise LossArgumentError("ignore_zeros=True and weights do not go together; give those points weight 0")
    a = check_weights("pred_weights", pred_weights, pred, clouds.pred_lengths)
    b = check_weights("gt_weights", gt_weights, gt, clouds.gt_lengths)
    dtype = compute_dtype(pred, gt)
    found: list[Any] = []
    with torch.autocast(pred.device.type, enabled=False):
        for k in range(len(pred)):
            x, y = (points.to(dtype) for points in clouds.pair(k))
            if not len(x) or not len(y):
                found.append((x[:, 0] * 0, y[:, 0] * 0) if loss.potentials else x.sum() * 0 + y.sum() * 0)
                continue
            u = x.new_full((len(x),), 1 / len(x)) if a is None else a[k, : len(x)].to(dtype)
            v = y.new_full((len(y),), 1 / len(y)) if b is None else b[k, : len(y)].to(dtype)
            if loss.balanced and (a is not None or b is not None):
                same_mass(k, u, v)
            found.append(loss._pair((u, x, v, y)))
    if loss.potentials:
        sides = []
        for side, cloud in enumerate((pred, gt)):
            rows = [torch.nn.functional.pad(pair[side], (0, cloud.shape[1] - len(pair[side]))) for pair in found]
            sides.append(torch.stack(rows) if rows else cloud.new_zeros(cloud.shape[:2], dtype=dtype))
        return tuple(sides)
    values = torch.stack(found) if found else (pred.sum() + gt.sum()).to(dtype).expand(0)
    if loss.reduction == "none":
        return values
    return values.sum() / max(len(values), 1)


class Sinkhorn(_Geometric):
    """Sinkhorn divergence: entropic optimal transport, debiased; GeomLoss' ``SamplesLoss("sinkhorn")``.

    Cost d (p = 1) or d^2/2 (p = 2) between points; 0 for equal clouds. As in GeomLoss, the number of iterations is
    that of the schedule, so the value hangs on ``scaling`` (0.5 is coarse, 0.9 is close to the limit).

    Two engines give the same numbers: GeomLoss itself (``pip install geomloss pykeops``) and ours in PyTorch.
    ``engine="auto"`` takes GeomLoss wherever it is installed and right, ours elsewhere: without it, with a tolerance
    or a cost function, and in the tensorized backend for p = 1 (GeomLoss floors distances at 1e-4) and for ``reach``.

    Args:
        p: 1 or 2.
        blur: the temperature is ``blur^p``; distances below it do not count. In the unit of the coordinates.
        reach: masses need not match: mass is moved about this far at most (unbalanced). None: they must match.
        diameter: where the schedule starts; None: each pair's own.
        scaling: ratio of successive scales of the schedule, in (0, 1).
        truncate: multiscale: pairs of cells further than this many blurs apart are left out; None: none.
        cost: instead of p: a function (B, N, D), (B, M, D) -> (B, N, M), or a KeOps formula of X and Y.
        cluster_scale: multiscale: side of the coarse cells.
        debias: subtract what each cloud costs with itself.
        potentials: return the dual potentials (B, N), (B, M) instead of the loss.
        backend: ``"tensorized"`` (cost matrices in memory), ``"online"`` (memory O(N + M)), ``"multiscale"`` (GeomLoss
            with pykeops, for large clouds in up to 3 coordinates: fast; it starts from coarse cells, so that its value
            departs from the others' by some per cent at scaling 0.5), or ``"auto"``: tensorized up to 5000 x 5000
            points, multiscale above 10,000 x 10,000 (p = 2) where it can be had, else online.
        engine: ``"auto"``, ``"torch"`` or ``"geomloss"``.
        tolerance: engine torch: go on at the blur until no potential changes by more than this share of the
            temperature: the loss itself instead of the schedule's approximation, with its exact gradient.
        reduction: ``"mean"`` over the batch or ``"none"`` for (B,).
        ignore_zeros: drop points whose coordinates are all 0.
        check_finite: refuse NaN and Inf with an error.
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
        super().__init__()
        self.p = order(p)
        self.blur = positive("blur", blur)
        self.reach = optional_positive("reach", reach)
        self.diameter = optional_positive("diameter", diameter)
        self.scaling = between("scaling", scaling, 0, 1)
        self.truncate = optional_positive("truncate", truncate)
        self.cost = own_function("cost", cost, formula=True)
        self.cluster_scale = optional_positive("cluster_scale", cluster_scale)
        self.debias = flag("debias", debias)
        self.tolerance = optional_positive("tolerance", tolerance)
        self._common(potentials, backend, engine, reduction, ignore_zeros, check_finite)
        self.balanced = self.reach is None  # type: ignore[misc]

    def options(self) -> dict[str, Any]:
        names = ("p", "blur", "reach", "diameter", "scaling", "truncate", "cost", "debias", "tolerance")
        return {**{name: getattr(self, name) for name in names}, **self._shown()}

    def _pair(self, pair: Pair) -> Any:
        a, x, b, y = pair
        engine, backend = engines.choose(
            self.engine,
            self.backend,
            "sinkhorn",
            len(x),
            len(y),
            x.shape[1],
            p=self.p,
            reach=self.reach,
            own=self.cost,
            tolerance=self.tolerance,
        )
        diameter = self.diameter or diameter_of(x, y) or self.blur
        eps_list = temperatures(self.p, diameter, self.blur, self.scaling)
        masses = Masses(self.blur**self.p, None if self.reach is None else self.reach**self.p)
        if engine == "torch":
            found = solve(
                a,
                x,
                b,
                y,
                ground_cost(self.p, self.cost),  # type: ignore[arg-type]
                eps_list,
                masses.rho,
                debias=self.debias,
                keep=backend == "tensorized",
                tolerance=self.tolerance,
            )
        elif self.reach is None:
            return self._geomloss(pair, backend, diameter, self.debias, self.potentials)
        else:  # its unbalanced sum has a wrong gradient, and multiscale a wrong value; its potentials are right
            f, g = self._geomloss(pair, backend, diameter, False, True)
            own = [
                self._geomloss((w, z, w, z.detach()), backend, diameter, False, True)[0] if self.debias else None
                for w, z in ((a, x), (b, y))
            ]
            found = Potentials(f, g, own[0], own[1])
        if self.potentials:
            f, g, f_self, g_self = found
            return (f, g) if f_self is None or g_self is None else (f - f_self, g - g_self)
        return divergence(a, b, found, masses)

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


class HausdorffDivergence(_Geometric):
    """Hausdorff divergence: from a soft Chamfer distance (blur towards 0) to a kernel norm (large blur).

    Announced by GeomLoss, which has no code for it; ours, solved to its fixed point, so that ``scaling`` and
    ``diameter`` change the way there and not the value. With p = 2 and blur towards 0 it is a quarter of ChamferL2.

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
        super().__init__()
        self.p = order(p)
        self.blur = positive("blur", blur)
        self.reach = optional_positive("reach", reach)
        self.diameter = optional_positive("diameter", diameter)
        self.scaling = between("scaling", scaling, 0, 1)
        self.cost = own_function("cost", cost)
        if backend == "multiscale":
            raise LossValueError("backend='multiscale': HausdorffDivergence has 'tensorized', 'online' and 'auto'")
        self._common(potentials, backend, "torch", reduction, ignore_zeros, check_finite)
        self.balanced = self.reach is None  # type: ignore[misc]

    def options(self) -> dict[str, Any]:
        names = ("p", "blur", "reach", "diameter", "scaling", "cost")
        return {**{name: getattr(self, name) for name in names}, **self._shown()}

    def _pair(self, pair: Pair) -> Any:
        _, x, _, y = pair
        _, backend = engines.choose("torch", self.backend, "hausdorff", len(x), len(y), x.shape[1])
        diameter = self.diameter or diameter_of(x, y) or self.blur
        eps_list = temperatures(self.p, diameter, self.blur, self.scaling)
        rho = None if self.reach is None else self.reach**self.p
        arguments = (*pair, ground_cost(self.p, self.cost), eps_list, rho, backend == "tensorized")
        if self.potentials:
            f_x, f_y, g_x, g_y = hausdorff.potentials(*arguments)
            return (g_x - f_x) / 2, (f_y - g_y) / 2
        return hausdorff.hausdorff_divergence(*arguments)


class _KernelNorm(_Geometric):
    kind: ClassVar[str]

    def __init__(
        self,
        blur: float = 0.05,
        kernel: Callable[..., Tensor] | None = None,
        truncate: float | None = 5,
        diameter: float | None = None,
        cluster_scale: float | None = None,
        potentials: bool = False,
        backend: str = "auto",
        engine: str = "auto",
        reduction: str = "mean",
        ignore_zeros: bool = False,
        check_finite: bool = True,
    ) -> None:
        super().__init__()
        self.blur = positive("blur", blur)
        self.kernel = own_function("kernel", kernel)
        self.truncate = optional_positive("truncate", truncate)
        self.diameter = optional_positive("diameter", diameter)
        self.cluster_scale = optional_positive("cluster_scale", cluster_scale)
        self._common(potentials, backend, engine, reduction, ignore_zeros, check_finite)

    def options(self) -> dict[str, Any]:
        return {"blur": self.blur, "kernel": self.kernel, "truncate": self.truncate, **self._shown()}

    def _pair(self, pair: Pair) -> Any:
        _, x, _, y = pair
        engine, backend = engines.choose(
            self.engine, self.backend, self.kind, len(x), len(y), x.shape[1], own=self.kernel
        )
        if engine == "geomloss":
            return engines.call(
                self.kind,
                *pair,
                backend,
                blur=self.blur,
                kernel=self.kernel,
                truncate=self.truncate,
                diameter=self.diameter or diameter_of(x, y) or self.blur,
                cluster_scale=self.cluster_scale,
                potentials=self.potentials,
            )
        kernel = kernels.kernel_function(self.kind, self.blur, self.kernel)
        return (kernels.kernel_potentials if self.potentials else kernels.kernel_norm)(*pair, kernel)


class Energy(_KernelNorm):
    """Energy distance: half the squared norm of the difference in the kernel -d; no scale to choose.

    ``engine="auto"`` takes GeomLoss' online backend where it is installed, and ours elsewhere: GeomLoss floors
    distances at 1e-4 in its tensorized one, and gives NaN without pykeops.

    Args:
        kernel: a symmetric function instead of -d: ``kernel(x (B, N, D), y (B, M, D), blur=...)`` -> (B, N, M).
        potentials: as :class:`Sinkhorn`.
        backend, engine: as :class:`Sinkhorn`; multiscale, only by name, is GeomLoss' online here.
        reduction, ignore_zeros, check_finite: as :class:`Sinkhorn`.
    """

    kind = "energy"

    def __init__(
        self,
        kernel: Callable[..., Tensor] | None = None,
        potentials: bool = False,
        backend: str = "auto",
        engine: str = "auto",
        reduction: str = "mean",
        ignore_zeros: bool = False,
        check_finite: bool = True,
    ) -> None:
        super().__init__(
            kernel=kernel,
            potentials=potentials,
            backend=backend,
            engine=engine,
            reduction=reduction,
            ignore_zeros=ignore_zeros,
            check_finite=check_finite,
        )

    def options(self) -> dict[str, Any]:
        return {"kernel": self.kernel, **self._shown()}


class Gaussian(_KernelNorm):
    """Gaussian MMD: half the squared norm of the difference in the kernel exp(-d^2 / 2 blur^2).

    Args:
        blur: standard deviation of the kernel, in the unit of the coordinates.
        kernel: a symmetric function instead: ``kernel(x (B, N, D), y (B, M, D), blur=...)`` -> (B, N, M).
        truncate: multiscale: the kernel is 0 further than this many blurs; None: never.
        diameter, cluster_scale, potentials: as :class:`Sinkhorn`.
        backend, engine: as :class:`Sinkhorn`, multiscale only by name.
        reduction, ignore_zeros, check_finite: as :class:`Sinkhorn`.
    """

    kind = "gaussian"


class Laplacian(_KernelNorm):
    """Laplacian MMD: half the squared norm of the difference in the kernel exp(-d / blur).

    Args: as :class:`Gaussian`. GeomLoss' tensorized backend floors distances at 1e-4; ours does not.
    """

    kind = "laplacian"
