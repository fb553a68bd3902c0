"""One file: what goes in, what is left alone, what is refused, and that it comes out again byte for byte."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apml_plugin.errors import PatchError
from apml_plugin.patching import decorator, source

F = decorator("m.py", "f", "takes_loss")
C = decorator("m.py", "C", "takes_loss")
IMPORT = "from apml_plugin.hooks import takes_loss  # apml-plugin"
MARK = "@takes_loss  # apml-plugin"

REWRITES = {
    "import behind the last leading import": (
        F,
        "import a\n\ndef f(): pass\n",
        f"import a\n{IMPORT}\n\n{MARK}\ndef f(): pass\n",
    ),
    "no import at all": (F, "def f(): pass\n", f"{IMPORT}\n{MARK}\ndef f(): pass\n"),
    "no final newline": (F, "import a\ndef f(): return 1", f"import a\n{IMPORT}\n{MARK}\ndef f(): return 1"),
    "one line without any newline": (F, "def f(): return 1", f"{IMPORT}\n{MARK}\ndef f(): return 1"),
    "CRLF": (F, "import a\r\ndef f():\r\n\tpass\r\n", f"import a\r\n{IMPORT}\r\n{MARK}\r\ndef f():\r\n\tpass\r\n"),
    "lone CR": (F, "import a\rdef f(): pass\r", f"import a\r{IMPORT}\r{MARK}\rdef f(): pass\r"),
    "docstring and future": (
        F,
        '"""Doc\n\n# apml-plugin\n"""\nfrom __future__ import annotations\n# note\ndef f(): pass\n',
        f'"""Doc\n\n# apml-plugin\n"""\nfrom __future__ import annotations\n{IMPORT}\n# note\n{MARK}\ndef f(): pass\n',
    ),
    "shebang, coding cookie, licence": (
        F,
        "#!/usr/bin/env python\n# -*- coding: latin-1 -*-\n# Licence\n\ndef f(): pass\n",
        f"#!/usr/bin/env python\n# -*- coding: latin-1 -*-\n# Licence\n\n{IMPORT}\n{MARK}\ndef f(): pass\n",
    ),
    "statement sharing an import's line": (
        F,
        'import a; b = """\n"""\ndef f(): pass\n',
        f'import a; b = """\n"""\n{IMPORT}\n{MARK}\ndef f(): pass\n',
    ),
    "decorated class": (
        C,
        "import a\n@a.b(1,\n     2)\nclass C(a.D):\n    x = 1\n",
        f"import a\n{IMPORT}\n@a.b(1,\n     2)\n{MARK}\nclass C(a.D):\n    x = 1\n",
    ),
    "indented with a tab": (
        F,
        "import a\nif a:\n\tdef f():\n\t\tpass\n",
        f"import a\n{IMPORT}\nif a:\n\t{MARK}\n\tdef f():\n\t\tpass\n",
    ),
    "commented and quoted decoys": (
        F,
        "# def f(): pass\ns = '''\ndef f(): pass\n'''\ndef f(): pass\n# def f(): pass\n",
        f"# def f(): pass\n{IMPORT}\ns = '''\ndef f(): pass\n'''\n{MARK}\ndef f(): pass\n# def f(): pass\n",
    ),
    "parenthesised import": (
        F,
        "from a import (\n    b,\n    c,\n)\ndef f(): pass\n",
        f"from a import (\n    b,\n    c,\n)\n{IMPORT}\n{MARK}\ndef f(): pass\n",
    ),
    "non-ASCII": (
        F,
        "import a  # é — 点\ndef f(): pass  # 点\n",
        f"import a  # é — 点\n{IMPORT}\n{MARK}\ndef f(): pass  # 点\n",
    ),
    "async": (F, "async def f(): pass\n", f"{IMPORT}\n{MARK}\nasync def f(): pass\n"),
    "method": (
        decorator("m.py", "C.f", "takes_loss"),
        "def f(): pass\nclass C:\n  def f(self): pass\n",
        f"{IMPORT}\ndef f(): pass\nclass C:\n  {MARK}\n  def f(self): pass\n",
    ),
}


@pytest.mark.parametrize("name", REWRITES)
def test_rewrites(name: str) -> None:
    edit, before, after = REWRITES[name]
    patched = source.put(before.encode(), "m.py", [edit])
    assert patched.decode() == after
    assert source.present(patched, "m.py", [edit])
    assert not source.present(before.encode(), "m.py", [edit])
    assert source.put(patched, "m.py", (), [edit]) == before.encode()


def test_a_byte_order_mark_stays_first() -> None:
    before = b"\xef\xbb\xbfdef f(): pass\r\n"
    patched = source.put(before, "m.py", [F])
    assert patched.startswith(b"\xef\xbb\xbffrom apml_plugin")
    assert source.put(patched, "m.py", (), [F]) == before


def test_latin1_bytes_stay() -> None:
    before = b"# coding: latin-1\nname = '\xe9'\ndef f(): pass\n"
    patched = source.put(before, "m.py", [F])
    assert b"'\xe9'" in patched
    assert source.put(patched, "m.py", (), [F]) == before


