"""CSI2PointCloud (point clouds from WiFi signals, on MM-Fi): the functions that a patched training script calls.

Nothing here imports torch. The top level of the script's YAML can then also have these keys:

    loss: APML                      # any form but stages; replaces the host's Chamfer term in training
    loss_opts: {reduction: mean}    # arguments of a loss given by name alone
    chamfer_weight: 0.85            # weight of that term; default: the script's
    regularization_weight: 0.15     # weight of the host's regulariser, 0 switches it off; default: the script's
    dataset_root: /data/MMFi        # default: the path in the script
    epochs: 50                      # default: the number in the script

Without these keys the script behaves as before. Validation always uses the host's loss as the script made it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

__all__ = ["CONFIG", "batch", "config_file", "dataset_root", "epochs", "loss"]

CONFIG = "APML_CONFIG"
"""Environment variable: the path of a YAML to read instead of the script's."""


def config_file(path: str) -> str:
    """The YAML to read: `path`, or the one that APML_CONFIG names. Raises HostError if that is not a file."""
    chosen = os.environ.get(CONFIG)
    if not chosen:
        return path
    from ...announce import announce
    from ...errors import HostError

    if not os.path.isfile(chosen):
        raise HostError(f"{CONFIG}={chosen!r} is not a file (seen from {os.getcwd()}); name a YAML, or unset it")
    announce(f"[apml] config file: {chosen} (from {CONFIG}, instead of {path})")
    return chosen


def dataset_root(path: str, config: Any) -> str:
    """The dataset's folder: `dataset_root:` of the YAML, else `path`. The YAML's loss is built once to check it.

    Raises HostError if the folder does not exist, LossArgumentError if it is not a string, and what building the loss
    raises.
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
        raise HostError(f"dataset_root: {chosen} is not a folder (seen from {os.getcwd()}); it holds E01 and so on")
    announce(f"[apml] dataset path: {folder} (dataset_root: of the YAML, instead of {path})")
    return folder


def epochs(count: int, config: Any) -> int:
    """`epochs:` of the YAML, else `count`. Raises LossValueError if it is not a whole number of 1 or more."""
    chosen = _value(config, "epochs")
    if chosen is None:
        return count
    from ...announce import announce
    from ...errors import LossValueError

    if not isinstance(chosen, int) or isinstance(chosen, bool) or chosen < 1:
        raise LossValueError(f"epochs={chosen!r} must be a whole number of 1 or more")
    announce(f"[apml] epochs: {chosen} (epochs: of the YAML, instead of {count})")
    return chosen


def loss(own: Any, config: Any) -> Any:
    """`own` with the YAML's loss for training, or `own` itself if the YAML names neither a loss nor a weight.

    Raises what building the loss raises, and HostError if `own` does not have the host's two weights.
    """
    from .training import with_loss

    return with_loss(own, config)


def batch(loss: Any, gt: Any, epoch: int | None = None) -> None:
    """Gives the loss a batch's ground truth (B, M, 3), before the script standardises it, and the epoch.

    Does nothing for the host's own loss.
    """
    see = getattr(loss, "see", None)
    if see is not None:
        see(gt, epoch)


def _value(config: Any, key: str) -> Any:
    return config.get(key) if isinstance(config, Mapping) else None
