"""Several files and several recipes at once: all or none, shared edits, states between."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from apml_plugin.errors import PatchError
from apml_plugin.patching import Change, Plan, Recipe, check, decorator, plan_apply, plan_revert, write

READER = decorator("config.py", "read", "hoists_loss")
ALL = Recipe("all", (decorator("build.py", "build", "takes_loss"), READER))
ONE = Recipe("One", (decorator("one.py", "One", "takes_loss"), READER))
KNOWN = (ALL, ONE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "build.py").write_bytes(b"def build(c):\r\n\treturn c")
    (tmp_path / "config.py").write_bytes(b"import yaml\n\n\ndef read(p):\n    pass\n")
    (tmp_path / "one.py").write_bytes(b"class One:\n    pass\n")
    return tmp_path


def snapshot(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def verbs(plan: Plan) -> dict[str, str]:
    return {change.file: change.verb for change in plan.changes}


def test_apply_check_revert(root: Path) -> None:
    before = snapshot(root)
    plan = plan_apply(root, [ALL], KNOWN)
    assert snapshot(root) == before  # a plan writes nothing
    write(plan)
    assert check(root, KNOWN) == ("all",)
    write(plan_revert(root, KNOWN, KNOWN))
    assert snapshot(root) == before
    assert check(root, KNOWN) == ()


def test_reverting_is_idempotent(root: Path) -> None:
    plan = plan_revert(root, KNOWN, KNOWN)
    assert verbs(plan) == dict.fromkeys(["build.py", "config.py", "one.py"], "not patched")
    assert not plan.differs
    assert verbs(plan_revert(root, [ONE], KNOWN)) == dict.fromkeys(["config.py", "one.py"], "not patched")


@pytest.mark.parametrize("known", [KNOWN, ()])
def test_a_half_patched_file_is_named(root: Path, known: tuple[Recipe, ...]) -> None:
    """Whether or not the recipe is among those that the host could carry."""
    with (root / "build.py").open("ab") as stream:
        stream.write(b"\r\nbuild(1)  # apml-plugin")
    with pytest.raises(PatchError, match=r"^build\.py is half patched .*\(line 3\).*'@takes_loss' above 'build'"):
        plan_apply(root, [ALL], known)


def test_applying_is_idempotent(root: Path) -> None:
    write(plan_apply(root, [ALL], KNOWN))
    again = plan_apply(root, [ALL], KNOWN)
    assert verbs(again) == {"build.py": "already patched", "config.py": "already patched"}
    assert not again.differs
    assert again.diff() == ""


def test_recipes_combine_and_a_shared_line_is_removed_with_the_last(root: Path) -> None:
    before = snapshot(root)
    write(plan_apply(root, [ONE], KNOWN))
    second = plan_apply(root, [ALL], KNOWN)
    assert verbs(second) == {"build.py": "patched", "config.py": "already patched"}
    write(second)
    assert check(root, KNOWN) == ("all", "One")
    first_out = plan_revert(root, [ONE], KNOWN)
    assert verbs(first_out) == {"one.py": "reverted", "config.py": "left patched"}
    assert verbs(plan_revert(root, [ALL, ONE], KNOWN)) == dict.fromkeys(before, "reverted")
    assert next(c.reason for c in first_out.changes if c.verb == "left patched") == "build.py still needs it"
    write(first_out)
    write(plan_revert(root, [ALL], KNOWN))
    assert snapshot(root) == before


def test_a_recipe_of_the_same_files_keeps_its_lines(root: Path) -> None:
    (root / "build.py").write_bytes(b"def build(c):\n    return c\ndef other():\n    return 1\n")
    other = Recipe("other", (decorator("build.py", "other", "takes_loss"), READER))
    write(plan_apply(root, [other], [ALL, other]))
    alone = snapshot(root)
    write(plan_apply(root, [ALL], [ALL, other]))
    plan = plan_revert(root, [ALL], [ALL, other])
    assert verbs(plan) == {"build.py": "reverted", "config.py": "left patched"}
    write(plan)
    assert snapshot(root) == alone


def test_a_file_of_another_user_is_not_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, plan = snapshot(root), plan_apply(root, [ALL], KNOWN)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PatchError, match=r"build\.py belongs to another user: ask them, or patch a copy"):
        write(plan)
    assert snapshot(root) == before


FORMER = {
    # What earlier versions put where the recipe of today puts nothing: the file as it is, and as it was before.
    "metrics.py": (
        b"import torch\r\nfrom apml_plugin.hosts.training import keeps_host_loss  # apml-plugin\r\n\r\n\r\n"
        b"@keeps_host_loss  # apml-plugin\r\ndef cd(a, b):\r\n\treturn a",
        b"import torch\r\n\r\n\r\ndef cd(a, b):\r\n\treturn a",
    ),
    "losses/value.py": (
        b"from apml_plugin.hosts.training import training_value  # apml-plugin\ndef f(loss, p, g):\n    loss = p\n"
        b"    loss = training_value(loss, p, g)  # apml-plugin",
        b"def f(loss, p, g):\n    loss = p",
    ),
    "config.py": (
        b"from apml_plugin.hosts.training import training_loss  # apml-plugin\n"
        b"from apml_plugin.hosts.pointr import hoists_loss  # apml-plugin\nimport yaml\ncd = a.b\n"
        b"cd = training_loss(cd)  # apml-plugin\n@hoists_loss  # apml-plugin\ndef read(p): pass\n",
        b"import yaml\ncd = a.b\ndef read(p): pass\n",
    ),
}


def test_a_revert_removes_what_earlier_versions_inserted_elsewhere(root: Path) -> None:
    write(plan_apply(root, [ALL], KNOWN))
    (root / "losses").mkdir()
    (root / "quotes.py").write_bytes(b"S = 's'  # as in '# apml-plugin'\nT = '''\n@takes_loss  # apml-plugin\n'''\n")
    for file, (patched, _) in FORMER.items():
        (root / file).write_bytes(patched)
    one, quotes = (root / "one.py").read_bytes(), (root / "quotes.py").read_bytes()
    plan = plan_revert(root, KNOWN, KNOWN)
    changed = {file for file, verb in verbs(plan).items() if verb == "reverted"}
    assert changed == {"build.py", "config.py", "metrics.py", "losses/value.py"}
    write(plan)
    assert {file: (root / file).read_bytes() for file in FORMER} == {file: bare for file, (_, bare) in FORMER.items()}
    assert ((root / "one.py").read_bytes(), (root / "quotes.py").read_bytes()) == (one, quotes)
    assert (root / "build.py").read_bytes() == b"def build(c):\r\n\treturn c"


def test_lines_of_earlier_versions_elsewhere_do_not_count_as_half_patched(root: Path) -> None:
    write(plan_apply(root, [ALL], KNOWN))
    (root / "metrics.py").write_bytes(FORMER["metrics.py"][0])
    assert check(root, KNOWN) == ("all",)
    assert not plan_apply(root, [ALL], KNOWN).differs
    write(plan_revert(root, [ALL], KNOWN))  # of one recipe alone: nothing of others is looked for
    assert (root / "metrics.py").read_bytes() == FORMER["metrics.py"][0]


def test_a_marked_line_of_the_users_own_elsewhere_stops_a_revert(root: Path) -> None:
    write(plan_apply(root, [ALL], KNOWN))
    (root / "metrics.py").write_bytes(b"x = 1\nx = training_loss(x, 2)  # apml-plugin\n")
    before = snapshot(root)
    with pytest.raises(PatchError, match=r"metrics\.py, line 2 carries the mark .* by hand"):
        write(plan_revert(root, KNOWN, KNOWN))
    assert snapshot(root) == before


@pytest.mark.parametrize("restored", ["build.py", "config.py"])
def test_half_patched_is_rejected_and_can_be_reverted(root: Path, restored: str) -> None:
    before = snapshot(root)
    write(plan_apply(root, [ALL], KNOWN))
    (root / restored).write_bytes(before[restored])
    half = snapshot(root)
    with pytest.raises(PatchError, match=r"half patched.*--revert"):
        plan_apply(root, [ALL], KNOWN)
    assert snapshot(root) == half
    write(plan_revert(root, KNOWN, KNOWN))
    assert snapshot(root) == before


def test_one_file_that_cannot_be_edited_stops_all(root: Path) -> None:
    (root / "config.py").write_text("def reader(p): pass\n")
    before = snapshot(root)
    with pytest.raises(PatchError, match=r"config\.py: 'read' is not defined"):
        write(plan_apply(root, [ALL], KNOWN))
    assert snapshot(root) == before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "x"), KeyboardInterrupt()])
@pytest.mark.parametrize("revert", [False, True])
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failing_write_restores_every_file(
    root: Path, call: str, revert: bool, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    if revert:
        write(plan_apply(root, [ALL], KNOWN))
    plan = plan_revert(root, KNOWN, KNOWN) if revert else plan_apply(root, [ALL], KNOWN)
    before = snapshot(root)
    for fails in (1, 2):
        calls, real = itertools.count(1), getattr(os, call)

        def failing(*args: Any, calls: Any = calls, real: Any = real, fails: int = fails) -> Any:
            if next(calls) == fails:
                raise error
            return real(*args)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            with pytest.raises(PatchError if isinstance(error, OSError) else KeyboardInterrupt):
                write(plan)
        assert snapshot(root) == before  # no temporary file remains either


def test_a_failing_write_says_what_and_why(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, what in ((OSError(5, "Input/output error"), root), (OSError(28, "No space left", "x.py"), "x.py")):

        def failing(*args: Any, error: OSError = error) -> Any:
            raise error

        plan = plan_apply(root, [ALL], KNOWN)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing)
            with pytest.raises(PatchError) as raised:
                write(plan)
        assert str(raised.value) == f"could not write {what}: {error.strerror}. Nothing was changed"


def test_files_that_cannot_be_restored_are_reported_as_half_patched(root: Path, monkeypatch) -> None:
    before = snapshot(root)
    plan = plan_apply(root, [ALL], KNOWN)
    calls, replace = itertools.count(1), os.replace

    def full(a: Any, b: Any) -> None:
        if next(calls) > 1:
            raise OSError(28, "No space left on device", str(b))
        replace(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(PatchError, match=r"cannot be restored either.*half patched: run apml patch --revert"):
            write(plan)
    with pytest.raises(PatchError, match=r"is half patched"):
        check(root, KNOWN)
    write(plan_revert(root, KNOWN, KNOWN))
    assert {name: data for name, data in snapshot(root).items() if not name.endswith(".apml")} == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a process of its own")
def test_a_process_killed_between_two_files_leaves_what_a_revert_repairs(root: Path) -> None:
    before = snapshot(root)
    plan = plan_apply(root, [ALL], KNOWN)
    if (child := os.fork()) == 0:
        calls, replace = itertools.count(1), os.replace

        def killing(a: Any, b: Any) -> None:
            if next(calls) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(a, b)

        os.replace = killing  # type: ignore[assignment]
        write(plan)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    with pytest.raises(PatchError, match=r"half patched: build\.py is patched, but config\.py is not"):
        check(root, KNOWN)
    left = write(plan_revert(root, KNOWN, KNOWN))
    assert left == (root / ".config.py.apml",)
    assert snapshot(root) == before  # the killed process's temporary file is gone, too
    (root / ".one.py.apml").touch()
    assert write(plan_apply(root, [ALL], KNOWN)) == (root / ".one.py.apml",)
    assert not list(root.glob(".*.apml"))


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_restores_every_file_however_often_it_is_pressed(
    root: Path, presses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, plan = snapshot(root), plan_apply(root, [ALL], KNOWN)
    calls, replace, handler = itertools.count(1), os.replace, signal.getsignal(signal.SIGINT)

    def pressing(a: Any, b: Any) -> None:
        replace(a, b)
        if next(calls) <= presses:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "replace", pressing)
    with pytest.raises(KeyboardInterrupt):
        write(plan)
    assert snapshot(root) == before
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_file_that_does_not_parse_is_reverted_by_its_marked_lines(root: Path) -> None:
    before = snapshot(root)
    write(plan_apply(root, [ALL], KNOWN))
    for file in ("build.py", "config.py"):
        with (root / file).open("ab") as stream:
            stream.write(b"\nif True print(1)\n")
    with pytest.raises(PatchError, match=r"^build\.py, line \d+ is not valid Python"):
        plan_apply(root, [ALL], KNOWN)
    for known in (KNOWN, ()):  # also in a clone that is not recognised any more
        assert verbs(plan_revert(root, known, known))["build.py"] == "reverted"
    write(plan_revert(root, KNOWN, KNOWN))
    for file in ("build.py", "config.py"):
        assert (root / file).read_bytes() == before[file] + b"\nif True print(1)\n"


def test_a_name_that_is_used_in_a_file_that_does_not_parse_is_named(root: Path) -> None:
    write(plan_apply(root, [ALL], KNOWN))
    with (root / "config.py").open("ab") as stream:
        stream.write(b"x = hoists_loss(read)\nif True print(1)\n")
    patched = snapshot(root)
    with pytest.raises(PatchError, match=r"config\.py, line 8 uses hoists_loss without the mark"):
        plan_revert(root, KNOWN, KNOWN)
    assert snapshot(root) == patched


def test_a_file_changed_since_the_plan_is_rejected(root: Path) -> None:
    plan = plan_apply(root, [ALL], KNOWN)
    (root / "config.py").write_text("def read(p): return 2\n")
    before = snapshot(root)
    with pytest.raises(PatchError, match=r"config\.py changed while"):
        write(plan)
    assert snapshot(root) == before


def test_modes_and_symlinks_stay(root: Path) -> None:
    (root / "build.py").chmod(0o755)
    target = root / "real_config.py"
    (root / "config.py").rename(target)
    (root / "config.py").symlink_to(target.name)
    write(plan_apply(root, [ALL], KNOWN))
    assert (root / "build.py").stat().st_mode & 0o777 == 0o755
    assert (root / "config.py").is_symlink()
    assert b"apml-plugin" in target.read_bytes()


def test_a_missing_file_is_named(root: Path) -> None:
    (root / "one.py").unlink()
    with pytest.raises(PatchError, match=r"one\.py cannot be read .No such file"):
        plan_apply(root, [ALL], KNOWN)


def test_the_diff_shows_every_file_with_plain_line_ends(root: Path) -> None:
    diff = plan_apply(root, [ALL], KNOWN).diff()
    added = [line for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++")]
    assert added == [
        "+from apml_plugin.hooks import takes_loss  # apml-plugin",
        "+@takes_loss  # apml-plugin",
        "+from apml_plugin.hooks import hoists_loss  # apml-plugin",
        "+@hoists_loss  # apml-plugin",
    ]
    assert "\r" not in diff
    assert "--- a/build.py" in diff


def test_the_diff_of_other_line_ends_and_encodings(root: Path) -> None:
    before, inserted = b"def f():\r    return 1\r", b"@takes_loss\r"
    shown = "--- a/m.py\n+++ b/m.py\n@@ -1,2 +1,3 @@\n+@takes_loss\n def f():\n     return 1\n"
    assert Plan(root, (Change("m.py", before, inserted + before, "patched"),)).diff() == shown
    unended = Change("m.py", before + b"\r", before + inserted, "reverted")  # only the last line end is left out
    assert Plan(root, (unended,)).diff() == (
        "--- a/m.py\n+++ b/m.py\n@@ -1,3 +1,3 @@\n def f():\n     return 1\n-\n+@takes_loss\n"
    )
    latin = b"# coding: latin-1\nx = '\xe9'\n"
    assert "\n x = '\xe9'\n" in Plan(root, (Change("m.py", latin, latin + b"y = 1\n", "patched"),)).diff()
