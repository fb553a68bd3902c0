"""Whether two tensors are the same value with the same gradient path."""

from __future__ import annotations

import torch

from apml_plugin._torch_private import saved_by, version_of

# Nodes that only move numbers and save no tensor. "GatherBackward" is DataParallel's, not torch.gather's.
_MOVES = {"GatherBackward"} | {
    f"{move}Backward{number}"
    for move in ("Transpose", "Permute", "View", "UnsafeView", "Clone", "Unsqueeze", "Squeeze", "T", "Alias")
    for number in (0, 1)
}
_DEPTH = 6


def same_tensor(a: torch.Tensor, b: torch.Tensor) -> bool:
    """True if `a` and `b` hold equal values and pass gradients to the same place in the same way.

    That is: the same object; the same memory at the same point of the graph; or the same chain of moves
    (transpose, contiguous, view, a DataParallel gather) starting from the same node, as in TopNet, which copies
    its output twice. Values are not compared: equal numbers may come from different computations.
    """
    if a is b:
        return True
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device or a.requires_grad != b.requires_grad:
        return False
    if a.grad_fn is not None and b.grad_fn is not None:
        return (
            version_of(a) == version_of(b) and a.output_nr == b.output_nr and _same_node(a.grad_fn, b.grad_fn, _DEPTH)
        )
    if a.requires_grad:
        return False
    return a.data_ptr() == b.data_ptr() and a.stride() == b.stride() and a.numel() > 0


def _same_node(a: torch.autograd.graph.Node | None, b: torch.autograd.graph.Node | None, depth: int) -> bool:
    if a is b:
        return a is not None
    if a is None or b is None or depth == 0 or a.name() != b.name():
        return False
    if a.name() not in _MOVES or saved_by(a) != saved_by(b):
        return False
    after_a, after_b = a.next_functions, b.next_functions
    return len(after_a) == len(after_b) and all(
        output_a == output_b and _same_node(node_a, node_b, depth - 1)
        for (node_a, output_a), (node_b, output_b) in zip(after_a, after_b, strict=True)
    )
