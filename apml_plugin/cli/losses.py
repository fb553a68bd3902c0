"""``apml losses``: every registered loss with its arguments and defaults."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    @app.command()
    def losses() -> None:
        """Lists all losses with their arguments and defaults."""
        from rich.console import Console
        from rich.padding import Padding

        from apml_plugin.losses.base import TWO_CLOUDS, summary_of
        from apml_plugin.registry import LOSSES, arguments_of

        console = Console(highlight=False)
        for name, cls in sorted(LOSSES.module_dict.items()):
            aliases = {argument: f"{argument} (or {alias})" for alias, argument in getattr(cls, "aliases", {}).items()}
            shown = [
                aliases.get(p.name, p.name) + ("" if p.default is p.empty else f"={p.default}")
                for p in arguments_of(cls).values()
            ]
            takes, package = getattr(cls, "takes", TWO_CLOUDS), getattr(cls, "package", "")
            notes = [f"takes {takes}"] * (takes != TWO_CLOUDS) + [f"uses {package} where installed"] * bool(package)
            console.print(f"[bold]{name}[/bold]" + (f" ({'; '.join(notes)})" if notes else ""))
            console.print(Padding(summary_of(cls), (0, 0, 0, 4)))
            console.print(Padding(", ".join(shown) or "none", (0, 0, 1, 4)), style="cyan")
        console.print("Weighted sum: a list of these, each with weight. Per stage: {coarse: NAME, fine: NAME}.")
