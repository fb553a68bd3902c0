"""`apml run --loss`, and what a run says of its loss before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from launch.running import demo_host

from apml_plugin.cli import main
from apml_plugin.errors import HostError, LossArgumentError, UnknownLossError
from apml_plugin.hosts import guard
from apml_plugin.launch import plan, probe
from apml_plugin.matching import extension

MODEL = "model: {{NAME: PCN, num_pred: 64, encoder_channel: 64{}}}\n"
CONFIGS = {
    "none.yaml": MODEL.format(""),
    "model.yaml": MODEL.format(", loss: {coarse: ChamferL1, fine: {NAME: APML, p_min: 0.7}}"),
    "top.yaml": MODEL.format("") + "loss: APML\n",
    "misspelt.yaml": MODEL.format(", loss: APLM"),
    "stage.yaml": MODEL.format(", loss: {medium: APML}"),
    "weights.yaml": MODEL.format("") + "loss: {sparse: 0.5, dense: 1.0}\n",
    "other.yaml": "loss: cd_l1\ntrain: {epochs: 3}\n",
    "broken.yaml": "model: {\n",
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    clone = demo_host(tmp_path / "host")
    for name, text in CONFIGS.items():
        (clone / name).write_text(text)
    monkeypatch.chdir(clone)
    monkeypatch.delenv("APML_LOSS", raising=False)
    monkeypatch.setattr(probe, "look", lambda *_: probe.Probe({}, {"timm": "site-packages: no"}, False))
    return clone


@pytest.mark.parametrize(
    ("config", "loss"),
    [
        ("none.yaml", "the host's own (no loss: in none.yaml)"),
        ("model.yaml", "coarse: ChamferL1"),
        ("model.yaml", "fine: APML(p_min=0.7"),
        ("top.yaml", "loss: at the top level in top.yaml"),
        ("top.yaml", "coarse, fine: APML("),
        ("weights.yaml", "the host's own"),
        ("other.yaml", ""),
        ("broken.yaml", ""),
        ("nowhere.yaml", ""),
    ],
)
def test_what_a_yaml_asks_for(host: Path, config: str, loss: str) -> None:
    for words in (["main.py", "--config", config], ["torchrun", "main.py", "--x", f"--config={config}"]):
        trains = plan.loss_of(words, {})[0]
        assert loss in trains
        assert bool(loss) == bool(trains)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("loss: APML\n", True),
        ("model: {loss: {NAME: APMLSparse, reduction: mean}}\n", True),
        ("loss: [{NAME: ChamferL2}, {NAME: APML, weight: 0.1}]\n", True),
        ("loss: EMD\n", False),  # a codebase may have its own
        ("loss: {APML: 1.0}\n", False),  # the weights of a codebase
        ("note: APML\n", False),
    ],
)
def test_a_codebase_whose_yaml_we_cannot_follow(
    text: str, asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run stops if nothing trains with the APML that its YAML names."""
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text("def train(loss): loss.backward()\n")
    Path("c.yaml").write_text(text)
    _, who = plan.loss_of(["train.py", "--config", "c.yaml"], {})
    assert bool(who) == asked
    if asked:
        assert "c.yaml asks for" in who
        assert "apml run --loss" in who


def test_the_variable_wins(host: Path) -> None:
    words = ["main.py", "--config", "misspelt.yaml"]
    assert plan.loss_of(words, {"APML_LOSS": "{NAME: APML, reduction: mean}"})[0].endswith("(APML_LOSS)")
    with pytest.raises(UnknownLossError, match="no loss is called 'CPML'"):
        plan.loss_of(words, {"APML_LOSS": "CPML"})
    with pytest.raises(LossArgumentError, match="takes no argument 'pmin'"):
        plan.loss_of([], {"APML_LOSS": "{NAME: APML, pmin: 1}"})
    with pytest.raises(HostError, match=r"^misspelt\.yaml: no loss is called 'APLM'"):
        plan.loss_of(words, {"APML_LOSS": " "})
    with pytest.raises(HostError, match=r"PCN has no stage 'medium'"):
        plan.loss_of(["--config", "stage.yaml"], {})


def test_the_command(host: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[plan.Plan] = []
    monkeypatch.setattr(plan, "execute", lambda planned: started.append(planned) or 0)
    for words, line in (
        (["--loss", "APLM", "main.py"], "error: no loss is called 'APLM': did you mean 'APML'"),
        (["--loss", "{", "main.py"], "error: APML_LOSS='{' (apml run --loss) is not valid YAML"),
        (["--loss", "", "main.py"], "error: APML_LOSS='' names no loss"),
        (["main.py", "--config", "misspelt.yaml"], "error: misspelt.yaml: no loss is called 'APLM'"),
    ):
        assert main(["run", *words]) == 1
        printed = capsys.readouterr()
        assert printed.err.startswith(line)
        assert (printed.err.count("\n"), printed.out, started) == (1, "", [])
    assert main(["run", "--no-attach", "main.py", "--config", "misspelt.yaml"]) == 0
    assert "APML_LOSS" not in started.pop().environ
    assert main(["run", "--loss", "APML", "main.py", "--config", "misspelt.yaml"]) == 0
    assert started.pop().environ["APML_LOSS"] == "APML"
    assert main(["run", "--loss", "APML", "--loss-from-step", "2", "main.py"]) == 0
    assert started.pop().environ[guard.FROM_STEP] == "2"

    monkeypatch.setenv("APML_LOSS", "ChamferL1")
    why = {"emd": "ModuleNotFoundError: No module named 'emd'", "knn_cuda": "the one at x is compiled for CUDA"}
    why["chamfer"] = "ModuleNotFoundError: No module named 'chamfer'"
    monkeypatch.setattr(probe, "look", lambda *_: probe.Probe(why, {"timm": "site-packages: no"}, False))
    assert main(["run", "--dry-run", "main.py"]) == 0
    out = capsys.readouterr().out
    assert "loss:      ChamferL1" in out
    assert "  for modules that are not installed: emd, chamfer\n  for knn_cuda: the one at x is compiled" in out
    assert "ModuleNotFoundError" not in out
    monkeypatch.delenv("APML_LOSS")
    assert main(["run", "--dry-run", "main.py", "--config", "top.yaml"]) == 0
    assert "(loss: at the top level in top.yaml)" in capsys.readouterr().out
    assert main(["run", "--dry-run", "main.py"]) == 0
    printed = capsys.readouterr().out
    assert "loss:      not known" in printed
    assert "broken:    timm at site-packages: no" in printed
    assert main(["run", "nowhere.py"]) == 1
    assert "cannot run 'nowhere.py'" in capsys.readouterr().err
    assert main(["run", "--cpu", "--no-cpu-mode", "main.py"]) == 1
    assert "contradict" in capsys.readouterr().err
    assert main(["run", "--dry-run", "--cpu", "--no-attach", "-m", "pack"]) == 0
    assert "on (--cpu was given)" in capsys.readouterr().out
    assert started == []


def test_the_rebuild_command_lifts_what_forbade_the_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APML_BUILD", "off")
    assert extension.rebuild_command().startswith("APML_BUILD=auto pip install")
    monkeypatch.setenv("APML_BUILD", "cpu")
    assert extension.rebuild_command().startswith("pip install")
