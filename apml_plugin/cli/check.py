"""`apml check`: what a run with this YAML would use, before it is started."""

from __future__ import annotations

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    @app.command()
    def check(
        config: Path = typer.Argument(..., metavar="CONFIG", help="A PoinTr-style YAML."),
        host: Path | None = typer.Option(None, "--host", help="The clone; found from CONFIG or here if not given."),
    ) -> None:
        """Says which loss a run with CONFIG trains with, per stage, and what may go wrong.

        Exit code 1 if the run would stop with an error.
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
            for stage, text in found.stages.items():
                console.print(f"  {stage + ':':<12} {text}", markup=False)
        else:
            say("loss", f"the host's own ({found.found_at or 'no loss: in this YAML'})")
        for warning in found.warnings:
            console.print("[yellow]warning:[/yellow] ", end="")
            console.print(warning, markup=False)
        raise typer.Exit(int(bool(found.error)))
