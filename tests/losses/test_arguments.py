"""Every argument of every loss: its default, kept as given, rejected by name, handed on to what computes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses import ChamferL2
from apml_plugin.losses.apml import APML, APMLSparse
from apml_plugin.losses.base import DECLARED, arguments_of
from apml_plugin.losses.chamfer import ChamferL1, OneSidedChamfer
from apml_plugin.losses.emd import EMD, ApproximateEMD
from apml_plugin.losses.geom import engine

OPTIONS = [
    (name, argument)
    for name, cls in DECLARED.items()
    for argument, p in arguments_of(cls).items()
    if name != "Schedule"
]


def distance(x: torch.Tensor, y: torch.Tensor, **_: Any) -> torch.Tensor:
    return torch.cdist(x, y)


CHOICES: dict[str, Any] = {
    "axes": ((0.0, 2.0), (-1.0, 1.0)),
    "backend": "online",
    "blur": 0.3,
    "cluster_scale": 0.2,
    "cost": distance,
    "diameter": 3.0,
    "direction": "pred_to_gt",
    "distortion": ChamferL2(),
    "engine": "torch",
    "kernel": distance,
    "layout": "B3N",
    "norm": "L2",
    "neighbours": 5,
    "normalise": "sum",
    "passes": 9,
    "restarts": 3,
    "seed": 11,
    "p": 1,
    "reach": 0.7,
    "reduction": "none",
    "tolerance": 0.1,
    "threshold": 1e-6,
    "ties": "share",
    "truncate": 2.5,
    "unequal": "smaller",
    "weights": "softmax",
}


def other(name: str, argument: str) -> Any:
    """A valid value besides the default."""
    default = arguments_of(DECLARED[name])[argument].default
    if isinstance(default, bool):
        return not default
    if argument == "axes" and name == "VolumesSinkhorn":
        return (*CHOICES["axes"], (0.0, 1.0))
    if argument == "backend" and issubclass(DECLARED[name], APML):
        return "dense"
    if argument == "ties" and default == "share":
        return "uniform"
    return CHOICES[argument] if argument in CHOICES else type(default)(default / 2)


def shown_as(name: str, argument: str) -> str:
    return "p_min" if argument == "min_softmax_value" else argument


@pytest.mark.parametrize("name", sorted({name for name, _ in OPTIONS}))
def test_arguments_left_out_are_those_of_the_signature(name: str) -> None:
    expected = {argument: p.default for argument, p in arguments_of(DECLARED[name]).items()}
    expected.pop("min_softmax_value", None)
    loss = DECLARED[name]()
    assert loss.options() == expected
    assert ("check_finite" in loss.describe()) is False


@pytest.mark.parametrize(("name", "argument"), OPTIONS)
def test_an_argument_is_kept_and_changes_no_other(name: str, argument: str) -> None:
    cls, value = DECLARED[name], other(name, argument)
    loss = cls(**{argument: value})
    assert loss.options() == {**cls().options(), shown_as(name, argument): value}
    assert f"{shown_as(name, argument)}=" in loss.describe()


@pytest.mark.parametrize(("name", "argument"), OPTIONS)
def test_an_argument_of_the_wrong_type_is_named(name: str, argument: str) -> None:
    with pytest.raises(
        (LossArgumentError, LossValueError), match=rf"(^|: ){shown_as(name, argument)}=\[None\] must be"
    ):
        DECLARED[name](**{argument: [None]})


@pytest.mark.parametrize("cls", [APML, APMLSparse, ChamferL1, ChamferL2, OneSidedChamfer, EMD, ApproximateEMD])
def test_every_argument_reaches_the_function_that_computes(cls: type, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {argument: other(cls.__name__, argument) for argument in arguments_of(cls)}
    module = inspect.getmodule(cls)
    (function,) = {"apml_loss", "chamfer_distance", "earth_movers_distance"} & set(vars(module))
    signature = inspect.signature(getattr(module, function))
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(module, function, lambda *a, **k: calls.append(signature.bind(*a, **k).arguments))
    pred, gt, pred_lengths, gt_lengths = object(), object(), [1], [2]
    cls(**given)(pred, gt, pred_lengths, gt_lengths)
    clouds = {"pred": pred, "gt": gt, "pred_lengths": pred_lengths, "gt_lengths": gt_lengths}
    implied = (
        {"norm": getattr(cls, "norm", None), "direction": "both"} if issubclass(cls, ChamferL1 | ChamferL2) else {}
    )
    implied |= {"tolerance": None} if cls is EMD else {}
    assert calls == [{**clouds, **implied, **given}]


@pytest.mark.parametrize("name", ["Sinkhorn", "Energy", "Gaussian", "Laplacian"])
@pytest.mark.parametrize("backend", ["tensorized", "online"])
def test_every_argument_reaches_geomloss(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As arguments of SamplesLoss, with the joint diameter of the pair where none is given."""
    made: list[Any] = []

    class SamplesLoss:
        def __init__(self, kind: str, **parameters: Any) -> None:
            made.append((kind, parameters))

        def __call__(self, a: torch.Tensor, x: torch.Tensor, b: torch.Tensor, y: torch.Tensor) -> Any:
            made.append((a, x, b, y))
            return torch.full((1, len(x)), 2.0), torch.full((1, len(y)), 3.0)

    monkeypatch.setattr(engine, "_present", lambda package: True)
    monkeypatch.setattr(engine, "_package", lambda: type("geomloss", (), {"SamplesLoss": SamplesLoss}))
    monkeypatch.setattr(engine, "keops_missing", lambda: None)
    names = {"p", "blur", "truncate", "diameter", "cluster_scale", "debias", "scaling"} & set(
        arguments_of(DECLARED[name])
    )
    given = {argument: other(name, argument) for argument in names}
    x, y = torch.tensor([[[0.0, 0, 0], [3, 0, 0]]]), torch.tensor([[[0.0, 4, 0], [1, 1, 0], [2, 2, 0]]])
    f, g = DECLARED[name](**given, potentials=True, engine="geomloss", backend=backend)(x, y)
    assert (f.tolist(), g.tolist()) == ([[2.0, 2.0]], [[3.0, 3.0, 3.0]])
    rest = {"p": 2, "reach": None, "cost": None} if name == "Sinkhorn" else {"kernel": None}
    if name == "Energy":
        rest |= {"blur": 0.05, "truncate": 5, "cluster_scale": None, "diameter": 5.0}
    assert made[0] == (name.lower(), {**rest, **given, "backend": backend, "potentials": True})
    a, at_x, b, at_y = made[1]
    assert (a.tolist(), b.tolist()) == ([0.5, 0.5], [pytest.approx(1 / 3)] * 3)
    centre = (x[0].mean(0) + y[0].mean(0)) / 2
    torch.testing.assert_close((at_x, at_y), (x[0] - centre, y[0] - centre))
    made.clear()
    DECLARED[name](potentials=True, engine="geomloss", backend=backend)(x, y)
    assert made[0][1]["diameter"] == 5.0
    DECLARED[name](potentials=True, engine="geomloss", backend=backend)(x[:, :1], x[:, :1])
    assert made[2][1]["diameter"] == 0.05  # one spot: the blur
