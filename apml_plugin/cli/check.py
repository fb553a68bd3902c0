"""`apml check`: what a run with this YAML would use, before it is started."""

from __future__ import annotations

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    @app.command()
    def check(
        config: Path = typer.Argument(..., metavar="CONFIG", help="A YAML of your codebase."),
        host: Path | None = typer.Option(
            None, "--host", help="Folder of the codebase. By default the one around CONFIG or the current folder."
        ),
    ) -> None:
        """Shows which loss a run with CONFIG would train with.

        It also warns of what may go wrong. Nothing is run. Exit code 1 if the run would stop with an error.
        """
        from rich.console import Console

        from apml_plugin.hosts.base import check_config

        found = check_config(config, host)
        console = Console(soft_wrap=True, highlight=False)

        def say(label: str, text: str) -> None:
            console.print(f"{label + ':':<10} {text}", markup=False)

        say("config", str(found.config))
        say("host", str(found.host.root) if found.host else "none found")
        if found.host:
            say("patched", "half" if found.half_patched else ", ".join(found.patched) or "no")
        say("model", found.model or "?")
        if found.error:
            say("error", found.error)
        elif found.stages:
            say("loss", f"found as {found.found_at}")
            for names, text in found.grouped:
                console.print(f"  {', '.join(names) + ':':<12} {text}", markup=False)
        else:
            say("loss", f"the host's own ({found.found_at or 'no loss: in this YAML'})")
        for warning in filter(None, (found.unpatched, *found.warnings)):
            console.print("[yellow]warning:[/yellow] ", end="")
            console.print(warning, markup=False)
        raise typer.Exit(int(bool(found.error)))
