"""Clones with pipes, links, large, deep and read-only files: rejected or skipped, and nothing outside is changed."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import apml_plugin.studies.demo
from apml_plugin.cli import main

SUM = "x = " + " + ".join(["1"] * 3000) + "\n"
WALKABLE = (
    "x = " + " + ".join(["a"] * 100) + "\nif a: pass\n" + "".join(f"elif a == {i}: pass\n" for i in range(100))
    + "y." + ".".join(["a"] * 100) + " = 1\n"
)  # fmt: skip


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    source = Path(apml_plugin.studies.demo.__file__).parent / "host"
    return Path(shutil.copytree(source, tmp_path / "clone", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Files that this process opens, and folders it lists."""
    found: list[str] = []
    watching = [True]

    def watch(event: str, given: tuple[object, ...]) -> None:
        if watching and event in ("open", "os.listdir", "os.scandir"):
            found.append(os.path.abspath(os.fsdecode(given[0])) if isinstance(given[0], str | bytes | Path) else "")

    sys.addaudithook(watch)
    yield found
    watching.clear()


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file but those of Python's cache."""
    found = (path for path in sorted(root.rglob("*")) if "__pycache__" not in path.parts)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found if path.is_file()}


def patched(clone: Path, *options: str, at_most: float = 6) -> int:
    """`apml patch`, which a pipe would keep waiting for ever: then the test ends by the thread's time."""
    ended: list[int] = []
    work = threading.Thread(target=lambda: ended.append(main(["patch", str(clone), *options])), daemon=True)
    start = time.perf_counter()
    work.start()
    work.join(at_most)
    assert ended, f"not done after {time.perf_counter() - start:.1f} s"
    return ended[0]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def large(path: Path) -> None:
    path.write_bytes(b"x = 1\n" * 10_000_000)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (pipe, "x.py is a named pipe, not a file"),
        (large, "x.py has 57.22 MiB, more than the limit of 256 KiB for such files"),
        (lambda path: path.write_text(SUM), "x.py is nested too deeply to be looked at"),
        (lambda path: path.write_text("x = " + "-" * 200_000 + "1\n"), "x.py is nested too deeply to be looked at"),
        (lambda path: path.write_text("x = a" + ".a" * 1400), "x.py, line 1 is nested too deeply to be looked at"),
        (lambda path: path.write_bytes(b"x = 1\0"), "x.py is not valid Python (source code"),
        (lambda path: path.symlink_to("x.py"), "x.py cannot be read (Too many levels of symbolic links)"),
    ],
)
@pytest.mark.parametrize("folder", ["", "models/"])
def test_files_that_cannot_be_read_are_skipped_and_reported(
    clone: Path, make: Callable[[Path], None], told: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(clone)
    make(clone / folder / "x.py")
    assert patched(clone) == 0
    said = capsys.readouterr()
    assert told in said.out
    assert "Traceback" not in said.err
    assert patched(clone, "--revert") == 0
    (clone / folder / "x.py").unlink()
    assert snapshot(clone) == before


def test_a_deep_file_within_the_limit_is_read(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clone / "models" / "x.py").write_text(WALKABLE)
    assert patched(clone) == 0
    assert "not looked at" not in capsys.readouterr().out


def test_a_link_out_of_the_clone_is_rejected(
    clone: Path, tmp_path: Path, opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside.py"
    (clone / "models" / "build.py").rename(outside)
    (clone / "models" / "build.py").symlink_to(outside)
    before = outside.read_bytes()
    opened.clear()
    assert patched(clone) == 1
    assert str(outside) not in opened
    assert f"models/build.py points to {outside}; put a copy in its place" in capsys.readouterr().err
    assert outside.read_bytes() == before
    assert set(os.listdir(tmp_path)) == {"clone", "outside.py"}


def test_a_link_made_after_the_patch_is_rejected(
    clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A revert must not write where the link leads."""
    assert patched(clone) == 0
    outside = tmp_path / "outside.py"
    shutil.copy(clone / "utils" / "config.py", outside)
    before = outside.read_bytes()
    (clone / "utils" / "config.py").unlink()
    (clone / "utils" / "config.py").symlink_to(outside)
    assert patched(clone, "--revert") == 1
    assert outside.read_bytes() == before
    assert f"utils/config.py points to {outside}" in capsys.readouterr().err


def test_a_link_within_the_clone_is_followed(clone: Path) -> None:
    (clone / "models" / "build.py").rename(clone / "made.txt")
    (clone / "models" / "build.py").symlink_to("../made.txt")
    before = (clone / "made.txt").read_bytes()
    assert patched(clone) == 0
    assert b"takes_loss" in (clone / "made.txt").read_bytes()
    assert (clone / "models" / "build.py").is_symlink()
    assert patched(clone, "--revert") == 0
    assert (clone / "made.txt").read_bytes() == before


@pytest.mark.parametrize("options", [(), ("--revert",)])
def test_a_read_only_file_is_not_written(
    clone: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever runs it: a test that runs as root finds every file writable."""
    assert not options or patched(clone) == 0
    file = clone / "utils" / "config.py"
    file.chmod(0o444)
    before = snapshot(clone)
    assert patched(clone, *options) == 1
    assert f"{file} is read-only: chmod u+w {file} first. Nothing was changed" in capsys.readouterr().err
    assert snapshot(clone) == before
    file.chmod(0o644)
    assert patched(clone, *options) == 0
    assert file.stat().st_mode & 0o777 == 0o644
