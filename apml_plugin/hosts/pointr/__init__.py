"""PoinTr-style hosts: a registry of models, built from a YAML that names the model and its loss.

`takes_loss` and `hoists_loss` are here for clones that were patched before :mod:`apml_plugin.hooks` was there.
Nothing here imports torch.
"""

from .decorating import hoists_loss, takes_loss

__all__ = ["hoists_loss", "takes_loss"]
