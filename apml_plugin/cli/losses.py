"""``apml losses``: every registered loss with its arguments and defaults."""

from __future__ import annotations

import inspect

import typer


def register(app: typer.Typer) -> None:
    @app.command()
    def losses() -> None:
        """Lists every loss that a YAML can name, with arguments and defaults."""
        from rich.console import Console
        from rich.table import Table

        from apml_plugin.registry import LOSSES, arguments_of

        table = Table(title="loss: NAME", title_justify="left", show_lines=True)
        table.add_column("NAME", style="bold", overflow="fold", min_width=33)
        table.add_column("arguments and defaults", overflow="fold")
        table.add_column("what it is")
        for name, cls in sorted(LOSSES.module_dict.items()):
            if name == "Schedule":
                arguments = "from, to, start=0, end=10"
            else:
                arguments = ", ".join(_show(p) for p in arguments_of(cls).values()) or "none"
            summary = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
            table.add_row(name, arguments, _plain(summary))
        console = Console()
        console.print(table)
        console.print("Weighted sum: a list of these, each with `weight`. Per stage: {coarse: NAME, fine: NAME}.")


def _show(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return parameter.name
    return f"{parameter.name}={parameter.default}"


def _plain(text: str) -> str:
    """A docstring's first paragraph without reStructuredText marks."""
    return text.replace("``", "").replace(":func:", "").replace(":class:", "").replace("`", "")
