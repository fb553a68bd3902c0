"""Hosts without a model registry: their loss is a function, a local object, or chosen by a string.

- `recognise(path)` reads such a codebase without importing any of it: what trains, which Chamfer it trains with.
"""

from .recognise import Fork, recipe, recognise
from .sites import Kept, Refused, Site

__all__ = ["Fork", "Kept", "Refused", "Site", "recipe", "recognise"]
