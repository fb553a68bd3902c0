"""The compiled assignment against SciPy on a full matrix: exact, within a tolerance, in slices, and in hard cases."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from apml_plugin import earth_movers_distance
from apml_plugin.matching import extension, native

Array = NDArray[np.float64]

needs_ops = pytest.mark.skipif(not extension.offers("assign", "cpu", 3), reason="no compiled ops")


def on_a_line(n: int, random: np.random.Generator) -> tuple[Array, Array]:
    """The first point goes all the way to the end, or all points go one step: equally good."""
    steps = np.zeros((n + 1, 3))
    steps[:, 0] = np.arange(n + 1) / n
    return steps[:-1], steps[1:]


def one_point(n: int, random: np.random.Generator) -> tuple[Array, Array]:
    return np.zeros((n, 3)), random.random((n, 3))


def copies_with_noise(n: int, random: np.random.Generator) -> tuple[Array, Array]:
    """Costs of 1e-12 beside distances of 1."""
    x = random.random((n // 8 + 1, 3)).repeat(8, 0)[:n]
    return x, np.clip(x[random.permutation(n)] + 1e-12 * random.random((n, 3)), 0, 1)


CLOUDS: dict[str, Callable[[int, np.random.Generator], tuple[Array, Array]]] = {
    "cubes": lambda n, random: (random.random((n, 3)), random.random((n, 3))),
    "planes": lambda n, random: (random.random((n, 2)), random.random((n, 2))),
    "line": lambda n, random: (random.random((n, 1)), random.random((n, 1))),
    "line shifted by one spacing": on_a_line,
    "lattices": lambda n, random: (np.floor(4 * random.random((n, 3))) / 4, np.floor(4 * random.random((n, 3))) / 4),
    "copies": lambda n, random: (random.random((n // 8 + 1, 3)).repeat(8, 0)[:n], random.random((n, 3))),
    "copies with noise": copies_with_noise,
    "a clump": lambda n, random: (0.01 * random.random((n, 3)), random.random((n, 3))),
    "one point": one_point,
    "far apart": lambda n, random: (random.random((n, 3)) / 1000, 1 - random.random((n, 3)) / 1000),
    "the same": lambda n, random: (np.linspace(0, 1, 3 * n).reshape(n, 3),) * 2,
}


def least(x: Array, y: Array) -> float:
    cost = cdist(x, y)
    return math.fsum(cost[linear_sum_assignment(cost)]) / len(x)


def solved(x: Array, y: Array, tolerance: float = 0.0) -> tuple[float, float]:
    """Mean distance of the assignment, which is checked to be one to one, and the bound."""
    columns, bound = native.assign(x, y, tolerance)
    assert len(np.unique(columns)) == len(columns) == len(x)
    assert columns.min() >= 0
    assert columns.max() < len(y)
    return math.fsum(np.linalg.norm(x - y[columns], axis=1)) / len(x), bound


@needs_ops
@given(
    n=st.integers(1, 60),
    surplus=st.integers(0, 30),
    kind=st.sampled_from(sorted(CLOUDS)),
    seed=st.integers(0, 10_000),
    tolerance=st.sampled_from([0.0, 0.001, 0.1]),
)
def test_the_best_or_within_the_tolerance(n: int, surplus: int, kind: str, seed: int, tolerance: float) -> None:
    x, y = CLOUDS[kind](n + surplus, np.random.default_rng(seed))
    x = x[:n]
    best = least(x, y)
    mean, bound = solved(x, y, tolerance)
    assert bound <= best * (1 + 1e-12) + 1e-15
    assert best * (1 - 1e-12) <= mean <= max(1 + tolerance, 1 + 1e-12) * best + 1e-17
    assert mean <= (1 + tolerance) * bound * (1 + 1e-12) + 1e-15


@needs_ops
@pytest.mark.parametrize("kind", CLOUDS)
@pytest.mark.parametrize("n", [300, 500])
def test_where_lists_are_short(kind: str, n: int) -> None:
    x, y = CLOUDS[kind](500, np.random.default_rng(0))
    x = x[:n]
    mean, bound = solved(x, y)
    assert mean == pytest.approx(least(x, y), rel=1e-12, abs=1e-17)
    assert bound == pytest.approx(mean, rel=1e-12, abs=1e-15)
    near, proven = solved(x, y, 0.02)
    assert bound * (1 - 1e-12) - 1e-15 <= near <= 1.02 * proven + 1e-15
    assert np.array_equal(native.assign(x, y, 0.02)[0], native.assign(x, y, 0.02)[0])


@needs_ops
@pytest.mark.parametrize("kind", ["a clump", "one point", "far apart"])
@pytest.mark.parametrize("n", [150, 200])
def test_a_long_call_goes_on_where_it_was_ended(kind: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = CLOUDS[kind](200, np.random.default_rng(1))
    x = x[:n]
    called, assign = [], torch.ops.apml.assign
    monkeypatch.setattr(native, "ASSIGNING_AT_ONCE", 30_000)
    monkeypatch.setattr(torch.ops.apml, "assign", lambda *given: called.append(0) or assign(*given))
    assert solved(x, y)[0] == pytest.approx(least(x, y), rel=1e-12)
    assert len(called) > 1


@needs_ops
@pytest.mark.parametrize("kind", ["cubes", "a clump", "line"])
@pytest.mark.parametrize("n", [150, 200])
def test_any_start_ends_at_the_best(kind: str, n: int) -> None:
    random = np.random.default_rng(2)
    x, y = CLOUDS[kind](200, random)
    x = x[:n]
    for start in (random.permutation(200)[:n], np.where(random.random(n) < 0.5, np.arange(n), -1)):
        columns, bound = native.assign(x, y, 0.0, start)
        assert np.linalg.norm(x - y[columns], axis=1).mean() == pytest.approx(least(x, y), rel=1e-12)
        assert bound == pytest.approx(least(x, y), rel=1e-12)


@needs_ops
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_without_the_ops_the_values_are_the_same(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = (scale * (torch.rand(1, 80, 3, dtype=torch.float64) + 1e6 * (scale == 1)) for _ in range(2))
    compiled = earth_movers_distance(x, y), earth_movers_distance(x, y, tolerance=0.01)
    monkeypatch.setattr(extension, "offers", lambda *asked: False)
    torch.testing.assert_close(compiled[0], earth_movers_distance(x, y), rtol=1e-12, atol=0)
    torch.testing.assert_close(compiled[1], earth_movers_distance(x, y, tolerance=0.01), rtol=0.01, atol=0)


@needs_ops
def test_four_coordinates_need_no_ops() -> None:
    x, y = torch.rand(2, 1, 40, 4, dtype=torch.float64)
    best = least(x[0].numpy(), y[0].numpy())
    assert earth_movers_distance(x, y).item() == pytest.approx(best, rel=1e-12)
    assert best <= earth_movers_distance(x, y, tolerance=0.01).item() <= 1.01 * best


@needs_ops
def test_the_op_refuses_what_it_cannot_take() -> None:
    x, y = torch.rand(2, 5, 3, dtype=torch.float64)
    none, free = torch.full((5,), -1), torch.zeros(5, dtype=torch.float64)
    for bad, message in (
        ((x[:0], y, none[:0], free), "1 <= n <= m"),
        ((x, y[:4], none, free[:4]), "1 <= n <= m"),
        ((x.float(), y.float(), none, free), "float64"),
        ((x / 0, y, none, free), "finite"),
        ((x, y, none[:4], free), "columns must be"),
        ((x, y, torch.tensor([0, 0, 1, 2, 3]), free), "different"),
        ((x, y, torch.tensor([0, 5, 1, 2, 3]), free), "different"),
        ((x, y, none, free - 1), "negative"),
    ):
        with pytest.raises(RuntimeError, match=message):
            torch.ops.apml.assign(*bad, torch.inf, 0.0, 1000)
