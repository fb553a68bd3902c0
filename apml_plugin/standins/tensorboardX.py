"""Stand-in for ``tensorboardX``: its SummaryWriter is PyTorch's, and writes nothing where tensorboard is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:

    class SummaryWriter:  # type: ignore[no-redef]
        """Takes every ``add_...`` and records nothing."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.logdir = kwargs.get("log_dir", kwargs.get("logdir", args[0] if args else None))

        def __getattr__(self, name: str) -> Callable[..., None]:
            if name.startswith("add_") or name in ("close", "flush"):
                return lambda *args, **kwargs: None
            raise AttributeError(f"SummaryWriter.{name} is not in the stand-in for tensorboardX")

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *details: Any) -> None:
            return None
