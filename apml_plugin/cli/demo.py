"""``apml demo``: the plugin at work, from a bare install to a table and a picture."""

from __future__ import annotations

from pathlib import Path

import typer

_OUT = typer.Option(Path("apml_demo"), "--out", help="Folder for everything that the demo writes.", file_okay=False)
_QUICK = typer.Option(False, "--quick", help="Tiny sizes, to see that everything runs. The numbers mean little.")
_HOST = typer.Option(
    None, "--host", help="A PoinTr clone. The demo works on a copy of it, instead of on its own small codebase."
)
_CKPTS = typer.Option(None, "--ckpts", help="With --host: a released PCN checkpoint to start from.")


def register(app: typer.Typer) -> None:
    demo = typer.Typer(invoke_without_command=True)

    @demo.callback()
    def completion(
        context: typer.Context,
        out: Path = _OUT,
        quick: bool = _QUICK,
        host: Path | None = _HOST,
        ckpts: Path | None = _CKPTS,
    ) -> None:
        """Fine-tunes a checkpoint with Chamfer and with APML.

        Both get equal settings. Writes a small codebase, data and a checkpoint, patches the codebase, trains, prints a
        table and draws a picture. Takes under five minutes on two cores. With --host it works on a copy of a PoinTr
        clone.
        """
        if context.invoked_subcommand is not None:
            context.obj = out
            return
        from apml_plugin.studies.demo.completion import run

        run(out, host=host, ckpts=ckpts, quick=quick)

    @demo.command()
    def flow(
        context: typer.Context,
        out: Path | None = typer.Option(None, "--out", help="Folder for the picture.  [default: apml_demo]"),
    ) -> None:
        """Moves points along the gradient of each loss.

        They start as a blob and as a cube, and should become a shape. The results are drawn.
        """
        from rich.console import Console

        from apml_plugin.studies.demo.flow import run
        from apml_plugin.studies.reports import titled_table

        results, path = run(out or context.obj)
        columns = ["start", "loss"], ["EMD", "CD-L1", "target covered"]
        table = titled_table("512 points moved by each loss", *columns)
        for r in results:
            table.add_row(r.start, r.loss, f"{r.emd:.3f}", f"{r.cd_l1:.4f}", f"{r.covered:.0%}")
        Console().print(table)
        print(path)

    @demo.command()
    def mixture(
        context: typer.Context,
        out: Path | None = typer.Option(None, "--out", help="Folder for the pictures.  [default: apml_demo]"),
        report: bool = typer.Option(
            False, "--report", help="Also train PCN with Chamfer and with APML, and compare all three."
        ),
        quick: bool = _QUICK,
    ) -> None:
        """Trains PointGMM on generated shapes.

        Draws its levels, samples, an interpolation and a registration.
        """
        from apml_plugin.studies.demo.mixture import run

        run(out or context.obj, report=report, quick=quick)

    app.add_typer(demo, name="demo")
