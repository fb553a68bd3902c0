"""``apml run``: a host's own script with the plugin in it and nothing of it changed on disk."""

from __future__ import annotations

import typer

_SCRIPT = typer.Argument(..., metavar="SCRIPT [ARGS]...", help="A .py file, or a command such as torchrun.")
_MODULE = typer.Option(False, "-m", help="SCRIPT is a module, as after python -m.")
_LOSS = typer.Option(
    None,
    "--loss",
    metavar="TEXT",
    help="The loss, as YAML: APML or '{NAME: APML, reduction: mean}'; wins over the host's.",
)
_FROM_STEP = typer.Option(
    0,
    "--loss-from-step",
    metavar="N",
    min=0,
    help="The host takes N optimiser steps with something else before it uses the loss.",
)
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
        loss: str | None = _LOSS,
        from_step: int = _FROM_STEP,
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
        import os

        from apml_plugin.chosen import VARIABLE, parse
        from apml_plugin.hosts import guard
        from apml_plugin.launch import environment, plan

        environ = dict(os.environ)
        if loss is not None:
            parse(loss)
            environ[VARIABLE] = loss
        if from_step:
            environ[guard.FROM_STEP] = str(from_step)
        trains, who = plan.loss_of(script, environ) if not no_attach or environ.get(VARIABLE) else ("", "")
        planned = plan.make(
            script, module, cpu, not no_cpu_mode, not no_standins, not no_attach, asked=who, environ=environ
        )
        if trust_checkpoints:
            planned.environ[environment.TRUST] = "1"
        if dry_run:
            _show(planned, trains)
            return
        raise typer.Exit(plan.execute(planned))


def _show(planned, trains: str) -> None:  # type: ignore[no-untyped-def]
    import shlex

    standins, cpu = planned.settings.standins, planned.settings.cpu
    typer.echo("command:   " + shlex.join(planned.command))
    typer.echo("project:   " + (planned.lines.root or "modules are left alone (--no-attach)"))
    typer.echo("loss:      " + (trains or "not known: there is no APML_LOSS, and no --config with a YAML that tells"))
    for file, edits in planned.lines.edits.items():
        for edit in edits:
            typer.echo(f"  {file}: {edit}")
    if not planned.lines.edits:
        for note in planned.lines.notes:
            typer.echo(f"  {note}")
    typer.echo("CPU mode:  " + (f"on ({cpu})" if cpu else "off"))
    typer.echo("stand-ins: " + ("" if standins else "none"))
    for name, reason in standins.items():
        typer.echo(f"  {name}: {reason}")
    for name, reason in planned.broken.items():
        typer.echo(f"broken:    {name} at {reason}")
