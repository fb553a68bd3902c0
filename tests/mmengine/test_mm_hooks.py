"""Hooks that watch a model in training: what they draw, and that they do not change the run."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn

import apml_plugin.hosts.mmengine  # noqa: F401  (registers)
from apml_plugin import APML, drawing
from apml_plugin.drawing import Sample
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.hosts.mmengine.hooks import WatchingHook, undisturbed
from apml_plugin.matching import dense
from apml_plugin.matching.settings import Settings
from apml_plugin.metrics.matched import weighted_quantile
from apml_plugin.shapes import CompletionShapes


def images(work_dir: Path) -> list[str]:
    return sorted(path.name for path in work_dir.glob("*/vis_data/vis_image/*.png"))


def scalars(work_dir: Path) -> list[dict[str, float]]:
    (path,) = work_dir.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in path.read_text().splitlines()]


def seen(n: int = 3, points: int = 60) -> list[Sample]:
    return [Sample(torch.rand(30, 3), torch.rand(points, 3), torch.rand(80, 3)) for _ in range(n)]


def draw(samples: list[Sample], title: str) -> np.ndarray:
    return drawing.to_image(drawing.draw_errors(samples, title))


def test_a_run_with_pictures_is_bit_identical_to_one_without(tmp_path: Path, tiny) -> None:
    hooks = [
        dict(type="PredictionPictureHook", samples=[1, 3], at_start=True),
        dict(type="MatchedDistanceHook", interval=3, by_epoch=False, samples=2),
    ]
    finals = []
    for name, custom in (("plain", []), ("watched", hooks)):
        cfg = tiny(tmp_path / name, custom_hooks=custom, randomness=dict(seed=3))
        cfg.train_dataloader.dataset.size = 16
        runner = Runner.from_cfg(cfg)
        runner.train()
        losses = torch.as_tensor(runner.message_hub.get_scalar("train/loss").data[0])
        finals.append((losses, runner.model.state_dict(), random.random(), np.random.rand(), torch.rand(1)))
    plain, watched = finals
    assert torch.equal(plain[0], watched[0])
    assert all(torch.equal(watched[1][key], value) for key, value in plain[1].items())
    assert plain[2:] == watched[2:]
    assert images(tmp_path / "plain") == []
    assert images(tmp_path / "watched") == [
        *(f"matched_distance_{iteration}.png" for iteration in (3, 6)),
        *(f"predictions_{epoch}.png" for epoch in (0, 1, 2)),
    ]
    means = [line for line in scalars(tmp_path / "watched") if "matched_distance/mean" in line]
    assert [line["step"] for line in means] == [3, 6]


def test_the_pictures_show_the_same_samples_and_the_models_own_predictions(tmp_path: Path, tiny) -> None:
    runner = Runner.from_cfg(tiny(tmp_path))
    taken: list[list[Sample]] = []

    class Recorder(WatchingHook):
        def watch(self, runner: Runner, samples: list[Sample], step: int) -> None:
            taken.append(samples)

    hook = Recorder(samples=[2, 0], input_key="inputs")
    runner.model.net.eval()  # kept so on purpose, below a model in training
    modes = {name: module.training for name, module in runner.model.named_modules()}
    hook.after_train_epoch(runner)
    hook.after_train_epoch(runner)
    assert {name: module.training for name, module in runner.model.named_modules()} == modes
    dataset = CompletionShapes("test", size=4, num_partial=64, num_gt=64)
    for times in taken:
        for sample, index in zip(times, (2, 0), strict=True):
            assert torch.equal(sample.inputs, dataset[index]["inputs"])
            assert torch.equal(sample.gt, dataset[index]["gt"])
    expected = runner.model.eval()(torch.stack([dataset[2]["inputs"], dataset[0]["inputs"]]))[1]
    torch.testing.assert_close(torch.stack([sample.pred for sample in taken[1]]), expected)
    assert not taken[0][0].pred.requires_grad


def test_other_models_and_data_give_the_names_of_their_clouds(tmp_path: Path, tiny) -> None:
    class Mover(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(3))

        def forward(self, inputs: Any, mode: str, **extra: Any) -> list[BaseDataElement]:
            noise = 0.01 * torch.randn(3)  # random prediction: the same each time
            return [BaseDataElement(completed=cloud + self.shift + noise) for cloud in inputs]

    cfg = tiny(tmp_path, val_cfg=None, val_dataloader=None, val_evaluator=None)  # the training set is looked at then
    runner = Runner.from_cfg(cfg)
    runner.model = Mover()
    hook = HOOKS.build(dict(type="PredictionPictureHook", pred_key="completed", up="z"))
    with undisturbed(runner.model, 5):
        clouds = hook._predict(runner, runner.model)
    with undisturbed(runner.model, 5):
        again = hook._predict(runner, runner.model)
    assert len(clouds) == 4
    assert all(torch.equal(a.pred, b.pred) for a, b in zip(clouds, again, strict=True))
    hook.after_train_epoch(runner)
    assert images(tmp_path) == ["predictions_1.png"]
    with pytest.raises(LossArgumentError, match=r"no 'pred' among 'completed'.*pred_key"):
        HOOKS.build(dict(type="MatchedDistanceHook")).after_train_epoch(runner)


def test_undisturbed_restores_everything_even_after_an_error() -> None:
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3))
    model[1].eval()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    inside = []
    for _ in range(2):
        with suppress(ZeroDivisionError), undisturbed(model, 7):
            assert not model[0].training
            assert not torch.is_grad_enabled()
            inside.append((random.random(), np.random.rand(), torch.rand(1).item()))
            raise ZeroDivisionError
    assert inside[0] == inside[1]
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert (model.training, model[0].training, model[1].training) == (True, True, False)
    assert torch.is_grad_enabled()


def test_a_picture_has_a_row_for_each_sample() -> None:
    one, three = draw(seen(1), "epoch 1"), draw(seen(3), "epoch 1")
    assert one.dtype == np.uint8
    assert one.shape[1:] == three.shape[1:] == (810, 3)
    assert three.shape[0] - one.shape[0] == pytest.approx(2 * 270, abs=1)
    assert draw(seen(1, points=0), "an empty prediction").shape == one.shape


def test_colour_is_the_distance_to_the_other_cloud() -> None:
    gt = torch.rand(400, 3)
    near = draw([Sample(gt, gt, gt)], "")
    far = draw([Sample(gt, gt[gt[:, 0] < 0.3], gt)], "")

    def red(image: np.ndarray, column: int) -> int:
        part = image[80:340, 270 * column : 270 * (column + 1)].astype(int)
        return int(((part[..., 0] > 150) & (part[..., 1] < 90) & (part[..., 2] < 60)).sum())

    assert [red(near, column) for column in range(3)] == [0, 0, 0]
    assert red(far, 2) > 200 > red(far, 1) == red(far, 0) == 0


def test_matched_distances_are_those_of_the_plan() -> None:
    samples = seen(2)
    hook = HOOKS.build(dict(type="MatchedDistanceHook", plan=dict(p_min=0.7)))
    got, weights = hook._distances(samples)
    assert float(weights.sum()) == pytest.approx(1)
    mean, below = 0.0, 0.0
    for sample in samples:
        cost = torch.cdist(sample.pred.double(), sample.gt.double())
        plan = dense.plan(cost[None], Settings(p_min=0.7))[0]
        mean += float((plan * cost).sum()) / 80 / 2
        below += float(plan[cost < 0.2].sum()) / 80 / 2
    assert float(got @ weights) == pytest.approx(mean, rel=1e-5)
    assert float(weights[got < 0.2].sum()) == pytest.approx(below, rel=1e-4)
    loss = sum(APML(p_min=0.7, reduction="mean")(s.pred[None], s.gt[None]) for s in samples) / 2
    assert float(got @ weights) == pytest.approx(float(loss), rel=1e-5)


@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5)), min_size=1, max_size=20),
    st.sampled_from([0.05, 0.5, 0.95]),
)
def test_quantiles_and_bins_of_weighted_distances(entries: list[tuple[float, int]], q: float) -> None:
    values, counts = np.array([v for v, _ in entries]), np.array([c for _, c in entries])
    repeated = np.sort(np.repeat(values, counts))
    expected = repeated[int(np.ceil(q * len(repeated) - 1e-9)) - 1]
    distances = torch.from_numpy(values)
    assert float(weighted_quantile(distances, torch.from_numpy(counts.astype(float)), q)) == expected
    weights = torch.from_numpy(counts / counts.sum())
    edges = drawing.histogram_edges(distances, float(weighted_quantile(distances, weights, 0.01)))
    assert (np.diff(edges) > 0).all()
    assert drawing.histogram(distances, weights, edges).sum() == pytest.approx(1)


def test_the_first_histogram_stays_as_an_outline_and_the_bins_stay(tmp_path: Path, tiny) -> None:
    runner = Runner.from_cfg(tiny(tmp_path))
    hook = HOOKS.build(dict(type="MatchedDistanceHook", plan=dict(p_min=0.7)))
    hook.watch(runner, seen(), 1)
    edges, first = hook._edges, hook._first
    hook.watch(runner, seen(), 2)
    assert hook._edges is edges
    assert hook._first is first
    one, two = (cv2.imread(str(path)) for path in sorted(tmp_path.glob("*/vis_data/vis_image/*.png")))
    assert one.shape == two.shape == (400, 720, 3)
    nothing = [Sample(torch.rand(3, 3), torch.rand(0, 3), torch.rand(4, 3))]
    hook.watch(runner, nothing, 3)
    assert len(images(tmp_path)) == 2


def test_tensorboard_gets_pictures_numbers_and_a_histogram(tmp_path: Path, tiny) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    backends = [dict(type="TensorboardVisBackend"), dict(type="LocalVisBackend")]
    cfg = tiny(tmp_path, visualizer=dict(type="Visualizer", name=tmp_path.name, vis_backends=backends))
    runner = Runner.from_cfg(cfg)
    for hook in ("PredictionPictureHook", "MatchedDistanceHook"):
        HOOKS.build(dict(type=hook)).watch(runner, seen(), 1)
    runner.visualizer.close()
    events = EventAccumulator(str(next(tmp_path.glob("*/vis_data"))))
    events.Reload()
    assert set(events.Tags()["images"]) == {"predictions", "matched_distance"}
    (histogram,) = events.Histograms("matched_distance")
    (mean,) = events.Scalars("matched_distance/mean")
    assert sum(histogram.histogram_value.bucket) == pytest.approx(1)
    assert histogram.histogram_value.sum == pytest.approx(mean.value, rel=1e-5)
    assert len(images(tmp_path)) == 2


@pytest.mark.parametrize("hook", ["PredictionPictureHook", "MatchedDistanceHook"])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(interval=0), LossValueError, "interval=0"),
        (dict(by_epoch="yes"), LossArgumentError, "by_epoch='yes'"),
        (dict(samples=[]), LossArgumentError, r"samples=\[\]"),
        (dict(samples=[-1]), LossArgumentError, r"samples=\[-1\]"),
        (dict(samples="4"), LossArgumentError, "samples='4'"),
        (dict(seed=-1), LossArgumentError, "seed=-1"),
        (dict(intervall=2), LossArgumentError, "no argument 'intervall': did you mean 'interval'"),
    ],
)
def test_bad_arguments(hook: str, options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        HOOKS.build(ConfigDict(type=hook, **options))


@pytest.mark.parametrize(
    ("cfg", "error", "message"),
    [
        (dict(type="PredictionPictureHook", up="w"), LossArgumentError, "up='w' must be one of x, y, z"),
        (dict(type="MatchedDistanceHook", plan=dict(p_mim=0.7)), LossArgumentError, "plan: 'p_mim' is none of p_min"),
        (dict(type="MatchedDistanceHook", plan=dict(p_min=2)), LossValueError, "p_min=2"),
        (dict(type="MatchedDistanceHook", plan=dict(backend="fast")), LossArgumentError, "backend='fast'"),
    ],
)
def test_bad_arguments_of_one_hook(cfg: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises((error, LossValueError), match=message):
        HOOKS.build(cfg)


def test_errors_name_samples_out_of_range(tmp_path: Path, tiny) -> None:
    with pytest.raises(LossValueError, match="samples: 9 is out of range for a data set of 4"):
        HOOKS.build(dict(type="PredictionPictureHook", samples=[0, 9])).after_train_epoch(
            Runner.from_cfg(tiny(tmp_path))
        )


def test_a_diverged_model_is_not_drawn_and_the_run_goes_on(tmp_path: Path, tiny) -> None:
    runner = Runner.from_cfg(tiny(tmp_path))
    for parameter in runner.model.parameters():
        nn.init.constant_(parameter, float("nan"))
    HOOKS.build(dict(type="PredictionPictureHook", samples=100)).after_train_epoch(runner)
    assert images(tmp_path) == []
    (log,) = tmp_path.glob("*/*.log")
    assert "PredictionPictureHook: a prediction holds NaN or Inf at step 1" in log.read_text()
