"""The clouds that are timed, and medians of forward and backward seconds, with the contestants taking turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

CLOUDS = ("sphere", "blob", "cube")
NOISE = 0.02
"""Of a prediction on the sphere: the error of a trained network."""
SIGMA = 0.05
"""Of the blob: the prediction of an untrained network."""


def clouds(kind: str, batch: int, points: int, dtype: torch.dtype, device: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """pred and gt, (batch, points, 3) each; the same points on every device and in every dtype.

    sphere: gt on the unit sphere, pred the same points with normal noise. blob: pred around the origin, gt on the
    sphere. cube: both uniform in the unit cube.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(batch, points, 3, generator=generator, dtype=torch.float64)

    if kind == "cube":
        pred, gt = (torch.rand(batch, points, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    else:
        gt = normalize(draw(), dim=-1)
        pred = SIGMA * draw() if kind == "blob" else gt + NOISE * draw()
    return pred.to(device, dtype), gt.to(device, dtype)


@dataclass(frozen=True)
class Times:
    """Seconds of one forward and one backward; ``both`` is their sum."""

    forward: float
    backward: float

    @property
    def both(self) -> float:
        return self.forward + self.backward


@dataclass
class Outcome:
    """The times of one contestant, one for each round, or the problem that excluded it."""

    times: list[Times] = field(default_factory=list)
    problem: str | None = None

    def median(self, which: str = "both") -> float:
        """Median seconds of ``forward``, ``backward`` or ``both``."""
        return statistics.median(getattr(times, which) for times in self.times)


def timed(call: Callable[[Tensor, Tensor], Any], pred: Tensor, gt: Tensor, gradient: bool = True) -> Times:
    """One forward and, with ``gradient``, one backward. Only pred requires a gradient, as in training."""
    x = pred.clone().requires_grad_(gradient)
    mark = _cuda_mark if pred.is_cuda else time.perf_counter
    if pred.is_cuda:
        torch.cuda.synchronize()
    marks: list[Any] = [mark()]
    loss = call(x, gt)
    marks.append(mark())
    if gradient:
        (loss.sum() if loss.dim() else loss).backward()
    marks.append(mark())
    if pred.is_cuda:
        torch.cuda.synchronize()
        forward, backward = (a.elapsed_time(b) / 1e3 for a, b in pairwise(marks))
    else:
        forward, backward = (b - a for a, b in pairwise(marks))
    return Times(forward, backward if gradient else 0.0)


def _cuda_mark() -> torch.cuda.Event:
    """An event on the stream: forward and backward are not separated by a wait, as in training."""
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def interleaved(
    runs: Mapping[str, Callable[[], Times]], repeats: int, max_seconds: float = float("inf")
) -> dict[str, Outcome]:
    """Each run ``repeats`` times after a warm-up, in turns (A, B, A, B, ...), so that drift affects all equally.

    A run that raises is excluded with its error, and so is a run whose warm-up shows that it would take longer than
    ``max_seconds`` in all.
    """
    outcomes = {name: Outcome() for name in runs}
    for name, run in runs.items():
        warm = _attempt(run, outcomes[name])
        expected = (repeats + 1) * warm.both if warm else 0.0
        if expected > max_seconds:
            outcomes[name].problem = too_long(expected, max_seconds)
    for _ in range(repeats):
        for name, run in runs.items():
            if outcomes[name].problem is None and (times := _attempt(run, outcomes[name])) is not None:
                outcomes[name].times.append(times)
    return outcomes


def too_long(expected: float, max_seconds: float) -> str:
    return f"left out: would take about {expected:.0f} s, more than --max-seconds {max_seconds:g}"


def problem_of(error: BaseException) -> str:
    """One line for an error of a contestant."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error):
        return "failed: out of memory"
    first = str(error).strip().splitlines()[:1]
    return f"failed: {type(error).__name__}{': ' + first[0] if first else ''}"


def _attempt(run: Callable[[], Times], outcome: Outcome) -> Times | None:
    try:
        return run()
    except Exception as error:  # after any error the others are still timed
        outcome.problem = problem_of(error)
        outcome.times.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
