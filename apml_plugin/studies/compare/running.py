"""Runs a study, loss by loss and seed by seed. Results are kept, so a second run continues where the first stopped."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from apml_plugin import __version__
from apml_plugin.errors import HostError, LossValueError
from apml_plugin.studies.machine import threads
from apml_plugin.studies.reports import whole_file

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
    """Trains what ``out/results`` does not hold yet, seed by seed, so that losses are always almost equally far.

    ``begin`` is called with the name of the next training, ``tick`` with the number of steps that were done.

    Raises HostError if ``out`` cannot be used or holds a study of another size or version.
    """
    if seeds < 1:
        raise LossValueError(f"--seeds {seeds} must be 1 or more; 3 are usual")
    folder = out / "results"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"--out {out}: cannot make the folder {folder} ({error.strerror}); give another") from None
    done: dict[tuple[str, int], Result] = {}
    for loss in losses:  # results are read first, so that a wrong folder is reported before minutes of training
        for seed in range(seeds):
            path = _path(folder, loss, seed)
            if path.exists():
                done[loss.label, seed] = load(path, _settings(loss, seed, size))
    data = make_data(size)
    for seed in range(seeds):
        for loss in losses:
            begin(f"{loss.label}, seed {seed + 1} of {seeds}")
            if (loss.label, seed) in done:
                tick(size.steps)
                continue
            # One thread gives the same numbers on any number of cores, and small networks gain nothing from more.
            with threads(1):
                result = train(loss, seed, size, data, lambda: tick(1))
            save(_path(folder, loss, seed), result, _settings(loss, seed, size))
            done[loss.label, seed] = result
    return {loss.label: [done[loss.label, seed] for seed in range(seeds)] for loss in losses}, data


def _settings(loss: Contestant, seed: int, size: Size) -> dict[str, Any]:
    return {"loss": loss.described, "seed": seed, "version": __version__, **asdict(size)}


def _path(folder: Path, loss: Contestant, seed: int) -> Path:
    name = re.sub(r"[^\w.=-]+", "_", loss.label)
    if name != loss.label:  # otherwise two labels could share a file
        name = f"{name[:60]}-{hashlib.sha256(loss.label.encode()).hexdigest()[:8]}"
    return folder / f"{name}-seed{seed}.npz"


def save(path: Path, result: Result, settings: dict[str, Any]) -> None:
    numbers = {key: value for key, value in asdict(result).items() if key != "pred"}
    text = json.dumps({"settings": settings, **numbers})
    whole_file(path, lambda stream: np.savez(stream, pred=result.pred, said=np.array(text)))


def load(path: Path, settings: dict[str, Any]) -> Result:
    """A saved result. Raises HostError if it is unreadable or was made with other settings."""
    try:
        with np.load(path) as saved:
            pred, numbers = saved["pred"], json.loads(str(saved["said"]))
        before = numbers.pop("settings")
        result = Result(pred=pred, **numbers)
    except Exception as error:
        raise HostError(f"{path} is not a result of this study ({error}); delete it or give another --out") from None
    other = [f"{key} {before.get(key)!r}, not {value!r}" for key, value in settings.items() if before.get(key) != value]
    if other:
        raise HostError(f"{path} belongs to another study: {'; '.join(other)}. Give another --out, or delete it")
    return result
