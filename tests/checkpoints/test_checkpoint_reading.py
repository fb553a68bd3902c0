"""What a file holds, whatever its layout and format, and one clear message for what is no checkpoint."""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints.making import LAYOUTS, beside_weights, call, host_classes, legacy, old_file, text, weights, zipped
from easydict import EasyDict

from apml_plugin.checkpoints import layouts, reading
from apml_plugin.checkpoints.layouts import take_apart
from apml_plugin.cli import main
from apml_plugin.errors import CheckpointError


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("layout", [*LAYOUTS, "raw"])
def test_every_layout_and_format(tmp_path: Path, layout: str, prefix: str, new: bool) -> None:
    made = weights(prefix)
    value = made if layout == "raw" else {layout: made, "epoch": 3}
    path = tmp_path / "a.pth"
    torch.save(value, path, _use_new_zipfile_serialization=new)
    read = reading.read(path)
    found = take_apart(read.value)
    assert read.kept == ()
    assert read.kind == ("zip" if new else "legacy")
    assert found.layout == layout
    assert found.epoch == (None if layout == "raw" else 3)
    assert found.prefixed == (len(made) if prefix else 0)
    assert list(found.weights) == list(made)
    assert all(torch.equal(found.weights[key], made[key]) for key in made)


@pytest.mark.parametrize("new", [True, False])
def test_metrics_of_a_host_become_the_dict_of_their_values(tmp_path: Path, new: bool) -> None:
    path = old_file(tmp_path / "old.pth", new, [np.float64(0.5), torch.tensor(10.0), 0.25, np.float32(0.0)])
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(path, weights_only=True)
    read = reading.read(path)
    found = take_apart(read.value)
    assert found.metrics == {"F-Score": 0.5, "CDL1": 10.0, "CDL2": 0.25, "EMDistance": 0.0}
    assert found.best == {"F-Score": 0.75, "CDL1": 9.0, "CDL2": 0.2, "EMDistance": 0.0}
    assert type(found.metrics) is dict
    assert found.epoch == 7
    assert found.optimizer == {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    assert read.kept == (
        "utils.metrics.Metrics",
        "extensions.chamfer_dist.ChamferDistanceL1",
        "extensions.chamfer_dist.ChamferDistanceL2",
        "extensions.emd.emd_module.emdModule",
        *(["NumPy values"]),
    )


def test_whole_modules_in_the_old_format_are_rejected(tmp_path: Path) -> None:
    torch.save(
        {"model": weights(), "net": torch.nn.Linear(2, 2)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False
    )
    with pytest.raises(CheckpointError, match=r"a\.pth: holds a whole module, as PyTorch before 1\.6 .*torch\.save"):
        reading.read(tmp_path / "a.pth")


@pytest.mark.parametrize("new", [True, False])
def test_other_classes_that_are_only_data(tmp_path: Path, new: bool) -> None:
    value = {
        "model": weights(),
        "args": argparse.Namespace(lr=np.float64(0.1), names=["a"], inner=argparse.Namespace(deep=1)),
        "config": EasyDict(model={"NAME": "PCN", "sizes": [1, (2, 3)]}),
        "loss": np.float32(0.25),
        "flags": {np.bool_(True), 3},
        "text": np.array(["ab", "ü"]),
        "arrays": (np.arange(6.0).reshape(2, 3).T, np.array(3, dtype=">i4"), np.zeros((0, 2), dtype="<c8")),
        "bytes": b"\x00\xff",
    }
    path = tmp_path / "a.pth"
    torch.save(value, path, _use_new_zipfile_serialization=new)
    read = reading.read(path).value
    assert read["args"] == value["args"]
    assert read["config"] == value["config"]
    assert read["config"].model.NAME == "PCN"
    assert read["loss"] == np.float32(0.25)
    assert type(read["loss"]) is np.float32
    assert read["flags"] == value["flags"]
    assert read["bytes"] == value["bytes"]
    for found, made in zip((read["text"], *read["arrays"]), (value["text"], *value["arrays"]), strict=True):
        assert found.dtype == made.dtype
        assert np.array_equal(found, made)
        assert found.flags.writeable


def test_what_the_user_admitted_stays_admitted(tmp_path: Path) -> None:
    class Mine:
        pass

    value = {"model": weights(), "array": np.arange(3), "mine": Mine}
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([np.ndarray, np.dtype])
    during = set(torch.serialization.get_safe_globals())
    try:
        del value["mine"]
        torch.save(value, tmp_path / "a.pth")
        assert np.array_equal(reading.read(tmp_path / "a.pth").value["array"], np.arange(3))
        assert set(torch.serialization.get_safe_globals()) == during
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def test_what_the_process_admitted_opens_nothing_here(tmp_path: Path) -> None:
    """MMEngine's adapter, for one, admits NumPy's own rebuilding functions: with them object arrays would be read."""
    before = torch.serialization.get_safe_globals()
    rebuild = np.empty(0).__reduce__()[0]
    torch.serialization.add_safe_globals([np.ndarray, np.dtype, type(np.dtype("O")), rebuild, print])
    try:
        torch.save({"model": weights(), "array": np.array([None])}, tmp_path / "a.pth")
        with pytest.raises(CheckpointError, match="NumPy array of Python objects"):
            reading.read(tmp_path / "a.pth")
        torch.save({"model": weights(), "call": print}, tmp_path / "b.pth")
        with pytest.raises(CheckpointError, match=r"asks for builtins\.print"):
            reading.read(tmp_path / "b.pth")
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def test_shared_and_cyclic_values(tmp_path: Path) -> None:
    """A list within itself, and one that holds another a billion times over: both are read, neither takes long."""
    loop: list[Any] = [np.float64(1.0)]
    loop.append(loop)
    many: Any = [np.float64(2.0)]
    for _ in range(40):
        many = [many, many]
    torch.save({"model": weights(), "loop": loop, "many": many}, tmp_path / "a.pth")
    read = reading.read(tmp_path / "a.pth").value
    assert read["loop"][0] == 1.0
    assert read["loop"][1] is read["loop"]
    assert read["many"][0] is read["many"][1]


def test_nesting_beyond_pythons_limit_is_an_error(tmp_path: Path) -> None:
    data = beside_weights(call("numpy", "dtype") + b"\x85" * 100_000)
    with pytest.raises(CheckpointError, match="nested too deeply"):
        reading.read(zipped(tmp_path / "a.pth", data))


def test_a_module_prefix_is_taken_off_the_front_alone() -> None:
    made = OrderedDict({"module.a.module.b": torch.ones(1), "module.module.c": torch.ones(2), "d": torch.ones(3)})
    made._metadata = OrderedDict({"": {"version": 1}, "module": {"version": 2}, "module.a": {"version": 3}})  # type: ignore[attr-defined]
    bare = layouts.without_prefix(made)
    assert list(bare) == ["a.module.b", "module.c", "d"]
    assert bare._metadata["a"] == {"version": 3}  # type: ignore[attr-defined]
    assert list(layouts.with_prefix(bare)) == ["module.a.module.b", "module.c", "module.d"]
    with pytest.raises(CheckpointError, match=r"differ only by `module\.`"):
        layouts.without_prefix({"module.a": torch.ones(1), "a": torch.ones(1)})


def test_pointrs_order_of_keys() -> None:
    """Its builder takes `model` before `base_model`."""
    assert take_apart({"base_model": weights(), "model": weights()}).layout == "model"
    assert take_apart({"base_model": weights(), "model": None}).layout == "base_model"


def test_a_damaged_metrics_object_is_still_data(tmp_path: Path) -> None:
    with host_classes() as metrics:
        broken = metrics([1.0])
        torch.save({"model": weights(), "metrics": broken}, tmp_path / "a.pth")
    found = take_apart(reading.read(tmp_path / "a.pth").value)
    assert found.metrics["_values"] == [1.0]


@pytest.mark.parametrize("new", [True, False])
def test_a_file_cut_off_anywhere(tmp_path: Path, new: bool) -> None:
    data = old_file(tmp_path / "old.pth", new).read_bytes()
    path = tmp_path / "cut.pth"
    for end in (1, 3, 4, 10, 40, 300, len(data) // 2, len(data) - 30, len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(CheckpointError, match=r"cut.pth: (is|rejected)"):
            reading.read(path)


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("../storages")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))


def compressed(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", b"\0" * 10_000_000)
        archive.writestr("archive/version", b"3\n")


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/readme.txt", b"hello")


def script(path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b""), r"is empty \(0 bytes\)"),
        (lambda path: path.mkdir(), "is a folder, not a file"),
        (lambda path: None, "there is no such file"),
        (os.mkfifo, "is a named pipe, not a file"),
        (lambda path: path.write_text("<!DOCTYPE html><html>"), "is a web page, not a checkpoint"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"), "is a Git LFS pointer"),
        (lambda path: path.write_bytes(b"\x80\x04\x95abc"), "is a plain pickle"),
        (lambda path: path.write_bytes(os.urandom(8) + b"0" * 99), "is not a checkpoint: neither torch.save"),
        (lambda path: path.write_bytes(b"\0" * 2048), "is not a checkpoint|is a tar file"),
        (tar, "is a tar file, as PyTorch wrote before 0.2"),
        (compressed, "has compressed entries"),
        (other_zip, "is a zip file, but not one that torch.save wrote"),
        (script, "is a TorchScript archive, a program"),
        (lambda path: torch.save([1, 2], path), "holds a list, not a mapping"),
        (lambda path: torch.save({"a": 1}, path), "has no weights under model, base_model.*; it has 'a'"),
        (lambda path: torch.save({}, path), "it has nothing"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, make, said: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "a.pth"
    make(path)
    with pytest.raises(CheckpointError, match=said):
        take_apart(reading.read(path).value)


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ((text("f8"), b"K\x00K\x01"), "a shape|bytes"),
        ((text("V8"),), "dtype 'V8'; only numbers and text"),
        ((text("f7"),), "which does not exist"),
    ],
)
def test_numpy_pieces_that_do_not_fit(tmp_path: Path, pieces: tuple[bytes, ...], said: str) -> None:
    data = beside_weights(call("numpy.core.multiarray", "scalar", call("numpy", "dtype", *pieces), text("\0" * 9)))
    with pytest.raises(CheckpointError, match=said):
        reading.read(zipped(tmp_path / "a.pth", data))


def test_an_array_larger_than_its_bytes(tmp_path: Path) -> None:
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    shape = b"(K\x01J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86" + call("numpy", "dtype", text("f8")) + b"\x89"
    data = beside_weights(made + shape + call("_codecs", "encode", text("abc"), text("latin1")) + b"tb")
    with pytest.raises(CheckpointError, match="bytes do not fit its shape"):
        reading.read(zipped(tmp_path / "a.pth", data))


def test_names_are_fit_for_a_terminal(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        reading.read(zipped(tmp_path / "a.pth", beside_weights(call("evil\x1b[2J", "x"))))
    assert str(error.value).isprintable()
    assert "evil\\x1b[2J.x" in str(error.value)


def test_attributes_that_hide_methods_are_dropped(tmp_path: Path) -> None:
    state = OrderedDict(weights())
    state.itemz = "mine"  # type: ignore[attr-defined]
    state._metadata = OrderedDict({"": {"version": 2}})  # type: ignore[attr-defined]
    state["x"] = torch.nn.Parameter(torch.ones(3))
    state["x"].is_floating_point = "mine"  # type: ignore[method-assign, assignment]
    outer = OrderedDict({"model": state})
    outer.gett = "mine"  # type: ignore[attr-defined]
    torch.save(outer, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as source, zipfile.ZipFile(tmp_path / "b.pth", "w") as target:
        for entry in source.infolist():
            named = source.read(entry).replace(b"itemz", b"items").replace(text("gett"), text("get"))
            target.writestr(entry.filename, named)
    assert torch.load(tmp_path / "b.pth", weights_only=True).get == "mine"
    assert main(["checkpoint", "inspect", str(tmp_path / "b.pth")]) == 0
    assert main(["checkpoint", "convert", str(tmp_path / "b.pth"), "-o", str(tmp_path / "c.pth")]) == 0
    found = torch.load(tmp_path / "c.pth", weights_only=True)["model"]
    assert vars(found) == {"_metadata": OrderedDict({"": {"version": 2}})}
    assert found["x"].is_floating_point()


@pytest.mark.parametrize("count", [1 << 20, 1 << 36, 1 << 58])
def test_numbers_that_are_not_in_the_file(tmp_path: Path, count: int) -> None:
    """A storage made of nothing, or claimed and never written: uninitialised memory, or more than there is."""
    size = b"\x8a\x08" + count.to_bytes(8, "little")
    storage = call("torch.storage", "UntypedStorage", size)
    legacy_storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + size + b"NtQ"
    pieces = b"K\x00" + size + b"\x85K\x01\x85\x89)R"
    for name, write, made in (("a", zipped, storage), ("b", legacy, legacy_storage)):
        tensor = (
            b"ctorch._utils\n_rebuild_tensor_v2\n(" + made + pieces[:-2] + call("collections", "OrderedDict") + b"tR"
        )
        path = write(tmp_path / f"{name}.pth", b"\x80\x02}" + text("a") + tensor + b"s.")
        with pytest.raises(CheckpointError, match=r"more memory than there is|more numbers than it has|damaged"):
            reading.read(path)
