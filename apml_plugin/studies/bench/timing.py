"""Seconds of forward and backward, medians, with the contestants taking turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor


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
    """The times of one contestant, one for each round, or the problem that kept it out."""

    times: list[Times] = field(default_factory=list)
    problem: str | None = None

    def median(self, which: str = "both") -> float:
        """Median seconds of ``forward``, ``backward`` or ``both``."""
        return statistics.median(getattr(times, which) for times in self.times)


def timed(call: Callable[[Tensor, Tensor], Any], pred: Tensor, gt: Tensor, gradient: bool = True) -> Times:
    """One forward and, with ``gradient``, one backward. pred asks for a gradient and gt does not, as in training."""
    x = pred.clone().requires_grad_(gradient)
    watch: _Watch = _CudaWatch() if pred.is_cuda else _CpuWatch()
    watch.mark()
    loss = call(x, gt)
    watch.mark()
    if gradient:
        (loss.sum() if loss.dim() else loss).backward()
    watch.mark()
    forward, backward = watch.seconds()
    return Times(forward, backward if gradient else 0.0)


def interleaved(
    runs: Mapping[str, Callable[[], Times]], repeats: int, max_seconds: float = float("inf")
) -> dict[str, Outcome]:
    """Each run ``repeats`` times after a warm-up, in turns (A, B, A, B, ...), so that drift hits all alike.

    A run that raises drops out with its error; so does one whose warm-up shows that it would take longer than
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
            if outcomes[name].problem is None:
                times = _attempt(run, outcomes[name])
                if times is not None:
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
    except Exception as error:  # whatever a contestant raises, the others are still to be timed
        outcome.problem = problem_of(error)
        outcome.times.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


class _Watch(Protocol):
    def mark(self) -> None: ...

    def seconds(self) -> tuple[float, float]:
        """Between the first and second mark, and between the second and third."""


class _CpuWatch:
    def __init__(self) -> None:
        self._marks: list[float] = []

    def mark(self) -> None:
        self._marks.append(time.perf_counter())

    def seconds(self) -> tuple[float, float]:
        start, middle, end = self._marks
        return middle - start, end - middle


class _CudaWatch:
    """Events on the stream: no waiting between forward and backward, as in training."""

    def __init__(self) -> None:
        self._marks: list[torch.cuda.Event] = []
        torch.cuda.synchronize()

    def mark(self) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append(event)

    def seconds(self) -> tuple[float, float]:
        torch.cuda.synchronize()
        start, middle, end = self._marks
        return start.elapsed_time(middle) / 1e3, middle.elapsed_time(end) / 1e3
