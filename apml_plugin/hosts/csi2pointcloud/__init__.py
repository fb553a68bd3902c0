"""CSI2PointCloud (point clouds from WiFi signals, on MM-Fi): what a patched training script calls.

Nothing here imports torch. The YAML that the script reads may then also say, at its top level:

    loss: APML                      # the whole grammar but stages; in the place of the host's Chamfer term, in training
    loss_opts: {reduction: mean}    # arguments of a loss given by name alone
    chamfer_weight: 0.85            # what the term is multiplied by; default: what the script says
    regularization_weight: 0.15     # the host's regulariser beside it; 0 switches it off; default: what the script says
    dataset_root: /data/MMFi        # default: the path in the script
    epochs: 50                      # default: the number in the script

Without any of these keys the script does what it did. Validation keeps the host's loss as the script made it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

__all__ = ["CONFIG", "batch", "config_file", "dataset_root", "epochs", "loss"]

CONFIG = "APML_CONFIG"
"""Environment variable: the path of the YAML to read in the place of the one in the script."""


def config_file(path: str) -> str:
    """The YAML to read: `path`, or the one that APML_CONFIG names. Raises HostError if that is no file."""
    chosen = os.environ.get(CONFIG)
    if not chosen:
        return path
    from ...announce import announce
    from ...errors import HostError

    if not os.path.isfile(chosen):
        raise HostError(f"{CONFIG}={chosen!r} is no file (seen from {os.getcwd()}); name a YAML, or unset it")
    announce(f"[apml] config file: {chosen} (from {CONFIG}, in place of {path})")
    return chosen


def dataset_root(path: str, config: Any) -> str:
    """The dataset's folder: `dataset_root:` of the YAML, else `path`. The YAML's loss is built once to check it.

    Raises HostError for a folder that is not there, LossArgumentError for one that is no string, and what building
    the loss raises.
    """
    from .training import wanted

    wanted(config)
    chosen = _value(config, "dataset_root")
    if chosen is None:
        return path
    from ...announce import announce
    from ...errors import HostError, LossArgumentError

    if not isinstance(chosen, str):
        raise LossArgumentError(f"dataset_root={chosen!r} must be a path, got {type(chosen).__name__}")
    folder = os.path.expanduser(chosen)
    if not os.path.isdir(folder):
        raise HostError(f"dataset_root: {chosen} is no folder (seen from {os.getcwd()}); it holds E01, E02 and so on")
    announce(f"[apml] dataset path: {folder} (dataset_root: of the YAML, in place of {path})")
    return folder


def epochs(count: int, config: Any) -> int:
    """`epochs:` of the YAML, else `count`. Raises LossValueError for what is no whole number from 1 on."""
    chosen = _value(config, "epochs")
    if chosen is None:
        return count
    from ...announce import announce
    from ...errors import LossValueError

    if not isinstance(chosen, int) or isinstance(chosen, bool) or chosen < 1:
        raise LossValueError(f"epochs={chosen!r} must be a whole number from 1 on")
    announce(f"[apml] epochs: {chosen} (epochs: of the YAML, in place of {count})")
    return chosen


def loss(own: Any, config: Any) -> Any:
    """`own` with the loss of the YAML in it for training; `own` itself where the YAML asks for nothing.

    Raises what building the loss raises; HostError for an `own` without the host's two weights.
    """
    from .training import with_loss

    return with_loss(own, config)


def batch(loss: Any, gt: Any, epoch: int | None = None) -> None:
    """Show a batch's ground truth (B, M, 3) to the loss before the script standardises it, and the epoch.

    Does nothing for a loss that is the host's own.
    """
    see = getattr(loss, "see", None)
    if see is not None:
        see(gt, epoch)


def _value(config: Any, key: str) -> Any:
    return config.get(key) if isinstance(config, Mapping) else None
