"""What the guard costs: `python tests/launch/measure_guard.py`.

Printed are the microseconds that a gated call takes more than a direct one, once a first value was differentiated
(the guard's own hooks are gone then), the shortest step of which that is 0.1 %, and the CPU time of the parent's look
at a process with eight forked children, which runs in another process twice a second.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
os.environ["APML_LOSS"] = "{NAME: APML, reduction: mean}"

from apml_plugin.hooks import trains_with_loss
from apml_plugin.hosts import calls, guard
from apml_plugin.launch.supervise import EVERY, Watch

CHILD = """
import os, sys, time
os.open(os.path.join(sys.argv[1], "carried"), os.O_CREAT | os.O_WRONLY)
import torch
torch.rand(999, 999) @ torch.rand(999, 999)
for _ in range(8):
    if os.fork() == 0:
        break
time.sleep(60)
"""


class Cheap(torch.nn.Module):
    """A loss that takes less time than the gate in front of it."""

    def forward(self, pred: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
        return pred.sum()


def seconds(call: Callable[[], object], number: int = 200) -> float:
    start = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - start) / number


def gate() -> None:
    pred, gt = torch.rand(4, 1024, 3, requires_grad=True), torch.rand(4, 1024, 3)
    gated = trains_with_loss(lambda pred, gt: (pred.mean() - gt.mean()).abs())
    gated(pred, gt).backward()
    torch.optim.SGD([pred], 1e-9).step()
    assert guard.state.trained
    assert not guard.state.undo
    (key,) = calls.state.built
    direct = Cheap()
    calls.state.built[key] = (direct, "APML_LOSS")
    pairs = [(seconds(lambda: gated(pred, gt)), seconds(lambda: direct(pred, gt))) for _ in range(50)]
    cost = statistics.median(a - b for a, b in pairs)
    print(f"a gated call: {cost * 1e6:.1f} us more than a direct one; 0.1 % of a step of {cost * 1e6:.0f} ms")


def look() -> None:
    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.Popen([sys.executable, "-c", CHILD, folder], start_new_session=True)
        time.sleep(5)
        watch = Watch(child.pid, folder)
        watch.look()
        assert len(watch.carrying) == 9, watch.carrying
        start = time.process_time()
        for _ in range(50):
            watch.look()
        cost = (time.process_time() - start) / 50
        os.killpg(child.pid, 9)
    print(f"a look of the parent: {cost * 1e3:.2f} ms of CPU time every {EVERY} s")


if __name__ == "__main__":
    gate()
    if sys.platform == "linux":
        look()
