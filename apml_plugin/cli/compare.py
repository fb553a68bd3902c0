"""`apml compare`: the same network, data and steps with each loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

_LOSS = typer.Option(
    [], "--loss", metavar="LOSS", help="A name, or a mapping such as '{NAME: DCD, alpha: 40}'; repeat it for several. "
    "[default: ChamferL1, ChamferL2, DCD (alpha 200, n_lambda 0.5), InfoCD, HyperCD, Sinkhorn, EMD, APML]",
    show_default=False,
)  # fmt: skip
_OUT = typer.Option(
    None, "--out", file_okay=False, help="Folder for the results and the report.  [default: apml_compare]"
)
_SEEDS = typer.Option(3, "--seeds", help="How often each loss is trained, with another seed each time.")
_QUICK = typer.Option(False, "--quick", help="Two seeds and tiny sizes, about a minute. The numbers mean little.")


def register(app: typer.Typer) -> None:
    @app.command()
    def compare(loss: list[str] = _LOSS, out: Path | None = _OUT, seeds: int = _SEEDS, quick: bool = _QUICK) -> None:
        """Trains one small network with each loss, and compares.

        Each loss is trained with several seeds. Writes report.html (which contains the pictures), compare.png,
        curves.png and compare.json. Takes about five minutes. If it is interrupted, the same command continues. Losses
        and seeds can be added later the same way.
        """
        from rich.console import Console

        from apml_plugin.arguments import counted
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
        console.print(report.NOTE.format(seeds=counted(seeds, "seed")), style="dim")
        print(report.write(folder, summary, results, losses, data, size))


def _read(text: str) -> Any:
    """A name or a mapping, read as YAML."""
    from apml_plugin.errors import LossArgumentError
    from apml_plugin.files.yamls import load_yaml

    try:
        return load_yaml(text, below="loss")
    except ValueError as error:
        raise LossArgumentError(f"--loss {text!r} is neither a name nor YAML: {error}") from None
