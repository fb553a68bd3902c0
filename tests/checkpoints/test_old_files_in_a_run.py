"""torch.load of a host under `apml run`: old files work however they are loaded, on the CPU too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints.making import old_file, weights

from apml_plugin.launch import environment

SCRIPT = """
import copy, io, json, pickle, sys, torch

path, new = sys.argv[1:]
told = []
for f in (path, __import__('pathlib').Path(path), open(path, 'rb'), io.BytesIO(open(path, 'rb').read())):
    for options in ({}, {'map_location': 'cuda:0'}, {'weights_only': False}, {'weights_only': True},
                    {'map_location': {'cuda:0': 'cuda:1'}}, {'mmap': False}, {'pickle_module': pickle}):
        if hasattr(f, 'seek'):
            f.seek(0)
        state = torch.load(f, **options)
        told.append([state['best_metrics'], type(state['metrics']).__name__, state['epoch'],
                     str(state['base_model']['module.0.weight'].device)])
behind = io.BytesIO(b'before' + open(path, 'rb').read())
behind.seek(6)
if not sys.argv[1].endswith('zip.pth'):
    told.append([torch.load(behind)['best_metrics'], 'dict', 7, 'cpu'])
assert torch.load(new, mmap=True)['model']['0.weight'].shape == (4, 3)
layer = pickle.loads(pickle.dumps(torch.nn.Linear(2, 2)))
assert copy.deepcopy(layer).weight.shape == (2, 2)
assert torch.load.__name__ == 'load' and torch.load.__doc__
for wrong, error in (('no such file.pth', FileNotFoundError), (__file__, Exception)):
    try:
        torch.load(wrong)
        raise SystemExit('loaded')
    except error as e:
        told_error = str(e)
assert 'is not a checkpoint' in told_error
print(json.dumps(told))
"""


@pytest.mark.parametrize(("new", "cpu"), [(True, "a test"), (False, "")])
def test_every_way_of_loading(tmp_path: Path, new: bool, cpu: str) -> None:
    path = old_file(tmp_path / ("old.zip.pth" if new else "old.pth"), new)
    torch.save({"model": weights()}, tmp_path / "new.pth")
    script = tmp_path / "script.py"
    text = SCRIPT if cpu else SCRIPT.replace("'cuda:0'}, {'weights", "'cpu'}, {'weights")
    script.write_text(text)
    settings = environment.Settings({}, cpu, str(tmp_path))
    environ = environment.write({**os.environ, "PYTHONPATH": ""}, settings)
    command = [sys.executable, str(script), str(path), str(tmp_path / "new.pth")]
    done = subprocess.run(command, cwd=tmp_path, env=environ, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    best = {"F-Score": 0.75, "CDL1": 9.0, "CDL2": 0.2, "EMDistance": 0.0}
    assert len(told) == 28 + (not new)
    assert all(entry == [best, "dict", 7, "cpu"] for entry in told)
    assert done.stderr.count("read without running code; plain values in place of utils.metrics.Metrics") == 1


def test_outside_of_a_run_torch_load_is_pytorchs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import apml_plugin, torch; print(hasattr(torch, '_apml_loading'))"],
        cwd=Path(__file__).parents[2], text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "False"
