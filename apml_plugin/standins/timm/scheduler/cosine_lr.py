"""Cosine learning rate with warm restarts (Loshchilov and Hutter 2017, SGDR) and a linear warm-up."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer


class CosineLRScheduler:
    """Sets ``lr`` of each parameter group as a function of the epoch, or of the number of updates.

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
