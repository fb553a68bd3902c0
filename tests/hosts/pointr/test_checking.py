"""`apml check`: what a run would use, and what it warns of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from apml_plugin.cli import main
from apml_plugin.hosts import base
from apml_plugin.hosts.base import Finding, check_config
from apml_plugin.hosts.pointr import checking as inspecting


@pytest.fixture
def write(host: Path) -> Any:
    def put(**more: Any) -> Path:
        path = host / "cfgs" / "x.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"model": {"NAME": "PCN", "num_pred": 32}, **more}))
        return path

    return put


def warned(found: Finding, words: str) -> bool:
    return any(words in warning for warning in found.warnings)


def test_the_loss_per_stage_and_where_it_was_found(write: Any, host: Path) -> None:
    found = check_config(write(loss={"fine": {"NAME": "APML", "p_min": 0.9, "reduction": "mean"}}))
    assert found.host is not None
    assert found.host.root == host.resolve()
    assert found.found_at == "loss: at the top level"
    assert found.stages["coarse"] == "the host's own loss"
    assert found.stages["fine"].startswith("APML(p_min=0.9,")
    assert "not patched for PCN" in found.unpatched
    main(["patch", str(host)])
    assert check_config(write(loss={"NAME": "APML", "reduction": "mean"})).warnings == []
    under = check_config(write(model={"NAME": "AdaPoinTr", "num_pred": 32, "loss": "ChamferL1"}))
    assert under.found_at == "loss: under model:"
    assert under.stages == {
        "denoise": "the host's own loss",
        "coarse": under.stages["fine"],
        "fine": under.stages["fine"],
    }


def test_patched_for_that_model_is_enough(write: Any, host: Path) -> None:
    main(["patch", str(host), "--model", "PCN"])
    assert not check_config(write(loss="ChamferL1")).unpatched
    other = {"NAME": "PoinTr", "num_pred": 32}
    assert "not patched for PoinTr" in check_config(write(loss="ChamferL1", model=other)).unpatched


def test_the_scale_of_a_sum(write: Any) -> None:
    default = check_config(write(loss="APML", optimizer={"type": "SGD"}))
    assert warned(default, "x1000")
    assert warned(default, "grad_norm_clip is 10:")
    assert warned(default, "SGD")
    raised = check_config(write(loss="APML", grad_norm_clip=163840, optimizer={"type": "Adam"}))
    assert warned(raised, "x1000")
    assert not warned(raised, "grad_norm_clip is")
    assert not warned(raised, "SGD")


@pytest.mark.parametrize(("count", "short"), [(9, True), (10, False)])
def test_too_few_validation_samples(write: Any, host: Path, count: int, short: bool) -> None:
    (host / "index.json").write_text(json.dumps([{"taxonomy_id": "0", "test": ["a"] * (count - 1)}, {"test": ["b"]}]))
    (host / "cfgs").mkdir(exist_ok=True)
    (host / "cfgs" / "data.yaml").write_text("CATEGORY_FILE_PATH: index.json\n")
    dataset = {"val": {"_base_": "cfgs/data.yaml", "others": {"subset": "test"}}}
    assert warned(check_config(write(dataset=dataset)), "ZeroDivisionError") is short


def test_a_dataset_that_is_not_there(write: Any) -> None:
    found = check_config(write(dataset={"val": {"_base_": "cfgs/missing.yaml", "others": {"subset": "test"}}}))
    assert warned(found, "relative to the clone's root")


def test_keys_the_model_needs(write: Any) -> None:
    assert "PCN reads model.num_pred" in check_config(write(loss="APML", model={"NAME": "PCN"})).error
    assert "no model Nobody" in check_config(write(loss="APML", model={"NAME": "Nobody"})).error


def test_the_hosts_own_loss(write: Any) -> None:
    for loss in (None, {"sparse": 1.0}):
        found = check_config(write(loss=loss))
        assert found.stages == {}
        assert found.error == ""


ERRORS = {
    "misspelt": ({"loss": "APLM"}, "no loss is called 'APLM'"),
    "argument": ({"loss": {"NAME": "APML", "pmin": 0.5}}, "'p_min'"),
    "stage": ({"loss": {"denoise": "APML"}}, "no stage 'denoise'; its stages are coarse, fine"),
    "twice": ({"loss": "APML", "model": {"NAME": "PCN", "loss": "ChamferL1"}}, "given twice"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_errors_end_with_exit_code_1(write: Any, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    given, message = ERRORS[what]
    assert main(["check", str(write(**given))]) == 1
    assert message in capsys.readouterr().out


def test_the_command_line(write: Any, host: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(loss="APML").rename(tmp_path / "away.yaml")
    assert main(["check", str(path), "--host", str(host)]) == 0
    out = capsys.readouterr().out
    assert "coarse, fine: APML(p_min=0.8" in out
    assert "warning: the clone is not patched" in out
    for wrong in ("[", "- a\n"):
        path.write_text(wrong)
        assert main(["check", str(path)]) == 1
        assert str(path) in capsys.readouterr().err
    assert main(["check", str(tmp_path / "none.yaml")]) == 1
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"Loss": "APML"}, "Loss: at the top level is not read; did you mean loss:?"),
        ({"loss": None}, "loss: at the top level is empty"),
        ({"loss_opts": {"p_min": 0.7}}, "loss_opts: at the top level has no loss: beside it"),
    ],
)
def test_misspelt_keys_are_reported(keys: dict[str, Any], words: str, write: Any) -> None:
    assert warned(check_config(write(**keys)), words)


def test_a_loss_that_cannot_run_is_an_error(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "none" in check_config(write(loss={"NAME": "APML", "reduction": "none"})).error
    monkeypatch.setattr(inspecting, "loading_problem", lambda: "nothing was compiled here yet")
    found = check_config(write(loss={"NAME": "APML", "backend": "native"}))
    assert "native cannot be used, there are no compiled ops: nothing was compiled here yet" in found.error


def test_half_patched_is_reported_once(write: Any, host: Path) -> None:
    main(["patch", str(host)])
    reader = check_config(write()).host.detail.reader.file
    (host / reader).write_bytes(
        b"".join(
            line for line in (host / reader).read_bytes().splitlines(keepends=True) if b"# apml-plugin" not in line
        )
    )
    found = check_config(write(loss={"NAME": "APML", "reduction": "mean"}))
    assert found.half_patched
    assert warned(found, "half patched")
    assert not warned(found, "not patched for")


@pytest.mark.parametrize("loss", ["HGMM", "DPCC", {"fine": "Rate"}])
def test_a_loss_of_more_than_two_clouds_is_an_error_before_the_run(host, loss, tmp_path, capsys) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({"model": {"NAME": "PCN", "num_pred": 32, "loss": loss}}))
    assert main(["check", str(file), "--host", str(host)]) == 1
    assert "gives a predicted and a true cloud, but" in " ".join(capsys.readouterr().out.split())


def test_misspelt_metrics_and_models_are_reported(host, tmp_path, capsys) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({"metrics": ["EDM"], "model": {"NAME": "PCN", "num_pred": 32, "loss": "APML"}}))
    assert main(["check", str(file), "--host", str(host)]) == 1
    assert "did you mean 'EMD'" in " ".join(capsys.readouterr().out.split())
    file.write_text(yaml.safe_dump({"model": {"NAME": "PNC", "num_pred": 32, "loss": "APML"}}))
    main(["check", str(file), "--host", str(host)])
    assert "did you mean 'PCN'?" in " ".join(capsys.readouterr().out.split())


def test_a_run_asks_the_host_it_is_in_and_not_what_lies_around_its_config(
    write: Any, host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A YAML may lie in a folder that holds many codebases: reading all of them took minutes."""
    config = tmp_path / "many" / "x.yaml"
    config.parent.mkdir()
    write(loss="APML").rename(config)
    read: list[Path] = []
    monkeypatch.setattr(base, "identify", lambda path, real=base.identify: read.append(Path(path)) or real(path))
    found = check_config(config, near=host)
    assert found.host is not None
    assert found.stages
    assert read == [host]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("loss: ChamferL1\nmodel: {NAME: PCN}\n# more\nloss: APML\n", "loss: is given twice, in line 1 and in line 4"),
        ("model:\n  loss: APML\n  loss: DCD\n", "loss: is given twice, in line 2 and in line 3"),
        ("model: {NAME: PCN}\nmodel: {loss: APML}\n", "model: is given twice, in line 1 and in line 2"),
        ("loss:\n  NAME: APML\n  p_min: 0.7\n  p_min: 0.8\n", "p_min: is given twice, in line 3 and in line 4"),
    ],
)
def test_a_key_that_is_given_twice_is_an_error(
    text: str, words: str, host: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyYAML would take the last one without a word."""
    (host / "c.yaml").write_text(text)
    monkeypatch.chdir(host)
    for command in (["check", "c.yaml"], ["run", "main.py", "--config", "c.yaml"], ["config", "c.yaml"]):
        assert main(command) == 1
        assert words in capsys.readouterr().err


def test_other_keys_are_read_as_the_host_reads_them(host: Path) -> None:
    (host / "c.yaml").write_text("lr: 1\nlr: 2\nmodel: {NAME: PCN, num_pred: 64}\nloss: APML\n")
    assert not check_config(host / "c.yaml").error
