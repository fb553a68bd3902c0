"""What `apml eval` does: read clouds from files, pair them, measure each pair, report.

`evaluation` pairs and measures, `report` makes the table, the JSON and the picture. `csi2pointcloud` measures a
checkpoint of that host on its own validation data.
"""
