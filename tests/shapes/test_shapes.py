"""Generated shapes: deterministic, normalised, uniform by area, and seen from one side."""

import json

import numpy as np
import pytest

from apml_plugin.shapes import write_dataset
from apml_plugin.shapes.families import FAMILIES, camera, make_shape, visible_from
from apml_plugin.shapes.solids import Box, Cone, Ellipsoid, Torus, sample_surface


@pytest.mark.parametrize("family", FAMILIES)
def test_same_seed_same_shape_in_shapenets_frame(family):
    cloud = make_shape(family, 3, 1500)
    assert cloud.shape == (1500, 3)
    assert cloud.dtype == np.float32
    assert np.array_equal(cloud, make_shape(family, 3, 1500))
    assert not np.array_equal(cloud, make_shape(family, 4, 1500))
    low, high = cloud.min(0), cloud.max(0)
    assert np.abs(low + high).max() < 1e-5
    assert np.linalg.norm(high - low) == pytest.approx(1, abs=1e-5)


SOLIDS = [
    Box((0.1, 0.2, 0.3), (1, 2, 3), 0.4),
    Cone((0, 0, 0), (1, 1, 1), 0.5, 0.2),
    Ellipsoid((1, 0, 0), (0.5, 1, 2)),
    Torus((0, 1, 0), (1, 0, 1), 1, 0.3),
]


@pytest.mark.parametrize("solid", SOLIDS)
def test_samples_lie_on_the_surface(solid):
    points = solid.sample(np.random.default_rng(0), 2000)
    centre = points.mean(0) if not isinstance(solid, Torus) else points + 0.01 * (points - np.array(solid.centre))
    assert not solid.contains(points).any()
    if not isinstance(solid, Torus):
        inwards = points + 1e-3 * (centre - points)
        assert solid.contains(inwards).mean() > 0.99


def test_sampling_is_uniform_by_area():
    rng = np.random.default_rng(1)
    box = Box((0, 0, 0), (1, 2, 3)).sample(rng, 60_000)
    assert (np.abs(box[:, 0]) > 0.4999).mean() == pytest.approx(12 / 22, abs=0.01)
    cone = Cone((0, 0, 0), (0, 1, 0), 1, 0).sample(rng, 60_000)
    side = cone[cone[:, 1] > 1e-9]
    assert len(side) / 60_000 == pytest.approx(2**0.5 / (1 + 2**0.5), abs=0.01)
    assert (side[:, 1] > 0.5).mean() == pytest.approx(0.25, abs=0.01)  # a quarter of the side is in the upper half
    long = Ellipsoid((0, 0, 0), (1, 1, 3)).sample(rng, 60_000)
    # Area of a prolate spheroid between heights: 2 pi a c^2 times the integral of sqrt(1 - e^2 t^2), t = z / c.
    t = np.linspace(0, 1, 10_001)
    band = np.sqrt(1 - (1 - 1 / 9) * t**2)
    share = np.trapezoid(band[t <= 0.5], t[t <= 0.5]) / np.trapezoid(band, t)
    assert (np.abs(long[:, 2]) < 1.5).mean() == pytest.approx(share, abs=0.01)


def test_points_inside_another_solid_are_left_out():
    solids = [Box((0, 0, 0), (1, 1, 1)), Box((0.5, 0, 0), (1, 1, 1))]
    points = sample_surface(solids, np.random.default_rng(0), 1000)
    assert len(points) == 1000
    assert not any(solid.contains(points).any() for solid in solids)


def test_the_far_side_is_hidden():
    rng = np.random.default_rng(0)
    sphere = rng.normal(size=(8192, 3))
    sphere = (0.28 * sphere / np.linalg.norm(sphere, axis=1, keepdims=True)).astype(np.float32)
    direction = camera(rng)
    height = sphere @ direction / 0.28
    seen = visible_from(sphere, direction)
    assert seen[height > 0.5].mean() > 0.95
    assert seen[height < -0.5].mean() < 0.02
    assert np.rad2deg(np.arcsin(direction[1])) == pytest.approx(35, abs=25)


def test_the_dataset_is_in_pcns_format(tmp_path):
    progress = list(write_dataset(tmp_path, train=2, test=1, points=300, partial=100))
    assert progress[-1] == (15, 15)
    index = json.loads((tmp_path / "PCN.json").read_text())
    assert {entry["taxonomy_id"] for entry in index} == {"02691156", "03001627", "03636649", "03797390", "04379243"}
    for entry in index:
        assert len(entry["train"]) == 2
        assert entry["test"] == entry["val"]
        for subset, views in (("train", 8), ("test", 1)):
            for model in entry[subset]:
                folder = tmp_path / subset
                assert np.load(folder / "complete" / entry["taxonomy_id"] / f"{model}.npy").shape == (300, 3)
                files = sorted((folder / "partial" / entry["taxonomy_id"] / model).iterdir())
                assert [f.name for f in files] == [f"{view:02d}.npy" for view in range(views)]
                assert all(np.load(f).shape == (100, 3) for f in files)
