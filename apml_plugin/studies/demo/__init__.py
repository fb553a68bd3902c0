"""``apml demo``: `completion` (a checkpoint fine-tuned with two losses), `flow` (free points), `mixture` (PointGMM).

`host` is a miniature of PoinTr that `completion` works on, by default. `mmfi` writes data for CSI2PointCloud:
``python -m apml_plugin.studies.demo.mmfi FOLDER``.
"""
