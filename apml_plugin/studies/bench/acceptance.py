"""The acceptance table: what the fast paths promise, measured here. float32, threshold 1e-20, forward + backward."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from apml_plugin.errors import ApmlError
from apml_plugin.studies.bench import memory
from apml_plugin.studies.bench.clouds import clouds
from apml_plugin.studies.bench.contestants import Contestant, auto_backend, contestant
from apml_plugin.studies.bench.memory import ChildCase, Memory
from apml_plugin.studies.bench.peers import CKDTREE, DENSE, HOST_CHAMFER
from apml_plugin.studies.bench.report import digits, table
from apml_plugin.studies.bench.timing import interleaved, problem_of, timed
from apml_plugin.studies.machine import describe, machine, threads, usable_cores

SLOW = 20.0
"""Seconds from which on one call of the largest case is figure enough."""


@dataclass(frozen=True)
class Sizes:
    """Points of the rows."""

    dense: int = 8192
    usual: int = 16384
    large: int = 131072
    huge: int = 1_000_000
    repeats: int = 5


@dataclass(frozen=True)
class Row:
    """One promise. ``measured`` is None where ``problem`` says why it could not be measured.

    ``must`` and ``aim`` are upper bounds, or lower ones with ``at_least``; ``must`` infinite: it has to run.
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
        """Measured, and not what it must be."""
        return self.meets(self.must) is False


class PeerProblem(Exception):
    """What ours is held against could not be measured: the row stays open."""


def run(sizes: Sizes | None = None, say: Callable[[str], None] = lambda line: None) -> list[Row]:
    """Every row that can be measured here, the others with the reason. ``say`` hears each row's name before it."""
    s = sizes or Sizes()
    cuda = torch.cuda.is_available()
    n, dense_n = f"N = M = {s.usual:,}", f"N = M = {s.dense:,}"
    gpu = torch.cuda.get_device_name() if cuda else "GPU"
    no_gpu = "needs a CUDA device"

    def row(what: str, measure: Callable[[], float], must: float, aim: float, unit: str, at_least: bool = False) -> Row:
        say(what)
        open_row = partial(Row, what, must, aim, unit, at_least)
        try:
            return open_row(measured=measure())
        except PeerProblem as problem:
            return open_row(problem=str(problem))
        except Exception as error:  # ours failed: the promise is broken, and the other rows are still to come
            return open_row(measured=-math.inf if at_least else math.inf, problem=problem_of(error))

    rows = [
        row(f"CPU, {n}, against cKDTree both ways, {count} thread{'s' * (count > 1)}",
            partial(_against_ckdtree, s, count), 1.5, 1.0, "x")
        for count in (1, 2)
    ]  # fmt: skip
    rows += [
        row(f"CPU, {dense_n}, against the dense backend", partial(_against_dense, s), 150, 300, "times faster", True),
        row(f"CPU, growth from {s.dense:,} to {s.large:,} points", partial(_growth, s), 24, 19, "x"),
        row(f"CPU, N = M = {s.large:,}, extra peak memory", partial(_cpu_memory, s), 400, 200, "MB"),
        row(f"CPU, blob against a sphere, {n}, against the sphere case", partial(_blob, s), 12, 8, "x"),
        row(f"CPU, one pair of {s.huge:,} points", partial(_huge, s, "cpu"), math.inf, 10, "s"),
    ]
    if cuda:
        rows += [
            row(f"{gpu}, B = 32, {n}, against the host's chamfer", partial(_against_host, s), 1.5, 1.0, "x"),
            row(f"{gpu}, B = 8, {dense_n}, peak memory against dense", partial(_cuda_memory, s), 2, 0.5, "%"),
            row(f"{gpu}, one pair of {s.huge:,} points", partial(_huge, s, "cuda"), math.inf, 0.3, "s"),
        ]
    else:
        rows += [
            Row(f"GPU, B = 32, {n}, against the host's chamfer", 1.5, 1.0, "x", problem=no_gpu),
            Row(f"GPU, B = 8, {dense_n}, peak memory against dense", 2, 0.5, "%", problem=no_gpu),
            Row(f"GPU, one pair of {s.huge:,} points", math.inf, 0.3, "s", problem=no_gpu),
        ]
    return [
        *rows,
        Row(f"{gpu}, B = 4, against the published sparse CUDA code", 20, 50, "times faster", True,
            problem="not part of this command: needs the published code built"),
        Row(f"{gpu}, an iteration of PoinTr's PCN, B = 32, against the host's Chamfer", 1.2, 1.0, "x",
            problem="not part of this command: needs a PoinTr clone and its extension"),
    ]  # fmt: skip


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

    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and math.isinf(value) else value

    found = [
        {**{key: plain(v) for key, v in asdict(r).items()}, "must_met": r.meets(r.must), "aim_met": r.meets(r.aim)}
        for r in rows
    ]
    return {"machine": machine(), "backend_cpu": auto_backend(Sizes().usual, "cpu", torch.float32), "rows": found}


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


