"""What Matplotlib dropped and hosts draw with: ``gca(projection=...)`` (3.7) and ``tostring_rgb`` (3.10)."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from apml_plugin.launch.announce import tell


def prepare(module: ModuleType) -> None:
    """Gives ``Figure`` and ``FigureCanvasAgg``, whichever ``module`` holds, what they lack."""
    figure, canvas = getattr(module, "Figure", None), getattr(module, "FigureCanvasAgg", None)
    if figure is not None and module.__name__ == "matplotlib.figure":
        figure.gca = _with_projection(figure.gca)
    if canvas is not None and not hasattr(canvas, "tostring_rgb"):
        canvas.tostring_rgb = _rgb


def _with_projection(gca: Any) -> Any:
    @functools.wraps(gca)
    def call(self: Any, **kwargs: Any) -> Any:
        try:
            return gca(self, **kwargs)
        except TypeError:
            if not kwargs:
                raise
        tell("gca", "Figure.gca(projection=...), gone from Matplotlib, is answered by Figure.add_subplot")
        if self.axes and gca(self).name == kwargs.get("projection", "rectilinear"):
            return gca(self)
        return self.add_subplot(**kwargs)

    return call


def _rgb(self: Any) -> bytes:
    """Red, green and blue of each pixel, row by row."""
    import numpy as np

    tell("tostring_rgb", "tostring_rgb, gone from Matplotlib, is answered by buffer_rgba")
    return np.asarray(self.buffer_rgba())[..., :3].tobytes()
