"""What becomes of each loss of a host: it is replaced, it stays, or it cannot be replaced; and where lines go."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from ...patching import Line
from ...patching.places import targets
from ...patching.records import SOURCE
from ..project import Node, Project

BY_HAND = (
    f"from {SOURCE} import training_value",
    "loss = training_value(loss, pred, gt)  # after the host's own line; clouds (B, N, 3), (B, M, 3)",
)


@dataclass(frozen=True)
class _Place:
    file: str
    line: int
    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.name}: {self.what}"


@dataclass(frozen=True)
class Site(_Place):
    """A training loss that can be replaced. what: a description. edit: the line that replaces it."""

    edit: Line


@dataclass(frozen=True)
class Kept(_Place):
    """A loss that stays the host's, and why."""


@dataclass(frozen=True)
class Refused(_Place):
    """A loss that cannot be replaced safely, and why."""

    def __str__(self) -> str:
        return "\n    ".join([f"{super().__str__()}. By hand, these two lines do it:", *BY_HAND])


def line_after(project: Project, at: Node, statement: ast.stmt, after: str, text: str) -> Line:
    """The line `text` after `statement`, which binds `after` in the function, class or file `at`."""
    bound = targets(statement)
    after = after if after in bound else bound[0]
    same = [n for n in project.code[at] if isinstance(n, ast.stmt) and after in targets(n)]
    same.sort(key=lambda n: n.lineno)
    which = -1 if same[-1] is statement else same.index(statement)
    return Line(*at, after, text, text.partition(" = ")[2].partition("(")[0], which=which)
