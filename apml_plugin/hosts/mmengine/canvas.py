"""Figures as images for a visualizer's backends; matplotlib is imported here alone, when a picture is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

INK, MUTED, GROUND = "#222222", "#6b6b73", "#f4f4f6"


def new_figure(wide: float, high: float) -> Any:
    """A figure of so many inches that belongs to no window and no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(wide, high), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def to_image(figure: Any) -> NDArray[np.uint8]:
    """(height, width, 3) uint8, red first: what ``Visualizer.add_image`` takes."""
    figure.canvas.draw()
    return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
