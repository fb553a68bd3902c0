"""The emulation itself: it finds what would hang or be undefined on a GPU."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch


def test_a_right_kernel_runs(ops: Any) -> None:
    assert torch.ops.apml_emulated.misuse(0) == 1  # lane 0 got its neighbour's number


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (1, "31 threads wait for ones that have left"),
        (2, "different collectives"),
        (3, "32 threads wait for ones that have left"),
    ],
)
def test_misuse_is_an_error(ops: Any, kind: int, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        torch.ops.apml_emulated.misuse(kind)
    assert torch.ops.apml_emulated.misuse(0) == 1  # and the next launch is clean


def test_shared_memory_starts_undefined(ops: Any) -> None:
    assert math.isnan(torch.ops.apml_emulated.misuse(4))
