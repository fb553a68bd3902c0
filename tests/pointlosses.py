"""Every declared loss between two clouds, with the arguments that small clouds of two sizes need."""

from __future__ import annotations

from typing import Any

from torch import nn

from apml_plugin.losses.base import DECLARED, TWO_CLOUDS, arguments_of
from apml_plugin.registry import build_loss

ARGUMENTS: dict[str, dict[str, Any]] = {
    # Clouds of two sizes have no one-to-one assignment; all points of the smaller one are matched.
    "EMD": {"unequal": "smaller"},
    "ApproximateEMD": {"unequal": "smaller", "tolerance": 1e-4},
    "DCD": {"alpha": 10.0},
    "Sinkhorn": {"blur": 0.1, "scaling": 0.7},
    "HausdorffDivergence": {"blur": 0.1},
    "Gaussian": {"blur": 0.3},
    "Laplacian": {"blur": 0.3},
}

POINT_LOSSES = [
    name
    for name, cls in DECLARED.items()
    if cls.takes == TWO_CLOUDS and all(p.default is not p.empty for p in arguments_of(cls).values())
]


def loss_of(name: str, **arguments: Any) -> nn.Module:
    """The loss in evaluation: in training FastEMD matches anew at every call."""
    return build_loss({**config_of(name), **arguments}).eval()


def config_of(name: str) -> dict[str, Any]:
    """What a YAML says."""
    return {"NAME": name, **ARGUMENTS.get(name, {})}
