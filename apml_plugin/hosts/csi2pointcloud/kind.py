"""CSI2PointCloud as a kind of host: what a patch inserts, and what a run with one of its YAMLs would use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import ApmlError
from ...patching import Line, Recipe
from ..base import Clone, Finding, Host
from .reading import CsiHost, Script, recognise

__all__ = ["NAME", "check", "find"]

NAME = "CSI2PointCloud host"
_IMPORTED = "csi2pointcloud"
"""What inserted lines import from `apml_plugin.hooks`."""
_OURS = ("loss", "loss_opts", "chamfer_weight", "regularization_weight", "dataset_root", "epochs")
_MEANT = {
    "losses": "loss", "loss_fn": "loss", "root": "dataset_root", "data_root": "dataset_root",
    "dataset_path": "dataset_root",
    "num_epochs": "epochs", "max_epoch": "epochs", "max_epochs": "epochs", "epoch": "epochs",
    "regularisation_weight": "regularization_weight", "regularization": "regularization_weight",
}  # fmt: skip
SOURCE = "loss: at the top level of the YAML, or APML_LOSS (apml run --loss), which overrides it"
THEN = (
    "Now write `loss: {NAME: APML, reduction: mean}` into its YAML (dataset_root: and epochs: too, if you like), or "
    "name another YAML in APML_CONFIG; `apml check CONFIG` says what a run uses."
)


def find(clone: Clone, others: tuple[Host, ...] = ()) -> Host:
    """The CSI2PointCloud codebase in `clone`. Raises HostError saying what was looked for and where."""
    host = recognise(clone.project)
    recipes = all_recipes(host)
    if len(recipes) > 1:
        recipes = (Recipe("all training scripts", tuple(e for recipe in recipes for e in recipe.edits)), *recipes)
    return Host(
        host.root,
        NAME,
        tuple(pair for script in host.scripts for pair in _described(script)),
        recipes,
        tuple(
            f"{script.file}:{script.lines[script.loss]} {script.loss}: the Chamfer term of {script.loss_class.name}, "
            f"in {script.step.definition.name}"
            for script in host.scripts
        ),
        ("its regulariser and both weights (chamfer_weight:, regularization_weight: in the YAML)", "validation"),
        tuple(f"{script.file}: {line}" for script in host.scripts for line in unreachable(script)),
        source=SOURCE,
        then=THEN,
        detail=host,
    )


def recipe_for_script(script: Script) -> Recipe:
    """The lines for one training script. Those for names that it does not have are left out; see `unreachable`."""
    main, config, step = script.main.name, script.config, script.step
    edits = []
    if script.yaml_path:
        edits.append(
            _line(script, main, script.yaml_path, f"{script.yaml_path} = {_IMPORTED}.config_file({script.yaml_path})")
        )
    for name, call in ((script.root, "dataset_root"), (script.loss, "loss"), (script.epochs, "epochs")):
        if name:
            last = max(name, config, key=lambda word: script.lines[word])
            edits.append(_line(script, main, last, f"{name} = {_IMPORTED}.{call}({name}, {config})"))
    if step.gt:
        epoch = f", {step.epoch}" if step.epoch else ""
        text = f"{_IMPORTED}.batch({step.loss}, {step.gt}{epoch})"
        edits.append(_line(script, step.definition.name, step.gt, text, which=0))
    return Recipe(script.file, tuple(edits))


def all_recipes(host: CsiHost) -> tuple[Recipe, ...]:
    """One recipe per training script."""
    return tuple(recipe_for_script(script) for script in host.scripts)


def unreachable(script: Script) -> tuple[str, ...]:
    """The keys of a YAML that have no effect in this script, each with the reason."""
    step = script.step
    keys = (
        (script.yaml_path, "APML_CONFIG is not read: the script has no variable with the path of its YAML"),
        (script.root, "dataset_root: is not read: the script has no variable with a path that it passes with its YAML"),
        (script.epochs, "epochs: is not read: the script has no variable with a number that it passes to range()"),
        (step.gt, "padding is not recognised: the ground truth has no name before it is standardised"),
        (step.epoch, f"Schedule is an error: {step.definition.name} does not get the epoch"),
    )
    return tuple(text for name, text in keys if not name)


def _line(script: Script, scope: str, after: str, text: str, which: int = -1) -> Line:
    return Line(script.file, scope, after, text, _IMPORTED, which)


def _described(script: Script) -> tuple[tuple[str, str], ...]:
    reached = [key for key, name in (("dataset_root:", script.root), ("epochs:", script.epochs)) if name]
    return (
        ("trains in", f"{script.file} ({script.main.name}, {script.step.definition.name})"),
        ("loss", str(script.loss_class)),
        ("reads of YAML", ", ".join(["loss:", *reached])),
    )


def check(found: Finding, config: dict[str, Any]) -> bool:
    """Fill in what a run with a YAML of this host would use; False for a YAML of another host."""
    if "model" in config or not {"split_to_use", "train_loader"} <= set(config):
        return False
    found.model = "CSI2PointCloud"
    if found.host is not None:
        scripts = found.host.detail.scripts
        if (missing := [s.file for s in scripts if s.file not in found.patched]) and not found.half_patched:
            found.unpatched = (
                f"{', '.join(missing)} is not patched: plain `python` silently ignores "
                f"{', '.join(f'{k}:' for k in _OURS)}. Run `apml patch` on the clone, or start it with `apml run`"
            )
        found.model = scripts[0].model_class.name if scripts[0].model_class else found.model
        found.warnings += [line for script in scripts for line in unreachable(script)]
    _look_at_loss(found, config)
    for key in config:
        if key not in _OURS and str(key).lower() in _MEANT:
            found.warnings.append(f"{key}: is not read; did you mean {_MEANT[str(key).lower()]}:?")
    shared = _in_both_parts(config)
    if shared:
        found.warnings.append(
            f"{', '.join(shared)} are in both the training and the validation part, so validation is not on new data"
        )
    return True


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
    given = asked.weights
    weights = [f"{key} {given[key]:g}" if key in given else f"{key} of the script" for key in _OURS[2:4]]
    found.stages = {"training": f"{matching} ({', '.join(weights)})", "validation": "the host's Chamfer, same weights"}


def _in_both_parts(config: Mapping[str, Any]) -> list[str]:
    """Subject/action pairs of the chosen split that are in both of its parts."""
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
