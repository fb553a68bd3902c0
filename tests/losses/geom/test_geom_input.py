"""What goes into GeomLoss' losses: lengths, weights, order, batches, bad input, engines and backends."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from losses.geom.pairs import EVERY, needs_geomloss, pair

from apml_plugin.errors import BackendError, LossArgumentError, LossValueError
from apml_plugin.losses.geom import Energy, Gaussian, HausdorffDivergence, Laplacian, Sinkhorn
from apml_plugin.losses.geom import engine as engines
from apml_plugin.registry import LOSSES, build_loss

every = pytest.mark.parametrize("loss", EVERY, ids=lambda loss: loss.describe()[:45])


def each_of(loss: torch.nn.Module, **changed: Any) -> torch.nn.Module:
    other = copy.copy(loss)
    for name, value in changed.items():
        setattr(other, name, value)
    return other


@every
def test_padded_equals_unpadded_and_batches_equal_pairs(loss: torch.nn.Module) -> None:
    loss = each_of(loss, reduction="none")
    x, y = pair(12, 15, batch=3)
    x[1, 7:], y[1, 9:] = float("nan"), 1e6
    x.requires_grad_()
    values = loss(x, y, [12, 7, 0], [15, 9, 15])
    values.sum().backward()
    short = x[1:2, :7].detach().requires_grad_()
    alone = loss(short, y[1:2, :9])
    alone.sum().backward()
    assert values[1].item() == pytest.approx(alone.item(), rel=1e-12)
    torch.testing.assert_close(x.grad[1:2, :7], short.grad, rtol=1e-12, atol=0)
    assert not x.grad[1, 7:].any()
    assert values[2].item() == 0
    assert not x.grad[2].any()
    assert values[0].item() == pytest.approx(loss(x[:1], y[:1]).item(), rel=1e-12)
    assert each_of(loss, reduction="mean")(x, y, [12, 7, 0], [15, 9, 15]).item() == pytest.approx(values.mean().item())
    assert loss(torch.rand(0, 3, 3), torch.rand(0, 4, 3)).shape == (0,)


@every
def test_the_order_of_points_does_not_matter(loss: torch.nn.Module) -> None:
    x, y = pair(20, 25)
    mixed = x[:, torch.randperm(20)], y[:, torch.randperm(25)]
    assert loss(*mixed).item() == pytest.approx(loss(x, y).item(), rel=1e-9)


@every
def test_weights(loss: torch.nn.Module) -> None:
    """Even weights are the default, weight 0 is absence, and a point of double weight is that point twice."""
    x, y = pair(6, 8)
    value = loss(x, y).item()
    a, b = torch.full((1, 6), 1 / 6, dtype=x.dtype), torch.full((1, 8), 1 / 8, dtype=x.dtype)
    assert loss(x, y, pred_weights=a[..., None], gt_weights=b).item() == pytest.approx(value, rel=1e-9)
    more = torch.cat([x, torch.rand(1, 2, 3, dtype=x.dtype)], dim=1)
    padded = torch.nn.functional.pad(a, (0, 2))
    fixed = each_of(loss, diameter=5.0) if hasattr(loss, "diameter") else loss
    assert fixed(more, y, pred_weights=padded).item() == pytest.approx(fixed(x, y).item(), rel=1e-9)
    twice = torch.cat([x, x[:, :1]], dim=1)
    heavy = torch.tensor([[2.0, 1, 1, 1, 1, 1]], dtype=x.dtype) / 7
    assert loss(x, y, pred_weights=heavy).item() == pytest.approx(loss(twice, y).item(), rel=1e-9)


@every
def test_far_from_the_origin_and_half_precision(loss: torch.nn.Module) -> None:
    x, y = pair(30, 40)
    x, y = x / 16, y / 16
    near = loss(x.float(), y.float()).item()
    far = loss((x + 512).float(), (y + 512).float()).item()
    exact = loss((x + 512).float().double(), (y + 512).float().double()).item()
    assert far == pytest.approx(exact, rel=1e-3, abs=1e-6)
    halves = x.bfloat16(), y.bfloat16()
    value = loss(*halves)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(halves[0].float(), halves[1].float()).item(), rel=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(x.float(), y.float()).item() == pytest.approx(near, rel=1e-6)


@every
def test_potentials_have_the_shape_of_weights(loss: torch.nn.Module) -> None:
    loss = each_of(loss, potentials=True)
    x, y = pair(7, 9, batch=2)
    f, g = loss(x, y, [7, 4], [9, 9])
    assert (f.shape, g.shape) == ((2, 7), (2, 9))
    assert not f[1, 4:].any()
    assert [part.shape for part in loss(x[:, :0], y)] == [(2, 0), (2, 9)]
    assert [part.shape for part in loss(x[:0], y[:0])] == [(0, 7), (0, 9)]


def test_potentials_are_the_gradient_in_the_weights() -> None:
    x, y = pair(7, 9)
    for loss in (Energy(), Gaussian(blur=0.5), Sinkhorn(blur=0.5), HausdorffDivergence(blur=0.5)):
        a = torch.full((1, 7), 1 / 7, dtype=x.dtype, requires_grad=True)
        (gradient,) = torch.autograd.grad(loss(x, y, pred_weights=a), a)
        f, _ = each_of(loss, potentials=True)(x, y)
        if not isinstance(loss, HausdorffDivergence):  # whose own potential moves with the weights, too
            torch.testing.assert_close(gradient, f)


@every
def test_bad_clouds(loss: torch.nn.Module) -> None:
    x, y = pair(5, 6)
    for value in (float("nan"), float("inf")):
        bad = x.clone()
        bad[0, 3, 1] = value
        with pytest.raises(LossValueError, match=r"pred\[0\] holds NaN or Inf"):
            loss(bad, y)
    with pytest.raises(LossValueError, match="same batch size"):
        loss(x.expand(2, -1, -1), y)
    with pytest.raises(LossArgumentError, match="floating point"):
        loss(x.long(), y)


@every
@pytest.mark.parametrize("side", ["pred", "gt"])
def test_bad_weights(loss: torch.nn.Module, side: str) -> None:
    clouds, n = pair(5, 6, batch=2), 5 if side == "pred" else 6
    even = torch.full((2, n), 1 / n)
    name, half = f"{side}_weights", torch.tensor([[1.0], [0.5]])
    for bad, error, message in (
        (even[:, :4], LossValueError, rf"{name} must have shape \(2, {n}\), one for each point, got \(2, 4\)$"),
        (even - 0.3, LossValueError, rf"{name} must not be negative, got {1 / n - 0.3:g}$"),
        (even * float("nan"), LossValueError, f"{name} holds NaN or Inf$"),
        (even * torch.tensor([[1.0], [0.0]]), LossValueError, rf"{name}\[1\] is 0 for every point"),
        (even.to("meta"), LossValueError, f"{name} is on meta and its points on cpu: move one$"),
        ([0.2] * n, LossArgumentError, rf"{name} must be a floating-point tensor of shape \(B, N\), got list$"),
        (even.long(), LossArgumentError, rf"{name} must be a floating-point tensor of shape .* got torch.int64$"),
    ):
        with pytest.raises(error, match=f"^{message}"):
            loss(*clouds, **{name: bad})
    if isinstance(loss, Sinkhorn | HausdorffDivergence) and loss.reach is None:
        sums = r"0\.5 \(pred\) and 1" if side == "pred" else r"1 \(pred\) and 0\.5"
        with pytest.raises(
            LossValueError, match=rf"^the weights of pair 1 sum to {sums} \(gt\): without reach= .*sum,"
        ):
            loss(*clouds, **{name: even * half})
    else:
        assert torch.isfinite(loss(*clouds, **{name: even * half}))
    with pytest.raises(LossArgumentError, match=r"^ignore_zeros=True and weights cannot be combined"):
        each_of(loss, ignore_zeros=True)(*clouds, **{name: even})


def test_weights_of_padding_do_not_count_and_masses_may_differ_by_rounding() -> None:
    x, y = pair(5, 6, batch=2)
    a = torch.full((2, 5), 0.25)
    a[:, 4], a[1] = float("nan"), 0
    value = Sinkhorn(reduction="none")(x, y, [4, 0], None, a)
    torch.testing.assert_close(value, Sinkhorn(reduction="none")(x[:, :4], y) * torch.tensor([1, 0]))
    even = torch.full((2, 5), 0.2)
    assert torch.isfinite(Sinkhorn()(x, y, pred_weights=even * (1 - 0.9e-3)))
    for factor in (1 - 1.1e-3, 1 + 1.1e-3):
        with pytest.raises(LossValueError, match="of pair 0 sum to"):
            Sinkhorn()(x, y, pred_weights=even * factor)


@pytest.mark.parametrize("cls", [Sinkhorn, HausdorffDivergence])
def test_only_online_computes_costs_again(cls: type) -> None:
    calls: list[tuple[int, ...]] = []

    def cost(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        calls.append((x.shape[1], y.shape[1]))
        return torch.cdist(x, y)

    def count(**options: Any) -> int:
        calls.clear()
        cls(cost=cost, blur=0.3, **options)(*pair(3, 4))
        return len(calls)

    for backend in ("auto", "tensorized"):
        assert count(backend=backend, scaling=0.9) == count(backend=backend, scaling=0.5) <= 6
    assert count(backend="online", scaling=0.9) > count(backend="online", scaling=0.5) > 6


@pytest.mark.parametrize(
    ("cls", "arguments", "error", "message"),
    [
        (Sinkhorn, {"p": 3}, LossValueError, "p=3 must be 1"),
        (Sinkhorn, {"blur": 0}, LossValueError, "blur=0"),
        (Sinkhorn, {"scaling": 1.0}, LossValueError, "scaling=1.0"),
        (Sinkhorn, {"reach": -1}, LossValueError, "reach=-1"),
        (Sinkhorn, {"backend": "keops"}, LossValueError, "'tensorized'"),
        (Sinkhorn, {"cost": 3}, LossArgumentError, "KeOps formula"),
        (
            HausdorffDivergence,
            {"backend": "multiscale"},
            LossValueError,
            "^backend='multiscale': HausdorffDivergence has 'tensorized', 'online' and 'auto'$",
        ),
        (Gaussian, {"blur": "wide"}, LossArgumentError, "blur='wide'"),
        (Laplacian, {"kernel": "k"}, LossArgumentError, "kernel='k'"),
        (Energy, {"potentials": 1}, LossArgumentError, "potentials=1"),
    ],
)
def test_bad_arguments(cls: type, arguments: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        cls(**arguments)


def test_one_spot() -> None:
    x = torch.ones(1, 4, 3)
    assert Sinkhorn()(x, x).item() == 0
    assert HausdorffDivergence()(x, x).item() == 0


def test_own_cost_and_kernel() -> None:
    x, y = pair(6, 7)

    def halved(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x[:, :, None] - y[:, None]).square().sum(dim=-1) / 2

    def gauss(x: torch.Tensor, y: torch.Tensor, blur: float) -> torch.Tensor:
        return torch.exp(-halved(x, y) / blur**2)

    for cls in (Sinkhorn, HausdorffDivergence):
        assert cls(cost=halved, blur=0.3)(x, y).item() == pytest.approx(cls(blur=0.3)(x, y).item(), rel=1e-9)
    assert Energy(kernel=gauss)(x, y).item() == pytest.approx(Gaussian()(x, y).item(), rel=1e-9)
    wrong = r"cost=: the function gave \(1, 7, 6\) for clouds \(1, 6, 3\) and \(1, 7, 3\); it must give \(1, 6, 7\)$"
    with pytest.raises(LossValueError, match=wrong):
        Sinkhorn(cost=lambda x, y: halved(y, x))(x, y)
    with pytest.raises(LossValueError, match=r"kernel=: the function gave"):
        Gaussian(kernel=lambda x, y, blur: halved(y, x))(x, y)


def test_in_training_code() -> None:
    for loss in EVERY:
        assert pickle.loads(pickle.dumps(loss)).describe() == loss.describe()
    assert build_loss({"NAME": "Energy", "backend": "online", "reduction": "none"}).backend == "online"
    for name in ("Sinkhorn", "Energy", "Gaussian", "Laplacian", "HausdorffDivergence"):
        loss = build_loss({"NAME": name} if name == "Energy" else {"NAME": name, "blur": "5e-2"})
        assert LOSSES.get(name) is type(loss)
        x, y = pair(6, 7, batch=2)
        assert torch.isfinite(loss(x, y))


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """As if those were not installed; every other one of the two as if it were."""
    monkeypatch.setattr(engines, "_present", lambda package: package not in packages)
    engines.keops_missing.cache_clear()


@pytest.fixture(autouse=True)
def _forget() -> Any:
    yield
    engines.keops_missing.cache_clear()


def test_without_geomloss(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "geomloss", "pykeops")
    x, y = pair(6, 7)
    for backend in ("auto", "tensorized", "online"):
        assert torch.isfinite(Sinkhorn(backend=backend)(x, y))
    for loss in (Sinkhorn(engine="geomloss"), Gaussian(engine="geomloss"), Sinkhorn(backend="multiscale")):
        with pytest.raises(BackendError, match=r"GeomLoss is not installed: pip install geomloss pykeops"):
            loss(x, y)
    with pytest.raises(BackendError, match=r"pip install geomloss pykeops"):
        Sinkhorn(backend="multiscale", engine="torch")(x, y)


def test_without_pykeops_or_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "pykeops")
    x, y = pair(6, 7)
    for cls in (Energy, Laplacian, Gaussian, Sinkhorn):
        assert torch.isfinite(cls(backend="online")(x, y))
        with pytest.raises(BackendError, match=r"pykeops is not installed: pip install geomloss pykeops"):
            cls(backend="online", engine="geomloss")(x, y)
    without(monkeypatch)
    monkeypatch.setattr(engines.shutil, "which", lambda name: None)
    with pytest.raises(BackendError, match="no C\\+\\+ compiler"):
        Sinkhorn(backend="multiscale")(x, y)


def test_who_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """engine="auto": GeomLoss where it is installed and right."""
    without(monkeypatch)
    monkeypatch.setattr(engines.shutil, "which", lambda name: "/usr/bin/g++")

    def auto(kind: str, n: int = 100, backend: str = "auto", **options: Any) -> tuple[str, str]:
        return engines.choose("auto", backend, kind, n, n, 3, **options)

    for kind in ("sinkhorn", "gaussian", "energy", "laplacian"):
        assert auto(kind) == ("torch", "tensorized")
        assert auto(kind, 6000) == ("geomloss", "online")
    assert auto("sinkhorn", p=1) == ("torch", "tensorized")
    assert auto("sinkhorn", tolerance=1e-6) == ("torch", "tensorized")
    assert auto("sinkhorn", given=lambda x, y: x) == ("torch", "tensorized")
    assert auto("sinkhorn", given="Norm2(X-Y)") == ("geomloss", "online")
    assert auto("sinkhorn", 20_000) == ("geomloss", "multiscale")
    assert auto("sinkhorn", 20_000, p=1) == ("geomloss", "online")
    large = engines.MULTISCALE_FROM  # the number of pairs, as 1 x n clouds
    for n, dimension, chosen in (
        (engines.TENSORIZED_UP_TO, 3, "tensorized"),
        (engines.TENSORIZED_UP_TO + 1, 3, "online"),
        (large, 3, "online"),
        (large + 1, 3, "multiscale"),
        (large + 1, 4, "online"),
    ):
        engine = "torch" if chosen == "tensorized" else "geomloss"
        assert engines.choose("auto", "auto", "sinkhorn", 1, n, dimension) == (engine, chosen)
    assert engines.choose("torch", "auto", "sinkhorn", 1, large + 1, 3) == ("torch", "online")
    assert engines.choose("auto", "auto", "gaussian", 1, large + 1, 3) == ("geomloss", "online")
    for given, tolerance in ((lambda x, y: x, None), (None, 0.1)):
        chosen = engines.choose("auto", "auto", "sinkhorn", 1, large + 1, 3, given=given, tolerance=tolerance)
        assert chosen == ("torch", "online")
    without(monkeypatch, "geomloss")
    assert auto("sinkhorn") == ("torch", "tensorized")
    assert auto("sinkhorn", 20_000) == ("torch", "online")
    with pytest.raises(BackendError, match="KeOps formula"):
        engines.choose("torch", "online", "sinkhorn", 5, 5, 3, given="Norm2(X-Y)")


@pytest.mark.parametrize(
    ("cls", "kind", "deciding"),
    [
        (Sinkhorn, "sinkhorn", {"p": 1, "tolerance": 0.1, "cost": torch.cdist}),
        (Energy, "energy", {"kernel": torch.cdist}),
        (Gaussian, "gaussian", {"kernel": torch.cdist}),
        (HausdorffDivergence, "hausdorff", {}),
    ],
)
def test_what_decides_who_computes(
    cls: type, kind: str, deciding: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(Exception):
        pass

    def choose(*arguments: Any, **options: Any) -> Any:
        raise Asked(arguments, options)

    monkeypatch.setattr(engines, "choose", choose)
    engine = {} if cls is HausdorffDivergence else {"engine": "torch"}
    with pytest.raises(Asked) as caught:
        cls(backend="online", **engine, **deciding)(*pair(5, 6))
    options = {"given" if name in ("cost", "kernel") else name: value for name, value in deciding.items()}
    assert caught.value.args == (("torch", "online", kind, 5, 6, 3), options)


@pytest.mark.parametrize(
    ("engine", "backend", "options", "message"),
    [
        (
            "torch",
            "multiscale",
            {},
            "backend='multiscale' is in GeomLoss only: engine='torch' has 'tensorized' and 'online'",
        ),
        ("torch", "online", {"given": "N"}, "cost='N' is a KeOps formula, for engine='geomloss' only; give a function"),
        (
            "geomloss",
            "online",
            {"tolerance": 0.1},
            "tolerance= is for engine='torch': GeomLoss iterates along its schedule alone",
        ),
        (
            "geomloss",
            "tensorized",
            {"given": "N"},
            "cost='N' is a KeOps formula, for backend='online' or 'multiscale'",
        ),
        (
            "geomloss",
            "online",
            {"given": torch.cdist},
            "GeomLoss' backend='online' takes a KeOps formula, not a function; use engine='torch'",
        ),
        (
            "geomloss",
            "multiscale",
            {"given": "N"},
            "GeomLoss' multiscale backend cannot read a formula alone; use backend='online'",
        ),
    ],
)
def test_what_no_engine_computes(
    engine: str, backend: str, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "geomloss_missing", lambda: None)
    monkeypatch.setattr(engines, "keops_missing", lambda: None)
    with pytest.raises(BackendError) as caught:
        engines.choose(engine, backend, "sinkhorn", 5, 5, 3, **options)
    assert str(caught.value) == message


def test_any_compiler_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """pykeops takes the one in CXX, or g++, clang++, nvcc."""
    for compiler in ("my-c++", "g++", "clang++", "nvcc"):
        without(monkeypatch)
        monkeypatch.setenv("CXX", "my-c++")
        monkeypatch.setattr(engines.shutil, "which", lambda name, there=compiler: name if name == there else None)
        assert engines.keops_missing() is None
    without(monkeypatch)
    monkeypatch.setattr(engines.shutil, "which", lambda name: None)
    assert engines.keops_missing() == (
        "pykeops compiles its formulas and finds no C++ compiler: install g++ or set CXX"
    )
    without(monkeypatch, "pykeops")
    assert engines.keops_missing() == "pykeops is not installed: pip install geomloss pykeops"
    without(monkeypatch, "geomloss")
    assert engines.keops_missing() == "GeomLoss is not installed: pip install geomloss pykeops"


@needs_geomloss
def test_a_failure_inside_geomloss_says_what_to_do() -> None:
    x, y = pair(5, 6)
    with pytest.raises(BackendError, match=r"GeomLoss failed on sinkhorn.*engine='torch'"):
        Sinkhorn(engine="geomloss", backend="tensorized", cost=lambda x, y: x @ x.new_zeros(2))(x, y)
