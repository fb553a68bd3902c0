"""Stand-in for ``timm.layers``: stochastic depth and truncated-normal initialisation."""

from __future__ import annotations

from torch import Tensor, nn

from apml_plugin.standins.absent import absent


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): in training each sample (axis 0) is zeroed with ``drop_prob``.

    The kept ones are divided by the keep probability if ``scale_by_keep``, so the mean stays. Identity in
    evaluation and at ``drop_prob`` 0.
    """

    def __init__(self, drop_prob: float = 0.0, scale_by_keep: bool = True) -> None:
        super().__init__()
        self.drop_prob = drop_prob
        self.scale_by_keep = scale_by_keep

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.drop_prob:
            return x
        keep = 1.0 - self.drop_prob
        mask = x.new_empty((x.shape[0], *[1] * (x.dim() - 1))).bernoulli_(keep)
        return x * (mask / keep if self.scale_by_keep and keep > 0 else mask)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:g}"


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Fills ``tensor`` from a normal distribution cut to [a, b], in place; PyTorch has the same function."""
    return nn.init.trunc_normal_(tensor, mean=mean, std=std, a=a, b=b)


__getattr__ = absent(
    "timm.layers",
    "Install the real one: pip install timm torchvision",
)
