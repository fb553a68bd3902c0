"""`apml demo mixture`, tiny: what it measures, its pictures, and that it leaves the global generator alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from apml_plugin.studies.demo import mixture as demo


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> demo.Outcome:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    result = demo.run(tmp_path_factory.mktemp("mixture"), report=True, quick=True)
    assert torch.equal(torch.get_rng_state(), before)
    return result


def test_pictures_are_drawn(outcome: demo.Outcome) -> None:
    names = ["mixture_levels.png", "mixture_interpolation.png", "mixture_registration.png"]
    assert [Path(path).name for path in outcome.pictures] == names
    for path in outcome.pictures:
        image = imread(path)
        assert min(image.shape[:2]) > 200
        assert image[..., :3].std() > 0.01


def test_em_lowers_the_negative_log_likelihood(outcome: demo.Outcome) -> None:
    assert len(outcome.logged) == 3
    seen = [outcome.refined[n][0] for n in (0, 1, 3, 10)]
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < seen[0] - 0.5


def test_all_models_are_compared(outcome: demo.Outcome) -> None:
    names = ["PointGMM (HGMM)", "PointGMM, 10 EM iterations", "PCN with ChamferL2", "PCN with APML"]
    assert [name for name, *_ in outcome.sets] == names
    assert all(0 < coverage <= 1 and distance > 0 for _, coverage, distance, _ in outcome.sets)
    assert outcome.angles.shape == (50,)


def test_running_mean() -> None:
    assert demo.running_mean([3.0, 2.0, 1.0, 0.0]) == [2.0, 1.0]
