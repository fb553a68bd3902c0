"""Each hostile file gets a clear error, in bounded time and memory, and nothing but the file itself is opened."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from files import hostile

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures as Linux does")
SECONDS, BYTES = 6.0, 200 << 20
"""A second is what it takes at most where nothing else runs; CI machines are shared."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, dict[str, Any]]:
    command = [sys.executable, str(Path(hostile.__file__)), str(folder)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, map(str, sys.path)))}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=folder, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", hostile.CASES)
def test_is_rejected_within_bounds(results: dict[str, dict[str, Any]], folder: Path, name: str) -> None:
    reader, _, expected = hostile.CASES[name]
    found = results[name]
    if "skipped" in found:
        pytest.skip(found["skipped"])
    assert re.search(expected, found["message"]), found
    if "a value" not in expected:
        assert found["kind"] == hostile.ERRORS[reader], found
        assert name in found["message"]
    assert len(found["message"]) < 700
    assert found["message"].isprintable()
    assert found["seconds"] < SECONDS, found
    assert found["bytes"] < BYTES, found
    assert {*found["opened"]} <= {str(folder / name), name}
