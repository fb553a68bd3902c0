"""``apml demo``: one checkpoint of a PoinTr-style host, fine-tuned with Chamfer and with APML, side by side."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from apml_plugin.errors import HostError

from . import judge, picture, project
from .project import Size
from .runs import follow, python

LOSSES: dict[str, Any] = {"ChamferL2": "ChamferL2", "APML": {"NAME": "APML", "reduction": "mean"}}

FULL = Size(train=48, test=4, points=1024, partial=512, batch=16, pretrain_epochs=18, tune_epochs=8)
QUICK = replace(FULL, train=8, test=2, points=256, partial=128, batch=8, pretrain_epochs=6, tune_epochs=3)
# PoinTr's own networks are larger, it always samples 2,048 input points, and it counts epochs from 0 to max_epoch.
POINTR = Size(train=16, test=2, points=1024, partial=2048, batch=8, pretrain_epochs=9, tune_epochs=3)
POINTR_QUICK = replace(POINTR, train=4, points=256, batch=4, pretrain_epochs=1, tune_epochs=0)
POINTR_GPU = replace(POINTR, train=200, test=10, points=2048, batch=32, pretrain_epochs=60, tune_epochs=20)


@dataclass(frozen=True)
class Host:
    """The host's copy that is run, and how its scripts are started."""

    folder: Path
    start: tuple[str, ...]
    told: set[str] = field(default_factory=set)  # what has been shown of the plugin's lines

    def command(self, script: str, *words: str) -> list[str]:
        return python(*self.start, script, *words)


def run(out: Path, *, host: Path | None = None, ckpts: Path | None = None, quick: bool = False) -> Path:
    """The whole demo. Returns the picture's path.

    Args:
        out: folder to work in: new, empty, or an earlier demo's.
        host: a clone of PoinTr, which is copied and never written to; None for the small host that comes with us.
        ckpts: with ``host``: a checkpoint of its PCN to start from instead of one trained here.
        quick: minutes less and figures worth less: it only shows that everything runs.

    Raises HostError if the folder or the host cannot be used or a run fails; the message names its log.
    """
    import torch

    from apml_plugin import __version__

    console = Console()
    out = out.resolve()
    if host is not None:
        host = host.resolve()
        if not (host / "cfgs" / "PCN_models" / "PCN.yaml").is_file():
            raise HostError(f"--host {host}: no cfgs/PCN_models/PCN.yaml there; give the root of a PoinTr clone")
        if out == host or host in out.parents:
            raise HostError(f"--out {out} lies in the clone itself; give a folder outside of it")
    if ckpts is not None and (host is None or not ckpts.is_file()):
        raise HostError(f"--ckpts {ckpts} must be an existing file, and goes with --host")
    gpu = torch.cuda.is_available()
    full = FULL if host is None else POINTR_GPU if gpu else POINTR
    small = QUICK if host is None else POINTR_QUICK
    size = small if quick else full
    source = host or project.HERE / "host"
    settings = {**project.settings_of(size, source, __version__), "ckpts": str(ckpts)}
    reuse = project.open_folder(out, settings, console)

    console.rule("[bold]1  a host, data, and a checkpoint trained with its own Chamfer")
    runner = Host(out / "host", () if host is None else ("-m", "apml_plugin", "run"))
    project.copy_host(source, runner.folder)
    console.print(f"{'a small PoinTr-style project' if host is None else f'a copy of {host}'} in {runner.folder}")
    changes: dict[str, Any] = {"num_pred": size.points}
    dataset = project.real_data(host, out, size) if host is not None else None
    if dataset is not None:
        console.print(f"data: a part of {host}'s own PCN data")
        changes["num_pred"] = dataset["N_POINTS"]
    else:
        dataset = project.generate(out / "data" / "PCN", size, console)
    if ckpts is not None:
        changes = {}  # a released checkpoint fits the network of the clone's own YAML only
    elif host is not None and not gpu:
        console.print(
            "[yellow]no GPU and no --ckpts: PoinTr's PCN is trained for a few dozen steps only. That shows that "
            "everything runs, not what a loss is worth; give a released checkpoint with --ckpts for that.[/]"
        )
    configs = project.write_configs(runner.folder, dataset, size, LOSSES, changes)
    first, spent = _checkpoint(runner, configs["pretrain"], ckpts, reuse, out, console)

    console.rule("[bold]2  the loss, into the host")
    _show(python("-m", "apml_plugin", "patch", str(runner.folder)), runner.folder, console)

    console.rule("[bold]3  fine-tuning from that checkpoint, equal steps, equal learning rate")
    results = {"before": _predict(runner, configs["pretrain"], first, "before", out, console)}
    seconds = {"before": spent}
    for loss, said in LOSSES.items():
        console.print(f"[bold]{configs[loss]}[/]: loss: {_yaml(said)}", highlight=False)
        words = ("--config", configs[loss], "--exp_name", "demo", "--start_ckpts", str(first))
        taken = _train(runner, words, loss, f"fine-tuning with {loss}", out, console)
        last = _run_folder(runner, configs[loss]) / "ckpt-last.pth"
        results[loss] = _predict(runner, configs[loss], last, loss, out, console)
        seconds[loss] = taken

    console.rule("[bold]4  what came of it, on held-out shapes")
    names = {"before": "before", **{loss: loss for loss in LOSSES}}
    scores = [judge.score(names[key], clouds, seconds[key], console) for key, clouds in results.items()]
    size_now = results["before"].gt.shape
    console.print(judge.table(scores, f"{size_now[0]} shapes of {size_now[1]} points"))
    path = _draw(results, out)
    console.print("picture:", highlight=False)
    print(path)
    return path


