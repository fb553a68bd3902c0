"""A study as a table, a JSON and one self-contained HTML file."""

from __future__ import annotations

import base64
import html
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apml_plugin.bench.machine import describe, machine

from . import picture
from .running import Results, whole_file
from .study import COLUMNS, Contestant, Data, Size

if TYPE_CHECKING:
    from rich.table import Table

TIMES = ("ms/step", "ms/loss")
NOTE = (
    "mean ± sample standard deviation over {seeds} seeds; CD and EMD x 1000; F: higher is better, lower elsewhere. "
    "Bold: best mean; ~: not told apart from it (means differ by less than the two spreads together)."
)


@dataclass(frozen=True)
class Value:
    """A figure over seeds. ``spread``: sample standard deviation, None for one seed."""

    mean: float
    spread: float | None
    mark: str = ""
    """``best``, ``tied`` (not told apart from the best) or nothing."""

    def text(self, heading: str) -> str:
        if heading in TIMES:
            return f"{self.mean:.0f}" if self.mean >= 10 else f"{self.mean:.1f}"
        digits = 3 if COLUMNS[heading][1] == 1 else 1
        spread = "" if self.spread is None else f" ± {self.spread:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread}"


Summary = dict[str, dict[str, Value]]
"""Label, by CD-L1 from best to worst: heading: value."""


def summarise(results: Results) -> Summary:
    """Means and spreads over seeds, and which of them are best."""
    rows: Summary = {}
    for label, seeds in results.items():
        row = {name: _value([r.values[name] for r in seeds]) for name in COLUMNS}
        row[TIMES[0]] = _value([1000 * r.step_seconds for r in seeds])
        row[TIMES[1]] = _value([1000 * r.loss_seconds for r in seeds])
        rows[label] = row
    rows = dict(sorted(rows.items(), key=lambda item: item[1]["CD-L1"].mean))
    for name, (_, _, high) in COLUMNS.items():
        best = (max if high else min)(rows, key=lambda label: rows[label][name].mean)
        for label, row in rows.items():
            mark = "best" if label == best else "" if told_apart(row[name], rows[best][name]) else "tied"
            row[name] = Value(row[name].mean, row[name].spread, mark)
    return rows


def told_apart(one: Value, other: Value) -> bool:
    """Whether two means differ by more than their spreads together; never from one seed, which has no spread."""
    if one.spread is None or other.spread is None:
        return False
    return abs(one.mean - other.mean) > one.spread + other.spread


def _value(values: Sequence[float]) -> Value:
    return Value(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def table(summary: Summary) -> Table:
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("loss", overflow="fold")
    for name in (*COLUMNS, *TIMES):
        made.add_column(_heading(name), justify="right", no_wrap=True)
    for label, row in summary.items():
        cells = [_marked(value, name, "[bold]{}[/]", "~{}") for name, value in row.items()]
        made.add_row(label, *cells)
    return made


def _heading(name: str) -> str:
    return f"{name} ↑" if name in COLUMNS and COLUMNS[name][2] else name


def _marked(value: Value, name: str, best: str, tied: str) -> str:
    text = value.text(name)
    return best.format(text) if value.mark == "best" else tied.format(text) if value.mark == "tied" else text


def write(out: Path, summary: Summary, results: Results, losses: Sequence[Contestant], data: Data, size: Size) -> Path:
    """Writes compare.png, curves.png, compare.json and, last, report.html, each whole; returns the last one's path."""
    figures = {
        "compare.png": picture.overview(summary, results, data),
        "curves.png": picture.curves(summary, results),
    }
    found = machine()
    for name, png in figures.items():
        whole_file(out / name, lambda stream, png=png: stream.write(png))  # type: ignore[misc]
    said = json.dumps(as_json(summary, results, losses, size, found), indent=1)
    whole_file(out / "compare.json", lambda stream: stream.write(said.encode()))
    page = as_html(summary, results, losses, size, found, figures)
    whole_file(out / "report.html", lambda stream: stream.write(page.encode()))
    return out / "report.html"


def as_json(
    summary: Summary, results: Results, losses: Sequence[Contestant], size: Size, found: dict[str, Any]
) -> dict[str, Any]:
    described = {loss.label: loss.described for loss in losses}
    return {
        "machine": found,
        "study": asdict(size),
        "losses": [
            {
                "name": label,
                "described": described[label],
                "summary": {name: asdict(value) for name, value in row.items()},
                "seeds": [
                    {
                        "seed": seed,
                        "values": result.values,
                        "curve": result.curve,
                        "step_seconds": result.step_seconds,
                        "loss_seconds": result.loss_seconds,
                    }
                    for seed, result in enumerate(results[label])
                ],
            }
            for label, row in summary.items()
        ],
    }


STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:1200px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;font-size:14px}th,td{padding:.35em .7em;text-align:right;white-space:nowrap;"
    "border-bottom:1px solid #ddd}th:first-child,td:first-child{text-align:left}img{max-width:100%}"
    ".scroll{overflow-x:auto}small,.dim{color:#666}"
)


def as_html(
    summary: Summary,
    results: Results,
    losses: Sequence[Contestant],
    size: Size,
    found: dict[str, Any],
    figures: dict[str, bytes],
) -> str:
    seeds = len(next(iter(results.values())))
    head = "".join(f"<th>{html.escape(_heading(name))}</th>" for name in (*COLUMNS, *TIMES))
    body = "".join(
        f"<tr><td>{html.escape(label)}</td>"
        + "".join(f"<td>{_marked(value, name, '<b>{}</b>', '~{}')}</td>" for name, value in row.items())
        + "</tr>\n"
        for label, row in summary.items()
    )
    images = {
        name: f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for name, png in figures.items()
    }
    told = "".join(f"<li><code>{html.escape(loss.described)}</code></li>" for loss in losses)
    twins = TWINS if {"ChamferL1", "InfoCD"} <= set(summary) else ""
    lines = "<br>".join(html.escape(line) for line in describe(found))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>apml compare</title><style>{STYLE}</style></head><body>
<h1>{len(losses)} losses, one network, one budget</h1>
<p>A small PCN ({size.points} points, width {size.channels}) completes generated chairs, tables, lamps, airplanes and
mugs (bounding box's diagonal 1). From scratch with each loss: Adam, learning rate {size.lr:g} (a fifth of it in the
last 30 %), {size.steps} steps of {size.batch} shapes out of {5 * size.train}. Measured on {5 * size.test} held-out
shapes. A seed means the same first weights and the same batches for every loss. The loss judges both stages, the coarse
one against as many true points. Adam divides by the gradient's size, so the scale of a loss does not matter.</p>
<div class="scroll"><table><thead><tr><th>loss</th>{head}</tr></thead><tbody>
{body}</tbody></table></div>
<p class="dim">{NOTE.format(seeds=seeds)} F at {COLUMNS_NOTE}. Times: median wall time of a step on one thread, and of
it the loss with its gradient, in milliseconds; other programs on the machine add to them.</p>
{images["compare.png"]}
<h2>Learning curves</h2>
{images["curves.png"]}
<h2>What was compared</h2>
<ul>{told}</ul>
<p>Published or usual parameters, not tuned for this study: a loss whose parameters fit another scale of shapes or a
pretrained start is at a disadvantage here. {twins}Generated shapes, a
small network, a short budget: not a benchmark.</p>
<p class="dim">{lines}</p>
</body></html>
"""


TWINS = (
    "InfoCD with its published parameters is ChamferL1 halved, which Adam does not notice: what separates these two "
    "rows is rounding that training has amplified, a measure of chance. "
)
COLUMNS_NOTE = "5 % of the diagonal"
