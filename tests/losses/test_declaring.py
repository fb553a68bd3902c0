"""A loss declares itself once, at its class; everything that lists losses follows."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import apml_plugin
from apml_plugin import losses
from apml_plugin.losses.base import DECLARED, TWO_CLOUDS, arguments_of, summary_of
from apml_plugin.registry import LOSSES

PACKAGE = Path(apml_plugin.__file__).parent
DOCS = PACKAGE.parent / "docs" / "losses.md"

NEW_LOSS = '''
from apml_plugin.losses.base import PointLoss, declare


@declare()
class Centroid(PointLoss):
    """Distance of the centroids, in the unit of the coordinates."""

    def __init__(self, power: int = 1) -> None:
        super().__init__()
        self.power = power

    def forward(self, pred, gt, pred_lengths=None, gt_lengths=None):
        return (pred.mean(1) - gt.mean(1)).norm(dim=-1).pow(self.power).mean()
'''
USE = """
import torch
from apml_plugin import Centroid, build_loss
from apml_plugin.checkpoints import own
from apml_plugin.cli import main
pred, gt = torch.zeros(2, 5, 3), torch.ones(2, 7, 3)
assert build_loss({"NAME": "Centroid", "power": 2})(pred, gt) == Centroid(2)(pred, gt)
print(build_loss("Centroid").describe())
torch.save(Centroid(), "a.pth")
torch.load("a.pth", weights_only=True)
main(["losses"])
"""


@pytest.mark.parametrize("name", DECLARED)
def test_every_loss_can_be_imported_and_named(name: str) -> None:
    assert getattr(apml_plugin, name) is getattr(losses, name) is DECLARED[name] is LOSSES.get(name)
    assert name in apml_plugin.__all__
    assert name in dir(apml_plugin)


@pytest.mark.parametrize("name", DECLARED)
def test_every_loss_says_what_it_is_for(name: str) -> None:
    cls = DECLARED[name]
    assert 20 < len(summary_of(cls)) < 115
    assert summary_of(cls).endswith(".")
    assert (cls.takes == TWO_CLOUDS) == (not cls.needs)
    assert set(cls.nested) | set(cls.aliases.values()) <= set(arguments_of(cls))


def test_a_summary_is_the_first_paragraph_without_marks() -> None:
    class Marked:
        """Of :class:`Cloud` and :func:`distance`:
        ``a`` or `b`.

        The rest.
        """

    assert summary_of(Marked) == "Of Cloud and distance: a or b."
    Marked.__doc__ = None
    assert summary_of(Marked) == ""


def test_the_documentation_lists_every_loss() -> None:
    rows = ["| loss | takes | |", "| --- | --- | --- |"]
    for name, cls in sorted(DECLARED.items()):
        summary = summary_of(cls).replace("|", "\\|")
        rows.append(f"| `{name}` | {cls.takes} | {summary} |")
    table = "\n".join(rows)
    assert table in DOCS.read_text(), f"docs/losses.md must contain this table:\n{table}"


def test_type_checkers_see_every_loss() -> None:
    """They do not run the loop that imports the files: losses/__init__.py names the files for them."""
    tree = ast.parse((PACKAGE / "losses" / "__init__.py").read_text())
    starred = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"}
    for cls in DECLARED.values():
        parts = cls.__module__.split(".")
        assert ".".join(parts[:3]) in starred, f"add it to losses/__init__.py: {cls.__module__}"


def test_a_new_loss_is_one_class_in_one_file(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "apml_plugin", ignore=shutil.ignore_patterns("__pycache__", "studies"))
    (tmp_path / "apml_plugin" / "losses" / "centroid.py").write_text(NEW_LOSS)
    done = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Centroid(power=1)" in done.stdout
    assert "Distance of the centroids" in done.stdout
