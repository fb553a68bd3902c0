"""How points are matched: ``match`` gives the losses of checked clouds, ``plan_of`` the plans behind them.

This package knows clouds and numbers only: no YAML, no host, no nn.Module.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apml_plugin.matching import backends
from apml_plugin.matching.inputs import Clouds, Lengths, check_clouds, compute_dtype
from apml_plugin.matching.settings import AUTO, Settings

__all__ = ["Clouds", "Lengths", "Settings", "check_clouds", "compute_dtype", "match", "plan_of"]


def match(clouds: Clouds, settings: Settings, *, backend: str = "auto", differentiate_plan: bool = False) -> Tensor:
    """Losses (B,) of checked clouds, with gradients for pred and gt.

    An empty side gives loss 0 and gradient 0. Half precision is computed in float32 and its loss is float32;
    gradients have each input's dtype.

    Raises:
        BackendError: the backend named by the caller cannot compute it.
    """
    choice = backends.choose(backend, clouds.pred, clouds.gt, differentiate_plan, _is_exact(settings))
    dtype = compute_dtype(clouds.pred, clouds.gt)
    with torch.autocast(clouds.pred.device.type, enabled=False):
        return choice.backend.losses(clouds, settings, dtype, differentiate_plan)


def plan_of(clouds: Clouds, settings: Settings, *, backend: str = "auto") -> tuple[Tensor, list[float]]:
    """The plans as one coalesced sparse COO tensor (B, N, M), and the bound on the dropped mass of each.

    Memory: the support; with the dense backend, N M. The bound is 0 where nothing was dropped.
    """
    choice = backends.choose(backend, clouds.pred, clouds.gt, exact=_is_exact(settings))
    with torch.no_grad(), torch.autocast(clouds.pred.device.type, enabled=False):
        return choice.backend.plans(clouds, settings, compute_dtype(clouds.pred, clouds.gt))


def _is_exact(settings: Settings) -> bool:
    return settings.threshold == AUTO or float(settings.threshold) <= backends.EXACT_FROM
