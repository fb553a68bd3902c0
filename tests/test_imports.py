"""The arrows of docs/architecture.md: imports point down, never up or round in a circle."""

from __future__ import annotations

from pathlib import Path

from imports import Import, circles, imports

LAYERS = (
    ("errors", "arguments", "_moved", "_torch_private"),
    ("matching", "files"),
    ("functional", "traced", "eager", "compat"),
    ("losses",),
    ("metrics",),
    ("registry", "_registry_base"),
    ("models", "announce", "chosen", "shapes", "drawing"),
    ("patching", "standins"),
    ("hosts",),
    ("hooks", "launch"),
    ("checkpoints",),
    ("studies",),
    ("cli",),
    ("__main__",),
)
"""From the bottom up. A module imports from its own folder, its own layer and the layers below."""
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}
OLD_NAMES = {"hosts.training"}
"""Modules that only pass on what has moved up; lines in clones that were patched earlier import them."""


def arrows() -> list[Import]:
    return [entry for entry in imports() if entry.importer not in OLD_NAMES]


def test_every_folder_and_module_has_a_layer() -> None:
    assert {top(entry.importer) for entry in arrows()} - {""} <= set(HEIGHT)


def test_no_import_goes_up() -> None:
    wrong = [
        f"{entry.place} imports {entry.imported}"
        for entry in arrows()
        if top(entry.importer) and HEIGHT.get(top(entry.imported), 0) > HEIGHT[top(entry.importer)]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other() -> None:
    edges: dict[str, set[str]] = {}
    for entry in arrows():
        if entry.importer and entry.imported:  # the package itself loads its public names on first use
            edges.setdefault(entry.importer, set()).add(entry.imported)
    assert not circles(edges)


def test_no_folders_import_each_other() -> None:
    edges: dict[str, set[str]] = {}
    for entry in arrows():
        importer, imported = top(entry.importer), top(entry.imported)
        if importer and imported and importer != imported:
            edges.setdefault(importer, set()).add(imported)
    assert not circles(edges)


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    (package / "low").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "low" / "__init__.py").write_text("def late():\n    from ..high import name\n")
    (package / "high.py").write_text(
        "from typing import TYPE_CHECKING\nimport pack.low\nif TYPE_CHECKING:\n    from pack import other\n"
    )
    (package / "other.py").write_text("from . import high\n")
    found = imports(package)
    assert {(entry.importer, entry.imported) for entry in found} == {
        ("low", "high"),
        ("high", "low"),
        ("other", "high"),
    }
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def top(module: str) -> str:
    return module.split(".")[0]
