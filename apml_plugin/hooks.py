"""What the lines that `apml patch` inserts into a host import, and what you import for a line by hand.

Names here never move and never change their meaning, so that a patched clone keeps working. Nothing here imports torch.

By hand, in any training loop:

>>> from apml_plugin.hooks import training_value
>>> loss = training_value(loss, pred, gt)  # doctest: +SKIP

Put the line after the one that computes the host's own `loss`. Under ``apml run --loss APML``, or with
``APML_LOSS=APML`` in the environment, `loss` is then that of APML; otherwise it is the host's, unchanged.
"""

from __future__ import annotations

from .chosen import VARIABLE, chosen_loss
from .hosts import csi2pointcloud, guard
from .hosts.calls import building, host_loss_name, keeps_host_loss, lets_loss_through
from .hosts.gates import training_loss, training_value, trains_with_loss
from .hosts.pointr.decorating import hoists_loss, takes_loss

__all__ = [
    "csi2pointcloud", "hoists_loss", "host_loss_name", "keeps_host_loss", "lets_loss_through", "takes_loss",
    "training_loss", "training_value", "trains_with_loss",
]  # fmt: skip

with building():
    if chosen_loss()[0] is not None:
        # A patched clone, too, must not train before a value of the loss was differentiated.
        guard.arm(guard.asked_for(chosen_loss()[0], VARIABLE))
