"""``apml losses``: every registered loss with its arguments and defaults."""

from __future__ import annotations

import inspect

import typer


def register(app: typer.Typer) -> None:
    @app.command()
    def losses() -> None:
        """Lists every loss that a YAML can name, with arguments and defaults."""
        from rich.console import Console
        from rich.padding import Padding

        from apml_plugin.registry import LOSSES, arguments_of

        console = Console(highlight=False)
        for name, cls in sorted(LOSSES.module_dict.items()):
            if name == "Schedule":
                arguments = "from, to (or first, last), start=0, end=10"
            else:
                arguments = (
                    ", ".join(_show(p) for p in arguments_of(cls).values() if p.kind is not p.VAR_POSITIONAL) or "none"
                )
            summary = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
            console.print(f"[bold]{name}[/bold]")
            console.print(Padding(_plain(summary), (0, 0, 0, 4)))
            console.print(Padding(arguments, (0, 0, 1, 4)), style="cyan")
        console.print("Weighted sum: a list of these, each with weight. Per stage: {coarse: NAME, fine: NAME}.")


def _show(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return parameter.name
    return f"{parameter.name}={parameter.default}"


def _plain(text: str) -> str:
    """A docstring's first paragraph without reStructuredText marks."""
    return text.replace("``", "").replace(":func:", "").replace(":class:", "").replace("`", "")
