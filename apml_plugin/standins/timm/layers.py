"""Stand-in for ``timm.layers``: blocks of vision transformers, with the weights' names of the real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from apml_plugin.standins.absent import absent

REMEDY = "It has DropPath, trunc_normal_, Mlp, Attention and CosineLRScheduler. Install the real one: pip install timm"


def drop_path(x: Tensor, drop_prob: float = 0.0, training: bool = False, scale_by_keep: bool = True) -> Tensor:
    """Stochastic depth (Huang et al. 2016): in training each sample (axis 0) is zeroed with ``drop_prob``.

    The kept ones are divided by the keep probability if ``scale_by_keep``, so the mean stays. Identity in
    evaluation and at ``drop_prob`` 0.
    """
    if not training or not drop_prob:
        return x
    keep = 1.0 - drop_prob
    mask = x.new_empty((x.shape[0], *[1] * (x.dim() - 1))).bernoulli_(keep)
    return x * (mask / keep if scale_by_keep and keep > 0 else mask)


class DropPath(nn.Module):
    """:func:`drop_path` as a module."""

    def __init__(self, drop_prob: float = 0.0, scale_by_keep: bool = True) -> None:
        super().__init__()
        self.drop_prob = drop_prob
        self.scale_by_keep = scale_by_keep

    def forward(self, x: Tensor) -> Tensor:
        return drop_path(x, self.drop_prob, self.training, self.scale_by_keep)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:g}"


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Fills ``tensor`` from a normal distribution cut to [a, b], in place; PyTorch has the same function."""
    return nn.init.trunc_normal_(tensor, mean=mean, std=std, a=a, b=b)


def to_2tuple(value: Any) -> tuple[Any, Any]:
    """``value`` twice, or as it is if it is a pair."""
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


class Mlp(nn.Module):
    """Two linear layers with an activation between them: (..., in_features) gives (..., out_features)."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        *,
        norm_layer: Callable[[int], nn.Module] | None = None,
        bias: Any = True,
        drop: Any = 0.0,
    ) -> None:
        super().__init__()
        hidden, biases, drops = hidden_features or in_features, to_2tuple(bias), to_2tuple(drop)
        self.fc1 = nn.Linear(in_features, hidden, bias=biases[0])
        self.act = act_layer()
        self.drop1 = nn.Dropout(drops[0])
        self.norm = norm_layer(hidden) if norm_layer is not None else nn.Identity()
        self.fc2 = nn.Linear(hidden, out_features or in_features, bias=biases[1])
        self.drop2 = nn.Dropout(drops[1])

    def forward(self, x: Tensor) -> Tensor:
        return self.drop2(self.fc2(self.norm(self.drop1(self.act(self.fc1(x))))))


class Attention(nn.Module):
    """Self-attention with ``num_heads`` heads: (B, N, dim) gives (B, N, dim).

    Raises:
        ValueError: ``dim`` is no multiple of ``num_heads``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        *,
        qk_scale: float | None = None,
        qk_norm: bool = False,
        proj_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"Attention: dim {dim} is no multiple of num_heads {num_heads}")
        self.num_heads, self.scale = num_heads, qk_scale
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm, self.k_norm = (norm_layer(dim // num_heads) if qk_norm else nn.Identity() for _ in range(2))
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        drop = self.attn_drop.p if self.training else 0.0
        mixed = scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, attn_mask, drop, scale=self.scale)
        return self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2)))


__getattr__ = absent("timm.layers", REMEDY)
