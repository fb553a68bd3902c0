"""``apml bench``: losses and their peers on this machine, as ratios, seconds and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

_LOSS = typer.Option(
    [], "--loss", metavar="NAME", help="A loss in place of the default three, or '{NAME: ...}'; repeat it for several."
)
_BACKEND = typer.Option(
    [], "--backend", metavar="NAME", help="Also measure APML with this backend; repeat it for several."
)
_MAX = typer.Option(60.0, "--max-seconds", help="Skip a loss at a size for which all its runs would take longer.")
_ACCEPTANCE = typer.Option(
    False, "--acceptance", help="Only check the promised speed and memory. Takes --threads, --repeats and --json."
)


def register(app: typer.Typer) -> None:
    @app.command()
    def bench(
        sizes: str = typer.Option("1024,4096,16384", "--sizes", help="Points in each cloud, separated by commas."),
        batch: int = typer.Option(1, "--batch", help="Pairs of clouds in a batch."),
        device: str | None = typer.Option(None, "--device", help="cpu or cuda.", show_default="cuda if there"),
        threads: int | None = typer.Option(None, "--threads", help="CPU threads.", show_default="PyTorch's"),
        repeats: int = typer.Option(5, "--repeats", help="How many runs the median is taken of, at least 5."),
        dtype: str = typer.Option("float32", "--dtype", help="float32 or float64."),
        cloud: str = typer.Option(
            "sphere", "--cloud", help="What the clouds are: sphere (two noisy ones), blob (against a sphere) or cube."
        ),
        loss: list[str] = _LOSS,
        backend: list[str] = _BACKEND,
        max_seconds: float = _MAX,
        memory: bool = typer.Option(
            True, "--memory/--no-memory", help="Also measure peak memory. This starts a process for each case."
        ),
        json_file: Path | None = typer.Option(None, "--json", metavar="FILE", help="Write all values to this file."),
        plot: Path | None = typer.Option(None, "--plot", metavar="FILE.png", help="Draw the time against the size."),
        acceptance: bool = _ACCEPTANCE,
        context: typer.Context = None,  # type: ignore[assignment]
    ) -> None:
        """Measures the time and memory of losses on this machine.

        Each is measured forward and backward, beside other implementations: SciPy's cKDTree, Chamfer with torch.cdist,
        APML's dense backend, and geomloss, pytorch3d and `chamfer` where they are installed. With --acceptance: exit
        code 1 if a value is worse than promised.
        """
        import torch

        from apml_plugin.errors import LossValueError
        from apml_plugin.studies.bench.run import Options, line_up, parse_sizes, run
        from apml_plugin.studies.reports import check_writable

        check_writable("--json", json_file, LossValueError)  # before minutes of measuring, not after
        check_writable("--plot", plot, LossValueError, suffix=".png")
        if acceptance:
            _check_acceptance(context)
        _warn_about_threads(threads)
        options = Options(
            parse_sizes(sizes),
            batch,
            device or ("cuda" if torch.cuda.is_available() else "cpu"),
            threads,
            repeats,
            dtype,
            cloud,
            max_seconds,
            memory,
        )
        if acceptance:
            raise typer.Exit(_acceptance(options.threads, options.repeats, json_file))
        report = run(line_up(loss, backend, options), options, _say)

        from apml_plugin.studies.bench.report import draw, text

        print(text(report))
        _write(json_file, report.as_json())
        if plot:
            draw(report, plot)
            print(plot)


def _acceptance(count: int | None, repeats: int, json_file: Path | None) -> int:
    from apml_plugin.studies.bench import acceptance
    from apml_plugin.studies.machine import threads

    with threads(count):
        rows = acceptance.run(acceptance.Sizes(repeats=repeats), _say)
        print(acceptance.text(rows))
        _write(json_file, acceptance.as_json(rows))
    return int(any(row.broken for row in rows))


def _check_acceptance(context: typer.Context) -> None:
    """Rejects options that would be ignored: the sizes and cases of the table are fixed."""
    from apml_plugin.errors import LossValueError

    if context.params.get("plot"):
        raise LossValueError("--plot draws nothing with --acceptance; leave one of them out")
    for name in context.params.keys() - {"acceptance", "threads", "repeats", "json_file", "plot"}:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise LossValueError(
                f"--{name.replace('_', '-')} does not go with --acceptance, whose cases are fixed (it takes --threads, "
                "--repeats and --json); leave one of them out"
            )


def _warn_about_threads(threads: int | None) -> None:
    from apml_plugin.arguments import counted
    from apml_plugin.studies.machine import usable_cores

    if threads is not None and threads > usable_cores():
        typer.echo(
            f"warning: --threads {threads} on {counted(usable_cores(), 'core')}: they wait for each other", err=True
        )


def _say(line: str) -> None:
    typer.echo(f"... {line}", err=True)


def _write(path: Path | None, values: dict[str, Any]) -> None:
    if path:
        from apml_plugin.studies.reports import write_json

        write_json(path, values)
        print(path)
