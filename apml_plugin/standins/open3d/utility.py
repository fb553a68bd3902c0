"""Stand-in for ``open3d.utility``."""

from __future__ import annotations

from typing import Any

import numpy as np

from apml_plugin.standins.absent import absent


class Vector3dVector(np.ndarray):
    """A copy of (N, 3) numbers as float64; an ndarray, so NumPy takes it as it is.

    Raises:
        RuntimeError: any other shape (the real one raises that type).
    """

    def __new__(cls, data: Any = ()) -> Vector3dVector:
        array = np.array(data, dtype=np.float64)
        if array.size == 0:
            array = array.reshape(0, 3)
        if array.ndim != 2 or array.shape[1] != 3:
            raise RuntimeError(f"Vector3dVector: expected an array (N, 3), got shape {array.shape}")
        return array.view(cls)


__getattr__ = absent(
    "open3d.utility",
    "Install the real one: pip install open3d",
)
