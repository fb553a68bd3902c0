"""Images of shape (H, W, 3) given to ``add_image`` without a word: tensorboardX took them up to 1.3."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from apml_plugin.launch.announce import tell

CHANNELS = (1, 3, 4)


def prepare(module: ModuleType) -> None:
    """Gives ``SummaryWriter.add_image`` of a writer's module the old reading where today's can only fail."""
    writer = module.SummaryWriter
    add_image = writer.add_image

    @functools.wraps(add_image)
    def call(self: Any, tag: Any, img_tensor: Any, *args: Any, **kwargs: Any) -> Any:
        shape = tuple(getattr(img_tensor, "shape", ()))
        said = "dataformats" in kwargs or len(args) > 2
        if not said and len(shape) == 3 and shape[0] not in CHANNELS and shape[2] in CHANNELS:
            tell("add_image", "add_image of shape (H, W, C) without dataformats is read as tensorboardX 1.2 did")
            kwargs["dataformats"] = "HWC"
        return add_image(self, tag, img_tensor, *args, **kwargs)

    writer.add_image = call
