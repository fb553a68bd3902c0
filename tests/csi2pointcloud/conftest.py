"""A small codebase of our own with CSI2PointCloud's structure, and its data, on disk.

Other names than the real one's throughout: it is to be known by what it does. Its reader keeps clouds of different
sizes, so its collate pads with zeros.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from apml_plugin.studies.demo import mmfi

LOSS = """\
import torch
from torch import nn


def both_ways(a, b):
    distances = torch.cdist(a, b)
    return (distances.amin(2).mean(1) + distances.amin(1).mean(1)).mean()


class CloudLoss(nn.Module):
    def __init__(self, chamfer_weight=1.0, regularization_weight=0.1):
        super().__init__()
        self.chamfer_weight = chamfer_weight
        self.regularization_weight = regularization_weight

    def forward(self, predicted, truth, features=None):
        near = both_ways(predicted, truth)
        if features is None:
            return near
        identity = torch.eye(features.shape[1])
        off = torch.linalg.matrix_norm(features @ features.transpose(1, 2) - identity).mean()
        return self.chamfer_weight * near + self.regularization_weight * off
"""

NET = """\
import torch
from torch import nn


class CloudNet(nn.Module):
    def __init__(self, width, points, num_encoder_layers=1):
        super().__init__()
        self.width, self.points = width, points
        layers = [nn.Linear(3 * 114 * 2 * 10, width)] + [nn.Linear(width, width) for _ in range(num_encoder_layers - 1)]
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.last = nn.Linear(width, 3 * points)

    def forward(self, csi):
        x = csi.flatten(1)
        for layer in self.encoder["layers"]:
            x = torch.tanh(layer(x))
        return self.last(x).view(len(csi), self.points, 3), x.view(len(csi), 4, -1)
"""

READER = """\
import os

import numpy as np
import torch
from scipy.io import loadmat
from torch.utils.data import DataLoader, Dataset


class Frames(Dataset):
    def __init__(self, root, part, every):
        self.paths = [
            (os.path.join(root, "E01", subject, action), frame + 1)
            for subject in part["subjects"]
            for action in part["actions"]
            for frame in range(0, 297, every)
        ]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        folder, frame = self.paths[index]
        csi = loadmat(f"{folder}/wifi-csi/frame{frame:03d}.mat")
        cloud = np.fromfile(f"{folder}/lidar/frame{frame:03d}.bin").reshape(-1, 3)
        both = np.stack((csi["CSIamp"], csi["CSIphase"]), axis=2)
        return torch.tensor(both, dtype=torch.float32), torch.tensor(cloud, dtype=torch.float32)


def make_dataset(root, config, every=1, points=100):
    parts = config[config["split_to_use"]]
    return Frames(root, parts["train_dataset"], every), Frames(root, parts["val_dataset"], every)


def gather(batch):
    clouds = torch.nn.utils.rnn.pad_sequence([cloud for _, cloud in batch], batch_first=True)
    return {"input_wifi-csi": torch.stack([csi for csi, _ in batch]), "input_lidar": clouds}


def make_loader(data, is_training, generator, batch_size):
    return DataLoader(data, batch_size, shuffle=is_training, generator=generator, collate_fn=gather)
"""

TRAIN = '''\
"""Trains; run from scripts/."""

import os
import sys

import numpy as np
import torch
import yaml

sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

from src.nets.net import CloudNet
from src.reader.frames import make_dataset, make_loader
from src.terms.terms import CloudLoss, both_ways


def fit(net, batches, criterion, optimizer, epoch):
    net.train()
    values = []
    for batch in batches:
        csi = batch["input_wifi-csi"]
        cloud = batch["input_lidar"]
        csi = (csi - csi.mean()) / csi.std()
        cloud = (cloud - cloud.mean()) / cloud.std()
        optimizer.zero_grad()
        points, features = net(csi)
        value = criterion(points, cloud, features)
        value.backward()
        optimizer.step()
        values.append(value.item())
    return np.mean(values)


def validate(net, batches, criterion):
    net.eval()
    values = []
    with torch.no_grad():
        for batch in batches:
            csi, cloud = batch["input_wifi-csi"], batch["input_lidar"]
            points, features = net((csi - csi.mean()) / csi.std())
            values.append(criterion(points, (cloud - cloud.mean()) / cloud.std(), features).item())
    return np.mean(values)


def start():
    settings_file = "../data/configurations/settings.yaml"
    data_folder = "/nowhere/at/all"
    with open(settings_file) as stream:
        settings = yaml.load(stream, Loader=yaml.FullLoader)
    print("data in", data_folder)
    training, validation = make_dataset(data_folder, settings, every=60, points=64)
    generator = torch.manual_seed(settings["init_rand_seed"])
    batches = make_loader(training, is_training=True, generator=generator, **settings["train_loader"])
    held_out = make_loader(validation, is_training=False, generator=generator, **settings["validation_loader"])
    net = CloudNet(width=16, points=64, num_encoder_layers=2)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    criterion = CloudLoss(chamfer_weight=0.85, regularization_weight=0.15)
    rounds = 3
    for epoch in range(rounds):
        train = fit(net=net, batches=batches, criterion=criterion, optimizer=optimizer, epoch=epoch)
        value = validate(net, held_out, criterion)
        print(f"round {epoch + 1}/{rounds}: train {train:.6f} validation {value:.6f}")
        state = {"epoch": epoch + 1, "model_state_dict": net.state_dict(), "loss": value}
        torch.save(state, "../models/last.pth")
    torch.save(net.state_dict(), "../models/weights.pth")


if __name__ == "__main__":
    start()
'''

TEST = """\
import a_package_nobody_has
import torch
from src.nets.net import CloudNet
from src.reader.frames import make_dataset, make_loader


def main():
    make_dataset("/path/to/data", {}, every=60, frames=3)
    net = CloudNet(width=32, points=64, num_encoder_layers=3)
    net.load_state_dict(torch.load("../models/last.pth")["model_state_dict"])
"""

SETTINGS = """\
split_to_use: manual_split
manual_split:
  train_dataset: {subjects: [S01], actions: [A01]}
  val_dataset: {subjects: [S02], actions: [A01]}
init_rand_seed: 0
train_loader: {batch_size: 3}
validation_loader: {batch_size: 2}
"""

FILES = {
    "scripts/train.py": TRAIN,
    "scripts/try_it.py": TEST,
    "src/__init__.py": "",
    "src/terms/terms.py": LOSS,
    "src/nets/net.py": NET,
    "src/reader/frames.py": READER,
    "data/configurations/settings.yaml": SETTINGS,
}


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The codebase, with a folder models/ to save into."""
    root = tmp_path / "clone"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "models").mkdir()
    return root


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two subjects, every 60th frame, clouds of 40 to 60 points."""
    root = tmp_path_factory.mktemp("mmfi")
    assert mmfi.write(root, ["S01", "S02"], step=60, points=(40, 60)) == 10
    return root


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], ModuleType]]:
    """Imports a host's script by path, with the path and the modules as they were afterwards."""
    known = set(sys.modules)

    def import_script(path: Path) -> ModuleType:
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.chdir(path.parent)
        spec = importlib.util.spec_from_file_location("csi_script", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield import_script
    for name in set(sys.modules) - known:
        if name.partition(".")[0] == "src":
            del sys.modules[name]
