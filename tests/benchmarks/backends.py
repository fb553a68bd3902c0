"""Sparse against dense APML on this machine, forward and backward, in one process.

`python tests/benchmarks/backends.py`
Prints medians of 5 and their ratio; the cloud is a unit sphere with noise 0.02. Not a test: speed is not timed there.
"""

from __future__ import annotations

import resource
import statistics
import time

import torch

from apml_plugin.functional import apml_loss, chamfer_distance


def seconds(loss, pred: torch.Tensor, gt: torch.Tensor, repeats: int = 5) -> float:
    """Median seconds of forward and backward."""
    times = []
    for _ in range(repeats):
        x = pred.clone().requires_grad_()
        start = time.perf_counter()
        loss(x, gt).backward()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, threshold 1e-20")
    for batch, n in ((1, 2048), (1, 8192), (4, 16384), (1, 65536)):
        gt = torch.nn.functional.normalize(torch.randn(batch, n, 3), dim=-1)
        pred = gt + 0.02 * torch.randn_like(gt)
        sparse = seconds(lambda x, y: apml_loss(x, y, backend="sparse"), pred, gt)
        chamfer = seconds(chamfer_distance, pred, gt)
        line = f"B={batch} N=M={n:6d}: sparse {sparse:7.3f} s, {sparse / chamfer:4.1f} x Chamfer-L2"
        if n <= 8192:
            dense = seconds(lambda x, y: apml_loss(x, y, backend="dense"), pred, gt, repeats=1 if n > 4096 else 3)
            line += f", dense {dense:7.3f} s = {dense / sparse:.0f} x sparse"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{line}, peak so far {peak:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
