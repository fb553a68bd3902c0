"""The epoch, told to the losses that want it."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from apml_plugin.registry import set_epoch


class LossEpochHook(Hook):
    """Tells every Schedule inside the model which epoch begins, counted from 0.

    For models of one's own: ``custom_hooks = [dict(type='LossEpochHook')]``. CompletionModel asks by itself.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        set_epoch(runner.model, runner.epoch)
