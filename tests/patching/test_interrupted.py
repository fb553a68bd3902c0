"""`apml patch` killed before every line of the code that writes: the clone is unpatched or patched, never half."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from patching.killing import killed_recovering, killed_writing, restore, snapshot

from apml_plugin.errors import PatchError
from apml_plugin.hosts import interrupted
from apml_plugin.hosts.pointr import decorating
from apml_plugin.patching import Plan, Recipe, check, decorator, journal, plan_apply, plan_revert, write

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes of its own")

READER = decorator("utils/config.py", "read", "hoists_loss")
ALL = Recipe("all", (decorator("models/build.py", "build", "takes_loss"), READER))
ONE = Recipe("One", (decorator("models/one.py", "One", "takes_loss"), READER))
KNOWN = (ALL, ONE)
COUNT = itertools.count()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    clone = tmp_path / "clone"
    for file, text in {
        "models/build.py": b"def build(config):\r\n\treturn config",
        "models/one.py": b"class One:\n    pass\n",
        "utils/config.py": b"import os\n\n\ndef read(path):\n    return path\n",
    }.items():
        (clone / file).parent.mkdir(parents=True, exist_ok=True)
        (clone / file).write_bytes(text)
    (clone / "utils" / "config.py").chmod(0o640)
    return clone


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def effect(root: Path, *places: str) -> set[bool]:
    """Whether each definition (`models/build.py:build`) does anything of ours when its file is imported now."""
    interrupted._interrupted.cache_clear()
    does = set()
    for place in places or ("models/build.py:build", "utils/config.py:read"):
        file, name = place.split(":")
        spec = importlib.util.spec_from_file_location(f"interrupted_{next(COUNT)}", root / file)
        assert spec
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            exec(compile((root / file).read_bytes(), root / file, "exec"), vars(module))
        finally:
            del sys.modules[spec.name]
        found = vars(getattr(module, name))
        does.add(decorating._TAKES in found or decorating._HOISTS in found)
    return does


def plans(root: Path, revert: bool) -> tuple[Plan, dict[str, bytes], dict[str, bytes]]:
    """(plan, the clone unpatched, the clone patched); the clone is as the plan wants it."""
    unpatched = snapshot(root)
    write(plan_apply(root, [ALL], KNOWN))
    patched = snapshot(root)
    if revert:
        return plan_revert(root, KNOWN, KNOWN), unpatched, patched
    restore(root, unpatched)
    return plan_apply(root, [ALL], KNOWN), unpatched, patched


@pytest.mark.parametrize("revert", [False, True])
def test_killed_anywhere_it_is_whole_at_once_and_clean_after_the_next_command(
    root: Path, revert: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    plan, unpatched, patched = plans(root, revert)
    before, after = (patched, unpatched) if revert else (unpatched, patched)
    halves = 0
    for state in killed_writing(plan):
        restore(root, state)
        # Every file is the old or the new one, to the byte, and nothing else is there but our own temporary files.
        for file in unpatched:
            assert state[file] in (unpatched[file], patched[file])
        assert all(file.endswith((".apml", ".journal", ".journal.new")) for file in state.keys() - unpatched.keys())
        halves += len({state[file] == patched[file] for file in unpatched if unpatched[file] != patched[file]}) == 2

        # Right now, with no command in between, a run of the host meets all of the patch or nothing of it.
        now = effect(root)
        assert len(now) == 1
        capfd.readouterr()

        # The next command cleans up and says so, and what it cleans up to is what was in effect.
        recipes = check(root, KNOWN)
        cleaned = snapshot(root)
        assert cleaned in (unpatched, patched)
        assert now == effect(root) == {cleaned == patched}
        assert recipes == (("all",) if cleaned == patched else ())
        said = capfd.readouterr().err
        assert ("had been interrupted" in said) == (journal.NAME in state)
        assert state.keys() == unpatched.keys() or said or state.keys() - unpatched.keys() == {journal._UNFINISHED}
        assert (root / "utils" / "config.py").stat().st_mode & 0o777 == 0o640

        # And what was wanted can be had.
        write(plan_revert(root, KNOWN, KNOWN) if revert else plan_apply(root, [ALL], KNOWN))
        assert snapshot(root) == after
        restore(root, before)
    assert halves >= 1


@pytest.mark.parametrize("revert", [False, True])
def test_cleaning_up_can_be_killed_anywhere_too(root: Path, revert: bool) -> None:
    plan, unpatched, _ = plans(root, revert)
    # Before the first file, between the two, behind the last one.
    left = {}
    for state in killed_writing(plan):
        if journal.NAME in state:
            left[sum(state[file] == unpatched[file] for file in unpatched)] = state
    assert len(left) == 3
    for state in killed_recovering(root, list(left.values())):
        restore(root, state)
        assert len(effect(root)) == 1
        journal.recover(root)
        assert snapshot(root) == unpatched


def test_a_second_recipe_is_undone_alone(root: Path) -> None:
    write(plan_apply(root, [ALL], KNOWN))
    places = ("models/build.py:build", "models/one.py:One")
    for state in killed_writing(plan_apply(root, [ONE], KNOWN)):
        restore(root, state)
        if journal.NAME in state:
            assert effect(root, *places) == {False}
        assert check(root, KNOWN) in (("all",), ("all", "One"))
        assert effect(root, places[0]) == {True}


def interrupt(root: Path) -> None:
    """Leaves the clone with one file patched and one not."""
    before = snapshot(root)
    half = (s for s in killed_writing(plan_apply(root, [ALL], KNOWN)) if sum(s[f] != before[f] for f in before) == 1)
    restore(root, next(half))


def test_a_run_of_the_host_says_that_it_ignores_the_patch(
    root: Path, capfd: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.delenv("APML_RUN_TOLD", raising=False)
    interrupt(root)
    capfd.readouterr()
    assert effect(root) == {False}
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert f"interrupted. Run `apml patch --check {root}`" in said
    monkeypatch.delenv("APML_RUN_TOLD", raising=False)


def test_git_sees_nothing_afterwards(root: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    before = snapshot(root)
    seen = set()
    for state in killed_writing(plan_apply(root, [ALL], KNOWN)):
        restore(root, state)
        seen.add(git("status", "--porcelain"))
        check(root, KNOWN)
        assert git("status", "--porcelain") in ("", " M models/build.py\n M utils/config.py\n")
        restore(root, before)
    assert any(journal.NAME in status for status in seen)


def test_what_was_edited_since_is_not_overwritten(root: Path) -> None:
    unpatched = snapshot(root)
    interrupt(root)
    file = root / "models" / "build.py"
    file.write_bytes(file.read_bytes() + b"\r\n# mine")
    state = snapshot(root)
    with pytest.raises(PatchError, match=r"build\.py was edited after.*by hand, then run this again"):
        check(root, KNOWN)
    assert snapshot(root) == state
    assert effect(root) == {False}
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(line for line in lines if b"# apml-plugin" not in line))
    assert check(root, KNOWN) == ()
    assert snapshot(root) == unpatched | {"models/build.py": unpatched["models/build.py"] + b"\r\n# mine"}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b'{"changes": [{"file": "../secret.py", "before": "", "after": "YQ=="}]}',
        b'{"changes": [{"file": "/etc/passwd", "before": "", "after": "YQ=="}]}',
    ],
)
def test_a_journal_that_is_none_of_ours_is_refused(root: Path, text: bytes) -> None:
    (root / journal.NAME).write_bytes(text)
    (root.parent / "secret.py").write_bytes(b"a")
    state = snapshot(root)
    with pytest.raises(PatchError, match=r"cannot be read.*Nothing was changed"):
        check(root, KNOWN)
    assert snapshot(root) == state
    assert (root.parent / "secret.py").read_bytes() == b"a"


def test_two_at_a_time(root: Path) -> None:
    pytest.importorskip("fcntl")
    plan = plan_apply(root, [ALL], KNOWN)
    for change in plan.changes:
        at_work = journal.Journal(root, [change])
        for command in (lambda: check(root, KNOWN), lambda: write(plan)):
            with pytest.raises(PatchError, match="another apml patch is changing"):
                command()
        at_work.lift()
    write(plan)
    assert check(root, KNOWN) == ("all",)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "x"), KeyboardInterrupt()])
@pytest.mark.parametrize("revert", [False, True])
def test_a_failure_on_the_way_puts_everything_back(
    root: Path, revert: bool, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, unpatched, patched = plans(root, revert)
    before = patched if revert else unpatched
    for name in ("replace", "fsync"):
        for fails in range(1, 4):
            calls, real = itertools.count(1), getattr(os, name)

            def call(*args: Any, calls: Any = calls, real: Any = real, fails: int = fails) -> Any:
                if next(calls) == fails:
                    raise error
                return real(*args)

            with monkeypatch.context() as patch:
                patch.setattr(os, name, call)
                expected: Any = PatchError if isinstance(error, OSError) else KeyboardInterrupt
                if name == "fsync" and fails == 2 and isinstance(error, OSError):
                    continue  # the folder's, which not every file system can do: no reason to stop
                with pytest.raises(expected):
                    write(plan)
            assert snapshot(root) == before


def test_if_even_putting_back_fails_the_clone_is_unpatched_in_effect(root: Path, monkeypatch) -> None:
    plan, unpatched, _ = plans(root, revert=False)
    real, calls = os.replace, itertools.count()

    def full(a: Any, b: Any) -> None:
        if next(calls) > 1:  # the journal and one file go through
            raise OSError(28, "No space left on device", str(b))
        real(a, b)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(PatchError, match=r"nor put back.*counts as unpatched"):
        write(plan)
    monkeypatch.undo()
    assert snapshot(root) != unpatched
    assert effect(root) == {False}
    assert check(root, KNOWN) == ()
    assert snapshot(root) == unpatched


def test_lines_of_hosts_without_a_registry_do_nothing_either(tmp_path: Path) -> None:
    from apml_plugin.hosts import gates

    text = (
        "from apml_plugin.hosts.training import trains_with_loss, lets_loss_through, keeps_host_loss, training_loss\n"
        "@trains_with_loss(per_sample=True)\ndef chamfer(pred, gt): pass\n"
        "@lets_loss_through('name', 'cd')\ndef build(name): pass\n"
        "@keeps_host_loss\ndef validate(): pass\n"
        "loss = training_loss(len)\n"
    )
    for there in (False, True):
        path = tmp_path / f"clone{there}" / "deep" / "x.py"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        if there:
            (tmp_path / f"clone{there}" / journal.NAME).touch()
        names: dict[str, Any] = {"__name__": f"x{there}", "__file__": str(path)}
        exec(compile(text, path, "exec"), names)
        for name in ("chamfer", "build", "validate"):
            assert hasattr(names[name], gates.MARK) == (not there)
        assert (names["loss"] is len) == there


def test_every_command_that_looks_at_the_clone_cleans_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from apml_plugin.cli import main
    from apml_plugin.hosts.base import identify
    from apml_plugin.launch import probe

    host = tmp_path / "host"
    source = Path(__file__).parents[2] / "apml_plugin" / "demo" / "host"
    shutil.copytree(source, host, ignore=shutil.ignore_patterns("__pycache__"))
    before, found = snapshot(host), identify(host)
    states = killed_writing(plan_apply(host, [found.recipes[0]], found.recipes))
    half = next(s for s in states if sum(s[f] != before[f] for f in before) == 1)
    monkeypatch.setattr(probe, "look", lambda *_: probe.Probe({}, {}, False))
    for words in (
        ["patch", str(host), "--check"],
        ["patch", str(host), "--dry-run"],
        ["patch", str(host), "--revert"],
        ["check", str(host / "cfgs" / "PCN_models" / "PCN.yaml")],
        ["run", "--dry-run", str(host / "main.py")],
        ["doctor", str(host)],
    ):
        restore(host, half)
        capfd.readouterr()
        main(words)
        assert f"[apml] apml patch of {host} had been interrupted; undone now: " in capfd.readouterr().err, words
        assert snapshot(host) == before
