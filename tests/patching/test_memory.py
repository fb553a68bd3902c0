"""A recipe in memory: the code of the patched text, with the line numbers of the file on disk."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import CodeType

import pytest

from apml_plugin.errors import PatchError
from apml_plugin.patching import Line, decorator, memory, source

D = decorator("m.py", "get", "keeps_host_loss")
L = Line("m.py", "train", "cd", "cd = training_loss(cd)", "training_loss")
BARE = b"""def get(p: int):
    return p


def train():
    cd = (get(
        1))
    raise ValueError(cd)
"""


def codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


@pytest.mark.parametrize("on_disk", [(), (D,), (L,), (D, L)])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_every_statement_keeps_its_line_number(on_disk: tuple[Line, ...], mark: bytes) -> None:
    data = source.put(mark + BARE, "m.py", on_disk)
    plain, patched = compile(data, "m.py", "exec", dont_inherit=True), memory.compiled(data, [D, L], "folder/m.py")
    positions = [{p[:2] for one in codes(code) for p in one.co_positions() if p[0]} for code in (plain, patched)]
    ours = source.marked(data)
    assert {p for p in positions[0] if p[0] not in ours} <= positions[1]  # (first line, last line)
    assert max(max(p) for p in positions[1]) == data.count(b"\n")
    namespace: dict[str, object] = {}
    exec(patched, namespace)
    assert type(namespace["get"].__annotations__["p"]) is type  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"TrainingLoss") as raised:
        namespace["train"]()  # type: ignore[operator]
    frame = traceback.extract_tb(raised.value.__traceback__)[-1]
    assert (frame.filename, frame.lineno) == ("folder/m.py", data.splitlines().index(b"    raise ValueError(cd)") + 1)


def test_an_inserted_line_counts_as_the_one_above_it() -> None:
    code = next(one for one in codes(memory.compiled(BARE, [L], "m.py")) if one.co_name == "train")
    assert {line for *_, line in code.co_lines()} == {5, 6, 7, 8}
    assert all(end <= 8 for _, end, *_ in code.co_positions() if end)
    top = memory.compiled(b"x = 1\ndef train():\n    cd = x\n", [L], "m.py")
    assert {line for *_, line in top.co_lines() if line} == {1, 2}  # the import goes above the first line


def test_the_text_is_that_of_the_patch() -> None:
    patched = source.put(BARE, "m.py", [D, L])
    assert memory.text(BARE, [D, L]) == memory.text(source.put(BARE, "m.py", [D]), [D, L]) == patched
    assert memory.text(patched, [D, L]) is patched
    with pytest.raises(PatchError, match=r"^m\.py: 'get' is not defined"):
        memory.text(b"x = 1\n", [D])
    with pytest.raises(PatchError, match=r"^m\.py is half patched"):
        memory.text(patched + b"# apml-plugin\n", [D, L])
