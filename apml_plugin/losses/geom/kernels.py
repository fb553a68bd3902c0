"""Kernel norms of weighted clouds: energy distance, Gaussian and Laplacian MMD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from apml_plugin.arguments import function, optional_positive, positive
from apml_plugin.losses.base import declare
from apml_plugin.losses.geom import engine as engines
from apml_plugin.losses.geom.base import GeometricLoss, Pair
from apml_plugin.losses.geom.softmin import Cost, by_rows, diameter_of, distances, users_function


class _KernelNorm(GeometricLoss):
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
        super().__init__(potentials, backend, engine, reduction, ignore_zeros, check_finite)
        self.blur = positive("blur", blur)
        self.kernel = function("kernel", kernel)
        self.truncate = optional_positive("truncate", truncate)
        self.diameter = optional_positive("diameter", diameter)
        self.cluster_scale = optional_positive("cluster_scale", cluster_scale)

    def pair(self, pair: Pair) -> Any:
        _, x, _, y = pair
        engine, backend = engines.choose(
            self.engine, self.backend, self.kind, len(x), len(y), x.shape[1], given=self.kernel
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
        kernel = kernel_function(self.kind, self.blur, self.kernel)
        return (kernel_potentials if self.potentials else kernel_norm)(*pair, kernel)


@declare(package="geomloss")
class Energy(_KernelNorm):
    """Energy distance: half the squared norm of the difference in the kernel -d; no scale to choose.

    GeomLoss' tensorized backend, which ``engine="auto"`` never takes, has no distance below 1e-4 and gives NaN without
    pykeops.

    Args:
        kernel: a symmetric function instead of -d: ``kernel(x (B, N, D), y (B, M, D), blur=...)`` -> (B, N, M).
        potentials: as :class:`Sinkhorn`.
        backend, engine: as :class:`Sinkhorn`; ``auto`` never takes multiscale, which is GeomLoss' online backend here.
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


@declare(package="geomloss")
class Gaussian(_KernelNorm):
    """Gaussian MMD: half the squared norm of the difference in the kernel exp(-d^2 / 2 blur^2).

    Args:
        blur: standard deviation of the kernel, in the unit of the coordinates.
        kernel: a symmetric function instead: ``kernel(x (B, N, D), y (B, M, D), blur=...)`` -> (B, N, M).
        truncate: multiscale: the kernel is 0 further than this many blurs; None: never.
        diameter, cluster_scale, potentials: as :class:`Sinkhorn`.
        backend, engine: as :class:`Sinkhorn`; ``auto`` never takes multiscale.
        reduction, ignore_zeros, check_finite: as :class:`Sinkhorn`.
    """

    kind = "gaussian"


@declare(package="geomloss")
class Laplacian(_KernelNorm):
    """Laplacian MMD: half the squared norm of the difference in the kernel exp(-d / blur).

    Args: as :class:`Gaussian`. GeomLoss' tensorized backend has no distance below 1e-4; this one has.
    """

    kind = "laplacian"


def kernel_function(name: str, blur: float, given: Callable[..., Tensor] | None = None) -> Cost:
    """``-d``, ``exp(-d^2 / 2 blur^2)``, ``exp(-d / blur)``, or the caller's ``kernel(x, y, blur=blur)``."""
    if given is not None:
        return users_function("kernel", given, blur=blur)
    if name == "energy":
        return lambda x, y: -distances(x, y)
    if name == "gaussian":
        return lambda x, y: torch.exp(distances(x, y).square() / (-2 * blur**2))
    return lambda x, y: torch.exp(distances(x, y) / -blur)


def kernel_norm(a: Tensor, x: Tensor, b: Tensor, y: Tensor, kernel: Cost) -> Tensor:
    """``1/2 |alpha - beta|^2`` in the kernel's norm: 0-dim. The kernel must be symmetric."""
    selves = _half_square(a, x, kernel) + _half_square(b, y, kernel)
    return selves - (a * smoothed(kernel, x, y, b)).sum()


def kernel_potentials(a: Tensor, x: Tensor, b: Tensor, y: Tensor, kernel: Cost) -> tuple[Tensor, Tensor]:
    """The smoothed difference of the clouds at the points of each: (n,) and (m,), GeomLoss' signs."""
    f = smoothed(kernel, x, x, a) - smoothed(kernel, x, y, b)
    g = smoothed(kernel, y, y, b) - smoothed(kernel, y, x, a)
    return f, g


def smoothed(kernel: Cost, x: Tensor, y: Tensor, b: Tensor) -> Tensor:
    """``sum_j k(x_i, y_j) b_j``, (n,)."""

    def block(rows: Tensor, y: Tensor, b: Tensor) -> Tensor:
        return kernel(rows, y) @ b

    return by_rows(block, x, y, b)


def _half_square(a: Tensor, x: Tensor, kernel: Cost) -> Tensor:
    """``1/2 a' K a``. By symmetry its derivative is that of ``a' K a`` with one of the two sides held."""
    whole = (a * smoothed(kernel, x, x.detach(), a.detach())).sum()
    return whole - whole.detach() / 2
