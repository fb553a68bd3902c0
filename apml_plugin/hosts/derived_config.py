"""A training YAML derived from a host's own: with `loss:` in the right place, and gentler settings for fine-tuning."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ..errors import HostError
from ..files.yamls import dump_line, set_value
from .base import Host, read_yaml

DEFAULT_CLIP = 10.0
"""PoinTr clips the norm of the gradient here, unless `grad_norm_clip:` says otherwise."""
_EPOCHS, _STEP_SIZE, _DECAY_STEP = 30, 10, 7

_MEAN = "mean: Chamfer's scale; sum: the published scale"
_SUM = "sum: the published scale, about (points of the ground truth) times a mean distance"


@dataclass
class Derived:
    """A YAML's text and what was changed in it. changes: (path of keys, old value, new value, why)."""

    text: str
    changes: list[tuple[str, Any, Any, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def set(self, path: Sequence[str], value: Any, why: str = "") -> None:
        """Sets a value unless it is there already. Raises HostError where the text cannot be edited so."""
        old: Any = _config(self.text)
        for key in path:
            old = old.get(key) if isinstance(old, Mapping) else None
        if old == value:
            return
        try:
            self.text = set_value(self.text, path, value, before="model")
        except ValueError as error:
            raise HostError(f"cannot set {'.'.join(path)} in this YAML: {error}") from None
        self.changes.append((".".join(path), old, value, why))


def derive(text: str, loss: Any, finetune: bool = False, host: Host | None = None) -> Derived:
    """The YAML `text` of a PoinTr-style host or of CSI2PointCloud, with `loss`.

    A loss whose `reduction` is a sum by default gets `reduction: mean` where none is given, because hosts choose their
    clipping and their other weights for Chamfer's scale. With `reduction: sum`, `grad_norm_clip:` is multiplied by the
    number of points of the ground truth instead.

    Args:
        loss: what `loss:` may say: a name, a mapping, a list or a mapping of stages.
        finetune: for a start from trained weights: a tenth of the learning rate, at most 30 epochs, steps of the
            schedules to match, and batch norm's momentum as it is at the end of training.
        host: the clone, for the size of its data set.

    Raises HostError for a YAML of another kind, or without the keys that have to change; and what building the loss
    raises.
    """
    from ..registry import build_loss

    derived, config = Derived(text), _config(text)
    loss = _at_chamfers_scale(loss)
    modules = list(build_loss(loss).modules())
    place = _place(config, host)
    sums = any(getattr(module, "reduction", None) == "sum" for module in modules)
    derived.set(place, loss, _SUM if sums else _MEAN if "reduction" in dump_line(loss) else "")
    in_pointr = isinstance(config.get("model"), Mapping)
    if sums and in_pointr:
        _scale_clipping(derived, config, host)
    if finetune:
        if not in_pointr:
            raise HostError("--finetune: this host's training script does not start from a checkpoint")
        _soften(derived, config)
    return derived


def _config(text: str) -> dict[str, Any]:
    from ..files.yamls import load_yaml

    value = load_yaml(text)
    if not isinstance(value, dict):
        raise ValueError(f"holds {type(value).__name__}, not a mapping")
    return value


def _place(config: Mapping[str, Any], host: Host | None) -> tuple[str, ...]:
    """Where `loss:` belongs. Raises HostError for a YAML of another kind, or one that names its loss twice."""
    model = config.get("model")
    if not isinstance(model, Mapping):
        if {"split_to_use", "train_loader"} <= set(config):
            return ("loss",)
        raise HostError("it is neither a PoinTr-style YAML (no model:) nor one of CSI2PointCloud (no split_to_use:)")
    for where, mapping in (("the top level", config), ("model:", model)):
        if mapping.get("loss_opts") is not None:
            raise HostError(f"loss_opts: at {where} belongs to another loss; remove it first")
    if config.get("loss") is not None and model.get("loss") is not None:
        raise HostError("loss: is given twice, at the top level and under model:; remove one first")
    own = [part.detail.own_loss for part in host.parts if hasattr(part.detail, "own_loss")] if host else []
    top = config.get("loss")
    weights = isinstance(top, Mapping) and bool(top) and all(isinstance(value, int | float) for value in top.values())
    if "loss" in model or any(own) or weights:  # any other value is a loss, or a misspelt one
        return ("model", "loss")
    return ("loss",)


def _at_chamfers_scale(value: Any) -> Any:
    """`value` with `reduction: mean` for every loss whose own default is a sum."""
    from ..registry import LOSSES, NAME_KEYS, arguments_of

    if isinstance(value, list):
        return [_at_chamfers_scale(item) for item in value]
    if isinstance(value, str):
        scaled = _at_chamfers_scale({"NAME": value})
        return scaled if len(scaled) > 1 else value
    if not isinstance(value, dict):
        return value
    name = next((value[key] for key in NAME_KEYS if key in value), None)
    result = {key: item if key in NAME_KEYS else _at_chamfers_scale(item) for key, item in value.items()}
    cls = LOSSES.module_dict.get(name) if isinstance(name, str) else None
    default: inspect.Parameter | None = arguments_of(cls).get("reduction") if cls else None
    if default is not None and default.default == "sum" and "reduction" not in value:
        result["reduction"] = "mean"
    return result


def _scale_clipping(derived: Derived, config: dict[str, Any], host: Host | None) -> None:
    clip = config.get("grad_norm_clip", DEFAULT_CLIP)
    if not isinstance(clip, int | float) or clip > 100 * DEFAULT_CLIP:
        return
    points = _points(config, host)
    if points is None:
        derived.warnings.append(
            "grad_norm_clip: was not changed, because the number of points of the ground truth is not known here; "
            "multiply it by that number, or nearly every step is clipped (name the clone with --host)"
        )
    else:
        value = clip * points
        value = int(value) if value == int(value) else value
        derived.set(("grad_norm_clip",), value, f"{clip:g} times {points} points, to clip as `reduction: mean` would")


def _points(config: Mapping[str, Any], host: Host | None) -> int | None:
    """How many points a ground-truth cloud has: N_POINTS of the data set, else what the model gives."""
    subset = (config.get("dataset") or {}).get("train") if isinstance(config.get("dataset"), Mapping) else None
    base = subset.get("_base_") if isinstance(subset, Mapping) else None
    given: Any = None
    if isinstance(base, str) and host is not None and (host.root / base).is_file():
        given = read_yaml(host.root / base).get("N_POINTS")
    if given is None:
        model = config["model"]
        given = model.get("num_points", model.get("num_pred"))
        if model.get("NAME") == "PoinTr" and isinstance(given, int):
            given += 2048  # the network adds its input to its output
    return given if type(given) is int and given > 0 else None


def _soften(derived: Derived, config: dict[str, Any]) -> None:
    """Settings for a start from trained weights."""
    optimizer, epochs = config.get("optimizer"), config.get("max_epoch")
    given = optimizer.get("kwargs") if isinstance(optimizer, Mapping) else None
    rate = given.get("lr") if isinstance(given, Mapping) else None
    if not isinstance(rate, int | float) or not isinstance(epochs, int):
        raise HostError("--finetune changes optimizer.kwargs.lr and max_epoch, and this YAML does not have both")
    lower = format(Decimal(repr(rate)) / 10, "f")
    derived.set(("optimizer", "kwargs", "lr"), float(lower), "a tenth: the weights are good already")
    for group, kwargs in _scheduler_arguments(config):
        for key, most in (("step_size", _STEP_SIZE), ("decay_step", _DECAY_STEP), ("epochs", _EPOCHS)):
            if isinstance(kwargs.get(key), int) and kwargs[key] > most:
                derived.set(("scheduler", group, key), most, "for fewer epochs")
    scheduler = config.get("bnmscheduler")
    norm = scheduler.get("kwargs") if isinstance(scheduler, Mapping) else None
    if isinstance(norm, Mapping) and {"bn_momentum", "lowest_decay"} <= set(norm):
        path = ("bnmscheduler", "kwargs", "bn_momentum")
        derived.set(path, norm["lowest_decay"], "where training ended: batch statistics are settled")
    if epochs > _EPOCHS:
        derived.set(("max_epoch",), _EPOCHS)


def _scheduler_arguments(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    scheduler = config.get("scheduler")
    for group, kwargs in scheduler.items() if isinstance(scheduler, Mapping) else ():
        if str(group).startswith("kwargs") and isinstance(kwargs, Mapping):
            yield group, kwargs


def with_header(derived: Derived, source: str, where: str, start: str) -> str:
    """The text below a comment that lists the changes. start: the command that trains with the YAML, run `where`."""
    lines = [f"Derived from {source} by `apml config`:" if derived.changes else f"Equal to {source}, as it should be."]
    for path, old, new, why in derived.changes:
        was = "" if old is None else f" (was {dump_line(old)})"
        lines.append(f"  {path}: {dump_line(new)}{was}" + (f"  ({why})" if why else ""))
    lines += [f"Start it {where}:", f"  {start}"]
    newline = "\r\n" if "\r\n" in derived.text else "\n"
    return "".join(f"# {line}{newline}" for line in lines) + newline + derived.text
