"""Edits of source files that only insert marked lines: a recipe in, a plan and its diff out; apply, check, revert."""

from .plans import check, plan_apply, plan_revert, write
from .records import MARKER, Change, Line, Plan, Recipe, decorator

__all__ = ["MARKER", "Change", "Line", "Plan", "Recipe", "check", "decorator", "plan_apply", "plan_revert", "write"]
