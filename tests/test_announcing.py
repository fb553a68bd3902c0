"""The one line that says which loss is active."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from apml_plugin.announce import announce


def test_on_stderr_without_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    announce("[apml] line")
    assert capsys.readouterr().err == "[apml] line\n"


def test_in_the_hosts_log_and_once_on_the_console(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("apml_test_host")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handlers = [logging.FileHandler(tmp_path / "run.log"), logging.StreamHandler()]
    try:
        for handler in handlers:
            logger.addHandler(handler)
        announce("[apml] line")
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
    assert (tmp_path / "run.log").read_text() == "[apml] line\n"
    assert capsys.readouterr().err == "[apml] line\n"


def test_only_on_rank_0(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    announce("[apml] line")
    assert capsys.readouterr().err == ""
