"""What of a folder is read as one codebase."""

from __future__ import annotations

from pathlib import Path

import pytest

from apml_plugin.errors import HostError
from apml_plugin.hosts import project
from apml_plugin.hosts.base import identify


def test_a_folder_of_many_codebases_is_an_error_before_anything_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.py").write_text("def train(): loss.backward()\n")
    monkeypatch.setattr(project, "MOST_FILES", 4)
    assert project.Project(tmp_path).count == 4
    monkeypatch.setattr(project, "MOST_FILES", 3)
    with pytest.raises(HostError, match=r"has more than 3 Python files; give the folder of one codebase"):
        identify(tmp_path)


def test_the_plugin_is_no_host_of_itself() -> None:
    root = Path(project.__file__).resolve().parents[2]
    with pytest.raises(HostError, match="is apml-plugin itself; give the root of the codebase to plug into"):
        identify(root)
