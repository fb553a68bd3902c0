"""A value is changed in a YAML text, and nothing else."""

import pytest

from apml_plugin.files.yamls import dump_line, load_yaml, set_value

BLOCK = """\
# a file about PCN

# the network
model:  # small
  NAME: PCN   # the class
  sizes:
    - 1
    - 2

# the rest
lr: 0.1
empty:
"""


@pytest.mark.parametrize(
    ("text", "path", "value", "expected"),
    [
        (BLOCK, ["lr"], 0.01, BLOCK.replace("lr: 0.1", "lr: 0.01")),
        (BLOCK, ["model", "NAME"], "GRNet", BLOCK.replace("NAME: PCN ", "NAME: GRNet ")),
        (BLOCK, ["model", "sizes"], [3], BLOCK.replace("sizes:\n    - 1\n    - 2", "sizes: [3]")),
        (BLOCK, ["empty"], "x", BLOCK.replace("empty:", "empty: x")),
        (BLOCK, ["model", "k"], 1e-20, BLOCK.replace("  NAME", "  k: 1.0e-20\n  NAME")),
        (BLOCK, ["loss"], "APML", BLOCK.replace("# the network", "loss: APML\n# the network")),
        (BLOCK.replace("\n", "\r\n"), ["lr2"], 2, BLOCK.replace("# the n", "lr2: 2\n# the n").replace("\n", "\r\n")),
        ("model : {\n NAME: PCN, # x\n k: 1}", ["model", "k"], 2, "model : {\n NAME: PCN, # x\n k: 2}"),
        ("model : {\n NAME: PCN}", ["model", "k"], {"a": 2}, "model : {\n k: {a: 2}, NAME: PCN}"),
        ("a: {b: 1}\nmodel: {c: 2}", ["loss"], "APML", "a: {b: 1}\nloss: APML\nmodel: {c: 2}"),
        ("# about the file\nmodel: {c: 2}", ["loss"], "APML", "# about the file\nloss: APML\nmodel: {c: 2}"),
        ("{model: {c: 2}}", ["loss"], "APML", "{loss: APML, model: {c: 2}}"),
        ("base: &b {x: 1}\nmodel: {<<: *b}", ["model", "x"], 2, "base: &b {x: 1}\nmodel: {x: 2, <<: *b}"),
    ],
)
def test_only_the_value_changes(text, path, value, expected):
    assert set_value(text, path, value, before="model") == expected


@pytest.mark.parametrize(
    ("text", "path", "problem"),
    [
        ("a: 1", ["model", "x"], "model is not a mapping"),
        ("model: {}", ["model", "x"], "model is not a mapping with keys"),
        ("- 1", ["x"], "the top level is not a mapping"),
        ("a: &a {x: 1}\nmodel: *a", ["model", "x"], "shares its value with another key"),
        ("model: &a {x: 1}\nb: *a", ["model", "x"], "shares its value with another key"),
        ("model: &a 1\nb: *a", ["model"], "shares its value with another key"),
    ],
)
def test_what_cannot_be_changed_alone_is_an_error(text, path, problem):
    with pytest.raises(ValueError, match=problem):
        set_value(text, path, 2)


@pytest.mark.parametrize("value", [1e-20, 5e-05, "1e-5", "APML", "yes", [1, {"a": None}], {"é": "x" * 200}, True])
def test_a_line_reads_back(value):
    line = dump_line(value)
    assert "\n" not in line
    assert load_yaml(line) == value
