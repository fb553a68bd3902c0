"""Predictions into figures: the demo's table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from apml_plugin import metrics

from .runs import bars

LIMIT = 2048
"""Points EMD is measured on at most: it is exact, and slow on large clouds."""

COLUMNS: dict[str, tuple[Callable[..., torch.Tensor], float, bool]] = {
    "CD-L1": (metrics.cd_l1, 1000, False),
    "CD-L2": (metrics.cd_l2, 1000, False),
    "EMD": (metrics.emd, 1000, False),
    "F-score@1%": (metrics.f_score, 1, True),
    "uniformity": (metrics.uniformity, 1, False),
}
"""Heading: (metric, factor, higher is better). Lengths are x 1000, as PoinTr prints them."""


@dataclass(frozen=True)
class Clouds:
    """One network's results on S held-out shapes: (S, n, 3), (S, M, 3) and (S, N, 3) float32, and S names."""

    partial: NDArray[np.float32]
    gt: NDArray[np.float32]
    pred: NDArray[np.float32]
    names: list[str]

    @classmethod
    def load(cls, path: Path) -> Clouds:
        with np.load(path) as saved:
            return cls(saved["partial"], saved["gt"], saved["pred"], [str(name) for name in saved["names"]])


@dataclass(frozen=True)
class Score:
    """A row of the table: means over the held-out shapes, and the seconds its training took."""

    name: str
    values: dict[str, float]
    seconds: float


def score(name: str, clouds: Clouds, seconds: float, console: Console) -> Score:
    """Measures one network's predictions, shape by shape, with a progress bar."""
    sums = dict.fromkeys(COLUMNS, 0.0)
    with bars(console) as progress:
        task = progress.add_task(f"measuring: {name}", total=len(clouds.pred), note="")
        for pred, gt in zip(clouds.pred, clouds.gt, strict=True):
            for heading, (metric, factor, _) in COLUMNS.items():
                pair = (_some(pred), _some(gt)) if metric is metrics.emd else (pred, gt)
                sums[heading] += factor * float(metric(*map(torch.from_numpy, pair)))
            progress.advance(task)
    return Score(name, {heading: total / len(clouds.pred) for heading, total in sums.items()}, seconds)


def emd_of(clouds: Clouds, k: int) -> float:
    """EMD x 1000 of one shape."""
    return 1000 * float(metrics.emd(torch.from_numpy(_some(clouds.pred[k])), torch.from_numpy(_some(clouds.gt[k]))))


def _some(cloud: NDArray[np.float32]) -> NDArray[np.float32]:
    if len(cloud) <= LIMIT:
        return cloud
    return cloud[np.random.default_rng(0).choice(len(cloud), LIMIT, replace=False)]


def table(scores: list[Score], title: str) -> Table:
    """Rich table with the best value of each column in bold; ``F-score`` is the one where higher is better."""
    result = Table(title=title, title_justify="left", caption_justify="left")
    result.caption = "CD and EMD x 1000; higher is better for F-score, lower elsewhere; best in bold"
    result.add_column("")
    for heading in (*COLUMNS, "seconds"):
        result.add_column(heading, justify="right")
    best = {}
    for heading, (_, _, high) in COLUMNS.items():
        best[heading] = (max if high else min)(entry.values[heading] for entry in scores)
    for entry in scores:
        cells = []
        for heading, value in entry.values.items():
            shown = f"{value:.3f}"
            cells.append(f"[bold green]{shown}[/]" if value == best[heading] else shown)
        result.add_row(entry.name, *cells, f"{entry.seconds:.0f}")
    return result
