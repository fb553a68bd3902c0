"""Pairs of a partial and a complete cloud, in the folders of the PCN dataset, from .npy files."""

import json
import random

import numpy as np
import torch
from utils.registry import Registry

DATASETS = Registry("dataset")


def build_dataset_from_cfg(cfg, default_args=None):
    return DATASETS.build(cfg, default_args=default_args)


@DATASETS.register_module()
class PCN(torch.utils.data.Dataset):
    def __init__(self, config):
        self.config = config
        self.training = config.subset == "train"
        with open(config.CATEGORY_FILE_PATH) as stream:
            index = json.load(stream)
        self.samples = [(entry["taxonomy_id"], model) for entry in index for model in entry[config.subset]]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, position):
        """(taxonomy id, model id, (partial, complete)); training takes a random view and mirrors x and z at random."""
        taxonomy, model = self.samples[position]
        view = random.randrange(self.config.N_RENDERINGS) if self.training else 0
        subset = self.config.subset
        partial = np.load(self.config.PARTIAL_POINTS_PATH % (subset, taxonomy, model, view)).astype(np.float32)
        complete = np.load(self.config.COMPLETE_POINTS_PATH % (subset, taxonomy, model)).astype(np.float32)
        if len(complete) != self.config.N_POINTS:
            raise ValueError(f"{model} has {len(complete)} points, N_POINTS is {self.config.N_POINTS}")
        if self.training:
            sign = np.array([random.choice((-1, 1)), 1, random.choice((-1, 1))], np.float32)
            partial, complete = partial * sign, complete * sign
        return taxonomy, model, (torch.from_numpy(partial), torch.from_numpy(complete))
