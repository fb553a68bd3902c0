"""A study as a table, a JSON and one self-contained HTML file."""

from __future__ import annotations

import base64
import html
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apml_plugin.files.writing import write_whole
from apml_plugin.studies.machine import describe, machine
from apml_plugin.studies.reports import best, heading, plain_table, write_json

from . import picture
from .study import COLUMNS, Contestant, Data, Results, Size

if TYPE_CHECKING:
    from rich.table import Table

TIMES = ("ms/step", "ms/loss")
NOTE = (
    "mean ± sample standard deviation over {seeds}; CD and EMD x 1000; F: higher is better, lower elsewhere. "
    "Bold: best mean; ~: not distinguishable from it (the means differ by less than both spreads together)."
)


@dataclass(frozen=True)
class Value:
    """A mean over seeds. ``spread``: sample standard deviation, None for one seed."""

    mean: float
    spread: float | None
    mark: str = ""
    """``best``, ``tied`` (not distinguishable from the best) or empty."""

    def text(self, column: str) -> str:
        if column in TIMES:
            return f"{self.mean:.0f}" if self.mean >= 10 else f"{self.mean:.1f}"
        digits = 1 if COLUMNS[column].unit else 3
        spread = "" if self.spread is None else f" ± {self.spread:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread}"


Summary = dict[str, dict[str, Value]]
"""Label of a loss, from best to worst by CD-L1: column: value."""


def summarise(results: Results) -> Summary:
    """Means and spreads over seeds, with marks on the best ones."""
    rows: Summary = {}
    for label, seeds in results.items():
        row = {name: _value([r.values[name] for r in seeds]) for name in COLUMNS}
        row[TIMES[0]] = _value([1000 * r.step_seconds for r in seeds])
        row[TIMES[1]] = _value([1000 * r.loss_seconds for r in seeds])
        rows[label] = row
    rows = dict(sorted(rows.items(), key=lambda item: item[1]["CD-L1"].mean))
    for name, metric in COLUMNS.items():
        winner = best(metric, (row[name].mean for row in rows.values()))
        first = next(label for label, row in rows.items() if row[name].mean == winner)
        top = rows[first][name]
        for label, row in rows.items():
            mark = "best" if label == first else "" if distinguishable(row[name], top) else "tied"
            row[name] = replace(row[name], mark=mark)
    return rows


def distinguishable(one: Value, other: Value) -> bool:
    """Whether two means differ by more than both spreads together. Never for a single seed, which has no spread."""
    if one.spread is None or other.spread is None:
        return False
    return abs(one.mean - other.mean) > one.spread + other.spread


def _value(values: Sequence[float]) -> Value:
    return Value(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def table(summary: Summary) -> Table:
    made = plain_table("loss", *_headings())
    for label, row in summary.items():
        made.add_row(label, *_cells(row, "[bold]{}[/]"))
    return made


def _headings() -> list[str]:
    return [*map(heading, COLUMNS.values()), *TIMES]


def _cells(row: dict[str, Value], bold: str) -> list[str]:
    """The texts of a row; the best values in ``bold``, those not distinguishable from them after ``~``."""
    marks = {"best": bold, "tied": "~{}"}
    return [marks.get(value.mark, "{}").format(value.text(name)) for name, value in row.items()]


def write(out: Path, summary: Summary, results: Results, losses: Sequence[Contestant], data: Data, size: Size) -> Path:
    """Writes compare.png, curves.png, compare.json and, last, report.html, each whole; returns the path of the last."""
    pictures = {
        "compare.png": picture.overview(summary, results, data),
        "curves.png": picture.curves(summary, results),
    }
    facts = machine()
    page = as_html(summary, losses, size, facts, pictures, seeds=len(next(iter(results.values()))))
    for name, content in {**pictures, "report.html": page.encode()}.items():
        if name == "report.html":
            write_json(out / "compare.json", as_json(summary, results, losses, size, facts))
        write_whole(out / name, lambda stream, content=content: stream.write(content), force=True)  # type: ignore[misc]
    return out / "report.html"


def as_json(
    summary: Summary, results: Results, losses: Sequence[Contestant], size: Size, facts: dict[str, Any]
) -> dict[str, Any]:
    described = {loss.label: loss.described for loss in losses}
    entries = []
    for label, row in summary.items():
        seeds = [{"seed": seed, **asdict(result)} for seed, result in enumerate(results[label])]
        for entry in seeds:
            del entry["pred"]
        values = {name: asdict(value) for name, value in row.items()}
        entries.append({"name": label, "described": described[label], "summary": values, "seeds": seeds})
    return {"machine": facts, "study": asdict(size), "losses": entries}


STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:1200px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;font-size:14px}th,td{padding:.35em .7em;text-align:right;white-space:nowrap;"
    "border-bottom:1px solid #ddd}th:first-child,td:first-child{text-align:left}img{max-width:100%}"
    ".scroll{overflow-x:auto}small,.dim{color:#666}"
)


def as_html(
    summary: Summary,
    losses: Sequence[Contestant],
    size: Size,
    facts: dict[str, Any],
    pictures: dict[str, bytes],
    seeds: int,
) -> str:
    head = "".join(f"<th>{html.escape(text)}</th>" for text in _headings())
    body = "".join(
        f"<tr><td>{html.escape(label)}</td>{''.join(f'<td>{cell}</td>' for cell in _cells(row, '<b>{}</b>'))}</tr>\n"
        for label, row in summary.items()
    )
    images = {
        name: f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for name, png in pictures.items()
    }
    listed = "".join(f"<li><code>{html.escape(loss.described)}</code></li>" for loss in losses)
    twins = TWINS if {"ChamferL1", "InfoCD"} <= set(summary) else ""
    lines = "<br>".join(html.escape(line) for line in describe(facts))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>apml compare</title><style>{STYLE}</style></head><body>
<h1>{len(losses)} losses, one network, one budget</h1>
<p>A small PCN ({size.points} points, width {size.channels}) completes generated chairs, tables, lamps, airplanes and
mugs (bounding box's diagonal 1). From scratch with each loss: Adam, learning rate {size.lr:g} (a fifth of it in the
last 30 %), {size.steps} steps of {size.batch} shapes out of {5 * size.train}. Measured on {5 * size.test} held-out
shapes. A seed means the same first weights and the same batches for every loss. The loss compares both stages, the
coarse one with as many true points. Adam divides by the size of the gradient, so the scale of a loss does not
matter.</p>
<div class="scroll"><table><thead><tr><th>loss</th>{head}</tr></thead><tbody>
{body}</tbody></table></div>
<p class="dim">{NOTE.format(seeds=seeds)} F at 5 % of the diagonal. Times: median wall time of a step on one thread and
the part of it that the loss takes with its gradient, in milliseconds; other programs on the machine add to them.</p>
{images["compare.png"]}
<h2>Learning curves</h2>
{images["curves.png"]}
<h2>What was compared</h2>
<ul>{listed}</ul>
<p>Parameters are the published or usual ones, not tuned for this study: a loss whose parameters suit another scale of
shapes or a pretrained start is at a disadvantage here. {twins}With generated shapes, a small network and a short
budget, this is not a benchmark.</p>
<p class="dim">{lines}</p>
</body></html>
"""


TWINS = (
    "InfoCD with its published parameters is half of ChamferL1, which makes no difference to Adam. These two rows "
    "differ only by rounding that training has amplified, so their difference shows how much is chance. "
)
