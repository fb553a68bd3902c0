"""What was found in a host: losses that become ours, those that stay, those that cannot be replaced."""

from __future__ import annotations

from dataclasses import dataclass

from ...patching import Edit, Line

SOURCE = "apml_plugin.hooks"


@dataclass(frozen=True)
class Site:
    """A training loss that can be replaced. what: in words. edit: how."""

    file: str
    line: int
    name: str
    what: str
    edit: Edit | Line

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.name}: {self.what}"


@dataclass(frozen=True)
class Kept:
    """Something like a loss that stays the host's, and why."""

    file: str
    line: int
    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.name}: {self.why}"


@dataclass(frozen=True)
class Refused:
    """A loss that cannot be replaced safely, why, and the two lines that do it by hand."""

    file: str
    line: int
    name: str
    why: str
    by_hand: tuple[str, str] = (
        f"from {SOURCE} import training_value",
        "loss = training_value(loss, pred, gt)  # behind the host's own line; clouds (B, N, 3), (B, M, 3)",
    )

    def __str__(self) -> str:
        lines = "".join(f"\n    {line}" for line in self.by_hand)
        return f"{self.file}:{self.line} {self.name}: {self.why}. By hand, these two lines do it:{lines}"
