"""``CosineLRScheduler(t_mul=..., decay_rate=...)``: names of timm up to 0.4, now ``cycle_mul`` and ``cycle_decay``."""

from __future__ import annotations

import functools
import inspect
from types import ModuleType
from typing import Any

from apml_plugin.launch.announce import tell

NEW = {"t_mul": "cycle_mul", "decay_rate": "cycle_decay"}


def prepare(module: ModuleType) -> None:
    """Has the scheduler of timm, real one or stand-in, take the old keywords; nothing where it still knows them."""
    scheduler = module.CosineLRScheduler
    init = scheduler.__init__
    known = inspect.signature(init).parameters
    gone = {old: new for old, new in NEW.items() if old not in known and new in known}

    @functools.wraps(init)
    def call(self: Any, *args: Any, **kwargs: Any) -> None:
        for old, new in gone.items():
            if old in kwargs and new not in kwargs:
                tell("t_mul", "CosineLRScheduler's t_mul and decay_rate, gone from timm, are cycle_mul and cycle_decay")
                kwargs[new] = kwargs.pop(old)
        init(self, *args, **kwargs)

    if gone:
        scheduler.__init__ = call
