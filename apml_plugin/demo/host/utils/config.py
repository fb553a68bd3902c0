"""YAML into EasyDict; a `_base_` key pulls in another file, relative to the working folder."""

import os
import shutil

import yaml
from easydict import EasyDict

from .logger import print_log


def merge_new_config(config, new_config):
    """Writes a plain mapping into an EasyDict, level by level, reading `_base_` files on the way."""
    for key, value in new_config.items():
        if key == "_base_":
            with open(value) as stream:
                value = yaml.safe_load(stream)
        if isinstance(value, dict):
            merge_new_config(config.setdefault(key, EasyDict()), value)
        else:
            config[key] = value
    return config


def cfg_from_yaml_file(cfg_file):
    with open(cfg_file) as stream:
        return merge_new_config(EasyDict(), yaml.safe_load(stream))


def get_config(args):
    """The run's config. It is copied into the run's folder, and --resume reads it from there."""
    kept = os.path.join(args.experiment_path, "config.yaml")
    if args.resume:
        if not os.path.exists(kept):
            raise FileNotFoundError(f"nothing to resume: {kept} does not exist")
        return cfg_from_yaml_file(kept)
    config = cfg_from_yaml_file(args.config)
    if args.local_rank == 0:
        shutil.copyfile(args.config, kept)
        print_log(f"Copy the config file from {args.config} to {kept}", args.log_name)
    return config
