"""MMEngine: one config line brings in our losses, two networks, a dataset, a metric and hooks.

``custom_imports = dict(imports=['apml_plugin.hosts.mmengine'])`` imports this package, and importing it registers:

- MODELS: every loss of ``apml losses`` (``dict(type='APML', p_min=0.8)``), ``PCN``, ``FoldingNet``,
  ``PointGMM``; ``CompletionModel`` and ``MixtureModel`` to train them; ``APMLDistance`` with the call of
  MMDetection3D's ChamferDistance; ``PackedLoss``
- DATASETS: ``CompletionShapes``; METRICS: ``CompletionMetric``
- HOOKS: ``LossEpochHook``; ``PredictionPictureHook`` and ``MatchedDistanceHook``, which draw for the visualizer

Each answers to its plain name and to the scope ``apml`` (``apml.PCN``). For a registry of another project, such as
Pointcept's, call :func:`register_into` on it. Importing also lets ``resume=True`` work on PyTorch 2.6 and later
(:func:`admit_history`), and ``launcher='pytorch'`` on a machine without an accelerator (:func:`allow_cpu_launch`).
"""

from apml_plugin.hosts.mmengine.launching import allow_cpu_launch
from apml_plugin.hosts.mmengine.registering import register, register_into
from apml_plugin.hosts.mmengine.resuming import admit_history

__all__ = ["admit_history", "allow_cpu_launch", "register", "register_into"]

register()
admit_history()
allow_cpu_launch()