def test_the_users_own_edits_survive_a_revert() -> None:
    patched = source.put(b"import a\n\ndef f():\n    pass\n", "m.py", [F]).decode()
    edited = "# mine\n" + patched.replace("    pass", "\treturn 2\r") + "x = 1"
    assert source.put(edited.encode(), "m.py", (), [F]).decode() == "# mine\nimport a\n\ndef f():\n\treturn 2\r\nx = 1"


def test_a_revert_never_leaves_the_decorator_without_its_import() -> None:
    unmarked = f"{IMPORT}\n{MARK}\ndef f(): pass\n".replace(MARK, "@takes_loss").encode()
    with pytest.raises(PatchError, match="line 2 uses takes_loss without the mark"):
        source.put(unmarked, "m.py", (), [F])
    own = b"from apml_plugin.hooks import takes_loss\n" + unmarked
    assert source.put(own, "m.py", (), [F]) == own.replace(IMPORT.encode() + b"\n", b"")


HALF = {
    "decorator deleted": ("import a\n" + IMPORT + "\ndef f(): pass\n", True),
    "import deleted": ("import a\n" + MARK + "\ndef f(): pass\n", True),
    "decorator moved to another function": (f"{IMPORT}\n{MARK}\ndef g(): pass\ndef f(): pass\n", True),
    "twice": (f"{IMPORT}\n{IMPORT}\n{MARK}\ndef f(): pass\n", True),
    "argument added": (f"{IMPORT}\n@takes_loss(1)  # apml-plugin\ndef f(): pass\n", False),
    "commented out": (f"{IMPORT}\n# {MARK}\ndef f(): pass\n", False),
    "code joined to the line": (f"x = 1; {IMPORT}\n{MARK}\ndef f(): pass\n", False),
}


@pytest.mark.parametrize("name", HALF)
def test_half_patched_or_edited_by_hand_is_rejected(name: str) -> None:
    text, revertible = HALF[name]
    with pytest.raises(PatchError, match=r"^m\.py is half patched or was edited by hand .*--revert"):
        source.present(text.encode(), "m.py", [F])
    if revertible:
        assert b"apml-plugin" not in source.put(text.encode(), "m.py", (), [F])
    else:
        with pytest.raises(PatchError, match=r"^m\.py, line \d carries the mark .*by hand"):
            source.put(text.encode(), "m.py", (), [F])


REFUSED = {
    "missing": ("import a\n", r"'f' is not defined"),
    "commented out only": ("# def f(): pass\n", r"'f' is not defined"),
    "twice": ("if 1:\n    def f(): pass\nelse:\n    def f(): pass\n", r"'f' is defined 2 times"),
    "syntax error": ("def f(:\n", r"m\.py, line 1 is not valid Python"),
    "null byte": ("def f(): pass\0\n", r"m\.py.* is not valid Python"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    text, message = REFUSED[name]
    with pytest.raises(PatchError, match=message):
        source.put(text.encode(), "m.py", [F])


def test_a_name_in_a_string_or_comment_is_no_mark() -> None:
    text = b"s = '''\n@takes_loss  # apml-plugin\n'''\ndef f(): pass\n"
    assert not source.present(text, "m.py", [F])
    assert source.put(text, "m.py", (), [F]) == text


ENDS = st.sampled_from(["\n", "\r\n", "\r"])
PIECES = [
    ["import a"],
    ["from a import (", "    b)"],
    ["x = 1"],
    ["# def f(): pass"],
    [""],
    ["   "],
    ["x = '''", "def f():", "'''"],
    ["import a; x = (1,", " 2)"],
    ["if x:", "\ty = 1", "else:", "  y = 2"],
    ["class B:", "\t@staticmethod", "\tdef f(): pass"],
    ["# é"],
    ["\x0c"],
    ["x = 1 \\", "  + 2"],
    ["@a.b", "def g():", "    return f'''{x}", "'''"],
]
HEADS = [[], ["#!/bin/python"], ['"""doc', 'more"""'], ["'doc'", "from __future__ import annotations"]]
ANCHORS = [
    ["def f(): pass"],
    ["@a.b", "def f():", "\treturn 1"],
    ["try:", "    def f(x=(1,", " 2)): return x", "except E: pass"],
    ["async def f():", "  pass"],
    ["class f:", " '''doc'''"],
]
Lines = list[str]


@given(
    head=st.sampled_from(HEADS),
    above=st.lists(st.sampled_from(PIECES)),
    anchor=st.sampled_from(ANCHORS),
    below=st.lists(st.sampled_from(PIECES)),
    ends=st.lists(ENDS, min_size=1, max_size=4),
    bom=st.booleans(),
    final=st.booleans(),
)
def test_revert_undoes_apply(
    head: Lines, above: list[Lines], anchor: Lines, below: list[Lines], ends: Lines, bom: bool, final: bool
) -> None:
    lines = [line for piece in (head, *above, anchor, *below) for line in piece]
    text = "".join(line + ends[i % len(ends)] for i, line in enumerate(lines))
    data = (b"\xef\xbb\xbf" if bom else b"") + (text if final else text.rstrip("\r\n")).encode()
    ast.parse(data)
    patched = source.put(data, "m.py", [F])
    assert source.present(patched, "m.py", [F])
    assert source.put(patched, "m.py", (), [F]) == data
    assert len(patched) > len(data)
