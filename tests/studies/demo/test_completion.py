"""`apml demo` from end to end in tiny sizes, and what it rejects."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from apml_plugin import drawing
from apml_plugin.errors import HostError
from apml_plugin.shapes import dataset_config, write_dataset
from apml_plugin.studies.demo import completion
from apml_plugin.studies.demo.project import Size, real_data

TINY = Size(train=2, test=1, points=64, partial=48, batch=5, pretrain_epochs=1, tune_epochs=1)


@pytest.mark.slow
def test_the_whole_demo_and_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(completion, "QUICK", TINY)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "out"
    path = completion.run(out, quick=True)
    output = capsys.readouterr().out
    assert output.strip().splitlines()[-1] == str(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    for words in ("+@takes_loss", "ChamferL2", "{NAME: APML, reduction: mean}", "EMD", "uniformity", "APML(p_min"):
        assert words in output
    assert (out / "logs" / "APML.log").read_text().count("[Training] EPOCH") == 1
    checkpoint = (out / "results" / "chamfer.pth").read_bytes()
    with np.load(out / "results" / "APML.npz") as tuned, np.load(out / "results" / "before.npz") as before:
        assert tuned["pred"].shape == (5, 64, 3)
        assert not np.array_equal(tuned["pred"], before["pred"])

    completion.run(out, quick=True)
    again = capsys.readouterr().out
    assert "reusing the checkpoint" in again
    assert "+@takes_loss" in again
    assert (out / "results" / "chamfer.pth").read_bytes() == checkpoint


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(HostError, match="holds other things"):
        completion.run(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_is_not_a_host_and_an_out_inside_a_host_are_rejected(tmp_path):
    with pytest.raises(HostError, match=r"no cfgs/PCN_models/PCN\.yaml"):
        completion.run(tmp_path / "out", host=tmp_path)
    (tmp_path / "cfgs" / "PCN_models").mkdir(parents=True)
    (tmp_path / "cfgs" / "PCN_models" / "PCN.yaml").write_text("model: {NAME: PCN}\n")
    with pytest.raises(HostError, match="lies in the clone"):
        completion.run(tmp_path / "out", host=tmp_path)
    with pytest.raises(HostError, match="--ckpts"):
        completion.run(tmp_path / "out", ckpts=tmp_path / "none.pth")
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_shows_the_end_of_its_log(tmp_path):
    from rich.console import Console

    from apml_plugin.studies.demo.project import follow, python

    with pytest.raises(HostError, match=r"(?s)exit code 3.*the reason"):
        follow(
            python("-c", "print('the reason'); raise SystemExit(3)"), tmp_path, tmp_path / "log", "trying", Console()
        )


def test_spacing_is_the_distance_to_the_eighth_neighbour():
    line = np.arange(20, dtype=np.float32)[:, None] * np.array([[1, 0, 0]], np.float32)
    gaps = drawing.spacing(line)
    assert gaps[0] == 8
    assert gaps[10] == 4


def test_a_clones_own_data_is_used_in_part_and_where_it_lies(tmp_path):
    clone, out = tmp_path / "clone", tmp_path / "out"
    list(write_dataset(clone / "data" / "PCN", train=2, test=2, points=64, partial=32))
    (clone / "cfgs" / "dataset_configs").mkdir(parents=True)
    config = dataset_config(Path("data/PCN"), 64)
    (clone / "cfgs" / "dataset_configs" / "PCN.yaml").write_text(yaml.safe_dump(config))
    (clone / "data/PCN/train/complete/03001627/chair0000.npy").unlink()  # listed, yet not there
    before = sorted(clone.rglob("*"))
    used = real_data(clone, out, Size(1, 2, 64, 32, 4, 1, 1))
    assert used["COMPLETE_POINTS_PATH"] == f"{clone}/data/PCN/%s/complete/%s/%s.npy"
    index = {entry["taxonomy_name"]: entry for entry in json.loads((out / "data" / "PCN.json").read_text())}
    assert index["chair"]["train"] == ["chair0001"]
    assert index["lamp"]["train"] == ["lamp0000"]
    assert sorted(clone.rglob("*")) == before
    # PoinTr cannot validate on fewer than ten shapes: then generated ones are used.
    assert real_data(clone, out, Size(1, 1, 64, 32, 4, 1, 1)) is None


@pytest.mark.pointr
@pytest.mark.slow
@pytest.mark.skipif("APML_POINTR" not in os.environ, reason="set APML_POINTR to a PoinTr clone")
def test_the_demo_on_a_copy_of_pointr(tmp_path, capsys):
    clone = Path(os.environ["APML_POINTR"])
    status = ["git", "-C", str(clone), "status", "--porcelain", "--ignored"]
    before = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    path = completion.run(tmp_path / "out", host=clone, quick=True)
    assert path.exists()
    assert "PCN trains with APML(" in capsys.readouterr().out.replace("\n", " ")
    assert subprocess.run(status, capture_output=True, text=True, check=True).stdout == before
