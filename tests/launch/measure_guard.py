"""What the guard costs a training step: `python tests/launch/measure_guard.py [STEPS] [REPEATS]`.

Three kinds of processes run in turn, so that a machine that slows down slows all of them: plain `python` with APML
called directly, `apml run` without a loss, and `apml run --loss`. Printed are the median seconds of a step after the
first ten, and their ratios to plain `python`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HOME = Path(__file__).parents[2]
SCRIPT = """
import sys, time, torch
from apml_plugin import APML
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3))
loss_fn, opt = APML(reduction='mean'), torch.optim.Adam(net.parameters())
x, gt = torch.rand(4, 256, 3), torch.rand(4, 256, 3)
times = []
for step in range(int(sys.argv[1])):
    start = time.perf_counter()
    opt.zero_grad()
    loss_fn(net(x), gt).backward()
    opt.step()
    times.append(time.perf_counter() - start)
times = sorted(times[10:])
print('median', times[len(times) // 2])
"""


def median(script: Path, steps: int, *run: str) -> float:
    words = [sys.executable, *(["-m", "apml_plugin", "run", *run] if run else []), str(script), str(steps)]
    sys.path.insert(0, str(HOME / "tests"))
    from forking import clean_environment

    done = subprocess.run(words, env=clean_environment(), capture_output=True, text=True, check=True)
    return float(next(line for line in done.stdout.splitlines() if line.startswith("median")).split()[1])


def main(steps: int = 300, repeats: int = 5) -> None:
    kinds = {"python": (), "apml run": ("--no-attach",), "apml run --loss": ("--loss", "{NAME: APML, reduction: mean}")}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "main.py"
        script.write_text(SCRIPT)
        taken: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(repeats):
            for kind, run in kinds.items():
                taken[kind].append(median(script, steps, *run))
    for kind, times in taken.items():
        ratio = statistics.median(a / b for a, b in zip(times, taken["python"], strict=True))
        print(f"{kind:<16} {statistics.median(times) * 1e3:8.3f} ms a step, {ratio:7.4f} times plain python")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
