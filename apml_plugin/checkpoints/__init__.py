"""Checkpoints of the hosts: read without running anything in them, described, compared, converted.

`reading.read` asks PyTorch's weights-only reader first. Where that refuses, the same reader is asked again with the
classes that old hosts pickled (`placeholders`) standing in as empty shells, and what the shells kept is turned into
plain values (`restoring`). Anything else in a file is refused by name. `layouts` finds the weights among a host's keys,
`report` describes them, `comparing` holds them against a host's model, `writing` writes files whole or not at all.
"""
