"""`apml eval` gives the numbers of the metrics, lists what it could not measure, and draws a picture."""

import json

import numpy as np
import pytest
import torch

from apml_plugin.cli import main
from apml_plugin.metrics import cd_l1, cd_l2, dcd, emd, f_score, matched_distance_quantiles, uniformity
from apml_plugin.studies.evaluate.evaluation import Choice, measure, pair_of


def clouds(seed, n=60, m=80):
    rng = np.random.default_rng(seed)
    return rng.random((n, 3)), rng.random((m, 3))


def folders(tmp_path, count=3):
    for name in ("pred", "gt"):
        (tmp_path / name / "chair").mkdir(parents=True)
    for k in range(count):
        pred, gt = clouds(k)
        np.save(tmp_path / "pred" / "chair" / f"{k:02d}.npy", pred)
        np.savetxt(tmp_path / "gt" / "chair" / f"{k:02d}.xyz", gt, fmt="%.17g")
    return tmp_path / "pred", tmp_path / "gt"


def test_the_numbers_are_those_of_the_metrics():
    pred, gt = clouds(0)
    choice = Choice(("CD-L1", "CD-L2", "F", "DCD", "Hausdorff", "p90", "uniformity", "EMD"), (0.1, 0.2), 10.0, 40)
    pair = pair_of(pred, gt, normalize=False)
    values = measure(pair, choice)
    assert tuple(values) == choice.columns
    x, y = torch.from_numpy(pred), torch.from_numpy(gt)
    half = [c[torch.randperm(len(c), generator=torch.Generator().manual_seed(0))[:40]] for c in (x, y)]
    expected = {
        "CD-L1": 10 * cd_l1(x, y),
        "CD-L2": 10 * cd_l2(x, y),
        "F@0.1": f_score(x, y, 0.1),
        "F@0.2": f_score(x, y, 0.2),
        "DCD": dcd(x, y),
        "Hausdorff": 10 * max(torch.cdist(x, y).amin(1).max(), torch.cdist(x, y).amin(0).max()),
        "p90": 10 * matched_distance_quantiles(x, y, [0.9])[0],
        "uniformity": uniformity(x, y),
        "EMD": 10 * emd(*half),
    }
    for name, value in expected.items():
        assert values[name] == pytest.approx(float(value), rel=1e-9), name
    np.testing.assert_allclose(pair.to_gt, torch.cdist(x, y).amin(1), rtol=1e-9)
    np.testing.assert_allclose(pair.to_pred, torch.cdist(x, y).amin(0), rtol=1e-9)


def test_normalized_values_do_not_depend_on_place_and_scale():
    pred, gt = clouds(1)
    choice = Choice(("CD-L1", "F"), (0.1,), normalize=True)
    one, two = (measure(pair_of(pred * s + t, gt * s + t, True), choice) for s, t in ((1, 0), (7, 3)))
    assert one == pytest.approx(two, rel=1e-9)


def test_two_folders_make_a_table_a_json_and_a_picture(tmp_path, capsys):
    pred, gt = folders(tmp_path)
    out, picture = tmp_path / "o.json", tmp_path / "o.png"
    assert main(["eval", str(pred), str(gt), "--json", str(out), "--picture", str(picture), "--sets"]) == 0
    output = capsys.readouterr().out
    assert "chair/01" in output
    assert "mean of 3" in output
    assert "coverage" in output
    message = json.loads(out.read_text())
    x, y = (torch.from_numpy(c) for c in clouds(1))
    row = next(row for row in message["pairs"] if row["name"] == "chair/01")
    assert row["CD-L1"] == pytest.approx(1000 * float(cd_l1(x, y)), rel=1e-9)
    assert message["mean"]["CD-L2"] == pytest.approx(np.mean([r["CD-L2"] for r in message["pairs"]]))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_was_not_measured_is_listed_and_is_an_exit_code(tmp_path, capsys):
    pred, gt = folders(tmp_path)
    (pred / "chair" / "09.npy").write_text("nonsense")
    np.save(gt / "chair" / "09.npy", clouds(0)[1])
    np.save(pred / "alone.npy", clouds(0)[0])
    (pred / "notes.md").write_text("hello")
    assert main(["eval", str(pred), str(gt), "--metric", "CD-L1"]) == 1
    output = capsys.readouterr().out
    assert "files that were not measured: 3" in output
    for text in ("09.npy: is not a NumPy file", "alone.npy: no file alone.*", "notes.md: a kind of file"):
        assert text in output


def test_files_of_many_clouds_pair_one_by_one(tmp_path, capsys):
    many = np.random.default_rng(3).random((2, 20, 3))
    np.save(tmp_path / "a.npy", many)
    np.save(tmp_path / "b.npy", many[::-1])
    assert main(["eval", str(tmp_path / "a.npy"), str(tmp_path / "b.npy"), "--scale", "1"]) == 0
    assert "a[1]" in capsys.readouterr().out
    np.save(tmp_path / "b.npy", many[:1])
    assert main(["eval", str(tmp_path / "a.npy"), str(tmp_path / "b.npy")]) == 1
    assert "holds 2 clouds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent", "absent"], "does not exist"),
        (["pred", "gt/chair/00.xyz"], "two files or two folders"),
        (["pred", "gt", "--metric", "CD"], "metric 'CD' is none of CD-L1"),
        (["pred", "gt", "--threshold", "0"], "threshold=0.0 must be a positive distance"),
        (["pred", "gt", "--json", "no/where.json"], "not a file in a folder that exists"),
    ],
)
def test_errors_name_bad_options(words, message, tmp_path, capsys, monkeypatch):
    folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["eval", *words]) == 1
    assert message in capsys.readouterr().err
