"""Seeds and running means."""

import random

import numpy as np
import torch


def set_random_seed(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def worker_init_fn(worker_id):
    np.random.seed((torch.initial_seed() + worker_id) % 2**32)


class AverageMeter:
    """Means of several numbers over their updates."""

    def __init__(self, items):
        self.items = list(items)
        self.sums = [0.0] * len(self.items)
        self.last = [0.0] * len(self.items)
        self.count = 0

    def update(self, values):
        self.last = [float(value) for value in values]
        self.sums = [total + value for total, value in zip(self.sums, self.last, strict=True)]
        self.count += 1

    def val(self):
        return self.last

    def avg(self):
        return [total / max(self.count, 1) for total in self.sums]
