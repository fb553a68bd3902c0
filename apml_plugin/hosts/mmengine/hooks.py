"""Hooks: the epoch of losses, pictures of predictions, distances of matched points."""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from numpy.typing import NDArray
from torch import Tensor, nn

from apml_plugin import drawing
from apml_plugin.arguments import flag, one_of, positive_whole
from apml_plugin.drawing import Sample
from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.hosts.mmengine.compat import backends_of
from apml_plugin.matching import Settings, backends
from apml_plugin.metrics import matched_distances
from apml_plugin.metrics.matched import weighted_quantile
from apml_plugin.registry import set_epoch

QUANTILES = {"median": 0.5, "p95": 0.95}


class LossEpochHook(Hook):
    """Sets the epoch, counted from 0, of every Schedule inside the model.

    For other models than CompletionModel, which does this itself: ``custom_hooks = [dict(type='LossEpochHook')]``.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        set_epoch(runner.model, runner.epoch)


class WatchingHook(Hook):
    """Predicts the same few samples at intervals and passes them to :meth:`watch`, in the main process only.

    A run with such a hook is bit-identical to the run without it: no gradient is kept, the modes of the model and the
    states of all random generators are restored, and every prediction starts from the same seed.

    Args:
        interval: epochs (or iterations) between two predictions.
        by_epoch: whether ``interval`` counts epochs.
        at_start: also before the first step, which shows the start of a fine-tuning.
        samples: how many samples, the first of the data set (all, if it has fewer), or a list of their indices.
        dataset: config of the data set; by default the run's validation set, else its training set.
        input_key: the partial cloud's name in a sample of the data set.
        pred_key, gt_key: names of the clouds in the model's predictions; a gt missing there is taken from the data
            set's sample.
        seed: for the random generators while the model predicts.

    Raises:
        LossArgumentError, LossValueError: an argument of the wrong type or out of range, when built; a sample
            without one of the clouds, when it is used.
    """

    priority = "LOW"

    def __init__(
        self,
        interval: int = 1,
        by_epoch: bool = True,
        at_start: bool = False,
        samples: int | Sequence[int] = 4,
        dataset: Mapping[str, Any] | None = None,
        input_key: str = "inputs",
        pred_key: str = "pred",
        gt_key: str = "gt",
        seed: int = 0,
    ) -> None:
        self.interval = positive_whole("interval", interval)
        self.by_epoch, self.at_start = flag("by_epoch", by_epoch), flag("at_start", at_start)
        self.samples = _samples(samples)
        self.dataset = dataset
        self.input_key, self.pred_key, self.gt_key = input_key, pred_key, gt_key
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise LossArgumentError(f"seed={seed!r} must be a whole number from 0 to 2^32 - 1")
        self.seed = seed
        self._fetched: list[Mapping[str, Any]] = []
        self._collate: Callable[[list[Any]], Any] = pseudo_collate

    def watch(self, runner: Runner, samples: list[Sample], step: int) -> None:
        """Uses the samples; ``step`` counts epochs or iterations from 1, and 0 is the start."""
        raise NotImplementedError

    def when(self, step: int) -> str:
        """The step as a title."""
        return f"{'epoch' if self.by_epoch else 'iteration'} {step}"

    def before_train(self, runner: Runner) -> None:
        if self.at_start:
            self._look(runner, runner.epoch if self.by_epoch else runner.iter)

    def after_train_epoch(self, runner: Runner) -> None:
        if self.by_epoch and self.every_n_epochs(runner, self.interval):
            self._look(runner, runner.epoch + 1)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            self._look(runner, runner.iter + 1)

    def _look(self, runner: Runner, step: int) -> None:
        if not is_main_process():
            return
        # Called through its wrapper, a distributed model would wait for the other processes.
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        with undisturbed(model, self.seed):
            samples = self._predict(runner, model)
            if all(bool(torch.isfinite(sample.pred).all()) for sample in samples):
                self.watch(runner, samples, step)
            else:  # a picture must not end a run
                print_log(
                    f"{type(self).__name__}: a prediction holds NaN or Inf at step {step}; nothing is drawn",
                    logger="current",
                    level=logging.WARNING,
                )

    def _predict(self, runner: Runner, model: Any) -> list[Sample]:
        if not self._fetched:
            self._fetch(runner)
        # A copy: a model may change its inputs, and the next prediction must see the same ones.
        predictions = model.val_step(self._collate(copy.deepcopy(self._fetched)))
        samples = []
        for given, prediction in zip(self._fetched, predictions, strict=True):
            gt = prediction if self.gt_key in prediction else given
            clouds = ((given, self.input_key), (prediction, self.pred_key), (gt, self.gt_key))
            samples.append(Sample(*(_cloud(holder, key) for holder, key in clouds)))
        return samples

    def _fetch(self, runner: Runner) -> None:
        loader = runner.train_dataloader if runner.val_loop is None else runner.val_dataloader
        dataset = loader.dataset if self.dataset is None else DATASETS.build(self.dataset)
        size = len(dataset)
        chosen = list(range(min(self.samples, size))) if isinstance(self.samples, int) else self.samples
        if outside := [index for index in chosen if index >= size]:
            raise LossValueError(f"samples: {outside[0]} is out of range for a data set of {size} samples")
        self._collate = loader.collate_fn
        self._fetched = [dataset[index] for index in chosen]


class PredictionPictureHook(WatchingHook):
    """Draws input, prediction and ground truth side by side, a row for each sample, as the image ``predictions``.

    Colour is error: a predicted point's distance to the truth (what is in the wrong place), a true point's
    distance to the prediction (what is missing). The scale is the same at every step.

    Args:
        up: the axis that points up, ``"x"``, ``"y"`` (ShapeNet) or ``"z"`` (scans).
        options: as :class:`WatchingHook`.
    """

    def __init__(self, up: str = "y", **options: Any) -> None:
        super().__init__(**options)
        if up not in ("x", "y", "z"):
            raise LossArgumentError(f"up={up!r} must be one of x, y, z")
        self.up = up

    def watch(self, runner: Runner, samples: list[Sample], step: int) -> None:
        picture = drawing.to_image(drawing.draw_errors(samples, self.when(step), self.up))
        runner.visualizer.add_image("predictions", picture, step=step)


class MatchedDistanceHook(WatchingHook):
    """Draws the distribution of the distances of matched points, weighted by the plan.

    Gives the visualizer the image ``matched_distance`` and the numbers ``matched_distance/mean``, ``/median`` and
    ``/p95``, and TensorBoard also a histogram of the same name. For clouds of one size the mean is APML's loss with
    ``reduction='mean'``.

    Args:
        plan: arguments of the matching (``p_min``, ``threshold``, ``iterations``, ``eps``, ``ties``, ``backend``).
        options: as :class:`WatchingHook`.
    """

    def __init__(self, plan: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.plan = _plan_arguments(plan or {})
        self._edges: NDArray[np.float64] | None = None
        self._first: tuple[str, NDArray[np.float64]] | None = None

    def watch(self, runner: Runner, samples: list[Sample], step: int) -> None:
        distances, weights = self._distances(samples)
        if not len(distances):
            print_log(
                "MatchedDistanceHook: no point is matched in these samples", logger="current", level=logging.WARNING
            )
            return
        if self._edges is None:
            self._edges = drawing.histogram_edges(distances, float(weighted_quantile(distances, weights, 0.01)))
        counts = drawing.histogram(distances, weights, self._edges)
        self._first = self._first or (self.when(step), counts)
        numbers = {"mean": float(distances @ weights)}
        numbers |= {name: float(weighted_quantile(distances, weights, q)) for name, q in QUANTILES.items()}
        for name, value in numbers.items():  # one by one: backends differ in what a dict of them may hold
            runner.visualizer.add_scalar(f"matched_distance/{name}", value, step=step)
        figure = drawing.draw_histogram(self._edges, counts, self.when(step), self._first, numbers)
        runner.visualizer.add_image("matched_distance", drawing.to_image(figure), step=step)
        for backend in backends_of(runner.visualizer):
            if hasattr(backend.experiment, "add_histogram_raw"):
                backend.experiment.add_histogram_raw(
                    "matched_distance",
                    min=float(distances.min()),
                    max=float(distances.max()),
                    num=float(weights.sum()),
                    sum=numbers["mean"],
                    sum_squares=float(distances**2 @ weights),
                    bucket_limits=self._edges[1:].tolist(),
                    bucket_counts=counts.tolist(),
                    global_step=step,
                )

    def _distances(self, samples: list[Sample]) -> tuple[Tensor, Tensor]:
        """(K,) distances of the matched points of all samples, and (K,) weights that sum to 1."""
        parts = [
            (*matched_distances(sample.pred, sample.gt, "apml", **self.plan), len(sample.gt))
            for sample in samples
            if len(sample.pred) and len(sample.gt)
        ]
        if not parts:
            return torch.empty(0), torch.empty(0)
        weights = torch.cat([weights * points for _, weights, points in parts])
        return torch.cat([distances for distances, _, _ in parts]), weights / weights.sum()


def _plan_arguments(plan: Mapping[str, Any]) -> dict[str, Any]:
    backend = one_of("backend", plan.get("backend", "auto"), backends.names())
    given = {name: value for name, value in plan.items() if name != "backend"}
    known = [field.name for field in fields(Settings)]
    if unknown := [name for name in given if name not in known]:
        raise LossArgumentError(f"plan: {unknown[0]!r} is none of {', '.join([*known, 'backend'])}")
    return {**asdict(Settings(**given)), "backend": backend}


@contextmanager
def undisturbed(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Evaluation mode, no gradients and seeded generators; restores modes and generators on exit."""
    modes = [(module, module.training) for module in model.modules()]
    python, numpy = random.getstate(), np.random.get_state()
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices), torch.no_grad():
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed devices that are not restored
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        try:
            model.eval()
            yield
        finally:
            for module, mode in modes:  # model.train() would also change parts that are frozen in evaluation mode
                module.training = mode
            random.setstate(python)
            np.random.set_state(numpy)


def _samples(samples: int | Sequence[int]) -> int | list[int]:
    if isinstance(samples, Sequence) and not isinstance(samples, str):
        if not samples or any(isinstance(i, bool) or not isinstance(i, int) or i < 0 for i in samples):
            raise LossArgumentError(f"samples={samples!r} must be a number of samples or a list of their indices")
        return list(samples)
    return positive_whole("samples", samples)


def _cloud(holder: Any, key: str) -> Tensor:
    cloud = holder.get(key)
    if cloud is None:
        raise LossArgumentError(
            f"no {key!r} among {', '.join(map(repr, holder.keys()))}: give the names that this data set and model "
            "use with input_key, pred_key and gt_key"
        )
    return torch.as_tensor(cloud).detach().float()
