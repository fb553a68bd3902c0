"""The table, the JSON and the picture of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from apml_plugin import drawing
from apml_plugin.studies.reports import heading, plain_table

from .evaluation import Evaluation, Pairing, pair_of, read_pair

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 12
"""Of more rows than this, only the best and the worst are shown."""


def table(evaluation: Evaluation, all_rows: bool = False) -> Table:
    """A row for each pair (the best and the worst of many, by the first column), then the mean."""
    made = plain_table("pair", *(heading(metric) for metric in evaluation.choice.measured))

    def add(name: str, values: dict[str, float], **options: Any) -> None:
        made.add_row(name, *(number(values[column]) for column in evaluation.choice.columns), **options)

    rows = evaluation.rows
    if all_rows or len(rows) <= SHOWN:
        for name, values in rows:
            add(name, values)
    else:
        ranked = evaluation.best_first
        for name, values in ranked[: SHOWN // 2]:
            add(name, values)
        made.add_row(f"... {len(rows) - SHOWN} more")
        for name, values in ranked[-SHOWN // 2 :]:
            add(name, values)
    if len(rows) > 1:
        made.add_section()
        add(f"mean of {len(rows)}", evaluation.means, style="bold")
    return made


def number(value: float) -> str:
    return f"{value:.4g}"


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    choice = evaluation.choice
    return {
        "scale": choice.scale,
        "normalize": choice.normalize,
        "emd_points": choice.emd_points if "EMD" in choice.columns else None,
        "pairs": [{"name": name, **values} for name, values in evaluation.rows],
        "mean": evaluation.means,
        "sets": evaluation.sets,
        "left_over": [{"file": str(file), "reason": why} for file, why in evaluation.left_over],
    }


def draw(pairing: Pairing, evaluation: Evaluation, path: Path) -> None:
    """Draws the worst, a median and the best pair by the first column: prediction and truth, each coloured by error."""
    ranked, first = evaluation.best_first, evaluation.choice.columns[0]
    ranks = {len(ranked) - 1: "worst", len(ranked) // 2: "median", 0: "best"}
    samples, labels = [], []
    for at, rank in ranks.items():
        name, values = ranked[at]
        pair = pair_of(*read_pair(pairing, name), evaluation.choice.normalize)
        samples.append(drawing.Sample(None, pair.pred, pair.gt))
        labels.append(f"{name}\n{first} {number(values[first])}" + f" ({rank})" * (len(ranked) > 2))
    drawing.save(drawing.draw_errors(samples, labels=labels, relative=False), path)
