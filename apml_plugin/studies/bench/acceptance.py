"""The acceptance table: the promised speed and memory, measured here. float32, forward + backward."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from apml_plugin.errors import ApmlError
from apml_plugin.studies.machine import describe, machine, threads, usable_cores

from . import memory
from .contestants import auto_backend, contestant
from .memory import ChildCase
from .report import digits, table
from .timing import clouds, interleaved, problem_of, timed

SLOW = 20.0
"""Seconds from which on a single call of the largest case is enough."""
BLOB_SEED = 3
"""The support of a blob depends on its outermost points: 104, 190, 277, 300, 835 and 1,087 entries a point for six
seeds at 16,384 points, against 12 for the sphere. This seed has 16 times the sphere's support; the row means 15."""


@dataclass(frozen=True)
class Sizes:
    """Points of the rows."""

    dense: int = 8192
    usual: int = 16384
    large: int = 131072
    huge: int = 1_000_000
    repeats: int = 5


@dataclass(frozen=True)
class Case:
    """One thing to measure: a contestant on clouds. ``points`` is a field of `Sizes`."""

    name: str = "APML"
    points: str = "usual"
    cloud: str = "sphere"
    batch: int = 1
    device: str = "cpu"
    seed: int = 0

    def clouds(self, sizes: Sizes) -> tuple[Tensor, Tensor]:
        return clouds(self.cloud, self.batch, getattr(sizes, self.points), torch.float32, self.device, self.seed)


class PeerProblem(Exception):
    """A peer could not be measured, so the row stays open."""


def seconds(cases: Sequence[Case], sizes: Sizes) -> list[float]:
    """Median seconds of each, taking turns. Raises PeerProblem if a peer fails, RuntimeError if ours does."""
    runs = {}
    for k, case in enumerate(cases):
        one = contestant(case.name)
        if case.name != "APML" and (problem := one.problem(case.device)):
            raise PeerProblem(f"{case.name}: {problem}")
        runs[str(k)] = partial(timed, one.call, *case.clouds(sizes), one.gradient)
    outcomes = list(interleaved(runs, sizes.repeats).values())
    for case, outcome in sorted(zip(cases, outcomes, strict=True), key=lambda pair: pair[0].name != "APML"):
        _raise(case, outcome.problem)
    return [outcome.median() for outcome in outcomes]


def _raise(case: Case, problem: str | None) -> None:
    if problem and case.name == "APML":
        raise RuntimeError(problem.removeprefix("failed: "))
    if problem:
        raise PeerProblem(f"{case.name}: {problem}")


def ratio(above: Case, below: Case, sizes: Sizes, cores: int | None = None) -> float:
    """Seconds of the first over seconds of the second; with ``cores``, on so many threads."""
    if cores is not None and usable_cores() < cores:
        raise PeerProblem(f"needs {cores} cores")
    with threads(cores):
        first, second = seconds([above, below], sizes)
    return first / second


def single(case: Case, sizes: Sizes) -> float:
    """Seconds of one case: the median, or the first call if it is slow."""
    first = timed(contestant(case.name).call, *case.clouds(sizes)).both
    return first if first > SLOW else seconds([case], sizes)[0]


def peak(case: Case, sizes: Sizes) -> float:
    """Peak memory in bytes above the inputs."""
    if case.device == "cpu":
        points, count = getattr(sizes, case.points), torch.get_num_threads()
        spent = memory.on_cpu(ChildCase(case.name, case.cloud, case.batch, points, "float32", count))
    else:
        spent = memory.on_cuda(contestant(case.name), *case.clouds(sizes))
    _raise(case, spent.problem)
    if spent.peak is None:
        raise PeerProblem(f"{case.name}: this system does not report how much memory was used")
    return spent.peak


def share(ours: Case, peer: Case, sizes: Sizes) -> float:
    """Peak memory of the first in percent of the second's."""
    timed(contestant(ours.name).call, *clouds("sphere", 1, 64, torch.float32, ours.device))  # loads libraries
    first = peak(ours, sizes)
    return 100 * first / peak(peer, sizes)


@dataclass(frozen=True)
class Row:
    """One promise and its result. ``measured`` is None where ``problem`` says why it could not be measured.

    ``must`` and ``aim`` are upper bounds, or lower ones with ``at_least``. An infinite ``must``: it has to run.
    """

    what: str
    must: float
    aim: float
    unit: str
    at_least: bool = False
    measured: float | None = None
    problem: str | None = None

    def meets(self, bound: float) -> bool | None:
        if self.measured is None:
            return None
        if self.at_least:
            return self.measured >= bound
        return math.isfinite(self.measured) and self.measured <= bound

    @property
    def broken(self) -> bool:
        """Measured, and worse than it must be."""
        return self.meets(self.must) is False


Measure = Callable[[Sizes], float]
_APML, _DENSE = Case(), Case("APML dense", "dense")
_HUGE, _BATCH32 = Case(points="huge"), Case(batch=32, device="cuda")
_BATCH8 = Case(points="dense", batch=8, device="cuda")


def _ratio(above: Case, below: Case, cores: int | None = None) -> Measure:
    return lambda sizes: ratio(above, below, sizes, cores)


