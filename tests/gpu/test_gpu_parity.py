"""The tests of tests/emulated once more, on the GPU itself, and what only a GPU can show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from clouds import sphere
from emulated.test_emulated_match import *  # noqa: F403
from emulated.test_emulated_match import assert_close, blob
from emulated.test_emulated_nearest import *  # noqa: F403
from emulated.test_emulated_plan import *  # noqa: F403

from apml_plugin.matching import dense
from apml_plugin.matching.settings import Settings

pytestmark = pytest.mark.gpu

SETTINGS = (0.8, 1e-20, 20, 1e-8, False)  # p_min, threshold, iterations, eps, uniform ties


def surfaces(n: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    gt = sphere(n, batch).float().cuda()
    return gt + 0.02 * torch.randn_like(gt), gt


@pytest.mark.parametrize("shape", ["surface", "blob"])
def test_thousands_of_points_against_dense(ops: Any, shape: str) -> None:
    at = Settings(threshold=1e-30)
    pred, gt = surfaces(4096, 2)
    if shape == "blob":
        pred = torch.cat((blob(4096), blob(4096))).float().cuda()
    given = torch.ops.apml.match(pred, gt, None, None, 0.8, 1e-30, 20, 1e-8, False, True, False)
    for one, expected in zip(given, dense.solve(pred.double(), gt.double(), at), strict=False):
        assert_close(one, expected, 1e-5)


@pytest.mark.parametrize("differentiate", [False, True])
def test_two_runs_give_the_same_bits(ops: Any, differentiate: bool) -> None:
    pred, gt = surfaces(16384, 4)
    runs = [torch.ops.apml.match(pred, gt, None, None, *SETTINGS, True, differentiate) for _ in range(2)]
    runs_chamfer = [torch.ops.apml.chamfer(pred, gt, None, None, True, True) for _ in range(2)]
    for one, other in zip(runs[0] + runs_chamfer[0], runs[1] + runs_chamfer[1], strict=True):
        assert torch.equal(one, other)


def test_another_stream(ops: Any) -> None:
    pred, gt = surfaces(2048, 2)
    expected = torch.ops.apml.match(pred, gt, None, None, *SETTINGS, True, False)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        moved = pred + torch.zeros_like(pred)  # made on this stream, just before it is read
        given = torch.ops.apml.match(moved, gt, None, None, *SETTINGS, True, False)
    stream.synchronize()
    for one, other in zip(given, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_another_device_and_data_parallel(ops: Any) -> None:
    from apml_plugin.losses import APML

    pred, gt = surfaces(2048, 4)
    loss = APML(reduction="none", backend="native")
    expected = loss(pred, gt)
    assert torch.equal(loss(pred.to("cuda:1"), gt.to("cuda:1")).cpu(), expected.cpu())
    assert torch.equal(torch.nn.DataParallel(loss)(pred, gt), expected)


def test_chamfer_in_a_cuda_graph_and_match_not(ops: Any) -> None:
    pred, gt = surfaces(2048, 2)
    expected = torch.ops.apml.chamfer(pred, gt, None, None, True, True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        given = torch.ops.apml.chamfer(pred, gt, None, None, True, True)
    graph.replay()
    torch.cuda.synchronize()
    for one, other in zip(given, expected, strict=True):
        assert torch.equal(one, other)
    with pytest.raises(RuntimeError, match="cannot be captured"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        torch.ops.apml.match(pred, gt, None, None, *SETTINGS, True, False)


def test_out_of_memory_raises_an_error(ops: Any) -> None:
    # At so small a threshold every ball holds thousands of points; 1.2 GB do not.
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    points = torch.randn(1, 500_000, 3, device="cuda")
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 1.2e9) / total)
        with pytest.raises(RuntimeError, match="entries"):
            torch.ops.apml.match(points, points, None, None, 0.8, 1e-300, 20, 1e-8, False, True, False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_opcheck(ops: Any) -> None:
    pred, gt = surfaces(40, 2)
    lengths = torch.tensor([40, 9], device="cuda")
    cases = {
        "match": (pred, gt, lengths, None, *SETTINGS, True, False),
        "plan": (pred, gt, None, lengths, *SETTINGS),
        "nearest": (pred, gt, None, lengths),
        "chamfer": (pred, gt, lengths, None, True, True),
    }
    for name, arguments in cases.items():
        torch.library.opcheck(getattr(torch.ops.apml, name).default, arguments)


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer(tool: str, ops: Any) -> None:
    import shutil

    sanitizer = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    script = Path(__file__).with_name("small_cases.py")
    command = [sanitizer, f"--tool={tool}", "--error-exitcode=9", sys.executable, str(script)]
    # PyTorch's cache would hide reads past the end of a tensor.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "PYTHONPATH": str(script.parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "all cases ran" in done.stdout
