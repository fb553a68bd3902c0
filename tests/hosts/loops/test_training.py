"""Hosts without a model registry: recognised by structure, trained with our loss, validated with theirs, reverted."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from forking import Forking
from hosts.loops import hosts_with_loops as forks

from apml_plugin.cli import main as cli
from apml_plugin.errors import HostError, LossValueError
from apml_plugin.functional import apml_loss
from apml_plugin.hosts import calls, training
from apml_plugin.hosts.base import identify
from apml_plugin.hosts.loops.kind import Loops
from apml_plugin.hosts.loops.kind import recognise as recognise_project
from apml_plugin.hosts.project import Project
from apml_plugin.launch.environment import Settings
from apml_plugin.launch.import_hook import Finder
from apml_plugin.patching import check, plan_apply, plan_revert, write

MEAN = "{NAME: APML, reduction: mean}"
NAMES = ("lib", "core", "tools", "nets", "main", "check")
Make = Callable[..., Path]
Load = Callable[..., ModuleType]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APML_LOSS", raising=False)
    monkeypatch.setattr(calls, "state", calls.State())


@pytest.fixture
def make(tmp_path: Path) -> Make:
    numbers = itertools.count()

    def build(files: dict[str, str], ends: str = "\n", tabs: bool = False, final: bool = True) -> Path:
        root = tmp_path / f"host{next(numbers)}"
        for name, text in files.items():
            text = text if final else text.rstrip("\n")
            text = text.replace("    ", "\t") if tabs else text
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text.replace("\n", ends).encode())
        (root / ".git").mkdir()
        return root

    return build


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    def forget() -> None:
        for name in [n for n in sys.modules if n.partition(".")[0] in NAMES]:
            del sys.modules[name]

    def importing(root: Path, name: str, attach: bool = False) -> ModuleType:
        forget()
        monkeypatch.syspath_prepend(str(root))
        importlib.invalidate_caches()
        if not attach:
            return importlib.import_module(name)
        hooks = Finder(Settings({}, "", True))  # what `apml run` puts in place
        others = [finder for finder in sys.meta_path if not isinstance(finder, Finder)]
        monkeypatch.setattr(sys, "meta_path", [hooks, *others])
        return importlib.import_module(name)

    yield importing
    forget()


def recognise(root: Path) -> Loops:
    return recognise_project(Project(root.resolve()))


def patch(root: Path) -> None:
    known = [recognise(root).recipe]
    write(plan_apply(root, known, known))


def revert(root: Path) -> None:
    known = [recognise(root).recipe]
    write(plan_revert(root, known, known))


def snapshot(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*.py"))}


def clouds(points: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(2, points, 3, generator=generator), torch.rand(2, points + 8, 3, generator=generator)


def mean(pred: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
    return apml_loss(pred, gt, reduction="mean")


def shared(module: ModuleType, config: Any) -> tuple[torch.Tensor, torch.Tensor, Any]:
    torch.manual_seed(0)
    manager, (x, gt) = module.Manager(), clouds()
    p, parts = manager.train(x, gt)
    assert torch.allclose(parts[2], _one_way(x, p).detach())  # partial matching stays the host's
    return p, parts[1], manager.validate(x, gt)[1]


def chain(module: ModuleType, config: Any) -> tuple[torch.Tensor, torch.Tensor, Any]:
    torch.manual_seed(0)
    x, gt = clouds()
    p, parts, validated = module.train({"loss_func": config or "cd_l1"}, module.Net(), x, gt)
    return p, parts[1], validated[1].detach()


def local(module: ModuleType, config: Any) -> tuple[torch.Tensor, torch.Tensor, Any]:
    torch.manual_seed(0)
    x, gt = clouds()
    p, parts, validated = module.train_net(importlib.import_module("lib.net").Net(), x, gt)
    return p, parts[0], validated


def forward(module: ModuleType, config: Any) -> tuple[torch.Tensor, torch.Tensor, Any]:
    torch.manual_seed(0)
    net, (x, gt) = module.build(SimpleNamespace(model="simple", loss=config or "cd", loss_opts=OPTS)), clouds()
    p, loss = module.train(net, x, gt)
    assert loss.shape == (2,)  # one value per sample, as the host gives
    return p, loss.mean(), module.val(net, x, gt).mean()


def _one_way(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.cdist(a, b).square().min(2)[0].mean()


OPTS: dict[str, Any] = {"reduction": "mean"}
HOSTS: dict[str, tuple[dict[str, str], str, Callable[[ModuleType, Any], Any]]] = {
    "shared": (forks.SHARED, "main", shared),
    "chain": (forks.CHAIN, "main", chain),
    "local": (forks.LOCAL, "core.train", local),
    "forward": (forks.FORWARD, "main", forward),
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "CRLF": {"ends": "\r\n"},
    "tabs": {"tabs": True},
    "no final newline": {"final": False},
}


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("how", ["patched", "attached"])
def test_trains_with_ours_and_validates_with_its_own(
    name: str, how: str, make: Make, load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files, entry, run = HOSTS[name]
    root = make(files)
    bare = run(load(root, entry), None)
    before = snapshot(root)
    if how == "patched":
        patch(root)
    same = run(load(root, entry, attach=how == "attached"), None)
    assert all(torch.equal(a, b) for a, b in zip(bare, same, strict=True))  # no loss named: bit for bit
    assert "[apml]" not in capsys.readouterr().err
    monkeypatch.setenv("APML_LOSS", MEAN)
    p, loss, validated = run(load(root, entry, attach=how == "attached"), None)
    _, gt = clouds()
    torch.testing.assert_close(loss, mean(p, gt))
    assert not torch.allclose(loss, bare[1])
    torch.testing.assert_close(validated, bare[2])
    said = capsys.readouterr().err
    assert said.count("[apml]") == 1
    assert "APML(" in said
    assert "from APML_LOSS" in said
    if how == "patched":
        revert(root)
    assert snapshot(root) == before


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_patched_and_reverted_byte_for_byte(name: str, layout: str, make: Make) -> None:
    root = make(HOSTS[name][0], **LAYOUTS[layout])
    before = snapshot(root)
    patch(root)
    after = snapshot(root)
    for file, data in after.items():
        compile(data, file, "exec")
    assert before != after
    assert before.get("third_party/losses.py") == after.get("third_party/losses.py")  # nobody imports the copy
    known = [recognise(root).recipe]
    assert check(root, known) == ("training losses",)
    assert not plan_apply(root, known, known).differs
    revert(root)
    assert snapshot(root) == before


def test_a_name_of_ours_where_the_host_chooses_by_a_string(make: Make, load: Load) -> None:
    root = make(forks.CHAIN)
    patch(root)
    main = load(root, "main")
    _, gt = clouds()
    for said in ("APML", {"NAME": "APML", "reduction": "mean"}):
        p, loss, validated = chain(main, said)
        reduction = "sum" if said == "APML" else "mean"
        torch.testing.assert_close(loss, apml_loss(p, gt, reduction=reduction))
        torch.testing.assert_close(validated, chain(main, "cd_l1")[1])
    with pytest.raises(Exception, match="APLM is not supported"):  # the host's own word on a name nobody knows
        chain(main, "APLM")


def test_a_name_of_ours_in_an_attribute_takes_the_sibling_options(make: Make, load: Load) -> None:
    root = make(forks.FORWARD)
    patch(root)
    p, loss, _ = forward(load(root, "main"), "APML")
    torch.testing.assert_close(loss, mean(p, clouds()[1]))


def test_the_environment_wins_over_the_hosts_name(make: Make, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APML_LOSS", MEAN)
    for files, run in ((forks.CHAIN, chain), (forks.FORWARD, forward)):
        root = make(files)
        patch(root)
        p, loss, _ = run(load(root, "main"), "emd")
        torch.testing.assert_close(loss, mean(p, clouds()[1]))


BAD = {
    "APLM": "no loss is called 'APLM': did you mean 'APML'",
    "{NAME: APML, pmin: 1}": "p_min",
    "{coarse: APML}": "does not give the stage",
    "{NAME: Schedule, from: ChamferL1, to: APML}": "does not give the epoch",
    "{": "is not valid YAML",
    "3": "names no loss",
    "{NAME: APML, p_min: 0.7, p_min: 0.8}": "p_min: is given twice",
}
TRAIN = """
import torch
import main
x, gt = torch.rand(2, 8, 3), torch.rand(2, 12, 3)
try:
    main.Manager().train(x, gt)
