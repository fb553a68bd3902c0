"""Every op on small clouds, for tools that watch a process: ``compute-sanitizer python tests/gpu/small_cases.py``."""

from __future__ import annotations

import itertools

import torch

from apml_plugin.matching import extension


def main() -> None:
    assert extension.missing("cuda") is None, extension.missing("cuda")
    torch.manual_seed(0)
    for dtype, (n, m) in itertools.product((torch.float32, torch.float64), ((1, 1), (33, 1100), (100, 70))):
        x = torch.randn(2, n, 3, dtype=dtype, device="cuda")
        y = torch.randn(2, m, 3, dtype=dtype, device="cuda").round(decimals=1)  # with ties
        x_n, y_n = torch.tensor([n, n // 2], device="cuda"), torch.tensor([m // 3, m], device="cuda")
        for uniform, lengths in itertools.product((False, True), ((None, None), (x_n, y_n))):
            for differentiate, iterations in ((False, 3), (False, 40), (True, 5)):
                torch.ops.apml.match(x, y, *lengths, 0.8, 1e-20, iterations, 1e-8, uniform, True, differentiate)
            torch.ops.apml.plan(x, y, *lengths, 0.8, 1e-20, 3, 1e-8, uniform)
            torch.ops.apml.nearest(x, y, *lengths)
            torch.ops.apml.chamfer(x, y, *lengths, uniform, True)
    torch.cuda.synchronize()
    print("all cases ran")


if __name__ == "__main__":
    main()