BLOB_SEED = 3
"""A blob's support hangs on its outermost points: 104, 190, 277, 300, 835 and 1,087 entries a point for six seeds at
16,384 points, against the sphere's 12. This one has the 15-fold support that the row is about (16-fold)."""


def _seconds(runs: dict[str, tuple[Contestant, tuple[Tensor, Tensor]]], repeats: int) -> dict[str, float]:
    """Median seconds of each, taking turns. A peer's failure is PeerProblem, ours is an error."""
    outcomes = interleaved(
        {name: partial(timed, one.call, *pair, one.gradient) for name, (one, pair) in runs.items()}, repeats
    )
    for name, outcome in outcomes.items():
        if outcome.problem and runs[name][0].ours:
            raise RuntimeError(outcome.problem.removeprefix("failed: "))
    for name, outcome in outcomes.items():
        if outcome.problem:
            raise PeerProblem(f"{name}: {outcome.problem}")
    return {name: outcome.median() for name, outcome in outcomes.items()}


def _pair(kind: str, points: int, device: str = "cpu", batch: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    return clouds(kind, batch, points, torch.float32, device, seed)


def _against_ckdtree(s: Sizes, count: int) -> float:
    if usable_cores() < count:
        raise PeerProblem(f"needs {count} cores")
    with threads(count):
        pair = _pair("sphere", s.usual)
        took = _seconds({"APML": (contestant("APML"), pair), CKDTREE.name: (contestant(CKDTREE.name), pair)}, s.repeats)
    return took["APML"] / took[CKDTREE.name]


def _against_dense(s: Sizes) -> float:
    pair = _pair("sphere", s.dense)
    took = _seconds({"APML": (contestant("APML"), pair), DENSE.name: (contestant(DENSE.name), pair)}, s.repeats)
    return took[DENSE.name] / took["APML"]


def _growth(s: Sizes) -> float:
    apml = contestant("APML")
    runs = {"small": (apml, _pair("sphere", s.dense)), "large": (apml, _pair("sphere", s.large))}
    took = _seconds(runs, s.repeats)
    return took["large"] / took["small"]


def _blob(s: Sizes) -> float:
    apml = contestant("APML")
    took = _seconds({kind: (apml, _pair(kind, s.usual, seed=BLOB_SEED)) for kind in ("sphere", "blob")}, s.repeats)
    return took["blob"] / took["sphere"]


def _cpu_memory(s: Sizes) -> float:
    case = ChildCase("APML", "sphere", 1, s.large, "float32", torch.get_num_threads())
    return _peak("APML", memory.on_cpu(case), ours=True) / 1e6


def _huge(s: Sizes, device: str) -> float:
    apml, pair = contestant("APML"), _pair("sphere", s.huge, device)
    first = timed(apml.call, *pair).both
    return first if first > SLOW else _seconds({"APML": (apml, pair)}, s.repeats)["APML"]


def _against_host(s: Sizes) -> float:
    problem = HOST_CHAMFER.problem("cuda")
    if problem:
        raise PeerProblem(f"{HOST_CHAMFER.name}: {problem}")
    pair = _pair("sphere", s.usual, "cuda", batch=32)
    runs = {"APML": (contestant("APML"), pair), HOST_CHAMFER.name: (contestant(HOST_CHAMFER.name), pair)}
    took = _seconds(runs, s.repeats)
    return took["APML"] / took[HOST_CHAMFER.name]


def _cuda_memory(s: Sizes) -> float:
    pair = _pair("sphere", s.dense, "cuda", batch=8)
    apml, dense = contestant("APML"), contestant(DENSE.name)
    timed(apml.call, *_pair("sphere", 64, "cuda"))
    ours = _peak("APML", memory.on_cuda(apml, *pair), ours=True)
    return 100 * ours / _peak(DENSE.name, memory.on_cuda(dense, *pair), ours=False)


def _peak(name: str, spent: Memory, ours: bool) -> int:
    if spent.problem and ours:
        raise RuntimeError(spent.problem.removeprefix("failed: "))
    if spent.peak is None:
        raise PeerProblem(f"{name}: {spent.problem or 'this system does not say how much memory was used'}")
    return spent.peak
