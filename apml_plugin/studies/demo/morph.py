"""``apml demo morph``: the points of one shape moved onto another by the gradient of each loss.

The setting of arXiv 2603.09925 as far as it can be read: directed pairs of shapes, the points themselves are optimised,
nothing is learnt. What is left at the end is the loss's own doing: points that it piles up, and places that it misses.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from apml_plugin import drawing
from apml_plugin.errors import LossValueError
from apml_plugin.files.clouds import read_clouds
from apml_plugin.metrics import METRICS, Pair, find
from apml_plugin.shapes import FAMILIES, make_shape
from apml_plugin.studies.demo.flow import covered, move

LOSSES = (
    "ChamferL1", "ChamferL2", "HyperCD", "InfoCD", "APML", "{NAME: APML, iterations: 200}", "FastEMD", "EMD",
)  # fmt: skip
PAIRS = 20
POINTS = 2048
STEPS = 400
LEARNING_RATE = 0.005
COLUMNS = (METRICS["CDL1"], METRICS["EMD"].in_reports_with(points=POINTS), find("F@1%"))


@dataclass(frozen=True)
class Result:
    """What one loss made of one pair.

    Attributes:
        values: heading of each metric of COLUMNS -> its value in reports.
        covered: share of the target's points that are nearest to some moved point.
        seconds: for all steps.
    """

    pair: str
    loss: str
    points: Tensor  # (N, 3)
    values: dict[str, float]
    covered: float
    seconds: float


def generated(points: int, seed: int = 0) -> dict[str, Tensor]:
    """Name -> (points, 3): one generated shape of each family. Five families make 20 directed pairs."""
    return {family: torch.from_numpy(make_shape(family, seed, points)) for family in FAMILIES}


def from_file(path: Path, points: int, count: int = 5) -> dict[str, Tensor]:
    """Name -> (points, 3): the first clouds of an array (S, N, 3), each scaled to a bounding box of diagonal 1.

    Raises LossValueError where the file holds fewer clouds or points, and what `read_clouds` raises.
    """
    found = read_clouds(path)
    if len(found) < count or len(found[0]) < points:
        raise LossValueError(
            f"{path} must hold at least {count} clouds of {points} points, (S, N, 3); "
            f"got {len(found)} of {len(found[0])}"
        )
    clouds = torch.stack([torch.from_numpy(cloud[:points]).float() for cloud in found[:count]])
    low, high = clouds.amin(1, keepdim=True), clouds.amax(1, keepdim=True)
    clouds = (clouds - (low + high) / 2) / (high - low).norm(dim=-1, keepdim=True)
    return {f"shape {i}": cloud for i, cloud in enumerate(clouds)}


def run(
    shapes: dict[str, Tensor],
    losses: Sequence[str] = LOSSES,
    pairs: int = PAIRS,
    steps: int = STEPS,
    tick: Callable[[str], None] | None = None,
) -> list[Result]:
    """Moves each of the first ``pairs`` directed pairs of shapes with each loss. The same call gives the same points.

    shapes: name -> (N, 3), all of one size. tick: called with a line of text after each run.
    """
    results = []
    for start, target in itertools.islice(itertools.permutations(shapes, 2), pairs):
        for loss in losses:
            torch.manual_seed(0)
            begin = time.perf_counter()
            points = move(shapes[start], shapes[target], loss, steps, learning_rate=LEARNING_RATE)
            seconds = time.perf_counter() - begin
            pair = Pair(points, shapes[target])
            values = {metric.heading: metric.of_pair(pair) for metric in COLUMNS}
            share = covered(points, shapes[target])
            results.append(Result(f"{start} to {target}", loss, points, values, share, seconds))
            if tick is not None:
                tick(f"{start} to {target}, {loss}")
    return results


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """For each loss: its name, mean and sample standard deviation of each metric and of the coverage, mean seconds."""
    table = []
    for loss in dict.fromkeys(r.loss for r in results):
        mine = [r for r in results if r.loss == loss]
        columns = [[r.values[metric.heading] for r in mine] for metric in COLUMNS]
        columns += [[100 * r.covered for r in mine]]
        table.append((loss, *map(_spread, columns), f"{statistics.fmean(r.seconds for r in mine):.2g}"))
    return table


def _spread(values: Sequence[float]) -> str:
    deviation = f" ±{statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3g}{deviation}"


def wins(results: Sequence[Result], loss: str, heading: str = "CD-L1") -> dict[str, int]:
    """Other loss -> the number of pairs on which ``loss`` ends with the smaller value."""
    by_key = {(r.pair, r.loss): r.values[heading] for r in results}
    others = dict.fromkeys(r.loss for r in results if r.loss != loss)
    return {o: sum(by_key[p, loss] < by_key[p, o] for p in dict.fromkeys(r.pair for r in results)) for o in others}


def draw(results: Sequence[Result], shapes: dict[str, Tensor], path: Path, count: int = 4) -> Path:
    """A row for each of ``count`` pairs spread over all: the start, what each loss made of it, and the target."""
    pairs = list(dict.fromkeys(r.pair for r in results))
    pairs = pairs[:: max(1, len(pairs) // count)][:count]
    losses = list(dict.fromkeys(r.loss for r in results))
    figure, axes, bar = drawing.grid(
        len(pairs), ["start", *losses, "target"], "one shape moved onto another by each loss"
    )
    bar.set_axis_off()
    for row, pair in zip(axes, pairs, strict=True):
        start, target = (shapes[name] for name in pair.split(" to "))
        frame = drawing.frame_of(target.numpy())
        moved = [next(r.points for r in results if (r.pair, r.loss) == (pair, loss)) for loss in losses]
        for axis, cloud in zip(row, [start, *moved, target], strict=True):
            drawing.scatter(axis, cloud.numpy(), frame, size=4.0)
    return drawing.save(figure, path)
