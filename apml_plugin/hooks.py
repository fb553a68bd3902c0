"""What a line inserted into a host imports."""

from .hosts import csi2pointcloud
from .hosts.pointr import hoists_loss, takes_loss
from .hosts.training import (
    host_loss_name,
    keeps_host_loss,
    lets_loss_through,
    training_loss,
    training_value,
    trains_with_loss,
)

__all__ = [
    "csi2pointcloud", "hoists_loss", "host_loss_name", "keeps_host_loss", "lets_loss_through", "takes_loss",
    "training_loss", "training_value", "trains_with_loss",
]  # fmt: skip
