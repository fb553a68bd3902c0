"""The folder that the demo works in: a copy of a host, its data, a YAML for each run, and commands run there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from apml_plugin.errors import HostError
from apml_plugin.shapes import dataset_config, write_dataset
from apml_plugin.studies.reports import bars

HERE = Path(__file__).parent
STATE = "demo.json"
"""Marks a folder as the demo's and holds its settings. In a folder without it nothing is touched."""

SKIPPED = ("data", "experiments", "pretrained", "build", "dist", "*.pth", "*.so", "*.egg-info", "__pycache__", ".*")
"""Not copied from a clone: data, results, and builds, which hold paths of the original."""


BATCH = re.compile(r"\[Epoch (\d+)/(\d+)\]\[Batch (\d+)/(\d+)\].*?Losses = \[([^\]]*)\]")
OURS = re.compile(r"\[apml\].*|\bapml: .*")  # lines of the plugin, without the time stamp before them


@dataclass(frozen=True)
class Size:
    """How much is generated and trained. Counts of shapes are for each of the five families."""

    train: int
    test: int
    points: int  # of a complete cloud, and of a prediction
    partial: int
    batch: int
    pretrain_epochs: int
    tune_epochs: int
    tune_lr: float = 0.0005


def open_folder(out: Path, settings: Mapping[str, Any], console: Console) -> bool:
    """Prepares ``out``. True if it holds an earlier demo with the same settings, so that parts can be reused.

    Raises HostError for a folder that holds anything else.
    """
    state = out / STATE
    if out.exists() and not out.is_dir():
        raise HostError(f"--out {out} is a file; give a folder")
    if out.exists() and any(out.iterdir()) and not state.exists():
        raise HostError(f"--out {out} holds other things; give a new or empty folder, or one of an earlier demo")
    out.mkdir(parents=True, exist_ok=True)
    same = state.exists() and json.loads(state.read_text() or "{}") == json.loads(json.dumps(dict(settings)))
    if state.exists():
        console.print(f"{out} is from an earlier demo: {'reusing its complete parts' if same else 'starting again'}")
    if not same:
        for name in ("host", "data", "logs", "results"):
            shutil.rmtree(out / name, ignore_errors=True)
        state.write_text(json.dumps(dict(settings), indent=1) + "\n")
    (out / "logs").mkdir(exist_ok=True)
    (out / "results").mkdir(exist_ok=True)
    return same


