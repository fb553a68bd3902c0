"""The composite trains a decoder's outputs and the small codec of configs/dpcc; with CompressAI where it is there."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from losses.dpcc.slow import outputs
from torch import Tensor, nn

from apml_plugin.registry import build_loss

FOLDER = Path(__file__).resolve().parents[3] / "configs" / "dpcc"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dpcc_codec", FOLDER / "codec.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Prior(nn.Module):
    """A logistic entropy model: noise in training, rounding otherwise; likelihoods are masses of unit cells."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        coded = x + torch.rand_like(x) - 0.5 if self.training else x.round()
        scale = self.scale.exp()
        mass = torch.sigmoid((coded + 0.5) / scale) - torch.sigmoid((coded - 0.5) / scale)
        return coded, mass.clamp_min(1e-9)


@pytest.mark.parametrize("distortion", [None, {"NAME": "APML", "reduction": "mean"}])
def test_some_steps_of_sgd_lower_the_loss(distortion: Any) -> None:
    """Every trained output of a decoder, free to move; each term alone falls too."""
    given = outputs(batch=1, sizes=(60, 20, 8), latent=3, given=(7, 21, 63))
    names = ("pred_xyzs", "pred_unums", "pred_mdis")
    leaves = [value.requires_grad_() for name in names for value in given[name]]
    raw = [torch.zeros(1, 8, 3, dtype=torch.float64, requires_grad=True)]
    leaves += [given["pred_latent_xyzs"].requires_grad_(), given["features"].requires_grad_(), *raw]
    loss = build_loss({"NAME": "DPCC", "distortion": distortion, "density_coe": 1e-2, "pts_num_coe": 1e-3,
                       "latent_xyzs_coe": 1, "normal_coe": 1, "bpp_lambda": 0.1})  # fmt: skip
    optimiser = torch.optim.SGD(leaves, lr=0.1)
    log = []
    for _ in range(60):
        terms = loss.terms({**given, "likelihoods": torch.sigmoid(raw[0])})
        optimiser.zero_grad()
        sum(terms.values()).backward()  # type: ignore[union-attr]
        optimiser.step()
        log.append({name: value.item() for name, value in terms.items()})
    assert list(log[0]) == ["distortion", "density", "points_number", "latent", "normal", "rate"]
    for name, value in log[0].items():
        assert log[-1][name] < value, name
    assert sum(log[-1].values()) < 0.8 * sum(log[0].values())


@pytest.mark.parametrize("distortion", [None, "APML"])
def test_the_examples_codec_trains(example: ModuleType, distortion: str | None) -> None:
    codec = example.Codec(Prior)
    log = example.train(
        codec, example.clouds(batch=2, points=90), build_loss({"NAME": "DPCC", "distortion": distortion}), 60
    )
    assert set(log[0]) == {"distortion", "density", "points_number", "latent", "rate", "total"}
    assert log[-1]["total"] < 0.9 * log[0]["total"]
    assert log[-1]["distortion"] < log[0]["distortion"]


def test_the_examples_yaml_builds() -> None:
    loss = build_loss(yaml.safe_load((FOLDER / "dpcc.yaml").read_text())["loss"])
    published = build_loss("DPCC").options()
    changed = {name for name, value in loss.options().items() if value != published[name]}
    assert changed == {"distortion", "layout"}


@pytest.mark.skipif(not os.environ.get("APML_COMPRESSAI"), reason="needs CompressAI, and APML_COMPRESSAI=1")
def test_compressai_pays_what_its_likelihoods_promise(example: ModuleType) -> None:
    from compressai.entropy_models import EntropyBottleneck

    codec, cloud = example.Codec(EntropyBottleneck), example.clouds()
    _, likelihoods = codec.features_bottleneck(torch.randn(2, 8, 10))
    price = build_loss("Rate")(likelihoods, points=20)
    price.backward()
    assert codec.features_bottleneck.quantiles.grad is None  # the rate does not train them, the auxiliary loss does
    codec.zero_grad()
    log = example.train(codec, cloud, build_loss("DPCC"), 300)
    for name in ("total", "rate", "distortion", "auxiliary"):
        assert log[-1][name] < 0.9 * log[0][name], name
    promised, written = example.coded_bits(codec, cloud)
    assert promised <= written * 1.01
    assert written < 1.15 * promised  # the coder's heads of a few bytes for each cloud and part
