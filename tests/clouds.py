"""Clouds that tests share, and the loss written a second time, as slowly as possible."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from apml_plugin.matching import extension

BACKENDS = ("dense", "sparse", *(["native"] if extension.missing("cpu") is None else []))
"""What this installation can compute with; tests/native/test_ops.py sees to it that the compiled ops are there."""


def helix(n: int, phase: float, scale: float = 1.0) -> Tensor:
    """(1, n, 3) float64: the curve of the golden values."""
    i = torch.arange(n, dtype=torch.float64)
    return (scale * torch.stack((torch.cos(0.7 * i + phase), torch.sin(0.7 * i + phase), i / n), dim=-1))[None]


def sphere(n: int, batch: int = 1, seed: int = 0) -> Tensor:
    """(batch, n, 3) float64 on the unit sphere."""
    x = torch.randn(batch, n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x / x.norm(dim=-1, keepdim=True)


def lattice(side: int, step: float = 1.0) -> Tensor:
    """(1, side^3, 3) float64: every point has several nearest neighbours at exactly the same distance."""
    axis = torch.arange(side, dtype=torch.float64) * step
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(1, -1, 3)


def naive_apml(
    x: Tensor, y: Tensor, p_min: float = 0.8, iterations: int = 20, eps: float = 1e-8, ties: str = "share"
) -> tuple[float, Tensor, Tensor, Tensor]:
    """The definition in plain Python loops: loss, both gradients and the plan of (N, D) and (M, D) in float64.

    Written from the formulas alone and without the package's code, so that a mistake there cannot hide here.
    """
    n, m = len(x), len(y)

    def distance(a: list[float], b: list[float]) -> float:  # not math.dist: its scaling rounds ties apart
        squared = 0.0
        for u, v in zip(a, b, strict=True):
            squared += (u - v) * (u - v)
        return math.sqrt(squared)

    d = [[distance(a, b) for b in y.tolist()] for a in x.tolist()]

    def softmin(costs: list[float]) -> list[float]:
        k = len(costs)
        if k == 1:
            return [1.0]
        first, second = sorted(costs)[:2]
        if ties == "uniform" and first == second:
            return [1 / k] * k
        t = -math.log((1 - p_min) / (k - 1)) / (second - first + 1e-8)
        s = [math.exp(-(c - first) * t) for c in costs]
        return [v / sum(s) for v in s]

    rows = [softmin(d[i]) for i in range(n)]
    columns = [softmin([d[i][j] for i in range(n)]) for j in range(m)]
    p = [[(rows[i][j] + columns[j][i]) / 2 for j in range(m)] for i in range(n)]
    for _ in range(iterations):
        for i in range(n):
            total = sum(p[i]) + eps
            p[i] = [v / total for v in p[i]]
        totals = [sum(p[i][j] for i in range(n)) + eps for j in range(m)]
        p = [[p[i][j] / totals[j] for j in range(m)] for i in range(n)]
    loss = sum(p[i][j] * d[i][j] for i in range(n) for j in range(m))
    plan = torch.tensor(p, dtype=torch.float64)
    cost = torch.tensor(d, dtype=torch.float64)
    pull = torch.where(cost > 0, plan / cost.clamp_min(1e-300), 0.0)
    force = pull[..., None] * (x[:, None] - y[None])
    return loss, force.sum(dim=1), -force.sum(dim=0), plan
