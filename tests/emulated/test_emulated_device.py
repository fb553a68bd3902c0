"""What depends on the device: graph captures and memory that runs out."""

from __future__ import annotations

from typing import Any

import pytest
from clouds import sphere


def match(ops: Any, n: int, threshold: float) -> None:
    ops.match(sphere(n), sphere(n, seed=1), None, None, 0.8, threshold, 20, 1e-8, False, True, False)


def test_a_graph_capture_raises_an_error(ops: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("APML_EMULATED_CAPTURE", "1")
    with pytest.raises(RuntimeError, match="cannot be captured into a CUDA graph"):
        match(ops, 5, 1e-20)


def test_out_of_memory_says_how_large_the_support_was(ops: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("APML_EMULATED_MEMORY", "100000")
    with pytest.raises(RuntimeError, match=r"support of 1 pairs: 39\d+ entries, 0.0009\d+ GB.*larger threshold"):
        match(ops, 200, 1e-300)
