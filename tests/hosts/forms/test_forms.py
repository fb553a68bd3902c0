"""Every form trains with the loss that was asked for or stops, under `apml run` and after `apml patch`."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from forking import Done, Forking

from apml_plugin.cli import main

from . import bindings, libraries, places, trainers
from .building import EITHER, LOSS, STOPS, TRAINS, Clone, Form, assert_trained, validation, with_a_chamfer, with_apml

FORMS: dict[str, Form] = {**places.FORMS, **libraries.FORMS, **bindings.FORMS, **trainers.FORMS}
"""The table: what is expected of each is in its `run` and `patch`."""
PATCH = [name for name, form in FORMS.items() if form.patch]
TWINS = {
    "own_def_with_tabs_and_crlf", "pointr_root_with_a_loop_beside_it", "pytorch3d_dotted", "pytorch3d_renamed",
    "pytorch3d_in_a_module", "kaolin_dotted", "class_chosen_by_if", "stages_in_a_loop", "truth_first", "data_parallel",
    "list_on_a_model", "times_a_thousand", "arccosh_around_the_call", "static_method", "star_import",
    "import_in_a_function", "lines_of_older_versions_by_hand", "field_of_a_dataclass", "factory_function",
    "passed_as_an_argument", "functools_partial", "lambda_over_raw_distances", "dict_on_a_model", "module_dict",
    "subclass_of_a_chamfer", "class_named_in_a_config", "pytorch3d_as", "own_files_called_chamfer_and_emd",
    "get_lossfnc_and_weights", "accelerator_backward", "compiled_and_fitted_like_keras", "lightning_with_pytorch3d",
    "training_loss_by_hand", "files_that_do_not_parse", "script_beside_the_packages",
}  # fmt: skip
"""Forms like another one: their runs, four seconds each, wait for APML_EVERY_FORM=1. Their patches, which are the same
text, are tested with the rest."""
EVERY = [pytest.param(name, marks=pytest.mark.twin) if name in TWINS else name for name in FORMS]
RUN = [param for param, form in zip(EVERY, FORMS.values(), strict=True) if form.run]
Own = Callable[[Form], torch.Tensor]
BY_HAND = ("from apml_plugin.hooks import training_value", "loss = training_value(loss, pred, gt)")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    """Plain `python`: nothing of the plugin in it but what the script imports."""
    made = Forking(tmp_path_factory.mktemp("python"), "torch", "torch._dynamo")
    yield made
    made.close()


@pytest.fixture(scope="module")
def apml(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    made = Forking(tmp_path_factory.mktemp("apml"), "torch", "apml_plugin.cli", command=True)
    yield made
    made.close()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, python: Forking) -> Own:
    """Form -> its weights with its own Chamfer: plain `python`, no plugin. Each form is run once.

    They show that what is expected of the form is worked out from the right stages, weights and steps.
    """
    known: dict[int, torch.Tensor] = {}

    def weights(form: Form) -> torch.Tensor:
        if id(form) not in known:
            clone = Clone(form, tmp_path_factory.mktemp("own"))
            done = clone.start(python, form.patched_words)
            assert done.returncode == 0, done.said
            assert "[apml]" not in done.said
            known[id(form)] = clone.weights()
            assert any(torch.allclose(known[id(form)], one, rtol=0, atol=2e-6) for one in with_a_chamfer(form))
            assert not torch.allclose(known[id(form)], with_apml(form), rtol=0, atol=2e-3)
            if form.evaluation:
                assert validation(clone.go_on(python, (form.evaluation,))).startswith(("val 0.", "val 1."))
        return known[id(form)]

    return weights


def test_nine_in_ten_train() -> None:
    wanted = [form.run for form in FORMS.values() if form.run] + [form.patch for form in FORMS.values() if form.patch]
    assert set(wanted) <= {TRAINS, STOPS, EITHER}
    assert wanted.count(TRAINS) >= 0.9 * len(wanted)


@pytest.mark.parametrize("name", RUN)
def test_run(name: str, tmp_path: Path, python: Forking, apml: Forking, own: Own) -> None:
    form = FORMS[name]
    clone = Clone(form, tmp_path)
    before = clone.snapshot()
    done = clone.start(apml, ("run", "--loss", LOSS, *form.words))
    if form.run == STOPS or (form.run == EITHER and done.returncode != 0):
        assert_stopped(clone, done, names_a_line=form.run == STOPS)
    else:
        assert_trained(clone, done, own(form))
        if form.evaluation:
            numbers = validation(clone.go_on(python, (form.evaluation,)))
            assert validation(done) in ("", numbers), "validation is no longer the host's own"
    assert clone.snapshot() == before


@pytest.mark.parametrize("name", PATCH)
def test_patch(name: str, tmp_path: Path, python: Forking, own: Own) -> None:
    form = FORMS[name]
    clone = Clone(form, tmp_path)
    before, words, weights = clone.snapshot(), form.patched_words or form.words, own(form)
    done = patch(clone)
    patched = clone.snapshot()
    if form.patch == STOPS:
        assert done.returncode != 0, done.said
        assert patched == before
        assert_says_how(done, clone)
        return
    assert done.returncode == 0, done.said
    assert {file for file in patched if patched[file] != before.get(file)}, done.said
    for file in (f"{form.cwd}/{form.evaluation}", *form.kept):
        file = file.removeprefix("./")
        assert patched.get(file) == before.get(file), f"{file} was edited\n{done.said}"

    trained = clone.start(python, words, APML_LOSS=LOSS)
    assert_trained(clone, trained, weights)
    if form.evaluation:
        ours = clone.go_on(python, (form.evaluation,), APML_LOSS=LOSS)
        assert validation(ours), ours.said
        assert validation(trained) in ("", validation(ours)), "validation in the script is no longer the host's own"
    kept = clone.weights()
    clone.start(python, words)
    assert torch.equal(clone.weights(), weights), "with no loss chosen it does not train as before"

    done = patch(clone, "--revert")
    assert done.returncode == 0, done.said
    assert clone.snapshot() == before
    if form.evaluation:
        save(clone, kept)
        assert validation(clone.go_on(python, (form.evaluation,))) == validation(ours)


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.by_hand])
def test_the_two_lines_by_hand(name: str, tmp_path: Path, python: Forking, apml: Forking, own: Own) -> None:
    form = FORMS[name]
    clone, weights = Clone(form, tmp_path), own(form)
    for file, edits in form.by_hand.items():
        text = (clone.root / file).read_text()
        for old, new in edits:
            assert text.count(old) == 1
            text = text.replace(old, new)
        (clone.root / file).write_text(text)
    assert_trained(clone, clone.start(apml, ("run", "--loss", LOSS, *form.words)), weights)
    assert_trained(clone, clone.start(python, APML_LOSS=LOSS), weights)
    clone.start(python)
    assert torch.equal(clone.weights(), weights)


def test_a_library_that_is_not_installed(tmp_path: Path, apml: Forking, own: Own) -> None:
    clone, weights = Clone(libraries.NO_PACKAGE, tmp_path), own(FORMS["pytorch3d_from_import"])
    done = clone.start(apml, ("run", "--loss", LOSS, "main.py"))
    assert_trained(clone, done, weights)
    assert "[apml] pytorch3d" in done.stderr
    plain = clone.start(apml, ("run", "main.py"))
    assert plain.returncode == 0, plain.said
    torch.testing.assert_close(clone.weights(), weights, rtol=0, atol=2e-6)


def test_explain_and_diff_write_nothing_and_name_the_same_files(tmp_path: Path) -> None:
    for name in ("own_def_in_the_script", "script_beside_the_packages", "made_in_init_loop_over_stages"):
        clone = Clone(FORMS[name], tmp_path / name)
        before = clone.snapshot()
        explained = patch(clone, "--explain")
        shown = patch(clone, "--diff")
        assert (explained.returncode, shown.returncode) == (0, 0), explained.said + shown.said
        assert clone.snapshot() == before
        assert patch(clone).returncode == 0
        changed = {file for file, digest in clone.snapshot().items() if before.get(file) != digest}
        assert {line[6:] for line in shown.stdout.splitlines() if line.startswith("+++ b/")} == changed & set(before)
        assert all(file in explained.stdout for file in changed & set(before)), explained.said


def test_without_a_loss_a_run_is_the_hosts(tmp_path: Path, apml: Forking, own: Own) -> None:
    for name in ("script_in_tools_of_a_zip", "pytorch3d_from_import"):
        clone = Clone(FORMS[name], tmp_path / name)
        done = clone.start(apml, ("run", *FORMS[name].words))
        assert done.returncode == 0, done.said
        assert torch.equal(clone.weights(), own(FORMS[name])), done.said


NOTHING_TO_REPLACE = Form(
    files={
        "main.py": """
