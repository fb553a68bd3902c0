"""A report as text (the machine, the ratios, then seconds and memory) and as a picture of seconds by size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from apml_plugin import drawing
from apml_plugin.errors import LossValueError
from apml_plugin.studies.machine import describe

from .memory import NOT_MEASURED

if TYPE_CHECKING:
    from .run import Case, Report


def text(report: Report) -> str:
    """All of it, ready to print."""
    parts = [_heading(report), _ratios(report), _seconds(report), _remarks(report)]
    return "\n\n".join(part for part in parts if part)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """Columns aligned to the right, those in ``left`` to the left."""
    widths = [max(len(line[k]) for line in [headings, *rows]) for k in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return "\n".join([line(headings), line(["-" * width for width in widths]), *map(line, rows)])


def seconds(value: float | None) -> str:
    """Three digits and a fitting unit."""
    if value is None:
        return "-"
    if value >= 1:
        return f"{digits(value)} s"
    return f"{digits(value * 1e3)} ms" if value >= 1e-3 else f"{digits(value * 1e6)} µs"


def megabytes(value: int | None) -> str:
    return NOT_MEASURED if value is None else f"{value / 1e6:.1f} MB"


def digits(value: float) -> str:
    """Three significant digits, never as a power of ten."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _heading(report: Report) -> str:
    o = report.options
    chosen = ", ".join(f"{backend} at {points}" for points, backend in report.backends.items())
    return "\n".join(
        [
            *describe(report.machine),
            f"measured: {o['cloud']} clouds, B = {o['batch']}, {o['dtype']}, on {o['device']}; "
            f"medians of {o['repeats']} after a warm-up, taking turns in one process",
            f"backend auto of APML: {chosen}",
        ]
    )


def _ratios(report: Report) -> str:
    ratios = report.ratios()
    peers = list(dict.fromkeys(r["peer"] for r in ratios))
    if not peers:
        return "No ratios: no peer was timed."
    by = {(r["points"], r["ours"], r["peer"]): digits(r["ratio"]) for r in ratios}
    lines = list(dict.fromkeys((r["points"], r["ours"]) for r in ratios))
    rows = [[str(points), name, *(by.get((points, name, peer), "-") for peer in peers)] for points, name in lines]
    starred = [f"{peer} *" if peer == "cKDTree" else peer for peer in peers]
    remark = " (* forward only: it has no gradient)" if "cKDTree" in peers else ""
    heading = f"Ours / peer, forward + backward: below 1 ours is faster{remark}"
    return heading + "\n" + table(["points", "loss", *starred], rows, left=(1,))


def _seconds(report: Report) -> str:
    rows = [
        [str(c.points), c.name, seconds(c.forward), seconds(c.backward), seconds(c.both), megabytes(c.peak)]
        for c in _by_size(report.cases)
        if c.problem is None
    ]
    if not rows:
        return "Nothing was timed."
    heading = "Medians, and peak memory of one forward and backward above the inputs"
    return heading + "\n" + table(["points", "loss", "forward", "backward", "both", "memory"], rows, left=(1,))


def _remarks(report: Report) -> str:
    lines = [f"{name}: {note}." for name, note in report.notes.items()]
    lines += [f"{name}: not timed: {reason}." for name, reason in report.absent.items()]
    lines += [f"{c.name} at {c.points} points: {c.problem}." for c in _by_size(report.cases) if c.problem]
    return "\n".join(lines)


def _by_size(cases: Sequence[Case]) -> list[Case]:
    return sorted(cases, key=lambda case: case.points)


def draw(report: Report, path: Path) -> None:
    """Draws seconds by size, both axes logarithmic: ours with full lines, peers dashed. Writes a PNG.

    Raises:
        LossValueError: nothing was timed.
    """
    done = [(case, case.both) for case in report.cases if case.both]
    if not done:
        raise LossValueError(f"--plot {path}: nothing was timed, there is nothing to draw")
    figure = drawing.new_figure(8, 5.5, layout="constrained")
    axis = figure.subplots()
    for name in dict.fromkeys(case.name for case, _ in done):
        line = sorted((case.points, took) for case, took in done if case.name == name)
        first = next(case for case, _ in done if case.name == name)
        style, width, marker = ("o-", 2.2, 6) if first.ours else ("s--", 1.4, 4)
        label = f"{name} (forward only)" if first.backward is None else name
        axis.plot(*zip(*line, strict=True), style, linewidth=width, markersize=marker, label=label)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    sizes = sorted({case.points for case, _ in done})
    axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axis.minorticks_off()
    axis.set_xlabel("points in each cloud")
    axis.set_ylabel("seconds, forward + backward")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    o = report.options
    what = f"{o['cloud']} clouds, B = {o['batch']}, {o['dtype']}, {o['device']}, medians of {o['repeats']}"
    hardware = describe(report.machine)[0 if o["device"] == "cpu" else 1].split(":", 1)[1].split(", load")[0].strip()
    axis.set_title(f"{what}\n{hardware}", fontsize=10)
    drawing.save(figure, path)
