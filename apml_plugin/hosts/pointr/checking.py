"""What a run with a YAML would use (`apml check`), found without importing or running anything of the host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...arguments import did_you_mean
from ...errors import ApmlError, HostError
from ...files import opening
from ...matching.extension import loading_problem
from ..base import Finding, read_yaml
from .decorating import KEYS, OURS, hoist
from .metrics import wanted
from .stages import check_stages
from .structure import HostModel

LEAST_VALIDATION_SAMPLES = 10
DEFAULT_CLIP = 10.0
MOST_INDEX = 16 << 20
MISSPELT = ("loss", "losses", "los", "lss", "loses", "loss_func", "loss_fn", "criterion", "loss_opt", "loss_options")


def check(found: Finding, config: dict[str, Any]) -> bool:
    """Fills in which loss a run with a YAML gets; see `Kind.check`."""
    _resolve_loss(found, config)
    _warn_about_samples(found, config)
    return True


def _resolve_loss(found: Finding, config: dict[str, Any]) -> None:
    from ...registry import build_loss, looks_like_loss

    model = config.get("model")
    if not isinstance(model, dict):
        found.error = "there is no model: in this YAML, so nothing can be built from it"
        return
    found.model = str(model.get("NAME", "?"))
    _warn_about_spelling(found, config, model)
    own = found.host.detail.own_loss if found.host else ()
    if config.get("loss") is not None:
        found.found_at = "loss: at the top level"
    if own and looks_like_loss(config.get("loss")):
        found.error = f"loss: at the top level is the host's own ({own[0]}); write {config['loss']!r} under model:"
        return
    try:
        wanted(config)
        hoist(config)
        value = model.get("loss")
        if value is None or (isinstance(value, Mapping) and all(isinstance(v, int | float) for v in value.values())):
            found.found_at = "" if value is None and not config.get("loss") else found.found_at or "model.loss"
            return
        known = _host_model(found)
        if known and known.chain and isinstance(value, str) and not looks_like_loss(value):
            found.found_at = f"{value!r}, which {found.model} reads itself; it stops at a name it does not know"
            return
        found.found_at = found.found_at or "loss: under model:"
        loss = build_loss(value, model.get("loss_opts"))
        _describe(found, loss)
    except ApmlError as error:
        found.error = str(error)
        return
    _warn_about_run(found, config, loss)
    if not found.error and (missing := _missing_keys(found, model)):
        found.error = f"{found.model} reads {missing}, which this YAML does not give: building it fails"


def _describe(found: Finding, loss: Any) -> None:
    from ...registry import PerStage, describe
    from .attach import check_two_clouds

    known = _host_model(found)
    if known:
        check_two_clouds(found.model, loss)
    per_stage = isinstance(loss, PerStage)
    # If only a run shows how many stages there are, these are the stages that the YAML names.
    stages = (known and known.stages) or (loss.names if per_stage else ("every stage",))
    if per_stage:
        check_stages(found.model, loss.names, stages)
    kept = {stage for site in known.sites for stage in site.kept} if known else set()
    for stage in stages:
        part = loss.stage(stage) if per_stage else None if stage in kept else loss
        found.stages[stage] = "the host's own loss" if part is None else describe(part)


def _host_model(found: Finding) -> HostModel | None:
    models = found.host.detail.models if found.host else ()
    return next((model for model in models if model.name == found.model), None)


def _warn_about_run(found: Finding, config: dict[str, Any], loss: Any) -> None:
    if found.host is None:
        found.warnings.append("no host found around this YAML or the current folder; name one with --host")
    elif _host_model(found) is None and found.model in OURS:
        # A model of the plugin, which reads loss: itself.
        if not found.half_patched and "all models" not in found.patched:
            found.unpatched = (
                f"{found.model} comes with the plugin: plain `python main.py` of an unpatched clone does not know it. "
                "Run `apml patch` on it, or start it with `apml run main.py ...`"
            )
    elif (known := _host_model(found)) is None:
        names = [*(model.name for model in found.host.detail.models), *OURS]
        offer = did_you_mean(found.model, names)
        found.error = f"the host has no model {found.model} with a loss to replace{offer} (it has {', '.join(names)})"
    elif not (known.sites or known.makes or len(found.host.edits) > 2):
        found.error = (
            f"{known.definition.file}:{known.definition.line} {found.model} makes no Chamfer object, so there is "
            "nothing to replace"
        )
    elif not found.half_patched and "all models" not in found.patched and found.model not in found.patched:
        found.unpatched = (
            f"the clone is not patched for {found.model}: plain `python main.py` silently ignores loss: and trains "
            "with Chamfer. Run `apml patch` on it, or start it with `apml run main.py ...`"
        )
    if any(getattr(part, "reduction", None) == "sum" for part in loss.modules()):
        _warn_about_scale(found, config)
    if any(getattr(part, "reduction", None) == "none" for part in loss.modules()):
        found.error = "reduction: none gives one value per pair, which this host cannot use: write mean or sum"
    missing = loading_problem()
    if missing and any(getattr(part, "backend", None) == "native" for part in loss.modules()):
        found.error = (
            f"backend: native cannot be used, there are no compiled ops: {missing}; write auto, sparse or dense"
        )


def _warn_about_spelling(found: Finding, config: dict[str, Any], model: dict[str, Any]) -> None:
    """Warns of keys that look like `loss` and are not read: the run would silently train with Chamfer."""
    for where, mapping in (("the top level", config), ("model:", model)):
        for key in mapping:
            if str(key) not in KEYS and str(key).lower() in MISSPELT:
                found.warnings.append(f"{key}: at {where} is not read; did you mean loss:?")
        if mapping.get("loss_opts") is not None and config.get("loss") is None and model.get("loss") is None:
            found.warnings.append(f"loss_opts: at {where} has no loss: beside it; write loss: APML")
        if "loss" in mapping and mapping["loss"] is None:
            found.warnings.append(f"loss: at {where} is empty and counts as not given; write for example loss: APML")


def _warn_about_scale(found: Finding, config: dict[str, Any]) -> None:
    found.warnings.append(
        "reduction: sum is about (number of ground-truth points) times a mean match distance: log lines (x1000) are "
        "four to five orders of magnitude above Chamfer's, and terms of fixed weight beside it vanish. "
        "`reduction: mean` keeps Chamfer's scale"
    )
    clip = config.get("grad_norm_clip", DEFAULT_CLIP)
    if isinstance(clip, int | float) and clip <= 100 * DEFAULT_CLIP:
        found.warnings.append(
            f"grad_norm_clip is {clip:g}: at this scale nearly every step is clipped to the same length. Multiply it "
            "by the number of ground-truth points, or take reduction: mean"
        )
    optimizer = config.get("optimizer")
    if isinstance(optimizer, dict) and optimizer.get("type") == "SGD":
        found.warnings.append("SGD's steps grow with the loss: divide lr as the loss grew, or take reduction: mean")


def _missing_keys(found: Finding, model: dict[str, Any]) -> str:
    """The config keys that the model's constructor requires and the YAML does not give."""
    known = _host_model(found)
    return ", ".join(f"model.{key}" for key in known.reads if key not in model) if known else ""


