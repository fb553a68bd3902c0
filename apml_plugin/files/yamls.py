"""Plain values from YAML, bounded: in size, in depth, and in what its anchors multiply to."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import yaml

from .opening import read_regular

MOST_BYTES = 128 * 1024
MOST_VALUES = 10_000
DEEPEST = 64


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """What a YAML file holds. Raises OSError, or ValueError with what is wrong with it."""
    return load_yaml(read_regular(path, MOST_BYTES))


def load_yaml(text: str | bytes) -> Any:
    """What the text says, in plain values. Raises ValueError saying where it is broken or asks for anything else."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, ArithmeticError) as error:  # the last two: a date or number that there is not
        raise ValueError(" ".join(str(error).split())[:300]) from None


class _Loader(yaml.FullLoader):
    """PyYAML's own, without what makes objects, and counting while it goes."""

    yaml_multi_constructors: ClassVar[dict[str | None, Any]] = {}  # !!python/name, in old versions !!python/object

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # of a node -> how many values it stands for, aliases written out

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._refused(event, f"is nested more than {DEEPEST} levels deep")
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:
                raise self._refused(event, f"*{event.anchor} holds itself")
        else:
            inner = [] if isinstance(node, yaml.ScalarNode) else node.value
            parts = [part for pair in inner for part in pair] if isinstance(node, yaml.MappingNode) else inner
            self._sizes[id(node)] = 1 + sum(self._sizes[id(part)] for part in parts)
        if max(self._sizes[id(node)], len(self._sizes)) > MOST_VALUES:
            raise self._refused(event, f"holds more than {MOST_VALUES} values, its anchors (&name, *name) written out")
        return node

    def _refused(self, event: Any, text: str) -> Exception:
        return yaml.composer.ComposerError(None, None, text, event.start_mark)
