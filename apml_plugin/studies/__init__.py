"""What `apml eval`, `compare`, `demo` and `bench` do, a folder each, on top of what they share.

- `evaluate`: predictions from files against ground truths. `compare`: the same small network trained with each loss.
- `demo`: the plugin at work in a host, free points, PointGMM. `bench`: seconds and memory of losses.
- Shared: `machine` (the machine in words, threads), `reports` (files, progress bars, marks of the best value).

Shapes, pictures and metrics come from below: `apml_plugin.shapes`, `.drawing` and `.metrics`. No other part of the
package imports this one, except the command line.
"""
