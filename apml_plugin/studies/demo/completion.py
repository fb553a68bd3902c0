"""``apml demo``: one checkpoint of a PoinTr-style host, fine-tuned with Chamfer and with APML, side by side."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from apml_plugin import __version__, drawing
from apml_plugin.arguments import counted
from apml_plugin.errors import HostError
from apml_plugin.metrics import METRICS, Metric, Pair, find
from apml_plugin.shapes import FAMILIES
from apml_plugin.studies.reports import bars, best, titled_table

from . import project
from .project import Size, follow, python

LOSSES: dict[str, Any] = {"ChamferL2": "ChamferL2", "APML": {"NAME": "APML", "reduction": "mean"}}

FULL = Size(train=48, test=4, points=1024, partial=512, batch=16, pretrain_epochs=18, tune_epochs=8)
QUICK = replace(FULL, train=8, test=2, points=256, partial=128, batch=8, pretrain_epochs=6, tune_epochs=3)
# PoinTr's own networks are larger, it always samples 2,048 input points, and it counts epochs from 0 to max_epoch.
POINTR = Size(train=16, test=2, points=1024, partial=2048, batch=8, pretrain_epochs=9, tune_epochs=3)
POINTR_QUICK = replace(POINTR, train=4, points=256, batch=4, pretrain_epochs=1, tune_epochs=0)
POINTR_GPU = replace(POINTR, train=200, test=10, points=2048, batch=32, pretrain_epochs=60, tune_epochs=20)

EMD = METRICS["EMD"].in_reports_with(points=2048)
COLUMNS: tuple[Metric, ...] = (
    METRICS["CDL1"], METRICS["CDL2"], EMD, replace(find("F@1%"), heading="F-score@1%"), METRICS["Uniformity"]
)  # fmt: skip


@dataclass(frozen=True)
class Clouds:
    """Predictions for S held-out shapes: (S, n, 3), (S, M, 3) and (S, N, 3) float32, and S names."""

    partial: NDArray[np.float32]
    gt: NDArray[np.float32]
    pred: NDArray[np.float32]
    names: list[str]

    @classmethod
    def load(cls, path: Path) -> Clouds:
        with np.load(path) as saved:
            return cls(saved["partial"], saved["gt"], saved["pred"], [str(name) for name in saved["names"]])

    def pair(self, k: int) -> Pair:
        return Pair(torch.from_numpy(self.pred[k]), torch.from_numpy(self.gt[k]))


@dataclass(frozen=True)
class Runner:
    """The host's copy that is run, and how: ``start`` comes before its scripts on the command line."""

    folder: Path
    start: tuple[str, ...]
    out: Path
    console: Console
    printed: set[str] = field(default_factory=set)  # lines of the plugin that were shown before

    def follow(self, name: str, what: str, *words: str) -> float:
        """Runs a script of the host with its log in ``name.log``; returns the seconds it took."""
        log = self.out / "logs" / f"{name}.log"
        seconds, ours = follow(python(*self.start, *words), self.folder, log, what, self.console)
        for line in dict.fromkeys(ours):
            if line not in self.printed:
                self.printed.add(line)
                self.console.print(line, style="dim", markup=False, highlight=False)
        return seconds

    def train(self, config: str, name: str, what: str, *words: str) -> tuple[Path, float]:
        """The last checkpoint of a training, and the seconds it took."""
        # Validated by the host after the first epoch only; the table's figures are ours.
        common = ("--config", config, "--exp_name", "demo", "--num_workers", "0", "--val_freq", "10000", "--seed", "0")
        seconds = self.follow(name, what, "main.py", *common, *words)
        path = Path(config)
        return self.folder / "experiments" / path.stem / path.parent.name / "demo" / "ckpt-last.pth", seconds

    def predict(self, config: str, ckpts: Path, name: str) -> Clouds:
        result = self.out / "results" / f"{name}.npz"
        words = ("--config", config, "--ckpts", str(ckpts), "--out", str(result))
        self.follow(f"predict_{name}", f"predicting: {name}", "apml_demo_predict.py", *words)
        return Clouds.load(result)


