"""`apml config`: a YAML derived from the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from launch.running import demo_host

from apml_plugin.cli import main

HOST = """\
# my network
optimizer : {
  type: AdamW,
  kwargs: {
  lr : 0.0005,   # tried others
  weight_decay : 0.0005
}}
scheduler: {type: LambdaLR, kwargs: {decay_step: 21, lr_decay: 0.9}}
bnmscheduler: {type: Lambda, kwargs: {bn_momentum: 0.9, lowest_decay: 0.01}}
dataset : {
  train : { _base_: cfgs/dataset_configs/Mine.yaml, others: {subset: 'train'}}}
model : {
  NAME: PCN, num_pred: 16384, encoder_channel: 1024}
max_epoch : 300
"""
CSI = "train_loader: {batch_size: 4}\nvalidation_loader: {batch_size: 4}\nsplit_to_use: random_split\n"
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.yaml").write_text(HOST)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def derived(*words: str, source: str = "mine.yaml") -> dict[str, object]:
    assert main(["config", source, "-o", "new.yaml", "--force", *words]) == 0
    return yaml.safe_load(Path("new.yaml").read_text())


def test_loss_is_added_and_all_else_stays(folder: Path, capsys: Captured) -> None:
    assert main(["config", "mine.yaml"]) == 0
    header, _, text = capsys.readouterr().out.partition("\n\n")
    assert text == HOST.replace("model :", "loss: {NAME: APML, reduction: mean}\nmodel :")
    assert "loss: {NAME: APML, reduction: mean}" in header
    assert "#   apml run main.py --config THIS_FILE --exp_name NAME" in header
    assert (folder / "mine.yaml").read_text() == HOST


def test_fine_tuning_starts_from_the_checkpoint(folder: Path, capsys: Captured) -> None:
    torch.save({"base_model": {"a": torch.zeros(2)}}, folder / "best.pth")
    config = derived("--finetune", "best.pth")
    assert f"--start_ckpts {folder / 'best.pth'} --exp_name new" in capsys.readouterr().out
    expected = yaml.safe_load(HOST) | {"loss": {"NAME": "APML", "reduction": "mean"}, "max_epoch": 30}
    expected["optimizer"]["kwargs"]["lr"] = 5e-05
    expected["scheduler"]["kwargs"]["decay_step"] = 7
    expected["bnmscheduler"]["kwargs"]["bn_momentum"] = 0.01
    assert config == expected
    assert "lr : 5.0e-05,   # tried others" in (folder / "new.yaml").read_text()


def test_a_sum_comes_with_its_clipping(folder: Path) -> None:
    config = derived("--loss", "{NAME: APML, reduction: sum}")
    assert config["grad_norm_clip"] == 163840
    again = derived("--loss", "{NAME: APML, p_min: 0.9}", source="new.yaml")
    assert again["loss"] == {"NAME": "APML", "p_min": 0.9, "reduction": "mean"}


def test_the_number_of_points_is_that_of_the_data_set(folder: Path) -> None:
    from apml_plugin.hosts.base import Host
    from apml_plugin.hosts.derived_config import derive

    (folder / "cfgs" / "dataset_configs").mkdir(parents=True)
    (folder / "cfgs" / "dataset_configs" / "Mine.yaml").write_text("N_POINTS: 2048")
    host = Host(folder, "PoinTr-style host", (), ())
    result = derive(HOST, {"NAME": "APML", "reduction": "sum"}, host=host)
    assert yaml.safe_load(result.text)["grad_norm_clip"] == 20480


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("ChamferL1", "ChamferL1"),
        ("{coarse: ChamferL1, fine: APML}", {"coarse": "ChamferL1", "fine": {"NAME": "APML", "reduction": "mean"}}),
        (
            "[APML, {NAME: ChamferL2, weight: 0.1}]",
            [{"NAME": "APML", "reduction": "mean"}, {"NAME": "ChamferL2", "weight": 0.1}],
        ),
        (
            "{NAME: Schedule, from: ChamferL2, to: APML, end: 3}",
            {"NAME": "Schedule", "from": "ChamferL2", "to": {"NAME": "APML", "reduction": "mean"}, "end": 3},
        ),
    ],
)
def test_every_form_of_loss(loss: str, expected: object, folder: Path) -> None:
    assert derived("--loss", loss)["loss"] == expected


def test_loss_stays_under_model_where_it_is(folder: Path) -> None:
    (folder / "mine.yaml").write_text(HOST.replace("NAME: PCN,", "NAME: PCN, loss: ChamferL2,"))
    config = derived()
    assert "loss" not in config
    assert config["model"]["loss"] == {"NAME": "APML", "reduction": "mean"}
    weights = HOST + "loss: {coarse: 0.5, fine: 1.0}\n"  # the host's own weights
    (folder / "mine.yaml").write_text(weights)
    config = derived()
    assert config["loss"] == {"coarse": 0.5, "fine": 1.0}
    assert config["model"]["loss"] == {"NAME": "APML", "reduction": "mean"}


@pytest.mark.parametrize("typo", ["AMPL", "{NAME: AMPL, p_min: 0.7}", "[AMPL]", "{coarse: AMPL, fine: ChamferL1}"])
def test_a_bad_loss_is_replaced(typo: str, folder: Path) -> None:
    (folder / "typo.yaml").write_text(f"{HOST}loss: {typo}\n")
    config = derived("--loss", "APML", source="typo.yaml")
    assert config["loss"] == {"NAME": "APML", "reduction": "mean"}
    assert "loss" not in config["model"]


def test_weights_of_the_host_stay(folder: Path) -> None:
    (folder / "weights.yaml").write_text(HOST + "loss: {sparse: 0.5, dense: 1.0}\n")
    config = derived("--loss", "APML", source="weights.yaml")
    assert config["loss"] == {"sparse": 0.5, "dense": 1.0}
    assert config["model"]["loss"] == {"NAME": "APML", "reduction": "mean"}


def test_what_has_to_change_is_said_and_no_more(folder: Path, capsys: Captured) -> None:
    derived("--loss", "ChamferL1")
    assert "Chamfer's scale" not in capsys.readouterr().out  # nothing about a reduction that nobody named
    derived("--loss", "ChamferL1", source="new.yaml")
    assert capsys.readouterr().out.startswith("Equal to new.yaml, as it should be.\nStart it")
    clone = demo_host(folder / "clone")
    (clone / "mine.yaml").write_text(HOST)
    assert main(["config", str(clone / "mine.yaml")]) == 0
    assert "not patched" not in capsys.readouterr().err  # the command that it prints needs no patch


def test_csi2pointcloud(folder: Path, capsys: Captured) -> None:
    (folder / "csi.yaml").write_text("# mine\n" + CSI)
    config = derived(source="csi.yaml")
    assert config == {**yaml.safe_load(CSI), "loss": {"NAME": "APML", "reduction": "mean"}}
    assert f"APML_CONFIG={folder / 'new.yaml'} apml run train_model.py" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words", "problem"),
    [
        (HOST, ["--loss", "APLM"], "mine.yaml: no loss is called 'APLM': did you mean 'APML'"),
        (HOST, ["--loss", "{"], "--loss '{' is not valid YAML"),
        (HOST, ["--finetune", "none.pth"], "none.pth: there is no such file"),
        (HOST, ["--finetune", "mine.yaml"], "mine.yaml: is not a checkpoint"),
        (HOST.replace("max_epoch", "epochs"), ["--finetune", "best.pth"], "does not have both"),
        (
            HOST.replace("300", "300\nloss_opts: {p_min: 0.9}"),
            [],
            "loss_opts: at the top level belongs to another loss",
        ),
        (HOST.replace("PCN,", "PCN, loss: APML,") + "loss: APML", [], "loss: is given twice"),
        (HOST + "a: [", [], "mine.yaml: line 15, column 5: expected"),
        ("a: 1", [], "neither a PoinTr-style YAML"),
        ("- 1", [], "mine.yaml: holds list, not a mapping"),
        (CSI, ["--finetune", "best.pth"], "does not start from a checkpoint"),
        (CSI, ["--loss", "{fine: APML}"], "a run with the derived YAML would stop"),
        ("x: &m {NAME: PCN}\nmodel: *m\nloss: {a: 1}", [], "cannot set model.loss in this YAML"),
        (None, [], "mine.yaml: cannot be read (No such file or directory)"),
    ],
)
def test_errors_leave_nothing_behind(
    text: str | None, words: list[str], problem: str, folder: Path, capsys: Captured
) -> None:
    torch.save({"base_model": {"a": torch.zeros(2)}}, folder / "best.pth")
    (folder / "mine.yaml").unlink()
    if text is not None:
        (folder / "mine.yaml").write_text(text)
    before = {path.name for path in folder.iterdir()}
    assert main(["config", "mine.yaml", "-o", "new.yaml", *words]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert problem in error
    assert {path.name for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("mine.yaml", "mine.yaml: exists already; give --force"),
        (".", ".: is a folder"),
        ("no/new.yaml", "no/new.yaml: cannot be written: there is no folder no"),
    ],
)
def test_output_is_checked_first(output: str, problem: str, folder: Path, capsys: Captured) -> None:
    assert main(["config", "mine.yaml", "-o", output]) == 1
    assert problem in capsys.readouterr().err
    assert (folder / "mine.yaml").read_text() == HOST
