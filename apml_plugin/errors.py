"""Exceptions of the plugin.

Each takes exactly one string: PoinTr-style registries rebuild any exception of a constructor as
``type(e)(one_string)``, which fails for an exception with more arguments.
"""

from __future__ import annotations

from pickle import UnpicklingError


class ApmlError(Exception):
    """Base of all exceptions of this package."""


class UnknownLossError(ApmlError, LookupError):
    """A loss name that is not registered; the message offers the nearest names."""


class LossArgumentError(ApmlError, TypeError):
    """A loss was given an argument it does not take, or one of the wrong type."""


class LossValueError(ApmlError, ValueError):
    """A value out of range, or clouds whose shapes, dtypes, lengths or numbers are unusable."""


class BackendError(ApmlError, RuntimeError):
    """The backend named by the caller cannot compute the call; the message says why."""


class HostError(ApmlError, RuntimeError):
    """A path is not a known kind of codebase; the message says what was looked for."""


class AmbiguousError(HostError):
    """Two files of a codebase, or two entries of a YAML, could be meant; the message names both and what to do."""


class PatchError(ApmlError, RuntimeError):
    """A source edit cannot be made or undone safely; nothing was written."""


class CheckpointError(ApmlError, UnpicklingError):
    """A checkpoint that cannot be read safely, or not at all; nothing in it was run and nothing was written."""


class CloudFileError(ApmlError, ValueError):
    """A file from which no point cloud can be read; the message names the file and what is wrong with it."""
