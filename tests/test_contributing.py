"""The examples of CONTRIBUTING.md: each file is written into a copy of the package, each command run there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {
    title: text
    for title, text in re.findall(
        r"(?ms)^## (Add [^\n]+)\n(.*?)(?=^## |\Z)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    )
    if "```bash" in text
}


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"(?s)```{language}\n(.*?)```", SECTIONS[section])


@pytest.mark.parametrize("section", SECTIONS)
def test_example(section: str, tmp_path: Path) -> None:
    without = shutil.ignore_patterns("__pycache__", "*.so", "_build.json", "pictures")
    shutil.copytree(ROOT / "apml_plugin", tmp_path / "apml_plugin", ignore=without)
    for code in blocks(section, "python"):
        file = re.match(r"# (apml_plugin/\S+\.py)\n", code)
        assert file, "an example starts with the path of its file"
        target = tmp_path / file[1]
        target.parent.mkdir(exist_ok=True)
        assert not target.exists(), "an example adds a file and changes none"
        target.write_text(code)
    (commands,), (expected,) = blocks(section, "bash"), blocks(section, "text")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_every_kind_of_thing_has_an_example() -> None:
    assert set(SECTIONS) >= {"Add a loss", "Add a metric", "Add a command", "Add a kind of host", "Add a backend"}
