"""Where lines inserted before :mod:`apml_plugin.hooks` was there look for it."""

from ..hooks import host_loss_name, keeps_host_loss, lets_loss_through, training_loss, training_value, trains_with_loss  # noqa: F401  # noqa: F401
