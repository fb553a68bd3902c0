"""Goes through a study, loss by loss and seed by seed; what is done is kept, and a second run goes on from there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from apml_plugin import __version__
from apml_plugin.bench.machine import threads
from apml_plugin.errors import HostError, LossValueError

from .study import Contestant, Data, Result, Size, make_data, train

Results = dict[str, list[Result]]
"""Label of a loss: its results, in the order of the seeds."""


def run(
    out: Path,
    losses: Sequence[Contestant],
    seeds: int,
    size: Size,
    begin: Callable[[str], None] = lambda what: None,
    tick: Callable[[int], None] = lambda steps: None,
) -> tuple[Results, Data]:
    """Trains what ``out/results`` does not hold yet. Seeds go round, so that a stop leaves all losses alike.

    ``begin`` is told what is trained next, ``tick`` how many steps are done.

    Raises HostError if ``out`` cannot be used or holds a study of another size or version: nothing is mixed.
    """
    if seeds < 1:
        raise LossValueError(f"--seeds {seeds} must be 1 or more; 3 are usual")
    folder = out / "results"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"--out {out}: cannot make the folder {folder} ({error.strerror}); give another") from None
    found: dict[tuple[str, int], Result] = {}
    for loss in losses:  # all that is there is read first: a wrong folder is no surprise after minutes
        for seed in range(seeds):
            path = _path(folder, loss, seed)
            if path.exists():
                found[loss.label, seed] = load(path, _settings(loss, seed, size))
    data = make_data(size)
    for seed in range(seeds):
        for loss in losses:
            begin(f"{loss.label}, seed {seed + 1} of {seeds}")
            if (loss.label, seed) in found:
                tick(size.steps)
                continue
            # One thread: the same figures on any number of cores, and small networks gain nothing from more.
            with threads(1):
                result = train(loss, seed, size, data, lambda: tick(1))
            save(_path(folder, loss, seed), result, _settings(loss, seed, size))
            found[loss.label, seed] = result
    return {loss.label: [found[loss.label, seed] for seed in range(seeds)] for loss in losses}, data


def _settings(loss: Contestant, seed: int, size: Size) -> dict[str, Any]:
    return {"loss": loss.described, "seed": seed, "version": __version__, **asdict(size)}


def _path(folder: Path, loss: Contestant, seed: int) -> Path:
    name = re.sub(r"[^\w.=-]+", "_", loss.label)
    if name != loss.label:  # two labels must not share a file
        name = f"{name[:60]}-{hashlib.sha256(loss.label.encode()).hexdigest()[:8]}"
    return folder / f"{name}-seed{seed}.npz"


def save(path: Path, result: Result, settings: dict[str, Any]) -> None:
    figures = {key: value for key, value in asdict(result).items() if key != "pred"}
    said = json.dumps({"settings": settings, **figures})
    whole_file(path, lambda stream: np.savez(stream, pred=result.pred, said=np.array(said)))


def load(path: Path, settings: dict[str, Any]) -> Result:
    """A result as it was saved; HostError if it is unreadable or was made with other settings."""
    try:
        with np.load(path) as saved:
            pred, said = saved["pred"], json.loads(str(saved["said"]))
        before = said.pop("settings")
        result = Result(pred=pred, **said)
    except Exception as error:
        raise HostError(f"{path} is no result of this study ({error}); delete it or give another --out") from None
    other = [f"{key} {before.get(key)!r}, not {value!r}" for key, value in settings.items() if before.get(key) != value]
    if other:
        raise HostError(f"{path} belongs to another study: {'; '.join(other)}. Give another --out, or delete it")
    return result


def whole_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
