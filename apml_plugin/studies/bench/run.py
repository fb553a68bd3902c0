"""Times contestants at several sizes. Cases that would take too long are left out, with the reason."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from apml_plugin.errors import LossValueError
from apml_plugin.matching import backends
from apml_plugin.studies.machine import machine, threads

from . import memory
from .contestants import DEFAULT_LOSSES, PEERS, Contestant, auto_backend, check_runs, our
from .memory import ChildCase, Memory
from .timing import CLOUDS, Outcome, clouds, interleaved, timed, too_long

DTYPES = ("float32", "float64")
DEVICES = ("cpu", "cuda")
PROBE_POINTS = 1024
"""Predictions start from this size: the time of a smaller one is mostly overhead, which does not grow."""

MIN_REPEATS = 5

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to measure; names and values as on the command line.

    Raises:
        LossValueError: a value out of range, with the option's name.
    """

    sizes: tuple[int, ...] = (1024, 4096, 16384)
    batch: int = 1
    device: str = "cpu"
    threads: int | None = None
    repeats: int = MIN_REPEATS
    dtype: str = "float32"
    cloud: str = "sphere"
    max_seconds: float = 60.0
    memory: bool = True

    def __post_init__(self) -> None:
        _one_of("--device", self.device, DEVICES)
        _one_of("--dtype", self.dtype, DTYPES)
        _one_of("--cloud", self.cloud, CLOUDS)
        if not self.sizes or min(self.sizes) < 1:
            raise LossValueError(f"--sizes {','.join(map(str, self.sizes))}: every size must be 1 or more")
        for option, value in (("--batch", self.batch), ("--threads", self.threads)):
            if value is not None and value < 1:
                raise LossValueError(f"{option} {value} must be 1 or more")
        if self.repeats < MIN_REPEATS:
            raise LossValueError(
                f"--repeats {self.repeats} must be {MIN_REPEATS} or more: a median of fewer means little"
            )
        if not self.max_seconds > 0:
            raise LossValueError(f"--max-seconds {self.max_seconds:g} must be more than 0")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise LossValueError("--device cuda: PyTorch finds no usable CUDA device here; use --device cpu")


@dataclass(frozen=True)
class Case:
    """One contestant at one size: medians in seconds, peak memory in bytes above the inputs.

    ``problem`` says why there are no times; ``peak`` is None where it was not measured.
    """

    name: str
    ours: bool
    points: int
    forward: float | None = None
    backward: float | None = None
    both: float | None = None
    runs: int = 0
    peak: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Report:
    """All measurements, in plain values."""

    machine: dict[str, Any]
    options: dict[str, Any]
    cases: tuple[Case, ...]
    notes: dict[str, str]  # by the name of a peer
    absent: dict[str, str]  # peers that were not timed, and why
    backends: dict[int, str]  # chosen by backend='auto' at each size

    def ratios(self) -> list[dict[str, Any]]:
        """Ours / peer by size, seconds of forward and backward together; below 1 ours is faster."""
        done = [case for case in self.cases if case.both]
        return [
            {"points": a.points, "ours": a.name, "peer": b.name, "ratio": a.both / b.both}
            for a in done
            for b in done
            if a.both and b.both and a.ours and not b.ours and a.points == b.points
        ]

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratios": self.ratios()}


def parse_sizes(text: str) -> tuple[int, ...]:
    """``1024,4096`` to numbers, smallest first; raises LossValueError for anything else."""
    try:
        return tuple(sorted({int(word) for word in text.replace("_", "").split(",")}))
    except ValueError:
        raise LossValueError(f"--sizes {text!r} must be whole numbers with commas, such as 1024,4096,16384") from None


def line_up(losses: Sequence[str], named_backends: Sequence[str], options: Options) -> list[Contestant]:
    """Ours: the given losses (or the default ones), then APML with each given backend. Each is called once.

    Raises:
        ApmlError: an unknown loss, an argument it does not take, or a backend that cannot be used here.
    """
    for name in named_backends:
        _one_of("--backend", name, tuple(b for b in backends.names() if b != "auto"))
    names = [*(losses or DEFAULT_LOSSES), *(f"APML {name}" for name in named_backends)]
    ours = [our(name) for name in dict.fromkeys(names)]
    for one in ours:
        check_runs(one, options.device, getattr(torch, options.dtype))
    return ours


