"""A line behind an assignment: where it goes, what is refused, several edits in one file, byte-exact removal."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apml_plugin.errors import PatchError
from apml_plugin.patching import Line, Recipe, check, decorator, plan_apply, plan_revert, source, write

L = Line("m.py", "train", "cd", "cd = training_loss(cd)", "training_loss")
M = Line("m.py", "A.train", "self.cd", "self.cd = training_loss(self.cd)", "training_loss")
D = decorator("m.py", "get", "trains_with_loss", "(swap=True)")
E = decorator("m.py", "train", "trains_with_loss")
KNOWN = (D, L, E)
IMPORT = "from apml_plugin.hooks import training_loss  # apml-plugin"
DECORATOR = "from apml_plugin.hooks import trains_with_loss  # apml-plugin"
TEXT = "cd = training_loss(cd)  # apml-plugin"
T = Line("m.py", "", "cd", L.text, L.name)
DOTTED = Line("m.py", "", "a.b", "a.b.cd = training_loss(a.b.cd)", L.name)

REWRITES = {
    "plain": (
        (L,),
        "import a\n\ndef train():\n    cd = a.b()\n    cd.c()\n",
        f"import a\n{IMPORT}\n\ndef train():\n    cd = a.b()\n    {TEXT}\n    cd.c()\n",
    ),
    "no final newline": (
        (L,),
        "def train():\n\tx = 1\n\tcd = x",
        f"{IMPORT}\ndef train():\n\tx = 1\n\tcd = x\n\t{TEXT}",
    ),
    "no final newline, CRLF": (
        (L,),
        "def train():\r\n  cd = 1",
        f"{IMPORT}\r\ndef train():\r\n  cd = 1\r\n  {TEXT}",
    ),
    "a statement over several lines": (
        (L,),
        "def train():\n    cd = a(\n        1,\n  2)  # why\n    return cd\n",
        f"{IMPORT}\ndef train():\n    cd = a(\n        1,\n  2)  # why\n    {TEXT}\n    return cd\n",
    ),
    "a continued line": (
        (L,),
        "def train():\n    cd = a + \\\n  b\n    return cd\n",
        f"{IMPORT}\ndef train():\n    cd = a + \\\n  b\n    {TEXT}\n    return cd\n",
    ),
    "the last of several, inside blocks": (
        (L,),
        "def train():\n\tcd = 1\n\tif cd:\n\t\twith a:\n\t\t\tcd = 2\n\treturn cd\n",
        f"{IMPORT}\ndef train():\n\tcd = 1\n\tif cd:\n\t\twith a:\n\t\t\tcd = 2\n\t\t\t{TEXT}\n\treturn cd\n",
    ),
    "the first, by index": (
        (Line("m.py", "train", "cd", L.text, L.name, which=0),),
        "def train():\n    cd = 1\n    cd = 2\n",
        f"{IMPORT}\ndef train():\n    cd = 1\n    {TEXT}\n    cd = 2\n",
    ),
    "only this function's own": (
        (L,),
        "cd = 0\ndef other():\n    cd = 1\ndef train():\n    cd = 2\n    def inner():\n        cd = 3\n    cd.e = 4\n",
        f"{IMPORT}\ncd = 0\ndef other():\n    cd = 1\ndef train():\n    cd = 2\n    {TEXT}\n    def inner():\n"
        "        cd = 3\n    cd.e = 4\n",
    ),
    "an annotated one": (
        (L,),
        "def train():\n    cd: int\n    cd: int = 1\n",
        f"{IMPORT}\ndef train():\n    cd: int\n    cd: int = 1\n    {TEXT}\n",
    ),
    "decoys in comments and strings": (
        (L,),
        "def train():\n    # cd = 1\n    s = '''\n    cd = 1\n    '''\n    cd = 2  # cd = 3\n    # cd = 4\n",
        f"{IMPORT}\ndef train():\n    # cd = 1\n    s = '''\n    cd = 1\n    '''\n    cd = 2  # cd = 3\n    {TEXT}\n"
        "    # cd = 4\n",
    ),
    "a dotted name in a method": (
        (M,),
        "class A:\n  def train(self):\n    self.cd = 1\n",
        f"{IMPORT}\nclass A:\n  def train(self):\n    self.cd = 1\n"
        "    self.cd = training_loss(self.cd)  # apml-plugin\n",
    ),
    "behind an import, which needs our own above it": (
        (T,),
        '"""Doc."""\nfrom __future__ import annotations\nimport a\nfrom b import (\n    c as cd,\n)\nimport d\n',
        '"""Doc."""\nfrom __future__ import annotations\nimport a\n'
        f"{IMPORT}\nfrom b import (\n    c as cd,\n)\n{TEXT}\nimport d\n",
    ),
    "behind the first import of all, below a comment": (
        (T,),
        "#!/bin/python\n# coding: utf-8\nfrom b import cd\n",
        f"#!/bin/python\n# coding: utf-8\n{IMPORT}\nfrom b import cd\n{TEXT}\n",
    ),
    "behind the second import, below a comment": (
        (T,),
        "import a\n\n# why\nfrom b import cd\n",
        f"import a\n{IMPORT}\n\n# why\nfrom b import cd\n{TEXT}\n",
    ),
    "behind the first import of all": ((T,), "from b import cd\n", f"{IMPORT}\nfrom b import cd\n{TEXT}\n"),
    "behind an import, which moves up only the import that it needs": (
        (T, D),
        "import a\nfrom b import cd\nimport d\ndef get(): pass\n",
        f"import a\n{IMPORT}\nfrom b import cd\n{TEXT}\nimport d\n{DECORATOR}\n"
        "@trains_with_loss(swap=True)  # apml-plugin\ndef get(): pass\n",
    ),
    "behind a dotted import": (
        (DOTTED,),
        "import a\nimport a.b\nimport a.b as c\n",
        f"import a\n{IMPORT}\nimport a.b\na.b.cd = training_loss(a.b.cd)  # apml-plugin\nimport a.b as c\n",
    ),
    "imports inside try and except, both": (
        (Line("m.py", "", "cd", T.text, T.name, which=0), Line("m.py", "", "cd", T.text, T.name, which=1)),
        "import a\nx = 1\ntry:\n    from b import cd\nexcept ImportError:\n    from c import cd\nfinally:\n    x = 2",
        f"import a\n{IMPORT}\nx = 1\ntry:\n    from b import cd\n    {TEXT}\n"
        "except ImportError:\n    from c import cd\n"
        f"    {TEXT}\nfinally:\n    x = 2",
    ),
    "an import inside a function": (
        (L,),
        "import a\ndef train():\n    from b import cd\n    return cd\n",
        f"import a\n{IMPORT}\ndef train():\n    from b import cd\n    {TEXT}\n    return cd\n",
    ),
    "at the top level, of a class, and a decorator": (
        (T, Line("m.py", "A", "cd", L.text, L.name), decorator("m.py", "f", "training_loss")),
        "cd = 1\nclass A:\n    cd = 2\n    def g(self):\n        cd = 3\ndef f(): pass\n",
        f"{IMPORT}\ncd = 1\n{TEXT}\nclass A:\n    cd = 2\n    {TEXT}\n    def g(self):\n        cd = 3\n"
        "@training_loss  # apml-plugin\ndef f(): pass\n",
    ),
    "both kinds, two in one place": (
        (L, D, E),
        "import a\ndef get(): pass\ndef train():\n    cd = a\n",
        f"import a\n{IMPORT}\n{DECORATOR}\n@trains_with_loss(swap=True)  # apml-plugin\ndef get(): pass\n"
        f"@trains_with_loss  # apml-plugin\ndef train():\n    cd = a\n    {TEXT}\n",
    ),
}


@pytest.mark.parametrize("name", REWRITES)
def test_rewrites(name: str) -> None:
    edits, before, after = REWRITES[name]
    patched = source.put(before.encode(), "m.py", edits)
    assert patched.decode() == after
    assert source.present(patched, "m.py", edits) == frozenset(edits)
    assert source.present(before.encode(), "m.py", edits) == frozenset()
    assert source.put(patched, "m.py", (), edits) == before.encode()


@pytest.mark.parametrize("former", ["apml_plugin.hosts.training", "apml_plugin.hosts.pointr", "apml_plugin.hosts"])
@pytest.mark.parametrize("name", REWRITES)
def test_lines_that_import_from_former_modules(name: str, former: str, tmp_path: Path) -> None:
    edits, before, after = REWRITES[name]
    patched = after.replace("from apml_plugin.hooks", f"from {former}").encode()
    assert source.present(patched, "m.py", edits) == frozenset(edits)
    assert source.put(patched, "m.py", (), edits) == before.encode()
    (tmp_path / "m.py").write_bytes(patched)
    recipe = Recipe("all", edits)
    assert check(tmp_path, [recipe]) == ("all",)
    assert not plan_apply(tmp_path, [recipe], [recipe]).differs
    write(plan_revert(tmp_path, [recipe], [recipe]))
    assert (tmp_path / "m.py").read_bytes() == before.encode()


def test_a_former_import_serves_a_current_line() -> None:
    bare = b"def get(): pass\ndef train():\n    cd = 1\n"
    one = source.put(bare, "m.py", [L]).replace(b"apml_plugin.hooks", b"apml_plugin.hosts.training")
    again = decorator("m.py", "get", "training_loss")
    assert source.present(one, "m.py", [L, again]) == {L}
    two = source.put(one, "m.py", [L, again])
    assert two.count(b"import training_loss") == 1
    assert source.put(two, "m.py", (), [again]) == bare


def test_deeply_nested_code_is_rejected(tmp_path: Path) -> None:
    deep = b"def train():\n    cd = 1\n    return " + b"+".join([b"1"] * 100_000) + b"\n"
    with pytest.raises(PatchError, match=r"m\.py.*(nested too deeply|cannot edit safely|not valid Python)"):
        source.put(deep, "m.py", [L])


def test_lines_of_one_file_are_added_and_removed_one_by_one() -> None:
    bare = b"def get(): pass\ndef train():\n    cd = 1\n    return cd"
    one = source.put(bare, "m.py", [D])
    two = source.put(one, "m.py", [D, L])
    three = source.put(two, "m.py", [D, L, E], KNOWN)
    assert source.present(two, "m.py", [D, E, L]) == {D, L}
    assert three.count(DECORATOR.encode()) == 1
    assert source.put(three, "m.py", [D, L], KNOWN) == two
    assert source.put(source.put(three, "m.py", [L, E], KNOWN), "m.py", [], KNOWN) == bare
    assert source.put(three, "m.py", [E], KNOWN) == source.put(bare, "m.py", [E])


REFUSED = {
    "no such function": ("def other():\n    cd = 1\n", "'train' is not defined"),
    "no such name": ("def train():\n    cd.x = 1\n    cde = 2\n", r"^m\.py: 'train' binds 'cd' nowhere"),
    "more on the line": ("def train():\n    cd = 1; cd = 2; x = cd\n", "more follows on the line"),
    "a body on the line of its head": ("def train():\n    if 1: cd = 1\n    return cd\n", "laid out in a way"),
    "syntax error": ("def train(:\n", r"m\.py, line 1 is not valid Python"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    text, message = REFUSED[name]
    with pytest.raises(PatchError, match=message):
        source.put(text.encode(), "m.py", [L])


def test_a_patched_file_that_does_not_parse_is_named() -> None:
    data = b"def train(:\n    cd = training_loss(cd)  # apml-plugin\n"
    for call in (source.present, source.put):
        with pytest.raises(PatchError, match=r"^m\.py, line 1 is not valid Python"):
            call(data, "m.py", [L])
    with pytest.raises(PatchError, match=r"^m\.py: 'the top level' binds 'cd' nowhere"):
        source.put(b"x = 1\n", "m.py", [T])


HALF = {
    "line deleted": f"{IMPORT}\ndef train():\n    cd = 1\n",
    "import deleted": f"def train():\n    cd = 1\n    {TEXT}\n",
    "line moved down": f"{IMPORT}\ndef train():\n    cd = 1\n    cd.x()\n    {TEXT}\n",
    "line in another function": f"{IMPORT}\ndef train():\n    cd = 1\ndef other():\n    cd = 1\n    {TEXT}\n",
    "line twice": f"{IMPORT}\ndef train():\n    cd = 1\n    {TEXT}\n    {TEXT}\n",
    "line changed": f"{IMPORT}\ndef train():\n    cd = 1\n    cd = training_loss(cd, 2)  # apml-plugin\n",
    "the rest of a block deleted": f"{IMPORT}\ndef train():\n    if 1:\n        {TEXT}\n    return 1\n",
    "assignment added below": f"{IMPORT}\ndef train():\n    cd = 1\n    {TEXT}\n    cd = 2\n",
}


@pytest.mark.parametrize("name", HALF)
def test_half_patched_or_edited_by_hand_is_rejected(name: str) -> None:
    with pytest.raises(PatchError, match=r"^m\.py is half patched or was edited by hand .*--revert"):
        source.present(HALF[name].encode(), "m.py", [L])
    if name == "line changed":
        with pytest.raises(PatchError, match=r"line 4 carries the mark .*by hand"):
            source.put(HALF[name].encode(), "m.py", (), [L])
    elif name == "the rest of a block deleted":
        with pytest.raises(PatchError, match=r"^m\.py, line 3 is not valid Python"):
            source.put(HALF[name].encode(), "m.py", (), [L])
    else:
        assert b"apml-plugin" not in source.put(HALF[name].encode(), "m.py", (), [L])


def test_a_recipe_of_both_kinds_in_two_files(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_bytes(b"def get(): pass\r\ndef train():\r\n    cd = 1")
    (tmp_path / "n.py").write_bytes(b"def main():\n\tloss = 2\n\treturn loss\n")
    other = Line("n.py", "main", "loss", "loss = training_loss(loss)", "training_loss")
    recipe = Recipe("all", (D, L, other))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    write(plan_apply(tmp_path, [recipe], [recipe]))
    assert check(tmp_path, [recipe]) == ("all",)
    assert not plan_apply(tmp_path, [recipe], [recipe]).differs
    patched = (tmp_path / "m.py").read_bytes()
    (tmp_path / "m.py").write_bytes(source.put(patched, "m.py", [D], [L]))
    with pytest.raises(PatchError, match=r"half patched: m\.py is patched only in part"):
        check(tmp_path, [recipe])
    (tmp_path / "m.py").write_bytes(before["m.py"])
    with pytest.raises(PatchError, match=r"half patched: n\.py is patched, but m\.py is not"):
        plan_apply(tmp_path, [recipe], [recipe])
    write(plan_revert(tmp_path, [recipe], [recipe]))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


ENDS = st.sampled_from(["\n", "\r\n", "\r"])
PIECES = [
    ["x = 1"],
    ["# cd = 1"],
    [""],
    ["x = '''", "cd = 1", "'''"],
    ["if x:", "\tcd = (1,", "2)", "else:", "  y = 2"],
    ["def inner():", " cd = 1"],
    ["for cd in x: pass"],
    ["cd = x \\", "  + 2"],
]


@given(
    above=st.lists(st.sampled_from(PIECES)),
    below=st.lists(st.sampled_from(PIECES)),
    indent=st.sampled_from(["    ", "\t", " "]),
    ends=st.lists(ENDS, min_size=1, max_size=4),
    bom=st.booleans(),
    final=st.booleans(),
)
def test_removing_undoes_inserting(
    above: list[list[str]], below: list[list[str]], indent: str, ends: list[str], bom: bool, final: bool
) -> None:
    body = [indent + line for piece in (*above, ["cd = 3"], *below) for line in piece]
    lines = ["import a", "def train():", *body]
    text = "".join(line + ends[i % len(ends)] for i, line in enumerate(lines))
    data = (b"\xef\xbb\xbf" if bom else b"") + (text if final else text.rstrip("\r\n \t")).encode()
    ast.parse(data)
    patched = source.put(data, "m.py", [L, E])
    assert source.present(patched, "m.py", [L, E]) == {L, E}
    assert source.put(patched, "m.py") == data
    assert source.put(patched, "m.py", [L]) == source.put(data, "m.py", [L])
