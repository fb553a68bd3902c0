"""Every registered loss between two clouds, with the arguments that small clouds of two sizes need."""

from __future__ import annotations

from typing import Any

from apml_plugin.registry import LOSSES

ARGUMENTS: dict[str, dict[str, Any]] = {
    # Clouds of two sizes have no bijection; the smaller one is matched wholly.
    "EMD": {"unequal": "smaller"},
    "ApproximateEMD": {"unequal": "smaller", "tolerance": 1e-4},
    "DCD": {"alpha": 10.0},
    "Sinkhorn": {"blur": 0.1, "scaling": 0.7},
    "HausdorffDivergence": {"blur": 0.1},
    "Gaussian": {"blur": 0.3},
    "Laplacian": {"blur": 0.3},
}

NOT_OF_TWO_CLOUDS = ("Schedule", "ImagesSinkhorn", "VolumesSinkhorn")

POINT_LOSSES = [
    name for name, cls in LOSSES.module_dict.items() if not getattr(cls, "needs", "") and name not in NOT_OF_TWO_CLOUDS
]


def config_of(name: str) -> dict[str, Any]:
    """What a YAML says."""
    return {"NAME": name, **ARGUMENTS.get(name, {})}
