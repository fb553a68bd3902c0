"""Plain values from YAML, and a single value changed in a YAML text.

Reading has limits: on the size, on the depth, and on the number of values that anchors expand to.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Sequence
from typing import Any, ClassVar

import yaml

from .opening import read_regular

DECISIVE = ("loss", "loss_opts", "model")
"""Keys that must not be in a mapping twice; below `loss` no key may be."""
MOST_BYTES = 128 * 1024
MOST_VALUES = 10_000
DEEPEST = 64


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The value of a YAML file. Raises OSError, or ValueError saying what is wrong with it."""
    return load_yaml(read_regular(path, MOST_BYTES))


def load_yaml(text: str | bytes, below: str = "") -> Any:
    """The plain values in a text. below: the key of a YAML whose value the text is, such as "loss".

    Raises:
        GivenTwiceError: a key that decides the loss is in a mapping twice.
        ValueError: the text is invalid or asks for other objects; the message says where.
    """
    try:
        return yaml.load(text, Loader=functools.partial(_Loader, below=below))  # type: ignore[arg-type]
    except GivenTwiceError:
        raise
    except (yaml.YAMLError, ValueError, ArithmeticError) as error:  # the last two: an impossible date or number
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        text = f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark and problem else str(error)
        raise ValueError(" ".join(text.split())[:300]) from None


def set_value(text: str, path: Sequence[str], value: Any, before: str = "") -> str:
    """`text` with `value` at a path of keys; comments, order and layout stay as they are.

    The value is written on one line. A new last key is put before the key `before` of the same mapping, else first.
    Raises ValueError if that is not possible: the path leads through something that is not a mapping, or an anchor
    or a merge key connects the value with another one.

    >>> print(set_value("model: {NAME: PCN}  # small\\nlr: 0.1", ["lr"], 0.01))
    model: {NAME: PCN}  # small
    lr: 0.01
    """
    expected = _replaced(load_yaml(text), path, value)
    result = _with_value(text, path, dump_line(value), before)
    try:
        same = load_yaml(result) == expected
    except ValueError:
        same = False
    if not same:
        raise ValueError(f"{'.'.join(path)} shares its value with another key (&name, *name or <<); write it out")
    return result


def dump_line(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _replaced(data: Any, path: Sequence[str], value: Any, above: str = "the top level") -> dict[str, Any]:
    """`data` with another value at a path. Copies: what anchors share must not change elsewhere."""
    if not isinstance(data, dict) or not data:
        raise ValueError(f"{above} is not a mapping with keys")
    first, *rest = path
    return {**data, first: _replaced(data.get(first), rest, value, first) if rest else value}


def _with_value(text: str, path: Sequence[str], value: str, before: str) -> str:
    node: Any = yaml.compose(text, Loader=_Loader)
    pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for depth, key in enumerate(path):
        pairs = {str(name.value): (name, item) for name, item in node.value}
        if key in pairs and depth < len(path) - 1:
            node = pairs[key][1]
    if path[-1] in pairs:
        name, old = pairs[path[-1]]
        start, end = old.start_mark.index, _end_of(old)
        between = text[name.end_mark.index : start]
        if start == end or ("\n" in between and not between.replace(":", "", 1).strip()):
            return f"{text[: name.end_mark.index]}: {value}{text[end:]}"  # onto the line of its key
        return text[:start] + value + text[end:]
    new, (place, _) = f"{path[-1]}: {value}", pairs.get(before) or next(iter(pairs.values()))
    start = place.start_mark.index
    if node.flow_style:
        return f"{text[:start]}{new}, {text[start:]}"
    indent, newline = place.start_mark.column, "\r\n" if "\r\n" in text else "\n"
    start -= indent
    comments = itertools.takewhile(lambda x: x.lstrip().startswith("#"), reversed(text[:start].splitlines(True)))
    # The comment above a key stays with it; one at the top of the file is about the whole file.
    above = sum(map(len, comments))
    start -= above if above < start else 0
    return f"{text[:start]}{' ' * indent}{new}{newline}{text[start:]}"


def _end_of(node: yaml.Node) -> int:
    """Where a value's text ends; PyYAML's mark of a block collection lies after the comments after it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end_of(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


class GivenTwiceError(ValueError):
    """A key that decides the loss is in a mapping twice: PyYAML would take the last one without a word."""


class _Loader(yaml.FullLoader):
    """PyYAML's FullLoader, without tags that make Python objects, counting values while it parses."""

    yaml_multi_constructors: ClassVar[dict[str | None, Any]] = {}  # !!python/name, in old versions !!python/object

    def __init__(self, stream: Any, below: str = "") -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # id of a node -> number of its values with aliases expanded
        self._keys = [below]  # those that lead to the node that is being composed

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._error(event, f"is nested more than {DEEPEST} levels deep")
        self._keys.append(index.value if isinstance(index, yaml.ScalarNode) else "")
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:
                raise self._error(event, f"*{event.anchor} contains itself")
        else:
            inner = [] if isinstance(node, yaml.ScalarNode) else node.value
            parts = [part for pair in inner for part in pair] if isinstance(node, yaml.MappingNode) else inner
            self._sizes[id(node)] = 1 + sum(self._sizes[id(part)] for part in parts)
            if isinstance(node, yaml.MappingNode):
                self._reject_twice([key for key, _ in inner if isinstance(key, yaml.ScalarNode)])
        if max(self._sizes[id(node)], len(self._sizes)) > MOST_VALUES:
            raise self._error(event, f"holds more than {MOST_VALUES} values, with its anchors (&name, *name) expanded")
        self._keys.pop()
        return node

    def _reject_twice(self, keys: list[Any]) -> None:
        lines: dict[str, int] = {}
        for key in keys:
            line = key.start_mark.line + 1
            if key.value in lines and (key.value in DECISIVE or "loss" in self._keys):
                raise GivenTwiceError(
                    f"{key.value}: is given twice, in line {lines[key.value]} and in line {line}; keep one of them"
                )
            lines[key.value] = line

    def _error(self, event: Any, text: str) -> Exception:
        return yaml.composer.ComposerError(None, None, text, event.start_mark)
