"""The whole script: what the YAML says reaches it, by a patch on disk or in memory, and nothing else changes."""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from apml_plugin.hosts.base import Clone
from apml_plugin.hosts.csi2pointcloud.kind import all_recipes
from apml_plugin.hosts.csi2pointcloud.reading import recognise
from apml_plugin.patching import memory, plan_apply, write
from apml_plugin.studies.evaluate.csi2pointcloud import evaluate

TRAIN = "scripts/train.py"


def patch(root: Path) -> None:
    found = recognise(Clone(root).project)
    write(plan_apply(found.root, all_recipes(found), all_recipes(found)))


def settings(root: Path, **keys: object) -> Path:
    """The host's own YAML with `keys` added."""
    path = root / "data" / "configurations" / "settings.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **keys}))
    return path


def real_folder(root: Path, data: Path) -> None:
    """Write the data's folder where the script has its literal."""
    text = (root / TRAIN).read_text()
    (root / TRAIN).write_text(text.replace("/nowhere/at/all", str(data)))


def weights(root: Path) -> dict[str, torch.Tensor]:
    return torch.load(root / "models" / "weights.pth", weights_only=True)


Load = Callable[[Path], ModuleType]
Captured = pytest.CaptureFixture[str]


def test_without_our_keys_a_patched_script_is_the_same(host: Path, data: Path, load: Load, capsys: Captured) -> None:
    real_folder(host, data)
    load(host / TRAIN).start()
    plain, before = capsys.readouterr(), weights(host)
    patch(host)
    load(host / TRAIN).start()
    patched = capsys.readouterr()
    assert (patched.out, patched.err) == (plain.out, "")
    assert all(torch.equal(value, before[key]) for key, value in weights(host).items())


def test_the_yaml_reaches_the_script(
    host: Path, data: Path, load: Load, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("APML_CONFIG", str(tmp_path / "mine.yaml"))
    keys = {"loss": {"NAME": "APML", "reduction": "mean"}, "regularization_weight": 0, "epochs": 12}
    settings(host, **keys, dataset_root=str(data)).rename(tmp_path / "mine.yaml")
    patch(host)
    module = load(host / TRAIN)
    seen: list[tuple[int, ...] | None] = []
    from apml_plugin import APML

    forward = APML.forward

    def spy(self, pred, gt, pred_lengths=None, gt_lengths=None):  # type: ignore[no-untyped-def]
        seen.append(None if gt_lengths is None else tuple(gt_lengths.tolist()))
        return forward(self, pred, gt, pred_lengths, gt_lengths)

    monkeypatch.setattr(APML, "forward", spy)
    module.start()
    captured = capsys.readouterr()
    rounds = re.findall(r"round \d+/12: train (\S+) validation (\S+)", captured.out)
    assert len(rounds) == 12
    train = [float(value) for value, _ in rounds]
    assert sum(train[-3:]) < 0.9 * sum(train[:3])
    # Clouds have 40 to 60 points: in each batch the longest is full and others are padded.
    lengths = [batch for batch in seen if batch is not None]
    assert len(lengths) > 12
    assert all(40 <= n <= 60 and len(set(batch)) > 1 for batch in lengths for n in batch)
    # One line for each thing that the YAML changed.
    lines = captured.err.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["[apml] config file", "[apml] dataset path"]
    assert "CloudLoss trains with 0.85 * (APML(" in lines[2]
    assert lines[3].startswith("[apml] epochs: 12")
    # Validation is Chamfer still: the last printed value is 0.85 times what the saved weights have.
    measured = evaluate(recognise(Clone(host).project), host / "models" / "weights.pth", tmp_path / "mine.yaml")
    assert measured.frames == 5
    assert 0.85 * measured.values["Chamfer (the host's)"] == pytest.approx(float(rounds[-1][1]), abs=2e-6)


def test_a_saved_checkpoint_is_measured(host: Path, data: Path, load: Load, capsys: Captured) -> None:
    config = settings(host, loss="APML", dataset_root=str(data), epochs=1)
    patch(host)
    load(host / TRAIN).start()
    result = evaluate(recognise(Clone(host).project), host / "models" / "last.pth", config)
    assert (result.epoch, result.frames) == (1, 5)
    module = load(host / TRAIN)
    _, held_out = module.make_dataset(str(data), yaml.safe_load(config.read_text()), every=60)
    net = module.CloudNet(width=16, points=64, num_encoder_layers=2)
    net.load_state_dict(weights(host))
    near = []
    with torch.no_grad():
        for part in ([0, 1], [2, 3], [4]):
            columns = zip(*[held_out[i] for i in part], strict=True)
            csi, gt = (torch.nn.utils.rnn.pad_sequence(list(column), batch_first=True) for column in columns)
            pred, _ = net((csi - csi.mean()) / csi.std())
            near.append(module.both_ways(pred, (gt - gt.mean()) / gt.std()))
    assert result.values["Chamfer (the host's)"] == pytest.approx(float(torch.stack(near).mean()), rel=1e-4)


def test_what_cannot_be_measured(host: Path, data: Path, load: Load) -> None:
    from apml_plugin.errors import CheckpointError, HostError

    found, config = recognise(Clone(host).project), settings(host)
    torch.save({"weight": torch.zeros(3)}, host / "models" / "other.pth")
    with pytest.raises(HostError, match="does not fit"):
        evaluate(found, host / "models" / "other.pth", config)
    torch.save({"model_state_dict": load(host / TRAIN).CloudNet(16, 64, 2).state_dict()}, host / "models" / "it.pth")
    with pytest.raises(HostError, match="has no dataset_root:"):
        evaluate(found, host / "models" / "it.pth", config)
    with pytest.raises(HostError, match="is no folder"):
        evaluate(found, host / "models" / "it.pth", settings(host, dataset_root="nowhere"))
    with pytest.raises(CheckpointError, match="no such file"):
        evaluate(found, host / "models" / "none.pth", config)


def test_every_line_keeps_its_number(host: Path) -> None:
    file = host / TRAIN
    (edits,) = [recipe.edits for recipe in all_recipes(recognise(Clone(host).project))]

    def lines(code: types.CodeType) -> set[tuple[str, int]]:
        inner = [lines(c) for c in code.co_consts if isinstance(c, types.CodeType)]
        return {(code.co_name, n) for *_, n in code.co_lines() if n}.union(*inner)

    data = file.read_bytes()
    run, plain = memory.compiled(data, edits, str(file)), compile(data, str(file), "exec")
    assert lines(plain) == lines(run)
    patch(host)
    assert file.read_bytes() == memory.text(data, edits)
    again = file.read_bytes()
    assert memory.text(again, edits) == again  # a patched file runs as it is
