"""What the reports of all studies share: the best value of a column, JSON files, progress bars."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apml_plugin.errors import ApmlError
from apml_plugin.files.writing import write_whole
from apml_plugin.metrics import Metric

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table


def best(metric: Metric, values: Iterable[float]) -> float:
    return (max if metric.higher_is_better else min)(values)


def heading(metric: Metric) -> str:
    """The metric's heading, with an arrow where higher is better."""
    return metric.heading + " ↑" * metric.higher_is_better


def plain_table(first: str, *headings: str) -> Table:
    """A table without a frame: names on the left, which wrap, and numbers on the right, which do not."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for text in headings:
        table.add_column(text, justify="right", no_wrap=True)
    return table


def titled_table(title: str, names: Iterable[str], numbers: Iterable[str]) -> Table:
    """A framed table: columns ``names`` aligned to the left, then ``numbers`` aligned to the right."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", caption_justify="left")
    for name in names:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def bars(console: Console) -> Progress:
    """A progress display that leaves one line for each finished step. Tasks need a field ``note``."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    note = TextColumn("[dim]{task.fields[note]}")
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), note, console=console
    )


def check_writable(option: str, path: Path | None, error: type[ApmlError], suffix: str = "") -> None:
    """Raises ``error`` if a file cannot be written at ``path``. Called before minutes of work, not after."""
    if path is None:
        return
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise error(f"{option} {path}: not a file in a folder that exists")
    if suffix and path.suffix.lower() != suffix:
        raise error(f"{option} {path}: the picture is a PNG; let the name end in {suffix}")


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON completely or not at all."""
    text = json.dumps(value, indent=1) + "\n"
    write_whole(path, lambda stream: stream.write(text.encode()), force=True)
