"""What is written loads by default, holds every number bit for bit, and is there whole or not at all."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints.making import LAYOUTS, host_classes, old_file, weights
from hypothesis import given
from hypothesis import strategies as st

from apml_plugin.checkpoints import layouts, reading, writing
from apml_plugin.cli import main
from apml_plugin.errors import CheckpointError

DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool,
    torch.complex64,
)  # fmt: skip
KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
have_safetensors = pytest.mark.skipif(importlib.util.find_spec("safetensors") is None, reason="needs safetensors")


def bits(tensor: torch.Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    flat = tensor.detach().contiguous().reshape(-1)
    return tensor.dtype, tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def same(one: Any, other: Any) -> bool:
    return list(one) == list(other) and all(bits(one[key]) == bits(other[key]) for key in one)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any bits, NaN's among them, in any memory order."""
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    dtype = draw(st.sampled_from(DTYPES))
    count = int(np.prod(shape, dtype=int))
    if dtype == torch.bool:
        return torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=dtype).reshape(shape)
    size = torch.empty(0, dtype=dtype).element_size()
    data = draw(st.binary(min_size=max(count, 1) * size, max_size=max(count, 1) * size))
    made = torch.frombuffer(bytearray(data), dtype=dtype)[:count].reshape(shape)
    return made.transpose(0, -1) if len(shape) > 1 and draw(st.booleans()) else made


@given(
    state=st.dictionaries(KEYS, tensors(), min_size=1, max_size=4),
    layout=st.sampled_from([*LAYOUTS, "raw"]),
    target=st.sampled_from([None, *LAYOUTS]),
    new=st.booleans(),
    epoch=st.integers(0, 500),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    state: dict[str, torch.Tensor],
    layout: str,
    target: str | None,
    new: bool,
    epoch: int,
) -> None:
    folder = tmp_path_factory.mktemp("round")
    keys = layouts.LAYOUTS.get(layout)
    value = state if keys is None else {layout: state, keys.epoch: epoch}
    torch.save(value, folder / "in.pth", _use_new_zipfile_serialization=new)
    found = layouts.take_apart(reading.read(folder / "in.pth").value)
    assert (found.layout, found.epoch) == (layout, None if keys is None else epoch)
    assert same(found.weights, state)
    assert writing.convert(found, folder / "out.pth", layout=target) == []
    loaded = torch.load(folder / "out.pth", weights_only=True)
    wanted = target or layout
    assert same(loaded if wanted == "raw" else loaded[wanted], state)
    if keys is not None and wanted != "raw":
        assert loaded[layouts.LAYOUTS[wanted].epoch] == epoch


