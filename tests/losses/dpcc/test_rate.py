"""Bits per point from any entropy model's likelihoods."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from losses.dpcc.slow import outputs

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.losses import DPCCOutputs, Rate
from apml_plugin.losses.dpcc import bits
from apml_plugin.registry import build_loss

HALVES = torch.full((2, 3, 4), 0.5)


def test_the_blogs_formula_by_hand() -> None:
    """R = -sum log2 p, over the points, times lambda: 24 latents of one bit, 12 of two, for 10 points."""
    given = [HALVES, torch.full((1, 12), 0.25)]
    assert bits(given) == 48
    assert Rate(bpp_lambda=0.5)(given, points=10).item() == pytest.approx(0.5 * 4.8)
    assert Rate()(given, 10).item() == pytest.approx(1e-3 * 4.8)


def test_a_quantised_normal_costs_its_entropy() -> None:
    """Likelihoods are the mass of a cell, CDF(z + 1/2) - CDF(z - 1/2): their mean bits are the entropy."""
    z = (3 * torch.randn(200_000, dtype=torch.float64)).round()
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 3.0)
    likelihoods = normal.cdf(z + 0.5) - normal.cdf(z - 0.5)
    entropy = 0.5 * math.log2(2 * math.pi * math.e * 9)
    assert (bits(likelihoods) / len(z)).item() == pytest.approx(entropy, rel=5e-3)


@pytest.mark.parametrize(
    "likelihoods", [HALVES, [HALVES], (HALVES,), {"y": HALVES}, {"y": [HALVES[:1], HALVES[1:]]}, {"y": {"z": HALVES}}]
)
def test_every_form_in_which_codecs_give_them(likelihoods: Any) -> None:
    assert Rate(1.0)(likelihoods, points=6) == 4
    cloud = torch.rand(2, 3, 3)
    for given in ({"gt_xyzs": [cloud], "likelihoods": likelihoods}, DPCCOutputs([cloud], likelihoods=likelihoods)):
        assert Rate(1.0)(given) == 4
    assert build_loss({"NAME": "Rate", "bpp_lambda": 2})({"likelihoods": likelihoods}, 6) == 8


def test_gradients() -> None:
    p = (0.1 + 0.8 * torch.rand(2, 5, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: Rate(1.0)({"y": p}, points=3), (p,))


def test_certain_latents_cost_nothing() -> None:
    assert Rate()(torch.ones(2, 3), points=1) == 0
    assert Rate()(torch.ones(0), points=1) == 0


def test_half_precision_is_summed_in_float32() -> None:
    assert bits(torch.full((100_000,), 0.5, dtype=torch.float16)) == 100_000


def test_points_are_those_that_are_valid() -> None:
    given = {**outputs(batch=2), "gt_lengths": [[100, 50], None, None]}
    expected = float(bits(given["likelihoods"])) / 150
    assert Rate(1.0)(given).item() == pytest.approx(expected)


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1.0001, math.nan, math.inf])
def test_numbers_that_are_no_probabilities(wrong: float) -> None:
    likelihoods = torch.full((4,), 0.5)
    likelihoods[2] = wrong
    with pytest.raises(LossValueError, match=r"likelihoods\['y'\] holds 1 of 4 numbers outside \(0, 1\]"):
        Rate()({"y": likelihoods}, points=2)


@pytest.mark.parametrize(
    ("given", "points", "message"),
    [
        (HALVES, None, "^Rate needs likelihoods .*; got no points$"),
        (HALVES, 0, "^points=0 must be 1 or more: the rate is per point$"),
        (HALVES, 2.5, "points=2.5 must be a whole number"),
        (None, 5, "^Rate needs likelihoods .*; got no likelihoods$"),
        ({}, 5, "^likelihoods is empty: give the tensor that the entropy model returns"),
        ({"y": 0.5}, 5, r"likelihoods\['y'\] must be a floating-point torch.Tensor, got float"),
        ([torch.ones(3, dtype=torch.int64)], 5, r"^likelihoods\[0\] must be a floating-point .* got torch.int64$"),
        (torch.rand(2, 5, 3), torch.rand(2, 5, 3), "^Rate needs likelihoods .*; got two clouds$"),
        ({"gt_xyzs": [torch.rand(2, 5, 3)]}, None, "likelihoods is missing"),
        ({"likelihoods": HALVES}, None, "gt_xyzs is missing"),
    ],
)
def test_bad_input(given: Any, points: Any, message: str) -> None:
    with pytest.raises((LossArgumentError, LossValueError), match=message):
        Rate()(given, points)