def run(out: Path, *, host: Path | None = None, ckpts: Path | None = None, quick: bool = False) -> Path:
    """The whole demo. Returns the path of the picture.

    Args:
        out: folder to work in: new, empty, or of an earlier demo.
        host: a clone of PoinTr, which is copied and never written to; None for the miniature that comes with us.
        ckpts: with ``host``: a checkpoint of its PCN to start from, instead of one trained here.
        quick: tiny sizes, which show that everything runs and little else.

    Raises HostError if the folder or the host cannot be used, or if a run fails; the message names its log.
    """
    console, out = Console(), out.resolve()
    host = host.resolve() if host is not None else None
    _check(out, host, ckpts)
    gpu = torch.cuda.is_available()
    full, small = (FULL, QUICK) if host is None else (POINTR_GPU if gpu else POINTR, POINTR_QUICK)
    size = small if quick else full
    source = host or project.HERE / "host"
    settings = {**project.settings_of(size, source, __version__), "ckpts": str(ckpts)}
    reuse = project.open_folder(out, settings, console)

    console.rule("[bold]1  a host, data, and a checkpoint trained with its own Chamfer")
    runner = Runner(out / "host", () if host is None else ("-m", "apml_plugin", "run"), out, console)
    project.copy_host(source, runner.folder)
    console.print(f"{'a small PoinTr-style project' if host is None else f'a copy of {host}'} in {runner.folder}")
    dataset = project.real_data(host, out, size) if host is not None else None
    changes: dict[str, Any] = {"num_pred": size.points if dataset is None else dataset["N_POINTS"]}
    if dataset is not None:
        console.print(f"data: a part of {host}'s own PCN data")
    else:
        dataset = project.generate(out / "data" / "PCN", size, console)
    if ckpts is not None:
        changes = {}  # a released checkpoint only fits the network of the clone's own YAML
    elif host is not None and not gpu:
        console.print(
            "[yellow]no GPU and no --ckpts: PoinTr's PCN is trained for a few dozen steps only. That shows that "
            "everything runs, but not what a loss is worth. For that, give a released checkpoint with --ckpts.[/]"
        )
    configs = project.write_configs(runner.folder, dataset, size, LOSSES, changes)
    first, spent = _checkpoint(runner, configs["pretrain"], ckpts, reuse)

    console.rule("[bold]2  the loss, into the host")
    _patch(runner)

    console.rule("[bold]3  fine-tuning from that checkpoint, equal steps, equal learning rate")
    results = {"before": runner.predict(configs["pretrain"], first, "before")}
    seconds = {"before": spent}
    for loss, config in LOSSES.items():
        shown = config if isinstance(config, str) else str(config).replace("'", "")
        console.print(f"[bold]{configs[loss]}[/]: loss: {shown}", highlight=False)
        last, taken = runner.train(configs[loss], loss, f"fine-tuning with {loss}", "--start_ckpts", str(first))
        results[loss], seconds[loss] = runner.predict(configs[loss], last, loss), taken

    console.rule("[bold]4  the results, on held-out shapes")
    console.print(table({name: _measure(name, clouds, console) for name, clouds in results.items()}, seconds, results))
    console.print("picture:", highlight=False)
    path = _draw(results, out / "completion.png")
    print(path)
    return path


def _check(out: Path, host: Path | None, ckpts: Path | None) -> None:
    if host is not None and not (host / "cfgs" / "PCN_models" / "PCN.yaml").is_file():
        raise HostError(f"--host {host}: no cfgs/PCN_models/PCN.yaml there; give the root of a PoinTr clone")
    if host is not None and host in (out, *out.parents):
        raise HostError(f"--out {out} lies in the clone itself; give a folder outside of it")
    if ckpts is not None and (host is None or not ckpts.is_file()):
        raise HostError(f"--ckpts {ckpts} must be an existing file, and goes with --host")


