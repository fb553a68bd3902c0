"""Files that ask for something to be run: rejected everywhere, and nothing is run, imported, changed or written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints.making import attacks, legacy, zipped

from apml_plugin.checkpoints import placeholders
from apml_plugin.checkpoints.reading import read
from apml_plugin.cli import main
from apml_plugin.errors import CheckpointError
from apml_plugin.launch import environment

NAMES = sorted(attacks(Path("/nowhere")))
ROOT = Path(__file__).parents[2]

SCRIPT = """
import json, sys, torch

told = {}
for path in sys.argv[1:]:
    for options in ({}, {'weights_only': False}, {'weights_only': True}, {'pickle_module': __import__('pickle')}):
        try:
            torch.load(path, **options)
            told[path] = 'loaded'
        except Exception as error:
            told[path] = f'{type(error).__name__}: {error}'
            if '--trust-checkpoints' not in str(error) and 'damaged' not in str(error) and 'holds a' not in str(error):
                told[path] = 'no remedy: ' + told[path]
        with open(path, 'rb') as file:
            try:
                torch.load(file, **options)
                told[path] = 'loaded'
            except Exception:
                pass
print(json.dumps(told))
"""


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in; at the end nothing in it was made by a file that was read."""
    folder = tmp_path / "work"
    folder.mkdir()
    (tmp_path / "made_to_be_imported.py").write_text(f"open({str(folder / 'touched')!r}, 'w').close()\nthing = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("write", [zipped, legacy])
def test_is_rejected_and_nothing_happens(watched: Path, name: str, write, capsys) -> None:  # type: ignore[no-untyped-def]
    """By the reader and by both commands."""
    modules, known = set(sys.modules), torch.serialization.get_safe_globals()
    attributes = [dict(vars(shell)) for shell in placeholders.ALL]
    path = write(watched / "bad.pth", attacks(watched / "touched")[name])
    with pytest.raises(CheckpointError, match=r"bad\.pth: ") as error:
        read(path)
    assert main(["checkpoint", "inspect", str(path)]) == 1
    assert main(["checkpoint", "convert", str(path), "-o", str(watched / "out.pth")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [f"error: {error.value}"] * 2
    assert list(watched.iterdir()) == [path]
    assert "made_to_be_imported" not in sys.modules
    assert "utils.metrics" not in set(sys.modules) - modules
    assert set(torch.serialization.get_safe_globals()) == set(known)
    assert [dict(vars(shell)) for shell in placeholders.ALL] == attributes


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("os.system", "posix.system"),
        ("exec", "builtins.exec"),
        ("nt", "nt.system"),
        ("getattr", "builtins.getattr"),
        ("import", "made_to_be_imported.thing"),
        ("newer protocol", "posix.system"),
        ("nested checkpoint", "torch.storage._load_from_bytes"),
        ("object array", "NumPy array of Python objects"),
    ],
)
def test_the_error_names_what_was_asked_for(watched: Path, name: str, told: str) -> None:
    path = zipped(watched / "bad.pth", attacks(watched / "touched")[name])
    with pytest.raises(CheckpointError) as error:
        read(path)
    assert told.replace("posix.", f"{os.name if os.name == 'nt' else 'posix'}.") in str(error.value)


def test_a_run_rejects_them_whatever_its_script_asks_for(watched: Path) -> None:
    """torch.load by default, with weights_only=False, with a pickle module; by name and from an open file."""
    files = [
        write(watched / f"{write.__name__} {name}.pth", data)
        for name, data in attacks(watched / "touched").items()
        for write in (zipped, legacy)
    ]
    script = watched / "script.py"
    script.write_text(SCRIPT)
    settings = environment.Settings({}, "a test", str(watched))
    environ = environment.write({**os.environ, "PYTHONPATH": str(watched.parent), "HOME": str(watched)}, settings)
    command = [sys.executable, str(script), *map(str, files)]
    done = subprocess.run(command, cwd=watched, env=environ, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told) == len(files)
    assert not [f"{path}: {what}" for path, what in told.items() if not what.startswith("CheckpointError")]
    assert sorted(watched.iterdir()) == sorted([*files, script])


def test_apml_run_rejects_it_unless_checkpoints_are_trusted(watched: Path) -> None:
    path = zipped(watched / "bad.pth", attacks(watched / "touched")["os.system"])
    (watched / "script.py").write_text("import torch\ntorch.load('bad.pth', weights_only=False)\n")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "apml_plugin", "run"]
    done = subprocess.run(
        [*command, "script.py"], cwd=watched, env=environ, text=True, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert "CheckpointError: bad.pth: rejected: it asks for posix.system" in done.stderr
    assert "apml run --trust-checkpoints" in done.stderr
    assert sorted(watched.iterdir()) == sorted([path, watched / "script.py"])
    trusting = [*command, "--trust-checkpoints", "script.py"]
    done = subprocess.run(trusting, cwd=watched, env=environ, text=True, capture_output=True, check=False)
    assert "[apml] checkpoints are trusted" in done.stderr
    assert (watched / "touched").exists()
