"""The generated data: MM-Fi's layout, the same at every run, and something in the signal to learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from apml_plugin.studies.demo import mmfi


def test_layout(data: Path) -> None:
    action = data / "E01" / "S01" / "A01"
    assert sorted(path.name for path in (action / "lidar").iterdir()) == [
        f"frame{n:03d}.bin" for n in (1, 61, 121, 181, 241)
    ]
    cloud = np.fromfile(action / "lidar" / "frame061.bin").reshape(-1, 3)
    assert 40 <= len(cloud) <= 60
    assert (cloud[:, 0] >= 0).all()
    csi = loadmat(action / "wifi-csi" / "frame061.mat")
    assert csi["CSIamp"].shape == csi["CSIphase"].shape == (3, 114, 10)
    assert np.isfinite(csi["CSIamp"]).all()
    assert (csi["CSIamp"] >= 0).all()
    depth = np.asarray(Image.open(action / "depth" / "frame061.png")).astype(int)
    assert depth.max() < 5000
    assert depth.max() == pytest.approx(1000 * cloud[:, 0].max(), abs=400)
    assert np.load(action / "ground_truth.npy").shape == (297, 17, 3)


def test_the_same_seed_is_the_same_data(data: Path, tmp_path: Path) -> None:
    mmfi.write(tmp_path, ["S02"], step=60, points=(40, 60))
    one, other = (root / "E01/S02/A01/lidar/frame121.bin" for root in (data, tmp_path))
    assert one.read_bytes() == other.read_bytes()


def test_scenes() -> None:
    assert [mmfi.scene_of(s) for s in ("S01", "S10", "S11", "S40")] == ["E01", "E01", "E02", "E04"]
    for wrong in ("S00", "S41", "A01", "x"):
        with pytest.raises(ValueError, match="S01 to S40"):
            mmfi.scene_of(wrong)


def test_the_signal_tells_the_position() -> None:
    """The frame with the nearest signal has the trunk nearly where this one has it."""
    rng = np.random.default_rng(0)
    walk = mmfi.Walk.drawn(rng)
    frames = np.arange(0, 290, 6)
    signal = np.stack([np.abs(walk.csi(int(f), rng)).ravel() for f in frames])
    place = np.stack([walk.body(int(f))[0][0] for f in frames])
    signals = np.linalg.norm(signal[:, None] - signal[None], axis=2) + np.eye(len(frames)) * 1e9
    places = np.linalg.norm(place[:, None] - place[None], axis=2)
    nearest = places[np.arange(len(frames)), signals.argmin(axis=1)]
    assert nearest.mean() < 0.1 * places.mean()
