"""`apml compare`: the same network, data and steps with each loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

_LOSS = typer.Option(
    [], "--loss", metavar="LOSS", help="A name, or a mapping such as '{NAME: DCD, alpha: 40}'; repeat it. "
    "[default: ChamferL1, ChamferL2, DCD (alpha 200, n_lambda 0.5), InfoCD, HyperCD, Sinkhorn, EMD, APML]",
    show_default=False,
)  # fmt: skip
_OUT = typer.Option(None, "--out", file_okay=False, help="Folder of results and report.  [default: apml_compare]")
_SEEDS = typer.Option(3, "--seeds", help="Trainings of each loss; the spread is over them.")
_QUICK = typer.Option(False, "--quick", help="About a minute: two seeds and tiny sizes; the figures mean little.")


def register(app: typer.Typer) -> None:
    @app.command()
    def compare(loss: list[str] = _LOSS, out: Path | None = _OUT, seeds: int = _SEEDS, quick: bool = _QUICK) -> None:
        """Trains the same small network with each loss, with several seeds, and reports the results.

        Writes report.html (with the pictures inside), compare.png, curves.png and compare.json in about five minutes.
        After an interruption the same command continues where it stopped. More losses or seeds are added the same way.
        """
        from rich.console import Console

        from apml_plugin.studies.compare import report, study
        from apml_plugin.studies.reports import bars

        size = study.QUICK if quick else study.Size()
        seeds = min(seeds, 2) if quick else seeds
        folder = out or Path("apml_compare_quick" if quick else "apml_compare")
        losses = study.contestants([_read(text) for text in loss])
        console = Console(highlight=False)
        wide = Console(highlight=False, width=max(console.width, 140))  # wrapped cells would be unreadable
        with bars(console) as progress:
            task = progress.add_task("training", total=size.steps * seeds * len(losses), note="making shapes")
            results, data = study.run(
                folder, losses, seeds, size,
                lambda what: progress.update(task, note=what), lambda steps: progress.advance(task, steps),
            )  # fmt: skip
            progress.update(task, note="")
        summary = report.summarise(results)
        wide.print(report.table(summary))
        console.print(report.NOTE.format(seeds=seeds), style="dim")
        print(report.write(folder, summary, results, losses, data, size))


def _read(text: str) -> Any:
    """A name or a mapping, read as YAML."""
    import yaml

    from apml_plugin.errors import LossArgumentError

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise LossArgumentError(f"--loss {text!r} is neither a name nor YAML: {error}") from None
