"""What the command line says of such a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .findings import findings
from .recipes import all_recipes, unreachable
from .records import CsiHost, Script

if TYPE_CHECKING:
    from ..kinds import Found

KIND = "CSI2PointCloud host"
SOURCE = "loss: at the top level of the YAML, or APML_LOSS (apml run --loss), which wins over it"
THEN = (
    "Now write `loss: {NAME: APML, reduction: mean}` into its YAML (dataset_root: and epochs: too, if you like), or "
    "name another YAML in APML_CONFIG; `apml check CONFIG` says what a run uses."
)


def found(host: CsiHost) -> Found:
    """The host as every command shows and patches it."""
    from ...patching import Recipe
    from ..kinds import Found

    recipes = all_recipes(host)
    if len(recipes) > 1:
        recipes = (Recipe("all training scripts", tuple(e for recipe in recipes for e in recipe.edits)), *recipes)
    return Found(
        host.root,
        KIND,
        tuple(pair for script in host.scripts for pair in _described(script)),
        recipes,
        tuple(
            f"{script.file}:{script.lines[script.loss]} {script.loss}: the Chamfer term of {script.loss_class.name}, "
            f"in {script.step.definition.name}"
            for script in host.scripts
        ),
        ("its regulariser and both weights (chamfer_weight:, regularization_weight: in the YAML)", "validation"),
        tuple(f"{script.file}: {line}" for script in host.scripts for line in unreachable(script)),
        SOURCE,
        THEN,
        host,
        findings(host),
    )


def _described(script: Script) -> tuple[tuple[str, str], ...]:
    reached = [key for key, name in (("dataset_root:", script.root), ("epochs:", script.epochs)) if name]
    return (
        ("trains in", f"{script.file} ({script.main.name}, {script.step.definition.name})"),
        ("loss", str(script.loss_class)),
        ("reads of YAML", ", ".join(["loss:", *reached])),
    )
