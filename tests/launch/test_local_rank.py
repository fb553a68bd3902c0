"""`--local_rank` on hosts whose parser is older than today's launchers."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from apml_plugin.launch import environment, local_rank


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.TOLD, "local_rank")


def parser(*spellings: str, **options: object) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    made.add_argument("--config")
    if spellings:
        made.add_argument(*spellings, **options)  # type: ignore[arg-type]
    made.add_argument("rest", nargs="*")
    return made


@pytest.mark.parametrize(
    ("spellings", "words", "expected"),
    [
        (["--local_rank"], ["--config", "a"], ["--local_rank", "3", "--config", "a"]),
        (["--local-rank"], ["x"], ["--local-rank", "3", "x"]),
        (["--local_rank"], ["--local-rank=1", "x"], ["--local_rank=1", "x"]),
        (["--local_rank"], ["--local-rank", "1"], ["--local_rank", "1"]),
        (["--local-rank"], ["--local_rank=1"], ["--local-rank=1"]),
        (["--local_rank"], ["--local_rank=1"], ["--local_rank=1"]),
        (["--local_rank", "--local-rank"], ["--local-rank=1"], ["--local-rank=1"]),
        (["--local_rank"], ["--", "--local-rank=1"], ["--local_rank", "3", "--", "--local-rank=1"]),
        ([], ["--local-rank=1"], ["--local-rank=1"]),
        (["--rank"], ["--config", "a"], ["--config", "a"]),
    ],
)
def test_the_spelling_that_the_parser_knows(spellings: list[str], words: list[str], expected: list[str]) -> None:
    assert local_rank.arguments(parser(*spellings), words, "3") == expected


def test_a_flag_of_that_name_is_left_alone() -> None:
    assert local_rank.arguments(parser("--local_rank", action="store_true"), ["a"], "3") == ["a"]


SCRIPT = """
import argparse, sys
class Own(argparse.ArgumentParser):
    pass
p = Own()
p.add_argument('--local_rank', type=int, default=0)
p.add_argument('words', nargs='*')
print(p.parse_args(), p.parse_args(['of its own']), p.parse_known_args()[0].local_rank, sys.argv[1:])
"""


@pytest.mark.parametrize(("rank", "expected"), [("1", 1), (None, 0), ("", 0)])
def test_in_a_run(tmp_path: Path, rank: str | None, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "go.py").write_text(SCRIPT)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    settings = environment.Settings({}, "", "")
    import os

    env = environment.write(dict(os.environ), settings)
    if rank is not None:
        env["LOCAL_RANK"] = rank
    command = [sys.executable, "go.py", "--", "a", "b"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    own = "Namespace(local_rank=0, words=['of its own'])"
    said = f"Namespace(local_rank={expected}, words=['a', 'b']) {own} {expected} ['--', 'a', 'b']\n"
    assert done.stdout == said, done.stderr
    told = "[apml] --local_rank is not given: it gets LOCAL_RANK of the launcher\n"
    assert done.stderr == (told if expected else "")