def _checkpoint(runner: Runner, config: str, given: Path | None, reuse: bool) -> tuple[Path, float]:
    """The checkpoint to start from, and the seconds its training took here (0 for a given one)."""
    if given is not None:
        runner.console.print(f"checkpoint: {given}")
        return given.resolve(), 0.0
    done, took = (runner.out / "results" / name for name in ("chamfer.pth", "chamfer.seconds"))
    if reuse and done.exists():
        runner.console.print(f"reusing the checkpoint {done}")
        return done, float(took.read_text())
    last, seconds = runner.train(config, "pretrain", "training with Chamfer")
    took.write_text(f"{seconds:.1f}")
    last.replace(done)
    return done, seconds


def _patch(runner: Runner) -> None:
    """Runs `apml patch` on the host and shows what it prints."""
    runner.console.print(f"$ apml patch {runner.folder}", highlight=False, style="bold")
    command = python("-m", "apml_plugin", "patch", str(runner.folder))
    done = subprocess.run(command, cwd=runner.folder, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        style = "green" if line.startswith("+") else "red" if line.startswith("-") else ""
        runner.console.print(line, style=style, highlight=False, markup=False)
    if done.returncode:
        raise HostError(f"apml patch failed: {done.stderr.strip()}")


def _measure(name: str, clouds: Clouds, console: Console) -> dict[str, float]:
    """Heading: mean over the shapes."""
    sums = dict.fromkeys((metric.heading for metric in COLUMNS), 0.0)
    with bars(console) as progress:
        task = progress.add_task(f"measuring: {name}", total=len(clouds.pred), note="")
        for k in range(len(clouds.pred)):
            pair = clouds.pair(k)
            for metric in COLUMNS:
                sums[metric.heading] += metric.of_pair(pair)
            progress.advance(task)
    return {heading: total / len(clouds.pred) for heading, total in sums.items()}


def table(scores: Mapping[str, dict[str, float]], seconds: Mapping[str, float], results: Mapping[str, Clouds]) -> Table:
    """A row for each network, with the best value of each column in bold."""
    shapes, points = results["before"].gt.shape[:2]
    headings = [metric.heading for metric in COLUMNS]
    made = titled_table(f"{counted(shapes, 'shape')} of {points} points", [""], [*headings, "seconds"])
    made.caption = "CD and EMD x 1000; higher is better for F-score, lower elsewhere; best in bold"
    for name, row in scores.items():
        cells = []
        for metric in COLUMNS:
            top = best(metric, (other[metric.heading] for other in scores.values()))
            value = row[metric.heading]
            cells.append(f"[bold green]{value:.3f}[/]" if value == top else f"{value:.3f}")
        made.add_row(name, *cells, f"{seconds[name]:.0f}")
    return made


def _draw(results: dict[str, Clouds], path: Path) -> Path:
    """Draws the first shape of three families, a choice that does not depend on the results."""
    before = results["before"]
    known = {taxonomy: family for family, (taxonomy, _) in FAMILIES.items()}
    families = list(dict.fromkeys(name.split("/")[0] for name in before.names))
    wanted = [f for f in (FAMILIES[name][0] for name in ("chair", "lamp", "table")) if f in families] or families[:3]
    shown = [next(k for k, name in enumerate(before.names) if name.startswith(family)) for family in wanted]
    columns = ["input", "ground truth", *(f"fine-tuned with {loss}" for loss in LOSSES)]
    title = "Held-out shapes: one checkpoint, fine-tuned with either loss (EMD x 1000)"
    labels = [known.get(family, family) for family in wanted]
    figure, axes, bar = drawing.grid(len(shown), columns, title, 3.4, labels)
    paint = drawing.spacing_paint([before.gt[k] for k in shown], figure, bar)
    for row, k in zip(axes, shown, strict=True):
        clouds = [(before.partial[k], ""), (before.gt[k], "")]
        clouds += [(results[loss].pred[k], f"EMD {EMD.of_pair(results[loss].pair(k)):.0f}") for loss in LOSSES]
        frame = drawing.frame_of(before.gt[k])
        for axis, (cloud, note) in zip(row, clouds, strict=True):
            drawing.scatter(axis, cloud, frame, paint.to_rgba(drawing.spacing(cloud)), size=9)
            axis.text(0.97, 0.03, note, transform=axis.transAxes, ha="right", fontsize=11, color=drawing.INK)
    return drawing.save(figure, path)
