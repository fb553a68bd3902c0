"""Every loss under each way of differentiating that PyTorch has: right, or an error that says what to use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pointlosses import POINT_LOSSES, loss_of
from torch import Tensor
from torch.autograd import forward_ad

from apml_plugin import ChamferL1, ChamferL2, FastEMD
from apml_plugin.errors import BackendError, LossArgumentError
from apml_plugin.losses.geom import HausdorffDivergence
from apml_plugin.losses.geom.base import GeometricLoss
from apml_plugin.matching import extension

WITHOUT_FORWARD_MODE = "no forward-mode derivatives: use reverse mode"
WITHOUT_FUNC = "no derivatives under torch.func: use backward"
ONCE = "first derivatives only"

BACKENDS = ["dense", "sparse"] + (["native"] if extension.missing("cpu") is None else [])
APML_WAYS = [{"backend": backend} for backend in BACKENDS]
APML_WAYS += [{"backend": b, "differentiate_plan": True} for b in BACKENDS if b != "sparse"]
WAYS: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in POINT_LOSSES]
WAYS += [("APML", way) for way in APML_WAYS]


@pytest.fixture(params=WAYS, ids=lambda way: f"{way[0]}-{'-'.join(map(str, way[1].values()))}")
def loss(request: pytest.FixtureRequest) -> torch.nn.Module:
    name, arguments = request.param
    return loss_of(name, **arguments)


def clouds(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(2, n, 3, generator=generator, dtype=torch.float64).to(dtype) for n in (7, 9))
    return x, y


def ways_of(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(x.shape, generator=generator).to(x), torch.randn(y.shape, generator=generator).to(y)


def gradients(loss: torch.nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    return torch.autograd.grad(loss(x, y), (x, y))


def by_func(f: Callable[..., Tensor], x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    value, slope = torch.func.jvp(f, (x, y), (u, v))
    return value, slope


def by_forward_ad(f: Callable[..., Tensor], x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    with forward_ad.dual_level():
        result = forward_ad.unpack_dual(f(forward_ad.make_dual(x, u), forward_ad.make_dual(y, v)))
    assert result.tangent is not None
    return result.primal, result.tangent


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("slope_of", [by_func, by_forward_ad])
def test_forward_mode(
    loss: torch.nn.Module, slope_of: Callable[..., tuple[Tensor, Tensor]], dtype: torch.dtype
) -> None:
    x, y = clouds(dtype)
    u, v = ways_of(x, y)
    if isinstance(loss, GeometricLoss):
        with pytest.raises(BackendError, match=WITHOUT_FORWARD_MODE):
            slope_of(loss, x, y, u, v)
        return
    value, slope = slope_of(loss, x, y, u, v)
    of_x, of_y = gradients(loss, x, y)
    wanted = (of_x.double() * u.double()).sum() + (of_y.double() * v.double()).sum()
    rel = 1e-12 if dtype == torch.float64 else 0.1
    assert slope.item() == pytest.approx(wanted.item(), rel=rel)
    torch.testing.assert_close(value, loss(x, y))


def test_torch_func_gives_the_gradient(loss: torch.nn.Module) -> None:
    x, y = clouds()
    if isinstance(loss, HausdorffDivergence):
        with pytest.raises(BackendError, match=WITHOUT_FUNC):
            torch.func.grad(loss)(x, y)
        return
    of_x, of_y = gradients(loss, x, y)
    found = torch.func.grad(loss, argnums=(0, 1))(x, y)
    torch.testing.assert_close(found, (of_x, of_y))
    torch.testing.assert_close(torch.func.jacrev(loss)(x, y), of_x)
    _, pull = torch.func.vjp(lambda x: loss(x, y), x)
    torch.testing.assert_close(pull(torch.tensor(2.0, dtype=x.dtype))[0], 2 * of_x)


def test_a_gradient_with_respect_to_something_else(loss: torch.nn.Module) -> None:
    x, y = clouds()
    with torch.no_grad():
        held = loss(x, y)

    def weighted(weight: Tensor) -> Tensor:
        return weight * loss(x, y)

    if isinstance(loss, HausdorffDivergence):
        with pytest.raises(BackendError, match=WITHOUT_FUNC):
            torch.func.grad(weighted)(torch.ones((), dtype=x.dtype))
        return

    torch.testing.assert_close(torch.func.grad(weighted)(torch.ones((), dtype=x.dtype)), held)


def test_vmap_is_an_error_that_says_what_to_call(loss: torch.nn.Module) -> None:
    x, y = clouds()
    with pytest.raises(LossArgumentError, match="reduction='none'"):
        torch.func.vmap(loss)(x[:, None], y[:, None])


def second_by_backward(f: Callable[[Tensor], Tensor], x: Tensor, u: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(f(x), x, create_graph=True)
    return torch.autograd.grad((first * u).sum(), x)[0]


def second_by_jvp_of_grad(f: Callable[[Tensor], Tensor], x: Tensor, u: Tensor) -> Tensor:
    return torch.func.jvp(torch.func.grad(f), (x,), (u,))[1]


def second_by_grad_of_grad(f: Callable[[Tensor], Tensor], x: Tensor, u: Tensor) -> Tensor:
    return torch.func.grad(lambda x: (torch.func.grad(f)(x) * u).sum())(x)


def second_by_grad_of_jvp(f: Callable[[Tensor], Tensor], x: Tensor, u: Tensor) -> Tensor:
    return torch.func.grad(lambda x: torch.func.jvp(f, (x,), (u,))[1])(x)


def has_second_derivatives(loss: torch.nn.Module) -> bool:
    if hasattr(loss, "differentiate_plan"):
        return loss.backend == "dense" and loss.differentiate_plan
    compiled = isinstance(loss, (ChamferL1, ChamferL2, FastEMD)) and extension.missing("cpu") is None
    return not compiled and not isinstance(loss, GeometricLoss)


@pytest.mark.parametrize(
    "second_of", [second_by_backward, second_by_jvp_of_grad, second_by_grad_of_grad, second_by_grad_of_jvp]
)
def test_second_derivatives_are_right_or_an_error(
    loss: torch.nn.Module, second_of: Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]
) -> None:
    """A gradient penalty is never constant without a word."""
    x, y = clouds()
    u, _ = ways_of(x, y)
    if not has_second_derivatives(loss):
        with pytest.raises(BackendError, match="|".join((ONCE, WITHOUT_FORWARD_MODE, WITHOUT_FUNC))):
            second_of(lambda x: loss(x, y), x, u)
        return
    found = second_of(lambda x: loss(x, y), x, u)
    ahead, behind = (gradients(loss, x + step * u, y)[0] for step in (1e-6, -1e-6))
    torch.testing.assert_close(found, (ahead - behind) / 2e-6, rtol=1e-4, atol=1e-5)


def test_create_graph_for_another_term_is_no_error(loss: torch.nn.Module) -> None:
    x, y = clouds()
    x.requires_grad_()
    (first,) = torch.autograd.grad(loss(x, y) + x.square().sum(), x, create_graph=True)
    torch.testing.assert_close(first.detach(), gradients(loss, x.detach(), y)[0] + 2 * x.detach())


def test_a_second_derivative_outside_the_loss_is_right() -> None:
    """The loss is linear in what multiplies it."""
    x, y = clouds()
    x.requires_grad_()
    weight = torch.tensor(3.0, dtype=x.dtype, requires_grad=True)
    loss = loss_of("APML")
    (first,) = torch.autograd.grad(weight * loss(x, y), x, create_graph=True)
    (of_weight,) = torch.autograd.grad(first.sum(), weight)
    assert of_weight.item() == pytest.approx(gradients(loss, x.detach(), y)[0].sum().item())
