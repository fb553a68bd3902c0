"""What a patch edits in a CSI2PointCloud training script: up to five lines, each behind one assignment."""

from __future__ import annotations

from ...patching.records import Line, Recipe
from .records import CsiHost, Script

_NAME = "csi2pointcloud"


def recipe_for_script(script: Script) -> Recipe:
    """The lines of one training script. What it does not have, or sets too late, is left out; see `unreachable`."""
    main, config, step = script.main.name, script.config, script.step
    edits = []
    if script.yaml_path:
        edits.append(
            _line(script, main, script.yaml_path, f"{script.yaml_path} = {_NAME}.config_file({script.yaml_path})")
        )
    for name, call in ((script.root, "dataset_root"), (script.loss, "loss"), (script.epochs, "epochs")):
        if name:
            behind = max(name, config, key=lambda word: script.lines[word])
            edits.append(_line(script, main, behind, f"{name} = {_NAME}.{call}({name}, {config})"))
    if step.gt:
        epoch = f", {step.epoch}" if step.epoch else ""
        text = f"{_NAME}.batch({step.loss}, {step.gt}{epoch})"
        edits.append(_line(script, step.definition.name, step.gt, text, which=0))
    return Recipe(script.file, tuple(edits))


def all_recipes(host: CsiHost) -> tuple[Recipe, ...]:
    """Every recipe this host could carry: one per training script."""
    return tuple(recipe_for_script(script) for script in host.scripts)


def unreachable(script: Script) -> tuple[str, ...]:
    """What a YAML cannot say in this script, each with what happens instead."""
    missing = []
    if not script.yaml_path:
        missing.append("APML_CONFIG is not read: the script opens its YAML by no path held in a variable")
    if not script.root:
        missing.append("dataset_root: is not read: the script passes no variable with a path beside its YAML")
    if not script.epochs:
        missing.append("epochs: is not read: the script has no variable with a number that range() gets")
    if not script.step.gt:
        missing.append("padding is not seen: the ground truth has no name before it is standardised, all points count")
    if not script.step.epoch:
        missing.append(f"Schedule is refused: {script.step.definition.name} is not told the epoch")
    return tuple(missing)


def _line(script: Script, scope: str, after: str, text: str, which: int = -1) -> Line:
    return Line(script.file, scope, after, text, _NAME, which)
