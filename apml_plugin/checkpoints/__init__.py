"""Checkpoints of hosts: read without running code in them, described, compared with a model, converted.

`reading.read` asks PyTorch's weights-only reader first. If that rejects a file, the same reader gets `placeholders` for
the classes that old hosts pickled, and these become plain values. Any other class is an error that names it.
`container` and `pickle_bounds` check a file before PyTorch reads it. `layouts` finds the weights, `report` describes
them, `comparing` compares them with a host's model, `writing` converts them. `loading` is `torch.load` under
`apml run`, `own` makes losses of this package loadable.
"""
