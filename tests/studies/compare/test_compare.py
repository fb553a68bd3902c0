"""`apml compare`: a tiny study end to end; stopped and resumed it gives the same numbers."""

import dataclasses
import json

import numpy as np
import pytest

from apml_plugin.cli import main
from apml_plugin.errors import HostError, LossArgumentError
from apml_plugin.studies.compare import report, study

TINY = dataclasses.replace(study.QUICK, train=2, test=1, points=64, partial=64, channels=16, batch=4, steps=3, looks=1)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(study, "QUICK", TINY)


def figures(results):
    return {label: [(r.values, r.curve) for r in seeds] for label, seeds in results.items()}


def test_a_study_end_to_end_and_again(tiny, tmp_path, capsys, monkeypatch):
    words = ["compare", "--quick", "--out", str(tmp_path / "s"), "--loss", "APML", "--loss", "{NAME: DCD, alpha: 40}"]
    assert main(words) == 0
    page = tmp_path / "s" / "report.html"
    assert str(page) in capsys.readouterr().out
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 2
    assert "DCD(alpha=40)" in text
    output = json.loads((tmp_path / "s" / "compare.json").read_text())
    assert {loss["name"] for loss in output["losses"]} == {"APML", "DCD(alpha=40)"}
    for loss in output["losses"]:
        assert len(loss["seeds"]) == 2
        values = [seed["values"]["EMD"] for seed in loss["seeds"]]
        assert loss["summary"]["EMD"]["mean"] == pytest.approx(np.mean(values))
        assert loss["summary"]["EMD"]["spread"] == pytest.approx(np.std(values, ddof=1))
    for name in ("compare.png", "curves.png"):
        assert (tmp_path / "s" / name).read_bytes().startswith(b"\x89PNG")
    # A second time nothing is trained.
    monkeypatch.setattr(study, "train", None)
    assert main(words) == 0
    assert json.loads((tmp_path / "s" / "compare.json").read_text())["losses"] == output["losses"]


def test_resumed_after_an_interruption_gives_the_same_numbers(tmp_path):
    losses = study.contestants(["ChamferL2", "EMD"])
    whole, _ = study.run(tmp_path / "whole", losses, 2, TINY)
    done = []

    def stop(_):
        done.append(1)
        if len(done) == 2 * TINY.steps + 1:  # in the middle of the third of four trainings
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.run(tmp_path / "part", losses, 2, TINY, tick=stop)
    assert len(list((tmp_path / "part" / "results").iterdir())) == 2
    resumed, _ = study.run(tmp_path / "part", losses, 2, TINY)
    assert figures(resumed) == figures(whole)
    for label in resumed:
        for one, other in zip(resumed[label], whole[label], strict=True):
            np.testing.assert_array_equal(one.pred, other.pred)


def test_another_study_in_the_folder_and_a_broken_file_are_rejected(tmp_path):
    losses = study.contestants(["ChamferL1"])
    study.run(tmp_path, losses, 1, TINY)
    with pytest.raises(HostError, match="steps 3, not 4"):
        study.run(tmp_path, losses, 1, dataclasses.replace(TINY, steps=4))
    (tmp_path / "results" / "ChamferL1-seed0.npz").write_bytes(b"half")
    with pytest.raises(HostError, match=r"ChamferL1-seed0\.npz is not a result"):
        study.run(tmp_path, losses, 1, TINY)


def test_errors_name_bad_arguments(tmp_path, capsys):
    out = ["--out", str(tmp_path / "x")]
    for words, output in (
        (["--loss", "APLM"], "'APML'"),
        (["--loss", "{NAME: APML, pmin: 1}"], "'p_min'"),
        (["--loss", "APML", "--loss", "APML"], "given twice"),
        (["--loss", "[1]"], "must be a name or a mapping"),
        (["--loss", "{NAME: "], "neither a name nor YAML"),
        (["--loss", "Rate"], "cannot be compared"),
        (["--seeds", "0"], "--seeds 0"),
    ):
        assert main(["compare", *out, *words]) == 1
        assert output in capsys.readouterr().err, words
    assert not (tmp_path / "x" / "report.html").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot make the folder"):
        study.run(tmp_path / "file" / "x", study.contestants(["APML"]), 1, TINY)


def test_all_losses_are_compared_by_their_mean():
    measured = {c.label: c.config for c in study.contestants([])}
    assert {"ChamferL1", "EMD", "APML"} <= set(measured)
    assert all(config["reduction"] == "mean" for config in measured.values())
    assert study.contestants([{"NAME": "APML", "reduction": "sum"}])[0].config["reduction"] == "sum"
    with pytest.raises(LossArgumentError, match="must be a name"):
        study.contestants([3])


def test_the_same_first_weights_and_batches_for_every_loss():
    """With learning rate 0 the network depends only on the seed."""
    size = dataclasses.replace(TINY, steps=1, lr=0.0)
    data = study.make_data(size)
    one, two = (study.train(c, 5, size, data, lambda: None) for c in study.contestants(["ChamferL1", "EMD"]))
    np.testing.assert_array_equal(one.pred, two.pred)
    other = study.train(study.contestants(["EMD"])[0], 6, size, data, lambda: None)
    assert not np.array_equal(one.pred, other.pred)


def test_means_within_the_spread_are_marked_as_tied():
    def result(cd):
        return study.Result(dict.fromkeys(study.COLUMNS, 0.5) | {"CD-L1": cd, "F@5%": -cd}, [], 1, 1, np.zeros(0))

    summary = report.summarise(
        {"far": [result(30.0), result(31.0)], "near": [result(21.0), result(25.0)], "best": [result(20), result(24)]}
    )
    assert list(summary) == ["best", "near", "far"]
    assert [row["CD-L1"].mark for row in summary.values()] == ["best", "tied", ""]
    assert [row["F@5%"].mark for row in summary.values()] == ["best", "tied", ""]
    single = report.summarise({"a": [result(1.0)], "b": [result(2.0)]})
    assert single["b"]["CD-L1"].mark == "tied"
    assert single["b"]["CD-L1"].text("CD-L1") == "2.0"
