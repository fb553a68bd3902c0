"""PoinTr-style hosts: a registry of models, built from a YAML that names the model and its loss.

Clones that were patched before :mod:`apml_plugin.hooks` existed import `takes_loss` and `hoists_loss` from here.
Nothing here imports torch.
"""

from .decorating import hoists_loss, takes_loss

__all__ = ["hoists_loss", "takes_loss"]
