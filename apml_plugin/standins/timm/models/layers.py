"""The older home of what is now ``timm.layers``."""

from ..layers import DropPath, __getattr__, trunc_normal_

__all__ = ["DropPath", "__getattr__", "trunc_normal_"]
