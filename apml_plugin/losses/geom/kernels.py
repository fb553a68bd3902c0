"""Kernel norms of one pair of weighted clouds: energy distance, Gaussian and Laplacian MMD."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from apml_plugin.errors import LossValueError
from apml_plugin.losses.geom.softmin import Cost, by_rows, distances

KERNELS = ("energy", "gaussian", "laplacian")


def kernel_function(name: str, blur: float, own: Callable[..., Tensor] | None = None) -> Cost:
    """``-d``, ``exp(-d^2 / 2 blur^2)``, ``exp(-d / blur)``, or the caller's ``kernel(x, y, blur=blur)``."""
    if own is not None:

        def given(x: Tensor, y: Tensor) -> Tensor:
            matrix = own(x[None], y[None], blur=blur)
            if matrix.shape != (1, len(x), len(y)):
                raise LossValueError(
                    f"kernel=: the function gave {tuple(matrix.shape)} for clouds {(1, *x.shape)} and "
                    f"{(1, *y.shape)}; it must give {(1, len(x), len(y))}"
                )
            return matrix[0]

        return given
    if name == "energy":
        return lambda x, y: -distances(x, y)
    if name == "gaussian":
        return lambda x, y: torch.exp(distances(x, y).square() / (-2 * blur**2))
    return lambda x, y: torch.exp(distances(x, y) / -blur)


def kernel_norm(a: Tensor, x: Tensor, b: Tensor, y: Tensor, kernel: Cost) -> Tensor:
    """``1/2 |alpha - beta|^2`` in the kernel's norm: 0-dim. The kernel must be symmetric."""
    own = _half_square(a, x, kernel) + _half_square(b, y, kernel)
    return own - (a * smoothed(kernel, x, y, b)).sum()


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
