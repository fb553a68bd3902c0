"""Looking at a model in training without changing its run: what the hooks for pictures and distances share."""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from torch import Tensor, nn

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.matching.settings import flag
from apml_plugin.models.layers import positive
from apml_plugin.studies.predictions import Seen


class WatchingHook(Hook):
    """Predicts the same few samples every so often and hands them to :meth:`watch`, in the main process alone.

    No gradient is kept, the model's modes and the states of all random generators are put back, and each time
    begins from the same seed: a run with such a hook gives the bits of the run without it.

    Args:
        interval: epochs (or iterations) from one time to the next.
        by_epoch: whether ``interval`` counts epochs.
        at_start: also before the first step: what a fine-tuning starts from.
        samples: how many samples, the first of the data set (all, if it has fewer), or a list of their indices.
        dataset: config of the data set; by default the run's validation set, else its training set.
        input_key: the partial cloud's name in a sample of the data set.
        pred_key, gt_key: names of the clouds in what the model predicts; a gt that it does not hand on is taken
            from the data set's sample.
        seed: for the random generators while the model predicts.

    Raises:
        LossArgumentError, LossValueError: an argument of the wrong type or out of range, when built; a sample
            that lacks a cloud, when it is used.
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
        self.interval = positive("interval", interval)
        self.by_epoch, self.at_start = flag("by_epoch", by_epoch), flag("at_start", at_start)
        self.samples = _samples(samples)
        self.dataset = dataset
        self.input_key, self.pred_key, self.gt_key = input_key, pred_key, gt_key
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise LossArgumentError(f"seed={seed!r} must be a whole number from 0 to 2^32 - 1")
        self.seed = seed
        self._fetched: list[Mapping[str, Any]] = []
        self._collate: Callable[[list[Any]], Any] = pseudo_collate

    def watch(self, runner: Runner, seen: list[Seen], step: int) -> None:
        """What a hook does with the samples; ``step`` counts epochs or iterations from 1, 0 is before them."""
        raise NotImplementedError

    def when(self, step: int) -> str:
        """What a picture says of its step."""
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
        # The wrapper of a distributed run would wait for the other processes.
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        with undisturbed(model, self.seed):
            seen = self._predict(runner, model)
            if all(bool(torch.isfinite(sample.pred).all()) for sample in seen):
                self.watch(runner, seen, step)
            else:  # a picture is no reason to end a run
                print_log(
                    f"{type(self).__name__}: a prediction holds NaN or Inf at step {step}; nothing is drawn",
                    logger="current",
                    level=logging.WARNING,
                )

    def _predict(self, runner: Runner, model: Any) -> list[Seen]:
        if not self._fetched:
            self._fetch(runner)
        # A copy: a model may change what it is given, and the next time must see the same.
        predictions = model.val_step(self._collate(copy.deepcopy(self._fetched)))
        seen = []
        for sample, prediction in zip(self._fetched, predictions, strict=True):
            gt = prediction if self.gt_key in prediction else sample
            clouds = ((sample, self.input_key), (prediction, self.pred_key), (gt, self.gt_key))
            seen.append(Seen(*(_cloud(holder, key) for holder, key in clouds)))
        return seen

    def _fetch(self, runner: Runner) -> None:
        loader = runner.train_dataloader if runner.val_loop is None else runner.val_dataloader
        dataset = loader.dataset if self.dataset is None else DATASETS.build(self.dataset)
        size = len(dataset)
        chosen = list(range(min(self.samples, size))) if isinstance(self.samples, int) else self.samples
        if outside := [index for index in chosen if index >= size]:
            raise LossValueError(f"samples: {outside[0]} is out of range for a data set of {size} samples")
        self._collate = loader.collate_fn
        self._fetched = [dataset[index] for index in chosen]


@contextmanager
def undisturbed(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Evaluation mode, no gradients and seeded generators inside; everything as it was outside."""
    modes = [(module, module.training) for module in model.modules()]
    python, numpy = random.getstate(), np.random.get_state()
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices), torch.no_grad():
        random.seed(seed)
        np.random.seed(seed)
        torch.random.default_generator.manual_seed(seed)  # torch.manual_seed would reach devices not put back
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        try:
            model.eval()
            yield
        finally:
            for module, mode in modes:  # not model.train(): parts may be kept in evaluation mode on purpose
                module.training = mode
            random.setstate(python)
            np.random.set_state(numpy)


def _samples(samples: int | Sequence[int]) -> int | list[int]:
    if isinstance(samples, Sequence) and not isinstance(samples, str):
        if not samples or any(isinstance(i, bool) or not isinstance(i, int) or i < 0 for i in samples):
            raise LossArgumentError(f"samples={samples!r} must be a number of samples or a list of their indices")
        return list(samples)
    return positive("samples", samples)


def _cloud(holder: Any, key: str) -> Tensor:
    cloud = holder.get(key)
    if cloud is None:
        raise LossArgumentError(
            f"no {key!r} among {', '.join(map(repr, holder.keys()))}: say how this data set and model name their "
            "clouds with input_key, pred_key and gt_key"
        )
    return torch.as_tensor(cloud).detach().float()
