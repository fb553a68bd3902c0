"""`apml eval`: predictions against ground truths, from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from apml_plugin.errors import CloudFileError

if TYPE_CHECKING:
    from rich.console import Console

    from apml_plugin.studies.evaluate.evaluation import Choice, Evaluation, Pairing

_METRIC = typer.Option(
    [], "--metric", metavar="NAME", help="A metric in place of the default ones; repeat it for several: CD-L1, CD-L2, "
    "F, DCD, Hausdorff, p50 (any percentile of the distances), uniformity, EMD.",
)  # fmt: skip
_THRESHOLD = typer.Option(
    [0.01], "--threshold", help="Distance for the F-score, in the unit of the coordinates; repeat it for several."
)
_SCALE = typer.Option(1000.0, "--scale", help="Distances are multiplied by this. Papers print them times 1000.")
_EMD = typer.Option(1024, "--emd-points", help="How many points of each cloud the exact EMD compares.")
_NORMALIZE = typer.Option(
    False,
    "--normalize",
    help="First move and scale both clouds so that the ground truth's bounding sphere is the unit one.",
)
_SETS = typer.Option(
    False, "--sets", help="Also JSD, coverage and MMD of the two sets (slow: every cloud is compared with all)."
)
_JSON = typer.Option(None, "--json", metavar="FILE", help="Write all values to this file.")
_PICTURE = typer.Option(None, "--picture", metavar="FILE.png", help="Draw the best, a median and the worst pair.")
_ALL = typer.Option(False, "--all", help="Print a row for every pair, not only for the best and the worst.")


def register(app: typer.Typer) -> None:
    @app.command("eval")
    def evaluate(
        pred: Path = typer.Argument(
            ..., metavar="PRED", help="The prediction: a file or a folder (npy npz pcd ply xyz txt pts h5)."
        ),
        gt: Path = typer.Argument(
            ..., metavar="GT", help="The ground truth: a file or a folder. Files of two folders are paired by name."
        ),
        metric: list[str] = _METRIC,
        threshold: list[float] = _THRESHOLD,
        scale: float = _SCALE,
        emd_points: int = _EMD,
        normalize: bool = _NORMALIZE,
        sets: bool = _SETS,
        json_file: Path | None = _JSON,
        picture: Path | None = _PICTURE,
        all_rows: bool = _ALL,
    ) -> None:
        """Compares predicted clouds with the ground truth.

        Exit code 1 if a file could not be read or has no partner. Such files are listed, and the others are measured.
        """
        from rich.console import Console

        from apml_plugin.metrics import find
        from apml_plugin.studies.evaluate.evaluation import DEFAULT, Choice, pair_up
        from apml_plugin.studies.evaluate.report import as_json, draw, table
        from apml_plugin.studies.reports import check_writable, heading, write_json

        check_writable("--json", json_file, CloudFileError)
        check_writable("--picture", picture, CloudFileError)
        choice = Choice(tuple(metric) or DEFAULT, tuple(threshold), scale, emd_points, normalize)
        console = Console(highlight=False)
        pairing = pair_up(pred, gt)
        result = _with_progress(pairing, choice, sets)
        console.print(table(result, all_rows))
        if result.sets:
            console.print("  ".join(f"{heading(find(name))}: {value:.4g}" for name, value in result.sets.items()))
        unit = "radii of the ground truth's bounding sphere" if normalize else "the unit of the coordinates"
        factor = f", times {scale:g}" if scale != 1 else ""
        console.print(f"Distances are in {unit} (CD-L2: squared){factor}. ↑: higher is better.", style="dim")
        if json_file is not None:
            write_json(json_file, as_json(result))
        if picture is not None:
            draw(pairing, result, picture)
        _list_left_over(console, result)
        raise typer.Exit(int(bool(result.left_over)))


def _with_progress(pairing: Pairing, choice: Choice, sets: bool) -> Evaluation:
    from rich.console import Console
    from rich.progress import track

    from apml_plugin.studies.evaluate.evaluation import evaluate

    steps = iter(track(pairing.pairs, "measuring", console=Console(stderr=True), transient=True))
    next(steps, None)
    return evaluate(pairing, choice, lambda: next(steps, None) and None, sets)


def _list_left_over(console: Console, result: Evaluation) -> None:
    if result.left_over:
        console.print(f"files that were not measured: {len(result.left_over)}", style="yellow")
    for file, why in result.left_over:
        console.print(f"  {file}: {why}", markup=False, soft_wrap=True)