import torch
net = torch.nn.Linear(3, 3)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(3):
    loss = (net(torch.rand(2, 16, 3)) - 1).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
torch.save(net.state_dict(), 'weights.pth')
"""
    }
)


def test_a_host_without_a_chamfer(tmp_path: Path, apml: Forking) -> None:
    clone = Clone(NOTHING_TO_REPLACE, tmp_path)
    before = clone.snapshot()
    done = patch(clone)
    assert done.returncode == 1, done.said
    assert clone.snapshot() == before
    assert_stopped(clone, clone.start(apml, ("run", "--loss", LOSS, "main.py")), names_a_line=True)


def test_a_pointr_style_clone_in_which_nothing_can_be_replaced(tmp_path: Path) -> None:
    files = {
        **bindings.REC_LOSS.files,
        "models/MAE.py": bindings.REC_LOSS.files["models/MAE.py"].replace("ChamferDistanceL2()", "nn.MSELoss()"),
    }
    clone = Clone(Form(files=files, words=("main.py",)), tmp_path)
    before = clone.snapshot()
    done = patch(clone)
    assert done.returncode == 1, done.said
    assert clone.snapshot() == before


def patch(clone: Clone, *options: str) -> Done:
    """`apml patch`, in this process."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main(["patch", str(clone.root), *options])
    return Done(code, out.getvalue(), err.getvalue())


