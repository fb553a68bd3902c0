"""What lines that were inserted before :mod:`apml_plugin.hooks` existed import."""

from ..hooks import *  # noqa: F403
