"""GeomLoss' losses: golden values, definitions written out, equality with GeomLoss where it is right."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from losses.geom.pairs import KINDS, floored, golden, needs_geomloss, needs_keops, pair

from apml_plugin.losses.geom import Energy, Gaussian, HausdorffDivergence, Laplacian, Sinkhorn, sinkhorn, softmin

X, Y = golden()


@pytest.mark.parametrize(
    ("options", "coarse", "fine"),
    [
        ({"p": 2}, 0.0441347484200683, 0.04965985423861674),
        # Their p = 1 never goes below a distance of 1e-4; with that cost ours is the same.
        ({"p": 1, "cost": floored}, 0.20348586227197887, 0.20868917056916508),
        ({"p": 2, "debias": False}, 0.0869471986606499, 0.09234521217877247),
        ({"p": 2, "reach": 0.5}, 0.0343102041215799, 0.035825610798423745),
    ],
)
def test_golden_sinkhorn(options: dict[str, Any], coarse: float, fine: float) -> None:
    for scaling, wanted in ((0.5, coarse), (0.99, fine)):
        for backend in ("tensorized", "online"):
            loss = Sinkhorn(blur=0.1, diameter=4, scaling=scaling, backend=backend, engine="torch", **options)
            assert loss(X, Y).item() == pytest.approx(wanted, rel=1e-9)


@needs_geomloss
@pytest.mark.parametrize(
    ("kind", "options", "wanted"),
    [
        ("sinkhorn", {"blur": 0.1, "diameter": 4, "p": 1}, 0.20348586227197887),
        ("energy", {}, 0.005722693784344202),
        ("laplacian", {"blur": 0.1}, 0.011520517574485807),
    ],
)
def test_golden_values_of_geomloss_with_its_floor(kind: str, options: dict[str, Any], wanted: float) -> None:
    loss = KINDS[kind](engine="geomloss", backend="tensorized", **options)
    assert loss(X, Y).item() == pytest.approx(wanted, rel=1e-9)


def test_golden_kernel_norms() -> None:
    assert Energy(engine="torch")(X, Y).item() == pytest.approx(0.005723995867677134, rel=1e-9)
    assert Gaussian(blur=0.1, engine="torch")(X, Y).item() == pytest.approx(0.011246858407121649, rel=1e-9)
    assert Laplacian(blur=0.1, engine="torch")(X, Y).item() == pytest.approx(0.011521819592717177, rel=1e-9)


def test_golden_hausdorff_divergence() -> None:
    assert HausdorffDivergence(blur=0.1)(X, Y).item() == pytest.approx(0.03105524108828788, abs=1e-9)
    assert HausdorffDivergence(blur=0.01)(X, Y).item() == pytest.approx(0.03210652486447201, abs=1e-9)
    assert HausdorffDivergence(blur=0.002)(X, Y).item() == pytest.approx(0.128428220762088 / 4, rel=1e-4)  # Chamfer


@pytest.mark.parametrize("reach", [None, 0.5])
def test_hausdorff_divergence_as_defined(reach: float | None) -> None:
    """Loops over the definition, far beyond convergence."""
    (x,), (y,) = pair(6, 9)
    eps, rho = 0.3**2, math.inf if reach is None else reach**2
    damp = 1 / (1 + eps / rho)

    def softmin(at: torch.Tensor, over: torch.Tensor, f: list[float]) -> list[float]:
        rows = []
        for u in at:
            terms = [math.exp((f[j] - ((u - v) ** 2).sum().item() / 2) / eps) for j, v in enumerate(over)]
            rows.append(-damp * eps * math.log(sum(terms) / len(over)))
        return rows

    def own(cloud: torch.Tensor) -> list[float]:
        f = [0.0] * len(cloud)
        for _ in range(80):
            f = [(u + v) / 2 for u, v in zip(f, softmin(cloud, cloud, f), strict=True)]
        return f

    def price(f: float) -> float:
        return f if reach is None else (rho + eps) * (1 - math.exp(-f / rho))

    f, g = own(x), own(y)
    at_x = [price(v) - price(u) for u, v in zip(f, softmin(x, y, g), strict=True)]
    at_y = [price(u) - price(v) for u, v in zip(softmin(y, x, f), g, strict=True)]
    wanted = (sum(at_x) / len(x) + sum(at_y) / len(y)) / 2
    loss = HausdorffDivergence(blur=0.3, reach=reach)
    assert loss(x[None], y[None]).item() == pytest.approx(wanted, rel=1e-10)


def test_a_small_blur_gives_the_best_assignment() -> None:
    """Without debiasing: the cost of optimal transport, found by SciPy."""
    from scipy.optimize import linear_sum_assignment

    (x,), (y,) = pair(8, 8)
    cost = (x[:, None] - y).square().sum(dim=-1) / 2
    rows, columns = linear_sum_assignment(cost.numpy())
    best = cost[rows, columns].mean().item()
    loss = Sinkhorn(blur=0.05, debias=False, scaling=0.95)
    assert loss(x[None], y[None]).item() == pytest.approx(best, rel=0.02)


@pytest.mark.parametrize("options", [{}, {"reach": 0.5}, {"debias": False}])
def test_a_tolerance_reaches_the_limit_of_slow_schedules(options: dict[str, Any]) -> None:
    x, y = pair(8, 9)
    limit = Sinkhorn(blur=0.5, tolerance=1e-6, **options)(x, y).item()
    assert limit == pytest.approx(Sinkhorn(blur=0.5, scaling=0.999, **options)(x, y).item(), rel=1e-3)
    assert limit == pytest.approx(Sinkhorn(blur=0.5, tolerance=1e-6, scaling=0.9, **options)(x, y).item(), rel=1e-5)


def test_a_tolerance_that_is_not_reached_gives_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinkhorn, "MOST_ITERATIONS", 1)
    x, y = pair(8, 9)
    message = r"^Sinkhorn did not reach tolerance=1e-09 in 1 iterations at temperature 0\.25; raise blur, or tolerance$"
    with pytest.warns(UserWarning, match=message):
        Sinkhorn(blur=0.5, tolerance=1e-9)(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Sinkhorn(blur=0.5, tolerance=10.0)(x, y)


@pytest.mark.parametrize("p", [1, 2])
def test_temperatures(p: int) -> None:
    assert softmin.temperatures(p, 4.0, 0.6, 0.5) == pytest.approx([4.0**p, 4.0**p, 2.0**p, 1.0, 0.6**p])
    assert softmin.temperatures(p, 0.0, 0.5, 0.5) == pytest.approx([0.5**p, 0.5**p])


def test_blocks_of_rows_hold_a_small_part_of_the_matrix() -> None:
    for device, entries in (("cpu", 2**21), ("meta", 2**25)):
        rows, columns = 5, entries // 2
        blocks = [(0, 2), (2, 4), (4, 5)]
        assert list(softmin.row_blocks(rows, columns, torch.device(device))) == blocks
        assert list(softmin.row_blocks(2, 2 * entries, torch.device(device))) == [(0, 1), (1, 2)]
        assert list(softmin.row_blocks(3, 0, torch.device(device))) == [(0, 3)]


@pytest.mark.parametrize("name", ["sinkhorn", "hausdorff"])
@pytest.mark.parametrize("reach", [None, 0.5])
def test_the_diameter_is_of_the_pair_and_the_reach_a_length(name: str, reach: float | None) -> None:
    x, y = torch.tensor([[[0.0, 0, 0], [3, 0, 0]]]), torch.tensor([[[0.0, 4, 0], [1, 1, 0], [2, 2, 0]]])
    cls = Sinkhorn if name == "sinkhorn" else HausdorffDivergence
    for p in (1, 2):
        options = {"p": p, "reach": reach, "blur": 0.3}
        value = cls(**options)(x, y)
        assert value == cls(**options, diameter=5.0)(x, y)
        # In other units of length the cost, and with it the loss, scales with the p-th power.
        scaled = cls(p=p, reach=reach and 2 * reach, blur=0.6)(2 * x, 2 * y)
        assert scaled.item() == pytest.approx(2**p * value.item(), rel=1e-4)


SAME = [
    ("sinkhorn", {"p": 2, "blur": 0.3}),
    ("sinkhorn", {"p": 2, "blur": 0.3, "debias": False}),
    ("sinkhorn", {"p": 2, "blur": 0.3, "reach": 0.5}),
    ("sinkhorn", {"p": 1, "blur": 0.3}),
    ("energy", {}),
    ("gaussian", {"blur": 0.3}),
    ("laplacian", {"blur": 0.3}),
]


def compare(kind: str, options: dict[str, Any], backend: str, engine: str, theirs_right: bool = True) -> None:
    from geomloss import SamplesLoss

    x, y = pair(40, 50)
    x.requires_grad_()
    theirs = SamplesLoss(kind, backend=backend, **options)(x, y).sum()
    ours = KINDS[kind](backend=backend, engine=engine, **options)(x, y)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    if theirs_right:
        wanted, found = (torch.autograd.grad(value, x)[0] for value in (theirs, ours))
        assert (found - wanted).norm() <= 1e-6 * wanted.norm()


@needs_geomloss
@pytest.mark.parametrize(("kind", "options"), SAME)
@pytest.mark.parametrize("engine", ["torch", "geomloss"])
def test_equal_to_geomloss_tensorized(kind: str, options: dict[str, Any], engine: str) -> None:
    if engine == "torch" and (kind in ("energy", "laplacian") or options.get("p") == 1):
        pytest.skip("GeomLoss' floor of 1e-4 is not ours: see the golden values")
    compare(kind, options, "tensorized", engine, theirs_right="reach" not in options)


@needs_keops
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), SAME)
@pytest.mark.parametrize("engine", ["torch", "geomloss"])
def test_equal_to_geomloss_online(kind: str, options: dict[str, Any], engine: str) -> None:
    compare(kind, options, "online", engine, theirs_right="reach" not in options)


@needs_keops
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), [row for row in SAME if row[1].get("p") != 1 and "reach" not in row[1]])
def test_equal_to_geomloss_multiscale(kind: str, options: dict[str, Any]) -> None:
    compare(kind, options, "multiscale", "geomloss")


@needs_keops
@pytest.mark.slow
def test_unbalanced_multiscale_is_close_to_online_as_geomloss_is_not() -> None:
    from geomloss import SamplesLoss

    x, y = pair(500, 500)
    options = {"p": 2, "blur": 0.05, "reach": 0.3, "scaling": 0.8}
    exact = Sinkhorn(backend="online", **options)(x, y).item()
    assert Sinkhorn(backend="multiscale", **options)(x, y).item() == pytest.approx(exact, rel=5e-3)
    assert abs(SamplesLoss("sinkhorn", backend="multiscale", **options)(x, y).item() / exact - 1) > 5e-3


@given(
    kind=st.sampled_from(sorted(KINDS)),
    extent=st.floats(1e-3, 1e3),
    blurs=st.floats(0.02, 1e4),
    away=st.floats(-10, 10),
    p=st.sampled_from([1, 2]),
)
@settings(max_examples=60, deadline=None)
@example(kind="gaussian", extent=300.0, blurs=6000.0, away=0.0, p=2)
@example(kind="gaussian", extent=1000.0, blurs=20000.0, away=0.0, p=2)
def test_float32_is_close_to_float64(kind: str, extent: float, blurs: float, away: float, p: int) -> None:
    """By engine="auto", however many blurs the clouds span. Both are given the coordinates of float32."""
    options = {"energy": {}, "sinkhorn": {"p": p, "blur": extent / blurs}}.get(kind, {"blur": extent / blurs})
    loss = KINDS[kind](**options)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(1, n, 3, generator=generator) * extent + away * extent for n in (20, 25))
    size = {"sinkhorn": extent**p, "energy": extent}.get(kind, 1.0)
    assert loss(x, y).item() == pytest.approx(loss(x.double(), y.double()).item(), rel=1e-4, abs=1e-5 * size)
