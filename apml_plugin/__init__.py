"""Point-set losses that plug into the point-cloud completion codebases people already have.

Names load on first use: ``import apml_plugin`` itself imports nothing heavy. Every declared loss is
``apml_plugin.<Name>``.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apml_plugin import _moved
from apml_plugin.checkpoints import own as _own

if TYPE_CHECKING:
    from apml_plugin.functional import apml_loss as apml_loss
    from apml_plugin.functional import chamfer_distance as chamfer_distance
    from apml_plugin.functional import earth_movers_distance as earth_movers_distance
    from apml_plugin.functional import fast_emd as fast_emd
    from apml_plugin.functional import matching_plan as matching_plan
    from apml_plugin.losses import *  # noqa: F403
    from apml_plugin.registry import LOSSES as LOSSES
    from apml_plugin.registry import build_loss as build_loss

_OTHERS = {
    "LOSSES": "registry",
    "build_loss": "registry",
    "apml_loss": "functional",
    "chamfer_distance": "functional",
    "earth_movers_distance": "functional",
    "fast_emd": "functional",
    "matching_plan": "functional",
}

__version__ = (Path(__file__).parent / "VERSION").read_text().strip()


def __getattr__(name: str) -> Any:
    if name in _OTHERS:
        return getattr(importlib.import_module(f"{__name__}.{_OTHERS[name]}"), name)
    if name == "__all__":
        losses = importlib.import_module(f"{__name__}.losses").__all__
        return ["__version__", *_OTHERS, *(loss for loss in losses if loss[0].isupper())]
    # Losses are the only names in capitals: asking for any other, such as a module, must not import PyTorch.
    if name[:1].isupper():
        losses = importlib.import_module(f"{__name__}.losses")
        if name in losses.__all__:
            return getattr(losses, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})


_moved.install()
_own.admit()