def _warn_about_samples(found: Finding, config: dict[str, Any]) -> None:
    """PoinTr's validation prints every (samples // 10)-th line: with fewer than ten samples it divides by zero."""
    subset = config.get("dataset", {}).get("val") if isinstance(config.get("dataset"), dict) else None
    if not isinstance(subset, dict) or not isinstance(subset.get("_base_"), str):
        return
    root = found.host.root if found.host else Path.cwd()
    base = root / subset["_base_"]
    try:
        described = read_yaml(base)
    except HostError as error:
        found.warnings.append(f"dataset.val._base_ (relative to the clone's root): {error}")
        return
    index = described.get("CATEGORY_FILE_PATH")
    name = (subset.get("others") or {}).get("subset")
    if not isinstance(index, str) or not (root / index).is_file():
        found.warnings.append(f"the dataset's index {index} is not there; was the data set downloaded?")
        return
    try:
        entries = json.loads(opening.read_regular(root / index, MOST_INDEX))
        samples = sum(len(entry.get(name, ())) for entry in entries)
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        found.warnings.append(f"the dataset's index {index} cannot be read ({str(error)[:200]})")
        return
    if samples < LEAST_VALIDATION_SAMPLES:
        found.warnings.append(
            f"{samples} validation samples: PoinTr's validation divides by (samples // 10) and stops with "
            f"ZeroDivisionError below {LEAST_VALIDATION_SAMPLES}"
        )
