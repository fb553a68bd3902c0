"""What `apml eval` does: read clouds from files, pair them, measure each pair, report.

- `pairing`: two files or two folders to pairs, and what is left over.
- `measuring`: the metrics of a pair from one neighbour search; `running`: all pairs, with progress.
- `csi2pointcloud`: a checkpoint of that host, measured on its own validation data.
- `report`: table and JSON; `picture`: per-point errors in colour.
"""
