"""Where lines inserted before :mod:`apml_plugin.hooks` was there look for it."""

from ..hooks import *  # noqa: F403
