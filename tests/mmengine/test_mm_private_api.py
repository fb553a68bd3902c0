"""Canaries: the private names of MMEngine that compat.py uses. A failure names what a new version changed."""

from __future__ import annotations

import inspect

import mmengine
import mmengine.dist.utils as launchers
from mmengine.visualization import Visualizer

from apml_plugin.hosts.mmengine import compat


def test_the_launcher_that_we_replace_exists_and_takes_a_backend() -> None:
    original = getattr(launchers, compat.LAUNCHER, None)
    assert original is not None, f"MMEngine {mmengine.__version__} has no mmengine.dist.utils.{compat.LAUNCHER}"
    assert "backend" in inspect.signature(original).parameters
    # init_dist looks the launcher up in its module at each call; otherwise replacing it would do nothing.
    assert compat.LAUNCHER in inspect.getsource(launchers.init_dist), f"MMEngine {mmengine.__version__}"


def test_the_backends_of_a_visualizer_are_where_we_look() -> None:
    assert f"self.{compat.BACKENDS}" in inspect.getsource(Visualizer), f"MMEngine {mmengine.__version__}"
