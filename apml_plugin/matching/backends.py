"""The backends as records: what each can do, why not where it cannot, and which one a call gets.

To add a backend, write a record and put it into ``ALL``. A backend that the caller names is never replaced by another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from apml_plugin.arguments import one_of
from apml_plugin.errors import BackendError
from apml_plugin.matching import dense, extension, native, sparse
from apml_plugin.matching.gradients import Solution, with_gradients
from apml_plugin.matching.inputs import Clouds
from apml_plugin.matching.settings import Settings

log = logging.getLogger("apml_plugin.matching")

DENSE_BELOW = {"cpu": 512 * 512, "cuda": 2048 * 2048}
"""Up to this many pairs of points the whole matrix is cheaper than a neighbour search."""

TREE_DIMENSIONS = 8
"""With more coordinates a neighbour search visits nearly all points and costs more than the whole matrix."""

TWICE = "use backend='dense' with differentiate_plan=True, which has all derivatives"

EXACT_FROM = 1e-20
"""At this threshold and below the sparse values are the dense ones to float32."""


@dataclass(frozen=True)
class Backend:
    """A way to compute a matching. All take any floating dtype; half precision is computed in float32."""

    name: str
    missing: Callable[[str, int], str | None]
    """Why it cannot take clouds on a type of device with so many coordinates, or None."""
    differentiates_plan: bool
    """Whether ``differentiate_plan=True`` is possible."""
    keeps_every_entry: bool
    """Whether it ignores ``threshold``."""
    losses: Callable[[Clouds, Settings, torch.dtype, bool], Tensor]
    """Losses (B,) with gradients, from clouds, settings, dtype and ``differentiate_plan``."""
    plans: Callable[[Clouds, Settings, torch.dtype], tuple[Tensor, list[float]]]
    """Plans as one sparse COO tensor (B, N, M), and for each the bound on the mass of its dropped entries."""

    def problem(self, cloud: Tensor, differentiate_plan: bool = False) -> str | None:
        """Why it cannot compute a call with clouds like this one (B, N, D), or None."""
        if differentiate_plan and not self.differentiates_plan:
            return "it holds the plan constant and cannot differentiate it"
        return self.missing(cloud.device.type, cloud.shape[2])


class Choice(NamedTuple):
    """The backend of a call and the reason it was chosen."""

    backend: Backend
    reason: str

    @property
    def name(self) -> str:
        return self.backend.name


def choose(requested: str, pred: Tensor, gt: Tensor, differentiate_plan: bool = False, exact: bool = True) -> Choice:
    """The backend for clouds (B, N, D) and (B, M, D).

    ``exact``: the threshold is so small that all backends give the same values. Otherwise ``"auto"`` leaves out
    the backend that keeps every entry.

    Raises:
        LossValueError: an unknown name.
        BackendError: the backend named cannot compute this call; the message says why and names those that can.
    """
    one_of("backend", requested, names())
    if requested != "auto":
        backend = ALL[requested]
        if problem := backend.problem(pred, differentiate_plan):
            able = ["auto", *(b.name for b in ALL.values() if b.problem(pred, differentiate_plan) is None)]
            raise BackendError(
                f"backend={requested!r} cannot be used: {problem}; use backend={' or '.join(map(repr, able))}"
            )
        return Choice(backend, "named by the caller")
    choice = _automatic(pred, gt, differentiate_plan, exact)
    log.debug("APML on %s and %s: %s (%s)", tuple(pred.shape), tuple(gt.shape), choice.name, choice.reason)
    return choice


def _automatic(pred: Tensor, gt: Tensor, differentiate_plan: bool, exact: bool) -> Choice:
    n, m, d = pred.shape[1], gt.shape[1], pred.shape[2]
    problem = NATIVE.problem(pred, differentiate_plan)
    if problem is None:
        return Choice(NATIVE, f"there are compiled ops for {d} coordinates on {pred.device.type}")
    if differentiate_plan:
        return Choice(DENSE, f"differentiate_plan=True needs it or the compiled ops, and {problem}")
    if d > TREE_DIMENSIONS:
        return Choice(DENSE, f"{d} coordinates: a neighbour search gains nothing above {TREE_DIMENSIONS}")
    below = DENSE_BELOW.get(pred.device.type, DENSE_BELOW["cpu"])
    if n * m <= below and exact:
        return Choice(DENSE, f"{n} x {m} points: the whole matrix is cheaper than a search up to {below}; {problem}")
    return Choice(SPARSE, f"{n} x {m} points: a neighbour search is cheaper than the whole matrix; {problem}")


def _native_losses(clouds: Clouds, settings: Settings, dtype: torch.dtype, differentiate_plan: bool) -> Tensor:
    def solve(clouds: Clouds, gradients: bool) -> Solution:
        return native.solve(clouds, settings, dtype, gradients, differentiate_plan)

    return with_gradients(clouds, solve, TWICE)


def _sparse_losses(clouds: Clouds, settings: Settings, dtype: torch.dtype, differentiate_plan: bool) -> Tensor:
    def solve(clouds: Clouds, gradients: bool) -> Solution:
        def pair(x: Tensor, y: Tensor) -> Solution:
            return sparse.solve(*_searchable(x, y, dtype), settings, gradients)

        return _pair_by_pair(clouds, dtype, gradients, pair)

    return with_gradients(clouds, solve, TWICE)


def _dense_losses(clouds: Clouds, settings: Settings, dtype: torch.dtype, differentiate_plan: bool) -> Tensor:
    whole = not clouds.ragged and clouds.pred.shape[1] > 0 and clouds.gt.shape[1] > 0
    if differentiate_plan:
        # In float32 the gradient through the temperatures would be off by 0.3 %. (MPS has no float64.)
        wide = dtype if clouds.pred.device.type == "mps" else torch.float64
        clouds = clouds._replace(pred=clouds.pred.to(wide), gt=clouds.gt.to(wide))
        return _differentiable(clouds, settings, whole).to(dtype)

    def solve(clouds: Clouds, gradients: bool) -> Solution:
        def pair(x: Tensor, y: Tensor) -> Solution:
            losses, x_grad, y_grad = dense.solve(x[None].to(dtype), y[None].to(dtype), settings, gradients)
            return losses[0], None if x_grad is None else x_grad[0], None if y_grad is None else y_grad[0]

        if whole:
            losses, pred_grad, gt_grad = dense.solve(clouds.pred.to(dtype), clouds.gt.to(dtype), settings, gradients)
            return losses.to(dtype), pred_grad, gt_grad
        return _pair_by_pair(clouds, dtype, gradients, pair)

    return with_gradients(clouds, solve, TWICE)


def _differentiable(clouds: Clouds, settings: Settings, whole: bool) -> Tensor:
    if whole:
        return dense.differentiable_loss(clouds.pred, clouds.gt, settings)
    # An empty pair belongs to the graph too, with gradient 0.
    anchor = clouds.pred.new_zeros(()) + clouds.pred.flatten()[:0].sum() + clouds.gt.flatten()[:0].sum()
    losses = []
    for b in range(clouds.pred.shape[0]):
        x, y = clouds.pair(b)
        empty = len(x) == 0 or len(y) == 0
        losses.append(anchor if empty else dense.differentiable_loss(x[None], y[None], settings)[0])
    return torch.stack(losses) if losses else anchor.expand(0)


def _pair_by_pair(
    clouds: Clouds, dtype: torch.dtype, gradients: bool, solve: Callable[[Tensor, Tensor], Solution]
) -> Solution:
    losses = torch.zeros(clouds.pred.shape[0], dtype=dtype, device=clouds.pred.device)
    pred_grad = torch.zeros_like(clouds.pred, dtype=dtype) if gradients else None
    gt_grad = torch.zeros_like(clouds.gt, dtype=dtype) if gradients else None
    for b in range(clouds.pred.shape[0]):
        x, y = clouds.pair(b)
        if len(x) == 0 or len(y) == 0:
            continue
        losses[b], x_grad, y_grad = solve(x.detach(), y.detach())
        if pred_grad is not None and gt_grad is not None and x_grad is not None and y_grad is not None:
            pred_grad[b, : len(x)] = x_grad
            gt_grad[b, : len(y)] = y_grad
    return losses, pred_grad, gt_grad


def _searchable(x: Tensor, y: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The search runs on CPU and CUDA; clouds on any other device are searched on the CPU."""
    if x.device.type not in ("cpu", "cuda"):
        x, y = x.cpu(), y.cpu()
    return x.detach().to(dtype), y.detach().to(dtype)