def test_an_old_file_loads_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = old_file(tmp_path / "old.pth", args=argparse.Namespace(lr=np.float64(0.5)), loss=np.float32(2.0))
    out = tmp_path / "new.pth"
    assert main(["checkpoint", "convert", str(path), "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 7 tensors, torch\n"
    loaded = torch.load(out, weights_only=True)
    assert list(loaded) == ["base_model", "optimizer", "epoch", "metrics", "best_metrics", "args", "loss"]
    assert same(loaded["base_model"], reading.read(path).value["base_model"])
    assert loaded["metrics"] == {"F-Score": 0.5, "CDL1": 10.0, "CDL2": 0.25, "EMDistance": 0.0}
    assert loaded["args"] == {"lr": 0.5}
    assert type(loaded["loss"]) is float
    assert reading.read(out).kept == ()


def test_layouts_call_the_rest_by_their_names(tmp_path: Path) -> None:
    made = {"model_state_dict": weights(), "optimizer_state_dict": {"state": {}}, "epoch": 4, "loss": np.float64(0.1)}
    torch.save(made, tmp_path / "csi.pth")
    found = layouts.take_apart(reading.read(tmp_path / "csi.pth").value)
    assert found.optimizer == {"state": {}}
    writing.convert(found, tmp_path / "pointr.pth", layout="base_model", prefix="add")
    loaded = torch.load(tmp_path / "pointr.pth", weights_only=True)
    assert sorted(loaded) == ["base_model", "epoch", "loss", "optimizer"]
    assert all(key.startswith("module.") for key in loaded["base_model"])
    left = writing.convert(found, tmp_path / "raw.pth", layout="raw")
    assert [line.split(":")[0] for line in left] == ["optimizer_state_dict", "epoch", "loss"]
    assert same(torch.load(tmp_path / "raw.pth", weights_only=True), made["model_state_dict"])


def test_what_cannot_be_written_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with host_classes():
        import sys

        emd = sys.modules["extensions.emd.emd_module"].emdModule()  # type: ignore[attr-defined]
        torch.save({"model": weights(), "loss": emd, "base_model": weights()}, tmp_path / "a.pth")
    assert main(["checkpoint", "convert", str(tmp_path / "a.pth"), "-o", str(tmp_path / "b.pth")]) == 0
    said = capsys.readouterr().out
    assert "left out loss: a emdModule" in said
    assert "left out base_model: only the weights under 'model' are converted" in said
    assert list(torch.load(tmp_path / "b.pth", weights_only=True)) == ["model"]


def test_a_list_held_a_billion_times_is_written_once(tmp_path: Path) -> None:
    many: Any = [np.float64(2.0)]
    for _ in range(40):
        many = [many, many]
    torch.save({"model": weights(), "many": many}, tmp_path / "a.pth")
    found = layouts.take_apart(reading.read(tmp_path / "a.pth").value)
    writing.convert(found, tmp_path / "b.pth")
    assert (tmp_path / "b.pth").stat().st_size < 20_000


def test_never_over_another_file_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = old_file(tmp_path / "old.pth")
    before = path.read_bytes()
    assert main(["checkpoint", "convert", str(path), "-o", str(path)]) == 1
    assert "exists already; give --force to replace it" in capsys.readouterr().err
    assert path.read_bytes() == before
    path.chmod(0o600)
    assert main(["checkpoint", "convert", str(path), "-o", str(path), "--force"]) == 0
    assert torch.load(path, weights_only=True)["epoch"] == 7
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("out", ["", "missing/new.pth"])
def test_places_that_cannot_be_written(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = old_file(tmp_path / "old.pth")
    assert main(["checkpoint", "convert", str(path), "-o", str(tmp_path / out)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = layouts.take_apart(reading.read(old_file(tmp_path / "old.pth")).value)
    out = tmp_path / "new.pth"
    if there:
        out.write_bytes(b"precious")

    def half(value: Any, file: Any) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(CheckpointError, match="No space left on device"):
        writing.convert(found, out, force=there)
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "old.pth", *([out] if there else [])])
    if there:
        assert out.read_bytes() == b"precious"


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = layouts.take_apart(reading.read(old_file(tmp_path / "old.pth")).value)
    out, save = tmp_path / "new.pth", torch.save

    def slow(value: Any, file: Any) -> None:
        save(value, file)
        out.write_bytes(b"precious")

    monkeypatch.setattr(torch, "save", slow)
    with pytest.raises(CheckpointError, match="exists already"):
        writing.convert(found, out)
    assert out.read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 2


def test_permissions_are_those_of_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    writing.convert(layouts.Checkpoint("raw", weights()), tmp_path / "a.pth")
    assert (tmp_path / "a.pth").stat().st_mode == (tmp_path / "plain").stat().st_mode


@have_safetensors
def test_safetensors_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors import safe_open

    path, out = old_file(tmp_path / "old.pth"), tmp_path / "new.safetensors"
    assert main(["checkpoint", "convert", str(path), "-o", str(out), "--format", "safetensors"]) == 0
    assert "left out optimizer: safetensors holds weights alone" in capsys.readouterr().out
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["metrics"])["CDL1"] == 10.0
        assert json.loads(file.metadata()["epoch"]) == 7
    read = reading.read(out)
    bare = layouts.without_prefix(layouts.take_apart(reading.read(path).value).weights)
    assert read.kind == "safetensors"
    assert sorted(read.value) == sorted(bare)
    assert all(bits(read.value[key]) == bits(bare[key]) for key in bare)
    assert main(["checkpoint", "inspect", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layout"] == "raw"


@have_safetensors
def test_safetensors_of_shared_and_repeated_numbers(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    found = layouts.Checkpoint("raw", {"a": base, "b": base[2:], "c": base.view(2, 3).t()})
    writing.convert(found, tmp_path / "a.safetensors", "safetensors")
    read = reading.read(tmp_path / "a.safetensors").value
    assert all(torch.equal(read[key], value) for key, value in found.weights.items())
    huge = layouts.Checkpoint("raw", {"a": torch.ones(1).expand(1 << 40)})
    with pytest.raises(CheckpointError, match="a is a view that repeats its numbers"):
        writing.convert(huge, tmp_path / "b.safetensors", "safetensors")
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_without_safetensors_one_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(CheckpointError, match="pip install safetensors"):
        writing.convert(layouts.Checkpoint("raw", weights()), tmp_path / "a.safetensors", "safetensors")
    assert not list(tmp_path.iterdir())
