"""The table and the JSON of an evaluation."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .measuring import higher_is_better
from .running import Evaluation

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 12
"""More rows than this are shown as the best and worst, never all."""


def table(evaluation: Evaluation, all_rows: bool = False) -> Table:
    """One row a pair (the best and the worst of many, by the first column), then the mean."""
    from rich.table import Table

    columns = evaluation.choice.columns
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("pair", overflow="fold")
    for column in columns:
        made.add_column(column + (" ↑" if higher_is_better(column) else ""), justify="right", no_wrap=True)
    rows = evaluation.rows
    if not all_rows and len(rows) > SHOWN:
        ranked = by_quality(evaluation)
        best, worst = ranked[: SHOWN // 2], ranked[-SHOWN // 2 :]
        for name, values in best:
            made.add_row(name, *(number(values[c]) for c in columns))
        made.add_row(f"... {len(rows) - SHOWN} more", *[""] * len(columns))
        for name, values in worst:
            made.add_row(name, *(number(values[c]) for c in columns))
    else:
        for name, values in rows:
            made.add_row(name, *(number(values[c]) for c in columns))
    if len(rows) > 1:
        made.add_section()
        made.add_row(f"mean of {len(rows)}", *(number(evaluation.means[c]) for c in columns), style="bold")
    return made


def by_quality(evaluation: Evaluation) -> list[tuple[str, dict[str, float]]]:
    """The rows from best to worst by the first column."""
    first = evaluation.choice.columns[0]
    return sorted(evaluation.rows, key=lambda row: row[1][first], reverse=higher_is_better(first))


def number(value: float) -> str:
    return f"{value:.4g}"


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    choice = evaluation.choice
    return {
        "scale": choice.scale,
        "normalize": choice.normalize,
        "emd_points": choice.emd_points if "EMD" in choice.metrics else None,
        "pairs": [{"name": name, **values} for name, values in evaluation.rows],
        "mean": evaluation.means,
        "sets": evaluation.sets,
        "left_over": [{"file": str(file), "reason": why} for file, why in evaluation.left_over],
    }


def write_json(evaluation: Evaluation, path: Path) -> None:
    """Writes the JSON whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent or Path("."), prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(as_json(evaluation), stream, indent=1)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
