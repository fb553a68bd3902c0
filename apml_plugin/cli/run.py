"""``apml run``: a host's own script with the plugin in it and nothing of it changed on disk."""

from __future__ import annotations

import typer

_SCRIPT = typer.Argument(..., metavar="SCRIPT [ARGS]...", help="A .py file, or a command such as torchrun.")
_MODULE = typer.Option(False, "-m", help="SCRIPT is a module, as after python -m.")
_CPU = typer.Option(False, "--cpu", help="Run on the CPU even if there is a GPU.")
_NO_CPU = typer.Option(False, "--no-cpu-mode", help="Leave CUDA calls alone even without a GPU.")
_NO_STANDINS = typer.Option(False, "--no-standins", help="No stand-ins for modules that do not import.")
_NO_ATTACH = typer.Option(False, "--no-attach", help="Do not put the YAML's loss into the host's models.")
_TRUST = typer.Option(False, "--trust-checkpoints", help="Let torch.load run what a checkpoint asks for.")
_DRY = typer.Option(False, "--dry-run", help="Say what would be run and how, and stop.")


def register(app: typer.Typer) -> None:
    # The first word that is no option of ours ends our options: all after it belongs to the script.
    @app.command(context_settings={"allow_interspersed_args": False})
    def run(
        script: list[str] = _SCRIPT,
        module: bool = _MODULE,
        cpu: bool = _CPU,
        no_cpu_mode: bool = _NO_CPU,
        no_standins: bool = _NO_STANDINS,
        no_attach: bool = _NO_ATTACH,
        trust_checkpoints: bool = _TRUST,
        dry_run: bool = _DRY,
    ) -> None:
        """Runs a training script with `loss:` understood, missing modules stood in for, on the CPU if need be.

        Options of apml come before SCRIPT; everything after it reaches the script as it is.
        """
        from apml_plugin.launch import environment, plan

        planned = plan.make(
            script, module, cpu=cpu, cpu_mode=not no_cpu_mode, standins=not no_standins, attach=not no_attach
        )
        if trust_checkpoints:
            planned.environ[environment.TRUST] = "1"
        if dry_run:
            _show(planned)
            return
        raise typer.Exit(plan.execute(planned))


def _show(planned) -> None:  # type: ignore[no-untyped-def]
    import shlex

    standins, cpu, root = planned.settings
    typer.echo("command:   " + shlex.join(planned.command))
    typer.echo("project:   " + (root or "modules are left alone (--no-attach)"))
    typer.echo("CPU mode:  " + (f"on ({cpu})" if cpu else "off"))
    typer.echo("stand-ins: " + ("" if standins else "none"))
    for name, reason in standins.items():
        typer.echo(f"  {name}: {reason}")
