"""A checkpoint's weights held against the model that a host builds from a YAML."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, HostError
from . import comparing_child

TIMEOUT = 600.0
Shape = tuple[list[int], str]


@dataclass(frozen=True)
class Difference:
    """missing: the model has them, the file not. unexpected: the other way round. wrong: (key, file's, model's)."""

    model: str
    host: Path
    matching: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong: tuple[tuple[str, list[int], list[int]], ...]

    @property
    def loads(self) -> bool:
        """Whether the host's strict `load_state_dict` takes the file."""
        return not (self.missing or self.unexpected or self.wrong)


def compare(weights: Mapping[str, torch.Tensor], config: Path, host_path: Path | None) -> Difference:
    """Builds the model of ``config`` with the host's own code, in a process as `apml run` makes it, on the CPU.

    weights: keys without `module.`. Raises CheckpointError saying why, if the host's model cannot be built.
    """
    from ..hosts.base import around, identify, read_yaml
    from ..hosts.pointr.structure import RegistryHost

    try:
        described = read_yaml(config)
        found = identify(host_path) if host_path is not None else around(config) or around(Path.cwd())
    except HostError as error:
        raise CheckpointError(f"not compared: {error}") from None
    parts = [part.detail for part in found.parts] if found else []
    host = next((part for part in parts if isinstance(part, RegistryHost)), None)
    if host is None:
        raise CheckpointError(f"not compared: {config} lies in no PoinTr-style clone; name the clone with --host")
    model = described.get("model")
    if not isinstance(model, dict) or "NAME" not in model:
        raise CheckpointError(f"not compared: there is no model: with a NAME: in {config}, so nothing can be built")
    expected = _built(host, config)
    missing = tuple(key for key in expected if key not in weights)
    unexpected = tuple(key for key in weights if key not in expected)
    both = [(key, list(tensor.shape), expected[key]) for key, tensor in weights.items() if key in expected]
    wrong = tuple(entry for entry in both if entry[1] != entry[2])
    return Difference(str(model["NAME"]), host.root, len(both) - len(wrong), missing, unexpected, wrong)


def _built(host: Any, config: Path) -> dict[str, list[int]]:
    """key -> shape of the state dict of the host's model."""
    from ..launch import environment, probe

    base = {**environment.without_run(os.environ), "CUDA_VISIBLE_DEVICES": ""}
    standins = probe.look(str(host.root), base).standins
    # The loss is not attached, and it has no weights anyway.
    environ = environment.write(base, environment.Settings(standins, "the model is only looked at", False))
    places = [host.builder.file, host.builder.name, host.reader.file, host.reader.name]
    command = [sys.executable, comparing_child.__file__, str(host.root), *places, str(config.resolve())]
    try:
        done = subprocess.run(
            command,
            cwd=host.root,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise CheckpointError(f"not compared: building the host's model took over {TIMEOUT:g} s") from None
    mark = comparing_child.MARK
    answers = [line[len(mark) :] for line in done.stdout.splitlines() if line.startswith(mark)]
    if done.returncode == 0 and answers:
        return json.loads(answers[-1])
    told = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
    raise CheckpointError(f"not compared: {host.root} cannot build this model here ({told[-1].strip():.300})")
