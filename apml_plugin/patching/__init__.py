"""Edits of source files that only insert marked lines: a recipe in, a plan and its diff out; apply, check, revert."""

from .records import MARKER, Change, Line, Plan, Recipe, decorator
from .writing import check, plan_apply, plan_revert, write

__all__ = ["MARKER", "Change", "Line", "Plan", "Recipe", "check", "decorator", "plan_apply", "plan_revert", "write"]
