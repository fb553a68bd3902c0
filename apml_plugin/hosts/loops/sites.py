"""What was found in a host: losses that become ours, those that stay, those that cannot be replaced."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from ...patching import Line
from ...patching.placing import targets
from ...patching.records import SOURCE
from ..project import Node, Project

BY_HAND = (
    f"from {SOURCE} import training_value",
    "loss = training_value(loss, pred, gt)  # behind the host's own line; clouds (B, N, 3), (B, M, 3)",
)


@dataclass(frozen=True)
class _Found:
    file: str
    line: int
    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.name}: {self.what}"


@dataclass(frozen=True)
class Site(_Found):
    """A training loss that can be replaced. what: in words. edit: how."""

    edit: Line


@dataclass(frozen=True)
class Kept(_Found):
    """Something like a loss that stays the host's, and why."""


@dataclass(frozen=True)
class Refused(_Found):
    """A loss that cannot be replaced safely, why, and the two lines that do it by hand."""

    by_hand: tuple[str, str] = BY_HAND

    def __str__(self) -> str:
        lines = "".join(f"\n    {line}" for line in self.by_hand)
        return f"{super().__str__()}. By hand, these two lines do it:{lines}"


def line_behind(project: Project, at: Node, statement: ast.stmt, after: str, text: str) -> Line:
    """The line behind a statement of a function (or class, or file) that binds `after`."""
    bound = targets(statement)
    after = after if after in bound else bound[0]
    same = [n for n in project.own[at] if isinstance(n, ast.stmt) and after in targets(n)]
    same.sort(key=lambda n: n.lineno)
    which = -1 if same[-1] is statement else same.index(statement)
    return Line(*at, after, text, text.partition(" = ")[2].partition("(")[0], which=which)
