"""Which code computes: this package's in PyTorch, or the GeomLoss package where it is installed and correct.

Errors of GeomLoss 0.3.1 that ``engine="auto"`` does not meet, because it never takes its tensorized backend: squared
distances by a matrix product (in float32, a Gaussian of clouds that span thousands of blurs is off by orders of
magnitude), no distance below 1e-4 in p = 1, energy and laplacian, NaN without pykeops.

Errors that no call from here reaches: unbalanced values of ``multiscale`` and unbalanced gradients (its potentials are
summed here instead), cancellation far from the origin (clouds are centred first), half precision (computed in float32),
a batch's diameter for each of its pairs (pairs are computed one by one, their diameter given), grad mode left on or off
(always restored).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from apml_plugin.errors import ApmlError, BackendError

ENGINES = ("auto", "torch", "geomloss")
BACKENDS = ("auto", "tensorized", "online", "multiscale")
INSTALL = "pip install geomloss pykeops"

TENSORIZED_UP_TO = 5000**2
"""Pairs of points up to which ``auto`` holds the cost matrices, as in GeomLoss."""
MULTISCALE_FROM = 10_000**2

_log = logging.getLogger(__name__)


def geomloss_missing() -> str | None:
    """Why GeomLoss cannot be called at all, or None."""
    return None if _present("geomloss") else f"GeomLoss is not installed: {INSTALL}"


@functools.cache
def keops_missing() -> str | None:
    """Why GeomLoss' online and multiscale backends cannot run, or None. Never imports pykeops."""
    if not _present("geomloss"):
        return geomloss_missing()
    if not _present("pykeops"):
        return f"pykeops is not installed: {INSTALL}"
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "g++", "clang++", "nvcc")):
        return "pykeops compiles its formulas and finds no C++ compiler: install g++ or set CXX"
    return None


def _present(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    return find_spec(package) is not None


def choose(
    engine: str,
    backend: str,
    kind: str,
    n: int,
    m: int,
    dimension: int,
    *,
    p: int = 2,
    given: Any = None,
    tolerance: float | None = None,
) -> tuple[str, str]:
    """The engine and the backend for one pair. One that the caller names is never replaced.

    Args:
        kind: ``"sinkhorn"``, ``"energy"``, ``"gaussian"`` or ``"laplacian"``.
        given: the caller's cost or kernel: a function, or a KeOps formula.
        tolerance: of Sinkhorn; GeomLoss has none.

    Raises:
        BackendError: it cannot be computed that way; the message says why and what to do.
    """
    formula = isinstance(given, str)
    if backend == "auto":
        large = kind == "sinkhorn" and p == 2 and dimension <= 3 and n * m > MULTISCALE_FROM
        plain = given is None and tolerance is None and engine != "torch"
        if large and plain and keops_missing() is None:
            backend = "multiscale"
        else:
            backend = "tensorized" if n * m <= TENSORIZED_UP_TO and not formula else "online"
    if engine == "auto":
        engine = _best(backend, given, tolerance)
    if engine == "torch":
        if backend == "multiscale":
            raise BackendError(
                "backend='multiscale' is in GeomLoss only: engine='torch' has 'tensorized' and 'online'"
                + (f"; for engine='geomloss': {keops_missing()}" if keops_missing() else "")
            )
        if formula:
            raise BackendError(f"cost={given!r} is a KeOps formula, for engine='geomloss' only; give a function")
        return engine, backend
    missing = geomloss_missing() if backend == "tensorized" else keops_missing()
    if missing:
        raise BackendError(f"engine='geomloss', backend={backend!r}: {missing} (engine='torch' needs no package)")
    if tolerance is not None:
        raise BackendError("tolerance= is for engine='torch': GeomLoss iterates along its schedule alone")
    if formula and backend == "tensorized":
        raise BackendError(f"cost={given!r} is a KeOps formula, for backend='online' or 'multiscale'")
    if given is not None and not formula and backend != "tensorized":
        raise BackendError(f"GeomLoss' backend={backend!r} takes a KeOps formula, not a function; use engine='torch'")
    if formula and backend == "multiscale":
        raise BackendError("GeomLoss' multiscale backend cannot read a formula alone; use backend='online'")
    return engine, backend


def _best(backend: str, given: Any, tolerance: float | None) -> str:
    """GeomLoss where KeOps computes for it, else PyTorch, which is right for all of tensorized and no slower."""
    if backend == "multiscale" or isinstance(given, str):
        return "geomloss"
    online = backend == "online" and given is None and tolerance is None
    return "geomloss" if online and keops_missing() is None else "torch"


def call(kind: str, a: Tensor, x: Tensor, b: Tensor, y: Tensor, backend: str, **parameters: Any) -> Any:
    """``SamplesLoss(kind, ...)`` of one pair of (n, D) and (m, D): 0-dim, or two potentials (n,) and (m,).

    Raises:
        BackendError: GeomLoss or KeOps failed; the message holds theirs.
    """
    _log.debug("GeomLoss computes %s with backend=%s", kind, backend)
    with _grad_mode_restored():
        try:
            loss = _package().SamplesLoss(kind, backend=backend, **parameters)
            if not callable(parameters.get("cost")) and not callable(parameters.get("kernel")):
                centre = (x.detach().mean(dim=0) + y.detach().mean(dim=0)) / 2
                x, y = x - centre, y - centre
            if not torch.is_grad_enabled():
                a, x, b, y = a.detach(), x.detach(), b.detach(), y.detach()
            result = loss(a.contiguous(), x.contiguous(), b.contiguous(), y.contiguous())
        except ApmlError:
            raise
        except Exception as error:
            raise BackendError(
                f"GeomLoss failed on {kind}, backend={backend!r}, {tuple(x.shape)} and {tuple(y.shape)} "
                f"{x.dtype}: {type(error).__name__}: {error}; engine='torch' computes it without GeomLoss"
            ) from error
    if parameters.get("potentials"):
        return result[0].reshape(len(x)), result[1].reshape(len(y))
    return result.reshape(())


def _package() -> Any:
    missing = geomloss_missing()
    if missing:
        raise BackendError(missing)
    return importlib.import_module("geomloss")


@contextlib.contextmanager
def _grad_mode_restored() -> Iterator[None]:
    before = torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_grad_enabled(before)
