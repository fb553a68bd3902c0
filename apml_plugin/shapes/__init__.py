"""Generated shapes: chairs, tables, lamps, airplanes and mugs, views of them, and data sets of both.

`solids` are the parts, `families` puts shapes together from them, `dataset` makes samples for completion.
"""

from .dataset import CompletionShapes, dataset_config, draw_points, write_dataset
from .families import FAMILIES, camera, make_shape, visible_from

__all__ = [
    "FAMILIES", "CompletionShapes", "camera", "dataset_config", "draw_points", "make_shape", "visible_from",
    "write_dataset",
]  # fmt: skip