def copy_host(source: Path, target: Path) -> None:
    """Copies a host's code over ``target`` and keeps results of earlier runs there. The source is only read."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*SKIPPED), dirs_exist_ok=True)
    (target / "data").mkdir(exist_ok=True)
    for small in (source / "data").glob("*.json"):
        shutil.copy2(small, target / "data")
    shutil.copy2(HERE / "predict.py", target / "apml_demo_predict.py")


def generate(root: Path, size: Size, console: Console) -> dict[str, Any]:
    """The dataset part of a YAML for shapes in ``root``, which are generated if they are missing."""
    if (root / "PCN.json").exists():
        console.print(f"reusing the shapes in {root}")
    else:
        with bars(console) as progress:
            task = progress.add_task("making shapes", total=None, note="")
            parts = write_dataset(root, train=size.train, test=size.test, points=size.points, partial=size.partial)
            for done, total in parts:
                progress.update(task, completed=done, total=total)
    return dataset_config(root, size.points)


def real_data(host: Path, out: Path, size: Size) -> dict[str, Any] | None:
    """The dataset part for the PCN data of a clone, with absolute paths and reduced to ``size``; None without data."""
    source = host / "cfgs" / "dataset_configs" / "PCN.yaml"
    if not source.is_file():
        return None
    config = yaml.safe_load(source.read_text())
    for key in ("CATEGORY_FILE_PATH", "PARTIAL_POINTS_PATH", "COMPLETE_POINTS_PATH"):
        config[key] = str(host / config[key])
    if not Path(config["CATEGORY_FILE_PATH"]).is_file():
        return None
    index, seen = [], 0
    for entry in json.loads(Path(config["CATEGORY_FILE_PATH"]).read_text()):
        part = {"taxonomy_id": entry["taxonomy_id"], "taxonomy_name": entry["taxonomy_name"]}
        for subset, count in (("train", size.train), ("val", size.test), ("test", size.test)):
            present = (name for name in entry[subset] if _is_complete(config, subset, entry["taxonomy_id"], name))
            part[subset] = [name for name, _ in zip(present, range(count), strict=False)]
        seen += bool(part["train"] and part["test"])
        index.append(part)
    if not seen or sum(len(part["test"]) for part in index) < 10:
        return None
    path = out / "data" / "PCN.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(index, indent=1) + "\n")
    return {**config, "CATEGORY_FILE_PATH": str(path)}


def _is_complete(config: Mapping[str, Any], subset: str, taxonomy: str, name: str) -> bool:
    views = config.get("N_RENDERINGS", 8) if subset == "train" else 1
    paths = [config["PARTIAL_POINTS_PATH"] % (subset, taxonomy, name, view) for view in range(views)]
    return all(Path(path).is_file() for path in [*paths, config["COMPLETE_POINTS_PATH"] % (subset, taxonomy, name)])


def write_configs(
    host: Path, dataset: Mapping[str, Any], size: Size, losses: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, str]:
    """Writes a YAML for each run into the host: ``pretrain`` without ``loss:``, and one for each loss.

    They are made from the host's PCN.yaml, with ``changes`` in its ``model``. Returns run: path relative to the host.
    """
    (host / "cfgs" / "dataset_configs" / "demo.yaml").write_text(_dump(dataset))
    base = yaml.safe_load((host / "cfgs" / "PCN_models" / "PCN.yaml").read_text())
    base["model"].update(changes)
    base["total_bs"] = size.batch
    for part in base["dataset"].values():
        part["_base_"] = "cfgs/dataset_configs/demo.yaml"
    lr = base["optimizer"]["kwargs"].get("lr")
    written = {}
    for run, loss in {"pretrain": None, **losses}.items():
        epochs = size.pretrain_epochs if loss is None else size.tune_epochs
        config = json.loads(json.dumps(base))
        config["max_epoch"] = epochs
        config["optimizer"]["kwargs"]["lr"] = max(lr, 0.001) if loss is None else size.tune_lr
        config["scheduler"] = {"type": "StepLR", "kwargs": {"step_size": max(1, round(epochs * 0.6)), "gamma": 0.3}}
        if loss is not None:
            config["model"]["loss"] = loss
        written[run] = f"cfgs/PCN_models/PCN_{run}.yaml"
        (host / written[run]).write_text(_dump(config))
    return written


def _dump(config: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(config), sort_keys=False, default_flow_style=None)


def settings_of(size: Size, host: Path, version: str) -> dict[str, Any]:
    """Settings that must be equal for the data and the checkpoint of an earlier demo to be reused."""
    return {"host": str(host), "version": version, **asdict(size)}


def python(*words: str) -> list[str]:
    """A command line for the Python that runs this."""
    return [sys.executable, *words]


def follow(command: Sequence[str], folder: Path, log: Path, what: str, console: Console) -> tuple[float, list[str]]:
    """Runs a command in ``folder`` and writes its output to ``log``.

    Returns its wall seconds, and the lines of the plugin. Raises HostError with the end of the log if it fails.
    Interrupting this process ends the child too.
    """
    environ = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while waiting take time from others
    begin = time.monotonic()
    lines: list[str] = []
    with bars(console) as progress, log.open("w") as sink:
        task = progress.add_task(what, total=None, note="starting")
        pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        child = subprocess.Popen(command, cwd=folder, env=environ, text=True, errors="replace", **pipe)
        try:
            for line in child.stdout or ():
                sink.write(line)
                lines.append(line.rstrip())
                if batch := BATCH.search(line):
                    epoch, epochs, step, steps = (int(batch[k]) for k in range(1, 5))
                    note = f"loss x 1000: {batch[5].replace(chr(39), '')}"
                    progress.update(task, total=epochs * steps, completed=epoch * steps + step, note=note)
            code = child.wait()
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
        if code:
            raise HostError(f"{what} failed (exit code {code}); log: {log}\n  " + "\n  ".join(lines[-15:]))
        progress.update(task, total=1, completed=1, note="")
    ours = [match[0].strip() for line in lines if (match := OURS.search(line))]
    return time.monotonic() - begin, ours
