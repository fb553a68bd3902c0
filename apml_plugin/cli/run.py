"""``apml run``: a host's own script with the plugin in it and nothing of it changed on disk."""

from __future__ import annotations

import typer

_SCRIPT = typer.Argument(
    ...,
    metavar="SCRIPT [ARGS]...",
    help="Your training script and its arguments, or a launcher such as torchrun with them.",
)
_MODULE = typer.Option(False, "-m", help="SCRIPT is the name of a module, as in `python -m`.")
_LOSS = typer.Option(
    None,
    "--loss",
    metavar="TEXT",
    help="The loss, as YAML: APML or '{NAME: APML, reduction: mean}'. It overrides the config's.",
)
_FROM_STEP = typer.Option(
    0,
    "--loss-from-step",
    metavar="N",
    min=0,
    help="Allow N optimiser steps before the loss is first used. Otherwise such a run is stopped.",
)
_CPU = typer.Option(False, "--cpu", help="Run on the CPU even if there is a GPU.")
_NO_CPU = typer.Option(False, "--no-cpu-mode", help="Without a GPU, do not redirect CUDA calls to the CPU.")
_NO_STANDINS = typer.Option(False, "--no-standins", help="Do not provide stand-ins for modules that are missing.")
_NO_ATTACH = typer.Option(False, "--no-attach", help="Do not change what the script trains with: `loss:` is ignored.")
_TRUST = typer.Option(False, "--trust-checkpoints", help="Let torch.load run code that is stored in a checkpoint.")
_DRY = typer.Option(False, "--dry-run", help="Only show what would be run, with which loss and which stand-ins.")


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
        """Runs a training script, unchanged, with the loss you name.

        The loss is the one that the YAML or --loss names. Compiled modules that are missing are replaced by Python
        ones, and without a GPU it runs on the CPU. Put these options before SCRIPT; everything after it is passed to
        the script.
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
    missing = [name for name, reason in standins.items() if reason == f"ModuleNotFoundError: No module named {name!r}"]
    typer.echo("stand-ins: " + ("" if standins else "none needed"))
    if missing:
        typer.echo(f"  for modules that are not installed: {', '.join(missing)}")
    for name, reason in standins.items():
        if name not in missing:
            typer.echo(f"  for {name}: {reason}")
    for name, reason in planned.broken.items():
        typer.echo(f"broken:    {name} at {reason}")
