"""torch.compile: one graph around the compiled ops, and one graph break where a call cannot be traced."""

from __future__ import annotations

import pytest
import torch

from apml_plugin import APML, APMLSparse, ChamferL1
from apml_plugin.errors import LossValueError
from apml_plugin.functional import apml_loss
from apml_plugin.matching import extension

pytestmark = pytest.mark.skipif(extension.missing("cpu") is not None, reason="no compiled ops")


@pytest.fixture(autouse=True)
def _forget_graphs() -> None:
    torch.compiler.reset()


def compiled(loss, **options):
    # aot_eager traces forward and backward as inductor does, without generating code.
    return torch.compile(lambda x, y: 3 * loss(2 * x, y) + 1, backend="aot_eager", **options)


@pytest.mark.parametrize(
    "loss",
    [
        APML(reduction="mean"),
        APML(reduction="sum", ties="uniform", threshold=1e-12, iterations=5),
        APML(differentiate_plan=True),
        APMLSparse(),
        ChamferL1(),
    ],
)
def test_one_graph_forward_and_backward(loss: torch.nn.Module) -> None:
    x, y = torch.rand(2, 70, 3, requires_grad=True), torch.rand(2, 50, 3)
    exact, found = 3 * loss(2 * x, y) + 1, compiled(loss, fullgraph=True)(x, y)
    torch.testing.assert_close(found, exact)
    torch.testing.assert_close(torch.autograd.grad(found, x), torch.autograd.grad(exact, x))
    with torch.no_grad():
        torch.testing.assert_close(compiled(loss, fullgraph=True)(x, y), exact)


@pytest.mark.parametrize("loss", [APML(), APML(reduction="mean"), ChamferL1()])
@pytest.mark.parametrize("lengths", [([70, 33], [50, 4]), ([0, 12], [50, 50]), ([5], None), ([0], [50]), (None, [0])])
def test_tensor_lengths_are_in_the_graph(
    loss: torch.nn.Module, lengths: tuple[list[int] | None, list[int] | None]
) -> None:
    batch = len(lengths[0] or lengths[1])
    x, y = torch.rand(batch, 70, 3), torch.rand(batch, 50, 3)
    for cloud, counts in zip((x, y), lengths, strict=True):
        for b, n in enumerate(counts or []):
            cloud[b, n:] = float("nan")
    x.requires_grad_()
    given = [None if counts is None else torch.tensor(counts, dtype=torch.int32) for counts in lengths]
    run = torch.compile(lambda x, y, *given: loss(x, y, *given), backend="aot_eager", fullgraph=True)
    exact, found = loss(x, y, *given), run(x, y, *given)
    torch.testing.assert_close(found, exact)
    torch.testing.assert_close(torch.autograd.grad(found, x), torch.autograd.grad(exact, x))


def test_a_length_beyond_the_cloud_is_an_error_inside_a_graph_too() -> None:
    x = torch.rand(2, 9, 3)
    run = torch.compile(lambda x, n: ChamferL1()(x, x, n), backend="aot_eager", fullgraph=True)
    with pytest.raises(RuntimeError, match="above the number of points"):
        run(x, torch.tensor([10, 4]))


@pytest.mark.skipif(not hasattr(torch.Tag, "cudagraph_unsafe"), reason="older PyTorch has no such tag")
@pytest.mark.parametrize("op", ["match", "plan", "nearest", "chamfer", "fast_emd", "assign"])
def test_cuda_graphs_are_captured_around_the_ops(op: str) -> None:
    assert torch.Tag.cudagraph_unsafe in getattr(torch.ops.apml, op).default.tags


def test_dynamic_shapes() -> None:
    run = compiled(APML(), fullgraph=True, dynamic=True)
    for n, m in ((70, 50), (33, 90), (128, 128)):
        x, y = torch.rand(2, n, 3), torch.rand(2, m, 3)
        torch.testing.assert_close(run(x, y), 3 * APML()(2 * x, y) + 1)


def test_nan_is_an_error_inside_a_graph_too() -> None:
    x = torch.rand(1, 9, 3)
    x[0, 4] = float("nan")
    with pytest.raises(RuntimeError, match="pred or gt holds NaN or Inf"):
        compiled(APML(), fullgraph=True)(x, torch.rand(1, 9, 3))


def test_what_cannot_be_traced_runs_outside_the_graph() -> None:
    x, y = torch.rand(2, 40, 3), torch.rand(2, 30, 3)
    for options in (
        {"gt_lengths": [30, 4]},
        {"ignore_zeros": True},
        {"threshold": "1e-20"},
        {"backend": "dense"},
    ):
        run = compiled(lambda a, b, options=options: apml_loss(a, b, **options))
        torch.testing.assert_close(run(x, y), 3 * apml_loss(2 * x, y, **options) + 1)
    wide = torch.rand(1, 8, 5)
    torch.testing.assert_close(compiled(APML())(wide, wide), 3 * APML()(2 * wide, wide) + 1)


def test_bad_arguments_keep_their_messages() -> None:
    x = torch.rand(1, 9, 3)
    with pytest.raises(LossValueError, match=r"p_min=1\.5 must lie in"):
        compiled(lambda a, b: apml_loss(a, b, p_min=1.5))(x, x)
    with pytest.raises(LossValueError, match="same batch size"):
        compiled(APML())(x, torch.rand(2, 9, 3))
