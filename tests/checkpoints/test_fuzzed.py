"""Checkpoints with bits flipped: each gives a value or a CheckpointError, in bounded time and memory."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from checkpoints.making import LAYOUTS, old_file, weights

from apml_plugin import APML
from apml_plugin.checkpoints import layouts, report
from apml_plugin.checkpoints.reading import read
from apml_plugin.errors import CheckpointError

FLIPS = 40
ROOM = 300 << 20


def write(folder: Path) -> list[Path]:
    """A small checkpoint of each layout, old and new, and two with all that hosts and Lightning leave in one."""
    files = []
    for zipped in (True, False):
        for layout in (*LAYOUTS, "raw"):
            value = (
                weights() if layout == "raw" else {layout: weights("module."), "epoch": 3, "s": {1}, "t": (1, (2, 3))}
            )
            files.append(folder / f"{layout} {zipped}.pth")
            torch.save(value, files[-1], _use_new_zipfile_serialization=zipped)
        loss = APML() if zipped else "APML"  # whole modules in the old format are rejected
        more = {"hyper_parameters": {"loss": loss}, "bytes": bytearray(b"abc"), "eye": torch.eye(3).to_sparse()}
        files.append(old_file(folder / f"old {zipped}.pth", zipped, **more))
    return files


def main(folder: Path) -> None:
    import resource

    files = write(folder)
    for file in files:
        read(file)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    draw, ends, slowest = random.Random(0), {"value": 0, "CheckpointError": 0}, 0.0
    for file in files:
        for _ in range(FLIPS):
            data = bytearray(file.read_bytes())
            for _ in range(draw.choice([1, 1, 1, 2, 8])):
                data[draw.randrange(draw.choice([400, 1500, len(data)]) % len(data) or len(data))] ^= (
                    1 << draw.randrange(8)
                )
            flipped = folder / "flipped.pth"
            flipped.write_bytes(data)
            start = time.perf_counter()
            try:
                found = read(flipped)
                report.lines(report.report(flipped, found, layouts.take_apart(found.value)))
                end = "value"
            except CheckpointError:
                end = "CheckpointError"
            except BaseException as error:
                end = f"{type(error).__name__}: {error}"[:200]
            ends[end] = ends.get(end, 0) + 1
            slowest = max(slowest, time.perf_counter() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"ends": ends, "slowest": slowest, "bytes": grown << 10}))


@pytest.mark.skipif(sys.platform != "linux", reason="measures as Linux does")
def test_every_truncation_is_a_value_or_an_error(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(told["ends"]) == {"value", "CheckpointError"}, told
    assert min(told["ends"].values()) > 50
    assert told["slowest"] < 6
    assert told["bytes"] < 200 << 20


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_that_torch_saves_is_taken_for_a_claim(tmp_path: Path, zipped: bool) -> None:
    kinds = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128"
    values = {name: torch.ones(3, 2).to(getattr(torch, name)) for name in kinds.split()}
    if zipped:
        values["float8_e4m3fn"] = torch.ones(3, 2).to(torch.float8_e4m3fn)
        values["uint16"] = torch.ones(3, 2).to(torch.uint16)
    one = torch.arange(12.0)
    values |= {
        "expanded": one[:1].expand(10**9),
        "cut": one[3:7],
        "turned": one.view(3, 4).t(),
        "empty": torch.empty(0, 3),
    }
    values |= {"number": one[5], "sparse": torch.eye(3).to_sparse(), "rows": torch.eye(3).to_sparse_csr()}
    values |= {"shared": one, "weight": torch.nn.Parameter(one), "meta": torch.empty(10**6, device="meta")}
    values |= {"quantized": torch.quantize_per_tensor(one, 0.1, 0, torch.qint8), "conj": values["complex64"].conj()}
    others = {"set": {1, "a"}, "bytes": b"\xff" * 99, "array": bytearray(9), "size": torch.Size([2, 3]), "none": None}
    torch.save({**values, "epoch": others}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found = read(tmp_path / "a.pth").value
    assert found.keys() == {*values, "epoch"}
    assert found["epoch"] == others
    assert torch.equal(found["turned"], values["turned"])
    assert found["expanded"].shape == (10**9,)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