def run(
    ours: Sequence[Contestant], options: Options, say: Say = lambda line: None, others: Sequence[str] | None = None
) -> Report:
    """Times ours and all available peers, or those in ``others``. ``say`` gets a line before each step."""
    names = {one.name for one in ours}
    absent, field = {}, list(ours)
    for peer in PEERS:
        if peer.name in names or (others is not None and peer.name not in others):
            continue
        problem = peer.problem(options.device)
        if problem:
            absent[peer.name] = problem
        else:
            field.append(peer)
    with threads(options.threads) as count:
        options = replace(options, threads=count)
        facts = machine()
        seen: dict[str, tuple[int, float]] = {}
        cases = [case for n in options.sizes for case in _at(n, field, options, seen, say)]
    chosen = {n: auto_backend(n, options.device, getattr(torch, options.dtype)) for n in options.sizes}
    notes = {one.name: one.note for one in field if one.note}
    return Report(facts, asdict(options), tuple(cases), notes, absent, chosen)


def _at(
    points: int, field: Sequence[Contestant], options: Options, seen: dict[str, tuple[int, float]], say: Say
) -> list[Case]:
    """All contestants at one size. ``seen``: points and seconds of the last size of each, for predictions."""
    pred, gt = clouds(options.cloud, options.batch, points, getattr(torch, options.dtype), options.device)
    problems: dict[str, str] = {}
    peaks: dict[str, int | None] = {}
    for one in field:
        expected = (options.repeats + 1) * _predict(one, points, options, seen)
        if expected > options.max_seconds:
            problems[one.name] = too_long(expected, options.max_seconds)
            continue
        say(f"{points} points: memory of {one.name}" if options.memory else f"{points} points: {one.name}")
        spent = _memory(one, points, options)
        peaks[one.name] = spent.peak
        if spent.problem:
            problems[one.name] = spent.problem
    runs = {
        one.name: functools.partial(timed, one.call, pred, gt, one.gradient)
        for one in field
        if one.name not in problems
    }
    say(f"{points} points: {', '.join(runs) or 'nothing left to time'}")
    outcomes = interleaved(runs, options.repeats, options.max_seconds)
    cases = []
    for one in field:
        outcome = outcomes.get(one.name) or Outcome(problem=problems[one.name])
        cases.append(_case(one, points, outcome, peaks.get(one.name)))
        if outcome.times and points >= PROBE_POINTS:
            seen[one.name] = (points, outcome.median())
    return cases


def _case(one: Contestant, points: int, outcome: Outcome, peak: int | None) -> Case:
    if outcome.problem or not outcome.times:
        return Case(one.name, one.ours, points, peak=peak, problem=outcome.problem)
    backward = outcome.median("backward") if one.gradient else None
    return Case(
        one.name, one.ours, points, outcome.median("forward"), backward, outcome.median(), len(outcome.times), peak
    )


def _predict(one: Contestant, points: int, options: Options, seen: dict[str, tuple[int, float]]) -> float:
    """Predicted seconds of one call, from the last size or else from a small one; 0 if that fails."""
    if points <= PROBE_POINTS:
        return 0.0
    if one.name not in seen:
        pred, gt = clouds(options.cloud, options.batch, PROBE_POINTS, getattr(torch, options.dtype), options.device)
        try:
            timed(one.call, pred[:, :64], gt[:, :64], one.gradient)
            seen[one.name] = (PROBE_POINTS, timed(one.call, pred, gt, one.gradient).both)
        except Exception:  # the case itself will report the error
            return 0.0
    measured, seconds = seen[one.name]
    return float(seconds * (points / measured) ** one.growth)


def _memory(one: Contestant, points: int, options: Options) -> Memory:
    if not options.memory:
        return Memory(None)
    if options.device == "cuda":
        return memory.on_cuda(one, *clouds(options.cloud, options.batch, points, getattr(torch, options.dtype), "cuda"))
    assert options.threads is not None
    case = ChildCase(one.name, options.cloud, options.batch, points, options.dtype, options.threads)
    return memory.on_cpu(case, timeout=options.max_seconds + 60)


def _one_of(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise LossValueError(f"{option} {value!r} must be one of {', '.join(choices)}")