ROWS: tuple[tuple[Row, Measure | None], ...] = (
    (Row("CPU, N = M = {usual:,}, against cKDTree both ways, 1 thread", 1.5, 1.0, "x"),
     _ratio(_APML, Case("cKDTree"), 1)),
    (Row("CPU, N = M = {usual:,}, against cKDTree both ways, 2 threads", 1.5, 1.0, "x"),
     _ratio(_APML, Case("cKDTree"), 2)),
    (Row("CPU, N = M = {dense:,}, against the dense backend", 150, 300, "times faster", True),
     _ratio(_DENSE, Case(points="dense"))),
    (Row("CPU, growth from {dense:,} to {large:,} points", 24, 19, "x"),
     _ratio(Case(points="large"), Case(points="dense"))),
    (Row("CPU, N = M = {large:,}, extra peak memory", 400, 200, "MB"),
     lambda sizes: peak(Case(points="large"), sizes) / 1e6),
    (Row("CPU, blob against a sphere, N = M = {usual:,}, against the sphere case", 12, 8, "x"),
     _ratio(Case(cloud="blob", seed=BLOB_SEED), Case(seed=BLOB_SEED))),
    (Row("CPU, one pair of {huge:,} points", math.inf, 10, "s"), lambda sizes: single(_HUGE, sizes)),
    (Row("{gpu}, B = 32, N = M = {usual:,}, against the host's chamfer", 1.5, 1.0, "x"),
     _ratio(_BATCH32, replace(_BATCH32, name="host chamfer"))),
    (Row("{gpu}, B = 8, N = M = {dense:,}, peak memory against dense", 2, 0.5, "%"),
     lambda sizes: share(_BATCH8, replace(_BATCH8, name="APML dense"), sizes)),
    (Row("{gpu}, one pair of {huge:,} points", math.inf, 0.3, "s"),
     lambda sizes: single(replace(_HUGE, device="cuda"), sizes)),
    (Row("{gpu}, B = 4, against the published sparse CUDA code", 20, 50, "times faster", True,
         problem="not part of this command: needs the published code built"), None),
    (Row("{gpu}, an iteration of PoinTr's PCN, B = 32, against the host's Chamfer", 1.2, 1.0, "x",
         problem="not part of this command: needs a PoinTr clone and its extension"), None),
)  # fmt: skip
"""The promises, and how each is measured."""


def run(sizes: Sizes | None = None, say: Callable[[str], None] = lambda line: None) -> list[Row]:
    """All rows: measured where that is possible here, with the reason elsewhere. ``say`` gets each row's name first."""
    sizes, cuda = sizes or Sizes(), torch.cuda.is_available()
    gpu = torch.cuda.get_device_name() if cuda else "GPU"
    rows = []
    for promise, measure in ROWS:
        row = replace(promise, what=promise.what.format(gpu=gpu, **asdict(sizes)))
        if measure is not None and promise.what.startswith("{gpu}") and not cuda:
            row = replace(row, problem="needs a CUDA device")
        elif measure is not None:
            say(row.what)
            try:
                row = replace(row, measured=measure(sizes))
            except PeerProblem as problem:
                row = replace(row, problem=str(problem))
            except Exception as error:  # ours failed, which breaks the promise; the other rows go on
                worst = -math.inf if row.at_least else math.inf
                row = replace(row, measured=worst, problem=problem_of(error))
        rows.append(row)
    return rows


def text(rows: Sequence[Row]) -> str:
    """The machine and the table, ready to print."""
    cells = []
    for r in rows:
        sign = ">=" if r.at_least else "<="
        must = "runs" if math.isinf(r.must) else f"{sign} {r.must:g} {r.unit}"
        met = {None: "not measured", True: "met", False: "NOT MET"}[r.meets(r.must)]
        aimed = {None: "", True: ", aim met", False: ", aim not met" if met == "met" else ""}[r.meets(r.aim)]
        measured = "-" if r.measured is None or math.isinf(r.measured) else f"{digits(r.measured)} {r.unit}"
        cells.append([r.what, measured, must, f"{sign} {r.aim:g} {r.unit}", met + aimed])
    remarks = [f"{r.what}: {r.problem}." for r in rows if r.problem]
    headings = ["what", "measured", "must be", "aim", "result"]
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    taken = (f"{auto_backend(Sizes().usual, device, torch.float32)} on {device}" for device in devices)
    first = [*describe(machine()), f"backend auto of APML: {', '.join(taken)}"]
    parts = ["\n".join(first), table(headings, cells, left=(0, 4)), "\n".join(remarks)]
    return "\n\n".join(part for part in parts if part)


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """Plain values; infinity (broken, or "has to run") becomes null."""
    entries: list[dict[str, Any]] = []
    for row in rows:
        values = {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in asdict(row).items()}
        entries.append({**values, "must_met": row.meets(row.must), "aim_met": row.meets(row.aim)})
    return {"machine": machine(), "backend_cpu": auto_backend(Sizes().usual, "cpu", torch.float32), "rows": entries}


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m apml_plugin.studies.bench``, without the command line's libraries. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m apml_plugin.studies.bench", description="The acceptance table.")
    parser.parse_args(argv)
    try:
        rows = run(say=lambda line: print(f"... {line}", file=sys.stderr))
    except ApmlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text(rows))
    return int(any(r.broken for r in rows))