Entries = tuple[Tensor, Tensor, Tensor, float]  # rows, columns, values, bound on the dropped mass
Plans = Callable[[Clouds, Settings, torch.dtype], tuple[Tensor, list[float]]]


def _plans(
    entries: Callable[[Tensor, Tensor, Settings, torch.dtype], Entries],
) -> Plans:
    """Plans of a batch from a function that gives the entries of one."""

    def plans(clouds: Clouds, settings: Settings, dtype: torch.dtype) -> tuple[Tensor, list[float]]:
        shape = (clouds.pred.shape[0], clouds.pred.shape[1], clouds.gt.shape[1])
        device = clouds.pred.device
        indices = [torch.empty(3, 0, dtype=torch.int64, device=device)]
        values = [torch.empty(0, dtype=dtype, device=device)]
        dropped = [0.0] * shape[0]
        for b in range(shape[0]):
            x, y = clouds.pair(b)
            if len(x) == 0 or len(y) == 0:
                continue
            rows, columns, kept, dropped[b] = entries(x, y, settings, dtype)
            indices.append(torch.stack((torch.full_like(rows, b), rows, columns)).to(device))
            values.append(kept.to(device, dtype))
        plan = torch.sparse_coo_tensor(torch.cat(indices, dim=1), torch.cat(values), shape, check_invariants=False)
        return plan.coalesce(), dropped

    return plans


def _sparse_entries(x: Tensor, y: Tensor, settings: Settings, dtype: torch.dtype) -> Entries:
    rows, columns, values, plan = sparse.plan_entries(*_searchable(x, y, dtype), settings)
    return rows, columns, values, plan.dropped


def _dense_entries(x: Tensor, y: Tensor, settings: Settings, dtype: torch.dtype) -> Entries:
    *_, p = dense.plan_of(x.to(dtype), y.to(dtype), settings)
    rows, columns = p.nonzero(as_tuple=True)
    return rows, columns, p[rows, columns], 0.0


def _anywhere(device: str, dimensions: int) -> str | None:
    return None


NATIVE = Backend("native", extension.problem, True, False, _native_losses, native.plans)
SPARSE = Backend("sparse", _anywhere, False, False, _sparse_losses, _plans(_sparse_entries))
DENSE = Backend("dense", _anywhere, True, True, _dense_losses, _plans(_dense_entries))
ALL = {backend.name: backend for backend in (NATIVE, SPARSE, DENSE)}


def names() -> tuple[str, ...]:
    """What ``backend=`` may be."""
    return ("auto", *ALL)