def save(clone: Clone, weights: torch.Tensor) -> None:
    """Puts `weights` into the state that lies there."""
    whole = torch.load(clone.weights_file, weights_only=True)
    state = whole
    while not all(isinstance(value, torch.Tensor) for value in state.values()):
        state = next(value for value in state.values() if isinstance(value, dict))
    taken = 0
    for key, value in state.items():
        state[key] = weights[taken : taken + value.numel()].view_as(value)
        taken += value.numel()
    torch.save(whole, clone.weights_file)


def assert_stopped(clone: Clone, done: Done, names_a_line: bool) -> None:
    assert done.returncode != 0, f"it ended as if all were well\n{done.said}"
    assert "Traceback" not in done.stderr, done.said
    if names_a_line:
        assert not clone.weights_file.exists(), "it trained to the end first"
        assert "[apml] stopped:" in done.stderr, done.said
        assert_says_how(done, clone)
    else:
        assert "[apml]" in done.stderr, done.said


def assert_says_how(done: Done, clone: Clone) -> None:
    """File and line of this clone, and the two lines to add."""
    named = re.findall(r"([\w./-]+\.py):(\d+)", done.stderr)
    lines = {file: text.count("\n") + 1 for file, text in clone.form.files.items()}
    known = [1 <= int(line) <= lines[name] for file, line in named for name in lines if file.endswith(name)]
    assert known, f"no file and line of the host\n{done.said}"
    assert all(known), f"a line that the file does not have\n{done.said}"
    for line in BY_HAND:
        assert line in done.stderr, done.said
