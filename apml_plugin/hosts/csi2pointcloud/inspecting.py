"""What a run with a YAML would use, found without running anything of the host."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import ApmlError, HostError, PatchError
from ...patching import check
from ..inspecting import Finding, read_yaml
from .recipes import all_recipes, unreachable
from .records import CsiHost
from .structure import find_root, recognise

_OURS = ("loss", "loss_opts", "chamfer_weight", "regularization_weight", "dataset_root", "epochs")
_MEANT = {
    "losses": "loss", "loss_fn": "loss", "root": "dataset_root", "data_root": "dataset_root",
    "dataset_path": "dataset_root",
    "num_epochs": "epochs", "max_epoch": "epochs", "max_epochs": "epochs", "epoch": "epochs",
    "regularisation_weight": "regularization_weight", "regularization": "regularization_weight",
}  # fmt: skip


def inspect_config(path: Path, host_path: str | os.PathLike[str] | None = None) -> Finding | None:
    """What `apml check` tells of a YAML of this host; None for one of another host."""
    config = read_yaml(path)
    if "model" in config or not {"split_to_use", "train_loader"} <= set(config):
        return None
    found = Finding(path, model="CSI2PointCloud")
    host = _host(path, host_path)
    if host is not None:
        found.host = host  # type: ignore[assignment]
        found.model = host.scripts[0].model_class.name if host.scripts[0].model_class else found.model
        _look_at_patch(found, host)
    _look_at_loss(found, config)
    for key in config:
        if key not in _OURS and str(key).lower() in _MEANT:
            found.warnings.append(f"{key}: is not read; did you mean {_MEANT[str(key).lower()]}:?")
    shared = _in_both_parts(config)
    if shared:
        found.warnings.append(
            f"{', '.join(shared)} are in the training and in the validation part: validation says little of new data"
        )
    return found


def _host(path: Path, host_path: str | os.PathLike[str] | None) -> CsiHost | None:
    if host_path is None:
        return find_root(path) or find_root(Path.cwd())
    try:
        return recognise(host_path)
    except HostError:
        return None


def _look_at_patch(found: Finding, host: CsiHost) -> None:
    try:
        found.patched = check(host.root, all_recipes(host))
    except PatchError as error:
        found.half_patched = True
        found.warnings.append(str(error).removesuffix(". Nothing was changed"))
        return
    missing = [script.file for script in host.scripts if script.file not in found.patched]
    if missing:
        found.warnings.append(
            f"{', '.join(missing)} is not patched: plain `python` ignores {', '.join(f'{k}:' for k in _OURS)} without "
            "a word. Run `apml patch` on the clone, or start it with `apml run`"
        )
    found.warnings += [line for script in host.scripts for line in unreachable(script)]


def _look_at_loss(found: Finding, config: Mapping[str, Any]) -> None:
    from .training import wanted

    try:
        asked = wanted(config)
    except ApmlError as error:
        found.error = f"{type(error).__name__}: {error}"
        return
    if not asked.anything:
        return
    from ...registry import describe

    found.found_at = "weights at the top level"
    matching = "the host's Chamfer"
    if asked.matching is not None:
        found.found_at = "loss: at the top level" if asked.where == "the YAML" else asked.where
        matching = describe(asked.matching)
    told = [f"{key} {asked.weights[key]:g}" if key in asked.weights else f"{key} of the script" for key in _OURS[2:4]]
    found.stages = {"training": f"{matching} ({', '.join(told)})", "validation": "the host's Chamfer, same weights"}


def _in_both_parts(config: Mapping[str, Any]) -> list[str]:
    """Subject/action pairs of the chosen split that are trained on and validated on."""
    chosen = config.get(str(config.get("split_to_use")))
    if not isinstance(chosen, Mapping):
        return []
    parts = [chosen.get(name) for name in ("train_dataset", "val_dataset")]
    if not all(isinstance(part, Mapping) for part in parts):
        return []
    pairs = [{(s, a) for s in _words(part.get("subjects")) for a in _words(part.get("actions"))} for part in parts]  # type: ignore[union-attr]
    return [f"{subject}/{action}" for subject, action in sorted(pairs[0] & pairs[1])]


def _words(value: Any) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list) else []
