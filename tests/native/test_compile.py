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
