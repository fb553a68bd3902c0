"""Figures in memory and clouds in perspective; matplotlib is imported when a picture is drawn."""

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


def project(cloud: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, 3): right, up and towards the viewer, seen from the front, the right and a little above; y is up."""
    turn, tip = np.deg2rad(38), np.deg2rad(24)
    x, y, z = cloud.astype(np.float64).T
    right, front = np.cos(turn) * x - np.sin(turn) * z, np.sin(turn) * x + np.cos(turn) * z
    return np.stack([right, np.cos(tip) * y - np.sin(tip) * front, np.sin(tip) * y + np.cos(tip) * front], 1)
