"""mmengine's ``Registry``, imported without touching Python's random numbers.

Its import draws from ``random`` (rich, which it prints with, does). In a host that has seeded and is about to train,
every later draw would move, and with them data and validation, although nothing of ours is random.
"""

from __future__ import annotations

import random

_state = random.getstate()
try:
    from mmengine.registry import Registry
finally:
    random.setstate(_state)

__all__ = ["Registry"]
