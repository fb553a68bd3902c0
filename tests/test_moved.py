"""Old import paths: each still gives the module, with a warning that names the new path."""

from __future__ import annotations

import importlib
import importlib.util
import sys

import pytest

from apml_plugin import _moved


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_moved.MOVED, "apml_plugin.old_announce", "apml_plugin.announce")
    yield
    sys.modules.pop("apml_plugin.old_announce", None)


@pytest.mark.usefixtures("moved")
def test_an_old_path_gives_the_same_module_and_warns() -> None:
    from apml_plugin import announce

    with pytest.warns(FutureWarning, match=r"apml_plugin\.old_announce has moved to apml_plugin\.announce"):
        old = importlib.import_module("apml_plugin.old_announce")
    assert old is announce
    assert announce.__spec__.name == "apml_plugin.announce"
    assert importlib.reload(announce) is announce


@pytest.mark.parametrize("old", sorted(_moved.MOVED))
def test_every_old_path_leads_to_a_module_that_exists(old: str) -> None:
    assert importlib.util.find_spec(_moved.MOVED[old])
    with pytest.warns(FutureWarning):
        importlib.import_module(old)


@pytest.mark.parametrize("old", ["apml_plugin.bench", "apml_plugin.demo"])
def test_python_m_works_with_an_old_name(old: str) -> None:
    package = importlib.util.find_spec(f"{_moved.MOVED[old]}.__main__")
    code = _moved._Alias(_moved.MOVED[old]).get_code(old)
    assert (code is None) == (package is None)  # only `bench` can be run as a whole
