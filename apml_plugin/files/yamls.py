"""Plain values from YAML, with limits on its size, its depth, and the values that its anchors expand to."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import yaml

from .opening import read_regular

MOST_BYTES = 128 * 1024
MOST_VALUES = 10_000
DEEPEST = 64


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The value of a YAML file. Raises OSError, or ValueError saying what is wrong with it."""
    return load_yaml(read_regular(path, MOST_BYTES))


def load_yaml(text: str | bytes) -> Any:
    """The plain values in a text. Raises ValueError, with the place, if it is invalid or asks for other objects."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, ArithmeticError) as error:  # the last two: an impossible date or number
        raise ValueError(" ".join(str(error).split())[:300]) from None


class _Loader(yaml.FullLoader):
    """PyYAML's FullLoader, without tags that make Python objects, counting values while it parses."""

    yaml_multi_constructors: ClassVar[dict[str | None, Any]] = {}  # !!python/name, in old versions !!python/object

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # id of a node -> number of its values with aliases expanded

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._error(event, f"is nested more than {DEEPEST} levels deep")
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:
                raise self._error(event, f"*{event.anchor} contains itself")
        else:
            inner = [] if isinstance(node, yaml.ScalarNode) else node.value
            parts = [part for pair in inner for part in pair] if isinstance(node, yaml.MappingNode) else inner
            self._sizes[id(node)] = 1 + sum(self._sizes[id(part)] for part in parts)
        if max(self._sizes[id(node)], len(self._sizes)) > MOST_VALUES:
            raise self._error(event, f"holds more than {MOST_VALUES} values, with its anchors (&name, *name) expanded")
        return node

    def _error(self, event: Any, text: str) -> Exception:
        return yaml.composer.ComposerError(None, None, text, event.start_mark)
