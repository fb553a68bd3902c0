"""``resume=True`` on PyTorch 2.6 and later, where MMEngine 0.10 cannot read what its own Runner wrote.

Since 2.6 ``torch.load`` admits only known types unless told otherwise. A Runner's checkpoint also holds the log's
history, which is none of them. These types are only data, so they are named as admissible here; everything else
is refused as before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version

STATISTICS = ("min", "max", "current", "mean")


def admit_history() -> None:
    """Lets ``torch.load`` read a Runner's log history, in this process. Safe to call again."""
    if digit_version(torch.__version__) < digit_version("2.6.0"):
        return  # nothing is refused there by default
    admitted: list[Any] = [HistoryBuffer, np.ndarray, np.dtype]
    admitted += [type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")]
    rebuild: dict[str, Any] = {"_reconstruct": np.empty(0).__reduce__()[0], "scalar": np.float64(0).__reduce__()[0]}
    for core in ("core", "_core"):  # NumPy 2 moved the module; a checkpoint names it as it was called where it was made
        admitted += [(function, f"numpy.{core}.multiarray.{name}") for name, function in rebuild.items()]
    known = torch.serialization.get_safe_globals()
    if getattr not in known:  # whoever admitted all of getattr keeps it
        admitted.append((_statistic, "builtins.getattr"))
    torch.serialization.add_safe_globals([entry for entry in admitted if entry not in known])


def _statistic(owner: Any, name: str) -> Callable[..., Any]:
    """What a history means by getattr: one of its own methods. All else that getattr can reach stays closed."""
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise ValueError(f"a checkpoint asks for {name!r} of {owner!r}; only HistoryBuffer's statistics are admitted")
    return getattr(HistoryBuffer, name)
