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
    def morph(
        context: typer.Context,
        out: Path | None = typer.Option(None, "--out", help="Folder for the picture.  [default: apml_demo]"),
        shapes: Path | None = typer.Option(
            None, "--shapes", help="Array (S, N, 3) with five shapes or more, in place of generated ones."
        ),
        loss: list[str] = typer.Option([], "--loss", help="A loss to compare; may be repeated.  [default: eight]"),
        quick: bool = _QUICK,
    ) -> None:
        """Moves the points of one shape onto another.

        Every loss does so for 20 directed pairs of shapes, 2,048 points each. Prints the means and draws some pairs.
        Takes about 20 minutes on two cores.
        """
        from rich.console import Console
        from rich.progress import Progress

        from apml_plugin.studies.demo import morph as study
        from apml_plugin.studies.reports import heading, titled_table

        points, pairs, steps = (128, 2, 40) if quick else (study.POINTS, study.PAIRS, study.STEPS)
        clouds = study.from_file(shapes, points) if shapes else study.generated(points)
        losses = loss or study.LOSSES
        with Progress(transient=True) as progress:
            task = progress.add_task("moving points", total=pairs * len(losses))
            results = study.run(clouds, losses, pairs, steps, lambda _: progress.advance(task))
        columns = [*map(heading, study.COLUMNS), "covered %", "seconds"]
        table = titled_table(
            f"{points} points moved onto another shape, {pairs} pairs: mean ± deviation", ["loss"], columns
        )
        for row in study.rows(results):
            table.add_row(*row)
        Console().print(table)
        target = out or context.obj
        target.mkdir(parents=True, exist_ok=True)
        print(study.draw(results, clouds, target / "morph.png"))

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
