"""MMEngine: one line in a config registers our losses, networks, a dataset, a metric and hooks.

``custom_imports = dict(imports=['apml_plugin.hosts.mmengine'])`` imports this package, which registers:

- MODELS: every loss of ``apml losses`` (``dict(type='APML', p_min=0.8)``); ``PCN``, ``FoldingNet``, ``PointGMM``;
  ``CompletionModel`` and ``MixtureModel`` to train them; ``APMLDistance``, which is called like MMDetection3D's
  ChamferDistance; ``PackedLoss``
- DATASETS: ``CompletionShapes``; METRICS: ``CompletionMetric``
- HOOKS: ``LossEpochHook``; ``PredictionPictureHook`` and ``MatchedDistanceHook``, which draw for the visualizer

Each is registered under its plain name and in the scope ``apml`` (``apml.PCN``). For a registry of another project,
such as Pointcept's, call :func:`register_into` on it. The import also makes ``resume=True`` work on PyTorch 2.6 and
later (:func:`admit_history`), and ``launcher='pytorch'`` on a machine without an accelerator
(:func:`allow_cpu_launch`).
"""

from apml_plugin.hosts.mmengine.compat import admit_history, allow_cpu_launch
from apml_plugin.hosts.mmengine.registering import register, register_into

__all__ = ["admit_history", "allow_cpu_launch", "register", "register_into"]

register()
admit_history()
allow_cpu_launch()
