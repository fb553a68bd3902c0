"""Hosts with a training loop of their own: their loss is a function, an object, or chosen by a string.

- `recognise(project)` reads such a codebase without importing any of it: what trains, which Chamfer it trains with.
- `recipe(fork)` says what a patch edits.
- `read(project, without=...)` and `sites_for(project, nodes)` are for a codebase that is of another kind, too.
"""

from ..project import Project
from .recognise import Fork, read, recipe, recognise, sites_for
from .sites import Kept, Refused, Site

__all__ = [
    "Fork", "Kept", "Project", "Refused", "Site", "read", "recipe", "recognise", "sites_for",
]  # fmt: skip
