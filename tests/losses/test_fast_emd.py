"""FastEMD as a module: new trees in training, the same ones in evaluation, and its arguments."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from clouds import sphere

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.functional import earth_movers_distance, fast_emd
from apml_plugin.losses import FastEMD
from apml_plugin.registry import build_loss, set_epoch
from apml_plugin.studies.demo.flow import judge, move, start_cloud, target_shape


def clouds(n: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    return sphere(n, 2, seed=1).requires_grad_(), sphere(n, 2, seed=2)


def values(loss: torch.nn.Module, number: int = 3) -> list[float]:
    return [loss(*clouds()).item() for _ in range(number)]


def test_training_matches_anew_and_repeatably() -> None:
    first = values(FastEMD(seed=5))
    assert len(set(first)) == 3
    assert values(FastEMD(seed=5)) == first
    assert not set(values(FastEMD(seed=6))) & set(first)


def test_calls_without_a_gradient_match_by_the_seed_and_disturb_nothing() -> None:
    loss = FastEMD(seed=5)
    undisturbed = values(FastEMD(seed=5))
    fixed = fast_emd(*clouds(), seed=5).item()
    found = []
    for _ in range(3):
        with torch.no_grad():
            assert loss(*clouds()).item() == fixed
        loss.eval()
        assert loss(*clouds()).item() == fixed
        loss.train()
        found += values(loss, 1)
    assert found == undisturbed


def test_a_resumed_epoch_matches_as_the_first_time() -> None:
    loss = FastEMD()
    values(loss)
    set_epoch(loss, 7)
    once = values(loss, 2)
    set_epoch(loss, 7)  # some hosts say it at every step
    once += values(loss, 1)
    resumed = FastEMD()
    set_epoch(resumed, 7)
    assert values(resumed) == once
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert values(twin, 1) == values(copy.deepcopy(loss), 1)


def test_inside_torch_compile() -> None:
    loss = FastEMD()
    step = torch.compile(lambda x, y: loss(2 * x, y), backend="eager")
    compiled = [step(*clouds()).item() for _ in range(12)]
    assert len(set(compiled)) == 12


@pytest.mark.parametrize("start", ["blob", "cube"])
def test_points_end_on_the_target(start: str) -> None:
    target = target_shape(256)
    moved = judge(start, "FastEMD", move(start_cloud(start, 256), target, "FastEMD"), target)
    assert moved.emd < 0.005
    assert moved.covered > 0.99


def test_never_below_the_exact_value_and_gradients_point_to_partners() -> None:
    pred, gt = clouds()
    value = FastEMD(restarts=4)(pred, gt)
    assert earth_movers_distance(pred, gt).item() <= value.item()
    value.backward()
    norms = pred.grad.norm(dim=-1) * pred.shape[0] * pred.shape[1]
    torch.testing.assert_close(norms, torch.ones_like(norms))


@pytest.mark.parametrize("norm", ["L1", "L2"])
@pytest.mark.parametrize(("n", "unequal"), [(200, "raise"), (90, "smaller"), (90, "balanced"), (0, "balanced")])
def test_the_bound_lies_below_every_matching(n: int, unequal: str, norm: str) -> None:
    x, y = sphere(n, 2, seed=1), sphere(200, 2, seed=2)
    value, bound = fast_emd(x, y, unequal=unequal, norm=norm, reduction="none", return_bound=True)
    assert bound.shape == value.shape == (2,)
    assert bound.dtype == torch.float64
    if n == 0:
        assert bound.tolist() == value.tolist() == [0, 0]
        return
    assert (bound <= fast_emd(x, y, unequal=unequal, norm=norm, reduction="none", restarts=32, passes=20)).all()
    if norm == "L1" and unequal != "balanced":
        exact = earth_movers_distance(x, y, unequal="smaller", reduction="none")
        assert (bound <= exact * (1 + 1e-12)).all()
        assert (exact <= 1.05 * bound).all()


@pytest.mark.parametrize(
    ("cfg", "error", "message"),
    [
        ({"restarts": 0}, LossValueError, "restarts=0 must be at least 1"),
        ({"neighbours": 65}, LossValueError, "neighbours=65 must be at most 64"),
        ({"passes": -1}, LossValueError, "passes=-1 must be 0 or more"),
        ({"passes": 1.5}, LossArgumentError, "passes=1.5 must be a whole number"),
        ({"norm": 2}, LossValueError, "norm=2 must be one of 'L1', 'L2'"),
        ({"unequal": "larger"}, LossValueError, "unequal='larger'"),
        ({"seed": "x"}, LossArgumentError, "seed='x'"),
    ],
)
def test_invalid_arguments_raise_an_error(cfg: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_loss({"NAME": "FastEMD", **cfg})


def test_unequal_numbers_are_refused_where_that_is_wished() -> None:
    loss = FastEMD(unequal="raise")
    with pytest.raises(LossValueError, match=r"pred\[1\] has 3 points and gt\[1\] 4.*unequal='balanced'"):
        loss(torch.rand(2, 5, 3), torch.rand(2, 5, 3), pred_lengths=[5, 3], gt_lengths=[5, 4])
    assert loss(torch.rand(2, 5, 3), torch.rand(2, 5, 3), pred_lengths=[5, 3], gt_lengths=[5, 0]) > 0
