"""YAML into EasyDict; a `_base_` key pulls in another file, relative to the working folder."""

import yaml
from easydict import EasyDict


def merge_new_config(config, new_config):
    """Writes a plain mapping into an EasyDict, level by level, and reads `_base_` files on the way."""
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
