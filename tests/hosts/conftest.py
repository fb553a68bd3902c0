"""A small PoinTr-style codebase, written anew for every test that uses it."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

_REGISTRY = '''
class Registry:
    """NAME -> class; what a constructor raises is raised again as the same type with one string."""

    def __init__(self, name):
        self.name = name
        self.classes = {}

    def register_module(self):
        def put(cls):
            self.classes[cls.__name__] = cls
            return cls
        return put

    def build(self, *args, **kwargs):
        return self._make(*args, **kwargs)

    def _make(self, config):
        cls = self.classes[config["NAME"]]
        try:
            return cls(config)
        except Exception as error:
            raise type(error)(f"{cls.__name__}: {error}")
'''

_BUILD = """
from {pkg}utils import registry

MODELS = registry.Registry("models")


def make_model(config, **extra):
    return MODELS.build(config, **extra)
"""

_DATASETS = """
from {pkg}utils import registry

DATASETS = registry.Registry("datasets")


def make_dataset(config):
    return DATASETS.build(config)


@DATASETS.register_module()
class PCN:
    def __init__(self, config):
        self.config = config
"""

_CONFIG = """
import yaml
from easydict import EasyDict


def merge(into, new):
    for key, value in new.items():
        if key == "_base_":
            with open(value) as stream:
                into[key] = merge(EasyDict(), yaml.load(stream, Loader=yaml.FullLoader))
        elif isinstance(value, dict):
            into[key] = merge(EasyDict(), value)
        else:
            into[key] = value
    return into


def load_config(path):
    with open(path) as stream:
        return merge(EasyDict(), yaml.load(stream, Loader=yaml.FullLoader))
"""

_CHAMFER = """
import torch
from torch import nn


class ChamferDistanceL2(nn.Module):
    def forward(self, a, b):
        d = torch.cdist(a, b)
        return d.min(2)[0].square().mean() + d.min(1)[0].square().mean()


class ChamferDistanceL1(nn.Module):
    def forward(self, a, b):
        d = torch.cdist(a, b)
        return (d.min(2)[0].mean() + d.min(1)[0].mean()) / 2


class ChamferDistanceL1_PM(nn.Module):
    def forward(self, a, b):
        return torch.cdist(a, b).min(2)[0].mean()


class GriddingLoss(nn.Module):
    def forward(self, a, b):
        return a.sum() * 0
"""

_MODEL = """
import torch
from torch import nn

from .build import MODELS
from {pkg}extensions.chamfer import ChamferDistanceL1, ChamferDistanceL1_PM, ChamferDistanceL2, GriddingLoss


@MODELS.register_module()
class {name}(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.points = config.num_pred
        self.net = nn.Linear(3, 3 * self.points)
        self.build_loss_func()

    def build_loss_func(self):
{build}

    def get_loss(self, ret, gt{epoch}):
{loss}

    def forward(self, xyz):
        fine = self.net(xyz.mean(1)).view(len(xyz), -1, 3)
{forward}
"""

_TWO = "        return self.loss_func(ret[0], gt), self.loss_func(ret[1], gt)"
_L2 = "        self.loss_func = ChamferDistanceL2()"
_PAIR = "        return fine[:, ::4].contiguous(), fine"

BODIES = {
    "PCN": (_L2, _TWO, _PAIR),
    "FoldingNet": (_L2, _TWO, "        return fine, fine"),
    "TopNet": (
        _L2,
        _TWO,
        "        out = torch.tanh(fine.transpose(1, 2))\n"
        "        return out.transpose(1, 2).contiguous(), out.transpose(1, 2).contiguous()",
    ),
    "PoinTr": (
        "        self.loss_func = ChamferDistanceL1()",
        _TWO,
        "        return fine[:, ::4].contiguous(), torch.cat([fine, xyz], 1)",
    ),
    "AdaPoinTr": (
        "        self.loss_func = ChamferDistanceL1()",
        "        coarse, noisy, clean, fine = ret\n"
        "        denoise = self.loss_func(clean, noisy) * 0.5\n"
        "        return denoise, self.loss_func(coarse, gt) + self.loss_func(fine, gt)",
        "        return fine[:, ::4].contiguous(), fine[:, 1:] + 0.1, fine[:, 1:], fine",
    ),
    "GRNet": (
        "        self.loss_func_1 = ChamferDistanceL2()\n        self.loss_func_2 = GriddingLoss()",
        "        coarse = self.loss_func_1(ret[0], gt) + self.loss_func_2(ret[0], gt) * 0.0\n"
        "        return coarse, self.loss_func_1(ret[1], gt)",
        _PAIR,
    ),
    "SnowFlakeNet": (
        "        self.loss_func_CD = ChamferDistanceL1()\n        self.loss_func_PM = ChamferDistanceL1_PM()",
        "        partial = ret[-1]\n"
        "        first = self.loss_func_CD(ret[0], gt)\n"
        "        second = self.loss_func_CD(ret[1], gt)\n"
        "        third = self.loss_func_CD(ret[2], gt)\n"
        "        last = self.loss_func_CD(ret[3], gt)\n"
        "        return (first + second + third + self.loss_func_PM(partial, ret[3])) * 1000, last * 1000",
        "        return fine[:, ::8], fine[:, ::4], fine[:, ::2], fine, xyz",
    ),
    "Fork": (  # a class nobody has heard of, with three calls in an order of its own
        "        self.criterion = ChamferDistanceL2()\n        self.cover = ChamferDistanceL1_PM()",
        "        last = self.criterion(ret[2], gt)\n"
        "        return self.criterion(ret[0], gt), self.criterion(ret[1], gt) + last",
        "        return fine[:, ::4], fine[:, ::2], fine",
    ),
}


def write_host(root: Path, pkg: str = "") -> Path:
    """The codebase's files under `root`; `pkg` (such as "mini3.") prefixes its absolute imports."""
    texts = {
        "main.py": "import models\n",
        "utils/registry.py": _REGISTRY,
        "utils/config.py": _CONFIG.rstrip("\n"),  # no newline at the end, as in the real one
        "datasets/build.py": _DATASETS,
        "extensions/chamfer.py": _CHAMFER,
        "models/build.py": _BUILD,
        "models/__init__.py": "".join(f"from . import {name}\n" for name in BODIES) + "from .build import make_model\n",
        **{
            f"models/{name}.py": _MODEL.format(
                pkg="{pkg}", name=name, build=b, loss=g, forward=f, epoch="" if name == "Fork" else ", epoch=0"
            )
            for name, (b, g, f) in BODIES.items()
        },
    }
    for file, text in texts.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{pkg}", pkg).lstrip("\n"))
    for package in ("utils", "datasets", "extensions"):
        (root / package / "__init__.py").touch()
    return root


_COUNT = itertools.count()


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The codebase on disk, as a clone lies there."""
    return write_host(tmp_path / "clone")


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Callable[[str], ModuleType]]]:
    """(root of the codebase, import function): modules of this test's own copy, under a package of its own."""
    name = f"apml_mini_host_{next(_COUNT)}"
    root = write_host(tmp_path / name, pkg=f"{name}.")
    (root / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield root, lambda module: importlib.import_module(f"{name}.{module}")
    for loaded in [key for key in sys.modules if key.startswith(name)]:
        del sys.modules[loaded]
