"""Stand-in for the names of ``timm`` that completion hosts use: blocks of vision transformers, and a schedule.

Weights have the names of the real ones. Every place in which old and new timm keep these names has all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.optim import Optimizer


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


class CosineLRScheduler:
    """Cosine learning rate with warm restarts (Loshchilov and Hutter 2017, SGDR) and a linear warm-up.

    Sets ``lr`` of each parameter group as a function of the epoch, or of the number of updates.

    Cycle i lasts ``t_initial * cycle_mul**i`` and starts at the group's own rate times ``cycle_decay**i``; within
    it the rate falls along half a cosine to ``lr_min``. After ``cycle_limit`` cycles it stays at ``lr_min``.
    Before ``warmup_t`` it rises linearly from ``warmup_lr_init``; with ``warmup_prefix`` the cosine's time starts
    after the warm-up, else both start at 0. ``k_decay`` bends the curve: progress is ``(t / T)**k_decay``.

    Raises:
        ValueError: ``t_initial`` is not positive, or noise is asked for (the stand-in has none).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        t_initial: int,
        lr_min: float = 0.0,
        cycle_mul: float = 1.0,
        cycle_decay: float = 1.0,
        cycle_limit: int = 1,
        warmup_t: int = 0,
        warmup_lr_init: float = 0.0,
        warmup_prefix: bool = False,
        t_in_epochs: bool = True,
        noise_range_t: Any = None,
        noise_pct: float = 0.67,
        noise_std: float = 1.0,
        noise_seed: int = 42,
        k_decay: float = 1.0,
        initialize: bool = True,
    ) -> None:
        if t_initial <= 0:
            raise ValueError(f"CosineLRScheduler: t_initial must be positive, got {t_initial}")
        if noise_range_t is not None:
            raise ValueError("CosineLRScheduler: the stand-in has no noise; install timm for noise_range_t")
        self.optimizer = optimizer
        self.t_initial, self.lr_min = t_initial, lr_min
        self.cycle_mul, self.cycle_decay, self.cycle_limit = cycle_mul, cycle_decay, cycle_limit
        self.warmup_t, self.warmup_lr_init, self.warmup_prefix = warmup_t, warmup_lr_init, warmup_prefix
        self.t_in_epochs, self.k_decay = t_in_epochs, k_decay
        for group in optimizer.param_groups:
            if initialize:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError("CosineLRScheduler: initialize=False, but a parameter group has no initial_lr")
        self.base_values: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self._set([warmup_lr_init] * len(self.base_values) if warmup_t else self.base_values)

    def step(self, epoch: int, metric: Any = None) -> None:
        """Called once per epoch; counts only if the schedule runs in epochs."""
        if self.t_in_epochs:
            self._set([self._at(epoch, base) for base in self.base_values])

    def step_update(self, num_updates: int, metric: Any = None) -> None:
        """Called once per update; counts only if the schedule runs in updates."""
        if not self.t_in_epochs:
            self._set([self._at(num_updates, base) for base in self.base_values])

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what :meth:`state_dict` gave."""
        self.__dict__.update(state)

    def _at(self, t: float, base: float) -> float:
        if t < self.warmup_t:
            return self.warmup_lr_init + t * (base - self.warmup_lr_init) / self.warmup_t
        if self.warmup_prefix:
            t -= self.warmup_t
        cycle, length = 0, float(self.t_initial)
        while t >= length and cycle < self.cycle_limit:
            t, length, cycle = t - length, length * self.cycle_mul, cycle + 1
        if cycle >= self.cycle_limit:
            return self.lr_min
        top = base * self.cycle_decay**cycle
        return self.lr_min + 0.5 * (top - self.lr_min) * (1 + math.cos(math.pi * (t / length) ** self.k_decay))

    def _set(self, values: list[float]) -> None:
        for group, value in zip(self.optimizer.param_groups, values, strict=True):
            group["lr"] = value
