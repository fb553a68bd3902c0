"""`apml patch`: make a clone train with a loss of ours, and undo it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from apml_plugin.hosts.base import Host
    from apml_plugin.hosts.csi2pointcloud.reading import CsiHost
    from apml_plugin.patching import Plan, Recipe


class Mode(Enum):
    """What to do with a plan."""

    WRITE = "write"
    SHOW = "show"
    CHECK = "check"
    EXPLAIN = "explain"


def register(app: typer.Typer) -> None:
    @app.command()
    def patch(
        path: Path = typer.Argument(..., metavar="PATH", help="Folder of the codebase, the one with its main script."),
        revert: bool = typer.Option(False, "--revert", help="Remove the patch. Every byte of the files is restored."),
        dry_run: bool = typer.Option(False, "--dry-run", "--diff", help="Show the diff and write nothing."),
        check: bool = typer.Option(False, "--check", help="Only say whether it is patched. Exit code 0: it is."),
        model: list[str] = typer.Option([], "--model", help="Patch this model only. Repeat it for several."),
        explain: bool = typer.Option(
            False, "--explain", help="Describe what would be replaced and edited, and write nothing."
        ),
    ) -> None:
        """Makes a codebase train with the loss that you name.

        The loss is the one that the YAML or APML_LOSS names. Marked lines are inserted into a few files. In a
        PoinTr-style codebase two files are edited: the one that builds the models (with --model the model's own), and
        the one that reads the YAML. In others it is where the training loss is computed. If no loss is named, the
        codebase behaves exactly as before. Exit code 1: nothing was changed.
        """
        raise typer.Exit(run(path, model, revert=revert, mode=_mode(explain, check, dry_run)))


def _mode(explain: bool, check: bool, show: bool) -> Mode:
    return Mode.EXPLAIN if explain else Mode.CHECK if check else Mode.SHOW if show else Mode.WRITE


def script(model: str | None, description: str | None) -> int:
    """The command line of the files in patches/; returns the exit code.

    model: the class to patch. None is CSI2PointCloud, whose script can also measure a checkpoint.
    """
    import argparse
    import sys

    from apml_plugin.errors import ApmlError

    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, metavar="PATH", help="the root of the clone")
    parser.add_argument("--revert", action="store_true", help="take the patch out again, every byte restored")
    parser.add_argument("--check", action="store_true", help="only say whether it is patched: exit code 0 if so")
    parser.add_argument("--diff", action="store_true", help="show the diff, write nothing")
    parser.add_argument("--explain", action="store_true", help="say what would be edited, write nothing")
    if model is None:
        parser.add_argument("--evaluate", type=Path, metavar="CHECKPOINT", help="measure it on the validation data")
        parser.add_argument("--config", type=Path, metavar="YAML", help="for --evaluate: split, loader, dataset_root")
    given = parser.parse_args()
    evaluate, config = getattr(given, "evaluate", None), getattr(given, "config", None)
    if (evaluate is None) != (config is None):
        parser.error("--evaluate CHECKPOINT and --config YAML go together")
    mode = _mode(given.explain, given.check, given.diff)
    try:
        if model is None:
            host = _csi2pointcloud(given.path)
            if evaluate is not None and config is not None:
                return _evaluate(host, evaluate, config)
        return run(
            given.path, [model] if model else [], revert=given.revert, mode=Mode.EXPLAIN if given.explain else mode
        )
    except ApmlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _csi2pointcloud(path: Path) -> CsiHost:
    """The CSI2PointCloud clone at `path`. Raises HostError for any other codebase."""
    from apml_plugin.hosts.base import Clone
    from apml_plugin.hosts.csi2pointcloud.reading import recognise

    return recognise(Clone(path).project)


def _evaluate(host: CsiHost, checkpoint: Path, config: Path) -> int:
    from apml_plugin.studies.evaluate.csi2pointcloud import evaluate

    result = evaluate(host, checkpoint, config)
    epoch = f", epoch {result.epoch}" if result.epoch is not None else ""
    print(f"{result.checkpoint}{epoch}: {result.frames} validation frames, standardised coordinates")
    for name, value in result.values.items():
        print(f"  {name + ':':<22} {value:.4f}")
    return 0


def run(path: Path, models: Sequence[str], *, revert: bool = False, mode: Mode = Mode.WRITE) -> int:
    """Recognise, plan, show, write. Returns the exit code; raises HostError or PatchError when refused.

    models: class names; none means the whole clone (and, with `revert`, everything any of our patches put in).
    """
    from rich.console import Console

    from apml_plugin.errors import HostError
    from apml_plugin.hosts.base import Clone, identify
    from apml_plugin.patching import check, plan_apply, plan_revert

    console = Console(soft_wrap=True, highlight=False)
    try:
        found = identify(path)
    except HostError as error:
        if not revert or models or mode in (Mode.EXPLAIN, Mode.CHECK):
            raise
        # A patched clone that was edited since may not be recognised any more: its marked lines are enough.
        plan = plan_revert(Clone(path).root, (), ())
        if not plan.differs:
            raise
        console.print(f"{error}\nIts marked lines can be removed all the same.", markup=False)
        return _finish(console, plan, revert, mode)
    known = found.recipes
    wanted = [found.recipe(name) for name in models] or [known[0]]
    _show_host(console, found)
    if mode is Mode.EXPLAIN:
        _explain(console, found, wanted, check(found.root, known))
        return 0
    if mode is Mode.CHECK:
        return _report_state(console, wanted, check(found.root, known), revert)
    if revert:
        plan = plan_revert(found.root, wanted if models else known, known)
    else:
        plan = plan_apply(found.root, wanted, known)
    return _finish(console, plan, revert, mode, found.then, found.warnings)


def _finish(
    console: Console, plan: Plan, revert: bool, mode: Mode, then: str = "", warnings: tuple[str, ...] = ()
) -> int:
    """Shows a plan and, unless `mode` is to show it only, writes it. Returns the exit code."""
    from apml_plugin.patching import write

    _show_diff(console, plan)
    for left in write(plan) if mode is Mode.WRITE else ():
        console.print(f"removed: {left.relative_to(plan.root)}, which a killed `apml patch` had left", markup=False)
    _show_result(console, plan, revert, mode is Mode.WRITE, then, warnings)
    return 0


def _show_host(console: Console, found: Host) -> None:
    console.print(f"{found.kind} at {found.root}", markup=False)
    for label, text in found.described:
        console.print(f"  {label if label.endswith(' in') else label + ':':<16} {text}", markup=False)


def _explain(console: Console, found: Host, wanted: Sequence[Recipe], there: tuple[str, ...]) -> None:
    edits = dict.fromkeys(edit for recipe in wanted for edit in recipe.edits)
    sections = {
        "replaced in training": found.replaced,
        "stays the host's": found.kept,
        "changes with another loss": found.warnings,
        "left alone, because it cannot be replaced safely": found.refused,
        "broken in the host itself, reported only": found.findings,
        "edited, one import and one marked line each": [f"{edit.file}: {edit}" for edit in edits],
        "the loss is taken from": [found.source],
        "now": [f"patched for {', '.join(there)}" if there else "not patched; nothing was written"],
    }
    for title, lines in sections.items():
        for number, line in enumerate(lines):
            if number == 0:
                console.print(f"{title}:", markup=False)
            console.print(f"  {line}", markup=False)


def _report_state(console: Console, wanted: Sequence[Recipe], there: tuple[str, ...], revert: bool) -> int:
    names = [recipe.name for recipe in wanted]
    missing = [name for name in names if name not in there]
    console.print(f"patched for {', '.join(there)}" if there else "not patched", markup=False)
    return int(bool(there) if revert else bool(missing))


def _show_diff(console: Console, plan: Plan) -> None:
    diff = plan.diff()
    if not diff:
        return
    if console.is_terminal:
        from rich.syntax import Syntax

        console.print(Syntax(diff, "diff", background_color="default"))
    else:
        console.print(diff, markup=False, end="")


def _show_result(
    console: Console, plan: Plan, revert: bool, written: bool, then: str, warnings: tuple[str, ...]
) -> None:
    for change in plan.changes:
        if change.verb == "not patched":
            continue
        verb = change.verb if written or not change.differs else f"would be {change.verb}"
        reason = f" ({change.reason})" if change.reason else ""
        console.print(f"{verb}: {change.file}{reason}", markup=False)
    if not plan.differs:
        left = any(change.verb == "left patched" for change in plan.changes)
        done = "nothing to revert" if revert and not left else "nothing to do, nothing changed"
        console.print(done, markup=False)
    elif written and not revert:
        for warning in warnings:
            console.print(f"warning: {warning}", markup=False)
        console.print(then, markup=False)
