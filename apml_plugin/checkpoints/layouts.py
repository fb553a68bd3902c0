"""Where the weights are in a checkpoint, and what is stored beside them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from ..errors import CheckpointError

PREFIX = "module."
RAW = "raw"


class Keys(NamedTuple):
    """The keys of a layout for what is stored beside the weights."""

    epoch: str
    optimizer: str
    metrics: str
    best: str


LAYOUTS = {  # the first one in a file counts, as in PoinTr's builder, which takes `model` before `base_model`
    "model": Keys("epoch", "optimizer", "metrics", "best_metrics"),
    "base_model": Keys("epoch", "optimizer", "metrics", "best_metrics"),
    "grnet": Keys("epoch_index", "optimizer", "metrics", "best_metrics"),
    "net_G": Keys("epoch_index", "optimizer", "metrics", "best_metrics"),
    "net_state_dict": Keys("epoch", "optimizer", "metrics", "best_metrics"),
    "model_state_dict": Keys("epoch", "optimizer_state_dict", "metrics", "best_metrics"),
    "state_dict": Keys("epoch", "optimizer", "metrics", "best_metrics"),
}
"""Key of the weights -> names of the rest: PoinTr and its forks, SeedFormer, SnowflakeNet and SVDFormer (both
`model`), GRNet, SpareNet, PointAttN and DCD, CSI2PointCloud, MMEngine. `raw` is a state dict and nothing else."""

_EPOCH, _OPTIMIZER = ("epoch", "epoch_index"), ("optimizer", "optimizer_state_dict")
_METRICS, _BEST = ("metrics",), ("best_metrics", "best_metric")


@dataclass
class Checkpoint:
    """A checkpoint in parts. weights: as in the file. others: all other keys. left_out: keys that are no tensors."""

    layout: str
    weights: Mapping[str, torch.Tensor]
    others: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def prefixed(self) -> int:
        """How many keys begin with `module.`."""
        return sum(key.startswith(PREFIX) for key in self.weights)

    @property
    def epoch(self) -> Any:
        return self._first(_EPOCH)

    @property
    def optimizer(self) -> Any:
        return self._first(_OPTIMIZER)

    @property
    def metrics(self) -> Any:
        return self._first(_METRICS)

    @property
    def best(self) -> Any:
        return self._first(_BEST)

    def _first(self, names: tuple[str, ...]) -> Any:
        return next((self.others[name] for name in names if self.others.get(name) is not None), None)


def take_apart(value: Any) -> Checkpoint:
    """Finds the weights. Raises CheckpointError, without a file name, naming the keys it looked for and found."""
    if not isinstance(value, dict):
        raise CheckpointError(f"holds a {type(value).__name__}, not a mapping with weights in it")
    value = _bare(value)
    for layout in LAYOUTS:
        if _tensors(value.get(layout)):
            others = {key: item for key, item in value.items() if key != layout and isinstance(key, str)}
            return _made(layout, value[layout], others)
    if _tensors(value):
        return _made(RAW, value, {})
    keys = ", ".join(repr(key)[:40] for key in list(value)[:8]) or "nothing"
    raise CheckpointError(f"has no weights under {', '.join(LAYOUTS)} and is not a state dict itself; it has {keys}")


def _tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(
        isinstance(key, str) and isinstance(item, torch.Tensor) for key, item in dict.items(value)
    )


def _made(layout: str, weights: dict[Any, Any], others: dict[str, Any]) -> Checkpoint:
    weights = _bare(weights)
    good = {k: _plain(v) for k, v in weights.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    left = tuple(str(key)[:80] for key in weights if key not in good)
    kept: OrderedDict[str, torch.Tensor] = OrderedDict(good)
    _copy_versions(weights, kept)
    return Checkpoint(layout, kept, others, left)


def _bare(value: dict[Any, Any]) -> OrderedDict[Any, Any]:
    """A copy without attributes: a file can give an OrderedDict some that hide its methods."""
    result = OrderedDict(dict.items(value))
    _copy_versions(value, result)
    return result


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without attributes, for the same reason."""
    return torch.Tensor.detach(tensor) if vars(tensor) else tensor


def without_prefix(weights: Mapping[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """`module.` removed once from the front of keys. Raises CheckpointError if two keys become one."""
    return _renamed(weights, lambda key: key.removeprefix(PREFIX))


def with_prefix(weights: Mapping[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """`module.` added to every key that does not begin with it."""
    return _renamed(weights, lambda key: key if key.startswith(PREFIX) else PREFIX + key)


def _renamed(weights: Mapping[str, torch.Tensor], rename: Any) -> OrderedDict[str, torch.Tensor]:
    result = OrderedDict((rename(key), value) for key, value in weights.items())
    if len(result) != len(weights):
        raise CheckpointError("has keys that differ only by `module.`, so it cannot be added or removed")
    _copy_versions(weights, result, rename)
    return result


def _copy_versions(source: Any, target: Any, rename: Any = None) -> None:
    """A state dict's `_metadata` (module name -> version), which decides how old batch norms are read."""
    versions = getattr(source, "_metadata", None)
    if isinstance(versions, dict):
        pairs = {key: value for key, value in versions.items() if isinstance(key, str)}
        if rename is not None:
            pairs = {rename(key + ".")[:-1] if key else key: value for key, value in pairs.items()}
        target._metadata = OrderedDict(pairs)