def _checkpoint(
    runner: Host, config: str, given: Path | None, reuse: bool, out: Path, console: Console
) -> tuple[Path, float]:
    """The checkpoint to start from, and the seconds its training took here (0 for one that was there)."""
    if given is not None:
        console.print(f"checkpoint: {given}")
        return given.resolve(), 0.0
    done = out / "results" / "chamfer.pth"
    if reuse and done.exists():
        console.print(f"reusing the checkpoint {done}")
        return done, float((out / "results" / "chamfer.seconds").read_text())
    taken = _train(
        runner, ("--config", config, "--exp_name", "demo"), "pretrain", "training with Chamfer", out, console
    )
    (out / "results" / "chamfer.seconds").write_text(f"{taken:.1f}")
    (_run_folder(runner, config) / "ckpt-last.pth").replace(done)
    return done, taken


def _train(runner: Host, words: Sequence[str], name: str, what: str, out: Path, console: Console) -> float:
    # 10,000: the first epoch alone is validated by the host itself; the table's figures are ours.
    command = runner.command("main.py", *words, "--num_workers", "0", "--val_freq", "10000", "--seed", "0")
    taken, ours = follow(command, runner.folder, out / "logs" / f"{name}.log", what, console)
    for line in dict.fromkeys(ours):
        if line in runner.told:
            continue
        runner.told.add(line)
        console.print(line, style="dim", markup=False, highlight=False)
    return taken


def _predict(runner: Host, config: str, ckpts: Path, name: str, out: Path, console: Console) -> judge.Clouds:
    result = out / "results" / f"{name}.npz"
    words = ("--config", config, "--ckpts", str(ckpts), "--out", str(result))
    command = runner.command("apml_demo_predict.py", *words)
    follow(command, runner.folder, out / "logs" / f"predict_{name}.log", f"predicting: {name}", console)
    return judge.Clouds.load(result)


def _run_folder(runner: Host, config: str) -> Path:
    """Where a PoinTr-style host keeps a run's checkpoints."""
    path = Path(config)
    return runner.folder / "experiments" / path.stem / path.parent.name / "demo"


def _show(command: list[str], folder: Path, console: Console) -> None:
    """Runs one of our own commands and shows what it prints."""
    console.print(f"$ apml {' '.join(command[3:])}", highlight=False, style="bold")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        style = "green" if line.startswith("+") else "red" if line.startswith("-") else ""
        console.print(line, style=style, highlight=False, markup=False)
    if done.returncode:
        raise HostError(f"apml patch failed: {done.stderr.strip()}")


def _yaml(said: Any) -> str:
    return said if isinstance(said, str) else "{" + ", ".join(f"{key}: {value}" for key, value in said.items()) + "}"


def _draw(results: dict[str, judge.Clouds], out: Path) -> Path:
    """The shapes shown are the first of three families, chosen before anything is trained."""
    before = results["before"]
    families = list(dict.fromkeys(name.split("/")[0] for name in before.names))
    known = {"02691156": "airplane", "03001627": "chair", "03636649": "lamp", "04379243": "table", "03797390": "mug"}
    wanted = [f for f in ("03001627", "03636649", "04379243") if f in families] or families[:3]
    rows = []
    for family in wanted:
        k = next(k for k, name in enumerate(before.names) if name.startswith(family))
        clouds = [(before.partial[k], ""), (before.gt[k], "")]
        clouds += [(results[loss].pred[k], f"EMD {judge.emd_of(results[loss], k):.0f}") for loss in LOSSES]
        rows.append((known.get(family, family), clouds))
    path = out / "completion.png"
    columns = ["input", "ground truth", *(f"fine-tuned with {loss}" for loss in LOSSES)]
    picture.draw(rows, columns, "Held-out shapes: one checkpoint, fine-tuned with either loss (EMD x 1000)", path)
    return path