except Exception as error:  # some registries raise everything again
    raise type(error)(str(error))
print("trained")
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    forking = Forking(tmp_path_factory.mktemp("forking"), "torch", "apml_plugin.registry")
    yield forking
    forking.close()


def test_a_loss_that_cannot_be_used_is_one_message_in_a_patched_clone(make: Make, python: Forking) -> None:
    """Not a traceback through the host's code, which has nothing to do with it."""
    root = make(forks.SHARED)
    patch(root)
    (root / "run.py").write_text(TRAIN)
    for text, message in BAD.items():
        done = python(["run.py"], root, APML_LOSS=text)
        assert done.returncode == 1, done.said
        assert message in done.stderr
        assert done.stderr.startswith("[apml] stopped: APML_LOSS=")
        assert done.stderr.count("\n") == 1, done.said
    for text in ("", " "):  # as if it were not set
        done = python(["run.py"], root, APML_LOSS=text)
        assert (done.returncode, done.stdout, done.stderr) == (0, "trained\n", ""), done.said


def test_a_loss_of_one_value_per_pair_is_an_error(make: Make, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(forks.SHARED)
    patch(root)
    monkeypatch.setenv("APML_LOSS", "{NAME: APML, reduction: none}")
    with pytest.raises(LossValueError, match="returns one number"):
        shared(load(root, "main"), None)


REFUSED = {
    "indices": (forks.INDICES, r"main\.py:9 matched: .*indices.*training_value"),
    "network": (forks.NETWORK, r"main\.py:9 both: .*goes into the network \(main\.py:\d+\).*training_value"),
    "weighed": (forks.WEIGHED, r"main\.py:9 both: a further argument takes part"),
    "no Chamfer": (forks.UNKNOWN, r"trains \(main\.py:1 train\), but with no Chamfer.*loss = training_value"),
    "raw local": (forks.RAW_LOCAL, r"main\.py:7 train: chamfer returns distances or indices"),
    "syntax error": ({**forks.UNKNOWN, "b.py": "def f(:\n"}, r"^b\.py, line 1 is not valid Python"),
    "no training": ({"m.py": "x = 1\n"}, r"not a PoinTr-style codebase"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("option", [[], ["--explain"], ["--revert"], ["--check"]])
def test_a_rejection_names_reason_place_and_remedy(name: str, option: list[str], make: Make) -> None:
    files, message = REFUSED[name]
    root = make(files)
    before = snapshot(root)
    assert cli(["patch", str(root), *option]) == 1
    with pytest.raises(HostError, match=f"(?s){message}"):
        identify(root)
    assert snapshot(root) == before


def test_the_two_lines_by_hand_do_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    x, gt = clouds()
    pred = x.requires_grad_()
    own = torch.tensor(7.0)
    assert training.training_value(own, pred, gt) is own
    monkeypatch.setenv("APML_LOSS", MEAN)
    torch.testing.assert_close(training.training_value(own, pred, gt), mean(pred, gt))
    torch.testing.assert_close(training.training_value(own, gt, pred), mean(pred, gt))  # truth first, as some do
    with torch.no_grad():
        assert training.training_value(own, pred, gt) is own
    assert training.training_value(own, x.detach(), gt) is own


def test_clouds_with_their_coordinates_first_are_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    x, gt = clouds()
    pred = x.requires_grad_()
    monkeypatch.setenv("APML_LOSS", MEAN)
    value = training.training_value(0.0, pred.transpose(1, 2), gt.transpose(1, 2))
    torch.testing.assert_close(value, mean(pred, gt))


def test_static_and_class_methods_are_attached_too(make: Make, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
import torch
from lib.chamfer import ChamferRaw

chamfer = ChamferRaw()


class Losses:
    @staticmethod
    def both(gt, p):
        d1, d2, _, _ = chamfer(gt, p)
        return torch.mean(d1) + torch.mean(d2)

    @classmethod
    def other(cls, a, b):
        d1, d2, _, _ = chamfer(a, b)
        return torch.mean(d1) + torch.mean(d2)


def train(p, gt):
    both, other = Losses.both(gt, p), Losses.other(p, gt)
    (both + other).backward()
    return both, other
"""
    root = make({"lib/chamfer.py": forks.CHAMFER, "main.py": text})
    monkeypatch.setenv("APML_LOSS", MEAN)
    x, gt = clouds()
    pred = x.requires_grad_()
    attached = load(root, "main", attach=True).train(pred, gt)
    patch(root)
    for value in (*attached, *load(root, "main").train(pred, gt)):
        torch.testing.assert_close(value, mean(pred, gt))


def test_a_loss_attribute_stays_a_module_and_adds_nothing_to_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APML_LOSS", "APML")
    net = torch.nn.Sequential(torch.nn.Linear(1, 1))
    keys = list(net.state_dict())
    net.criterion = torch.nn.MSELoss()
    net.criterion = training.training_loss(net.criterion)
    assert list(net.state_dict()) == keys
    assert training.training_loss(net.criterion) is net.criterion


def test_validation_that_records_gradients_gets_a_decorator(make: Make) -> None:
    edits = {(edit.file, str(edit)) for edit in recognise(make(forks.CHAIN)).recipe.edits}
    assert ("check.py", "'@keeps_host_loss' above 'check'") in edits
    assert len(edits) == 4


def test_explain_lists_what_is_replaced_and_what_stays(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(forks.SHARED)
    before = snapshot(root)
    assert cli(["patch", str(root), "--explain"]) == 0
    output = capsys.readouterr().out
    for text in (
        "trains in        main.py:11 Manager.train",
        "lib/losses.py:13 both: two-sided Chamfer, one number",
        "lib/losses.py:25 covered: measures one direction only (partial matching)",
        "lib/losses.py: '@trains_with_loss' above 'both_roots'",
        "APML_LOSS (apml run --loss)",
        "not patched; nothing was written",
    ):
        assert text in output, output
    assert "third_party" not in output
    assert snapshot(root) == before


def test_explain_of_a_host_with_a_registry(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["patch", str(host), "--explain"]) == 0
    output = capsys.readouterr().out
    assert "AdaPoinTr.loss_func: denoise, unless the YAML names it" in output
    assert "'@takes_loss' above 'make_model'" in output
