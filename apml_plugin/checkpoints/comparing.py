"""A checkpoint's weights compared with the model that a host builds from a YAML.

The model is built in a process of its own, this module under `apml run` with the host's root as working folder, so that
the host's modules meet an interpreter like that of its own main.py: see :func:`main`.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from apml_plugin.chosen import VARIABLE
from apml_plugin.errors import CheckpointError, HostError

TIMEOUT = 600.0
"""Seconds that building a host's model may take."""
_MARK = "apml-model "


@dataclass(frozen=True)
class Difference:
    """How a file differs from a model.

    missing: keys of the model that the file does not have. unexpected: keys of the file that the model does not have.
    wrong: (key, shape in the file, shape in the model) where these differ. matching: how many keys agree.
    """

    model: str
    host: Path
    matching: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong: tuple[tuple[str, list[int], list[int]], ...]

    @property
    def loads(self) -> bool:
        """Whether the host's strict `load_state_dict` accepts the file."""
        return not (self.missing or self.unexpected or self.wrong)


def compare(weights: Mapping[str, torch.Tensor], config: Path, host_path: Path | None) -> Difference:
    """Compares weights, by keys without `module.`, with the model of ``config``, built by the host's code on the CPU.

    Raises CheckpointError with the reason if the host's model cannot be built.
    """
    from apml_plugin.hosts.base import host_of, read_yaml
    from apml_plugin.hosts.pointr.structure import RegistryHost

    try:
        described = read_yaml(config)
        clone = host_of(host_path, config)
    except HostError as error:
        raise CheckpointError(f"not compared: {error}") from None
    details = [part.detail for part in clone.parts] if clone else []
    host = next((detail for detail in details if isinstance(detail, RegistryHost)), None)
    if host is None:
        raise CheckpointError(f"not compared: {config} is in no PoinTr-style clone; name the clone with --host")
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
    places = [host.builder.file, host.builder.name, host.reader.file, host.reader.name]
    run = [sys.executable, "-m", "apml_plugin", "run", "--cpu", "--no-attach", "-m", __name__]
    # The loss is not attached: it has no weights.
    environ = {key: value for key, value in os.environ.items() if key != VARIABLE}
    package = str(Path(__file__).resolve().parents[2])
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            [*run, str(host.root), *places, str(config.resolve())],
            cwd=host.root,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise CheckpointError(f"not compared: building the host's model took over {TIMEOUT:g} s") from None
    answers = [line.removeprefix(_MARK) for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode == 0 and answers:
        return json.loads(answers[-1])
    errors = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
    raise CheckpointError(f"not compared: {host.root} cannot build this model here ({errors[-1].strip():.300})")


def main(root: str, builder: str, build: str, reader: str, read: str, config: str) -> None:
    """Prints the keys and shapes of the model that ``build`` of the file ``builder`` makes of a YAML.

    read: the function of the file ``reader`` that reads YAMLs.
    """
    sys.path[0] = root
    described = _read_config(reader, read, config)
    module = _module_name(builder)
    importlib.import_module(module.rpartition(".")[0] or module)  # the package registers the models
    model = getattr(importlib.import_module(module), build)(described.model)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    print("\n" + _MARK + json.dumps(shapes), flush=True)


def _read_config(file: str, name: str, config: str) -> Any:
    """The YAML as the host reads it, or as it is if the host's reader needs more arguments."""
    try:
        return getattr(importlib.import_module(_module_name(file)), name)(config)
    except (TypeError, OSError):
        import yaml
        from easydict import EasyDict

        with open(config, encoding="utf-8") as stream:
            return EasyDict(yaml.safe_load(stream))


def _module_name(file: str) -> str:
    """'models/build.py' -> 'models.build'."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


if __name__ == "__main__":
    main(*sys.argv[1:])
