"""The shipped configs made tiny, for the tests that run MMEngine's Runner."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

CONFIGS = Path(__file__).parents[2] / "configs" / "mmengine"
_number = count()


def _tiny(work_dir: Path, name: str = "pcn_shapes_apml", epochs: int = 2, **options: Any) -> Config:
    cfg = Config.fromfile(CONFIGS / f"{name}.py")
    sizes = dict(num_partial=64, num_gt=64)
    cfg.merge_from_dict(
        {
            "model.net.num_pred": 64,
            "model.net.encoder_channel": 32,
            "train_dataloader.dataset": dict(size=32, **sizes),
            "train_dataloader.batch_size": 4,
            "val_dataloader.dataset": dict(size=4, **sizes),
            "train_cfg.max_epochs": epochs,
            "optim_wrapper.optimizer.lr": 3e-3,
            "work_dir": str(work_dir),
            "experiment_name": f"tiny{next(_number)}",  # MMEngine keeps logs by this name within a process
            **options,
        }
    )
    return cfg


@pytest.fixture
def tiny() -> Callable[..., Config]:
    """``tiny(work_dir, name="pcn_shapes_apml", epochs=2, **options)``: a shipped config of a second an epoch."""
    return _tiny
