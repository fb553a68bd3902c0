"""Gradients of GeomLoss' losses against differences of their values."""

from __future__ import annotations

import pytest
import torch
from losses.geom.pairs import EVERY, needs_geomloss, pair, slope

from apml_plugin.losses.geom import Energy, Gaussian, HausdorffDivergence, Laplacian, Sinkhorn, softmin


def settled(**options: object) -> Sinkhorn:
    return Sinkhorn(blur=2.0, tolerance=1e-12, **options)


EXACT = [
    settled(),
    settled(p=1),
    settled(debias=False),
    settled(reach=0.7),
    settled(reach=0.7, debias=False),
    Energy(engine="torch"),
    Gaussian(blur=0.7, engine="torch"),
    Laplacian(blur=0.7, engine="torch"),
    HausdorffDivergence(blur=0.5),
    HausdorffDivergence(blur=0.5, p=1),
    HausdorffDivergence(blur=0.5, reach=0.7),
]


@pytest.mark.parametrize("loss", EXACT, ids=lambda loss: loss.describe()[:45])
@pytest.mark.parametrize("blocks", [False, True])
def test_gradcheck(loss: torch.nn.Module, blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one block of rows, and in several, which are computed again for the gradient."""
    if blocks:
        monkeypatch.setattr(softmin, "row_blocks", lambda n, m, device: [(i, min(i + 2, n)) for i in range(0, n, 2)])
    x, y = pair(4, 3)
    assert torch.autograd.gradcheck(loss, (x.requires_grad_(), y.requires_grad_()), fast_mode=True)


@pytest.mark.parametrize(
    "loss",
    [
        settled(reach=0.7),
        settled(reach=0.7, debias=False),
        Energy(engine="torch"),
        Gaussian(blur=0.7, engine="torch"),
        HausdorffDivergence(blur=0.5, reach=0.7),
    ],
    ids=lambda loss: loss.describe()[:45],
)
def test_gradcheck_in_weights_of_any_mass(loss: torch.nn.Module) -> None:
    x, y = pair(4, 3)
    a, b = torch.rand(1, 4, dtype=torch.float64) + 0.3, torch.rand(1, 3, dtype=torch.float64) + 0.3
    inputs = (x.requires_grad_(), y.requires_grad_(), a.requires_grad_(), b.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, y, a, b: loss(x, y, None, None, a, b), inputs, fast_mode=True)


@pytest.mark.parametrize("loss", [settled(), settled(debias=False), HausdorffDivergence(blur=0.5)])
def test_gradient_in_weights_that_keep_the_mass(loss: torch.nn.Module) -> None:
    x, y = pair(5, 4)
    a = torch.full((1, 5), 0.2, dtype=torch.float64)
    along = torch.tensor([[0.5, -0.3, 0.4, -0.7, 0.1]], dtype=torch.float64)
    found, wanted = slope(lambda a: loss(x, y, None, None, a, torch.full((1, 4), 0.25, dtype=a.dtype)), a, along)
    assert found == pytest.approx(wanted, rel=1e-6)


CLOSE_TO_THE_LIMIT = {"blur": 0.3, "reach": 0.3, "scaling": 0.99, "diameter": 4.0}


@pytest.mark.parametrize("p", [1, 2])
def test_unbalanced_gradients_pass_where_theirs_are_too_small(p: int) -> None:
    x, y = pair(30, 40)
    along = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found, wanted = slope(lambda x: Sinkhorn(p=p, engine="torch", **CLOSE_TO_THE_LIMIT)(x, y), x, along)
    assert found == pytest.approx(wanted, rel=5e-3)


@needs_geomloss
def test_unbalanced_gradients_of_geomloss_are_too_small() -> None:
    """What the guard is for: when this fails GeomLoss is mended. Theory: (rho + eps/2) / (rho + eps) = 0.75."""
    from geomloss import SamplesLoss

    x, y = pair(30, 40)
    along = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found, wanted = slope(lambda x: SamplesLoss("sinkhorn", **CLOSE_TO_THE_LIMIT)(x, y), x, along)
    assert found / wanted == pytest.approx(0.75, abs=0.01)
    through = slope(lambda x: Sinkhorn(engine="geomloss", **CLOSE_TO_THE_LIMIT)(x, y), x, along)
    assert through[0] == pytest.approx(through[1], rel=5e-3)


@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: loss.describe()[:45])
def test_equal_clouds_with_points_twice_have_finite_gradients(loss: torch.nn.Module) -> None:
    x = torch.rand(1, 10, 3, dtype=torch.float64)
    x = torch.cat([x, x[:, :4]], dim=1).requires_grad_()
    value = loss(x, x.detach().clone())
    value.backward()
    if getattr(loss, "debias", True):
        assert value.item() == pytest.approx(0, abs=1e-12)
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("engine", ["torch", pytest.param("geomloss", marks=needs_geomloss)])
@pytest.mark.parametrize("before", [True, False])
def test_grad_mode_is_as_it_was(engine: str, before: bool) -> None:
    x, y = pair(6, 5)
    with torch.set_grad_enabled(before):
        value = Sinkhorn(engine=engine)(x.requires_grad_(), y)
        assert torch.is_grad_enabled() == before
        assert value.requires_grad == before

        def broken(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            raise ArithmeticError("in the cost")

        with pytest.raises((ArithmeticError, RuntimeError), match="in the cost"):
            Sinkhorn(engine=engine, cost=broken, backend="tensorized")(x, y)
        assert torch.is_grad_enabled() == before


@needs_geomloss
def test_grad_mode_survives_a_failure_in_geomloss_own_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    import geomloss._legacy.sinkhorn_samples as inside

    def broken(*args: object) -> None:
        raise ArithmeticError("in the loop")

    monkeypatch.setattr(inside, "softmin_tensorized", broken)
    x, y = pair(6, 5)
    with pytest.raises(RuntimeError, match="in the loop"):
        Sinkhorn(engine="geomloss")(x, y)
    assert torch.is_grad_enabled()
