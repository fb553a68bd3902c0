"""The process that builds a host's model: ``python comparing_child.py ROOT BUILDER NAME READER NAME CONFIG``.

Prints one line: the keys and shapes of the model's state dict. Run as a file, with the host's root where Python puts
the folder of a script, so that the host's modules meet an interpreter like that of its own main.py.
"""

import importlib
import json
import sys

MARK = "apml-model "


def module_of(file: str) -> str:
    """'models/build.py' -> 'models.build'."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def config_of(file: str, name: str, config: str):  # type: ignore[no-untyped-def]
    """The YAML as the host reads it; without what it is based on, where the host's reader wants more than a path."""
    try:
        return getattr(importlib.import_module(module_of(file)), name)(config)
    except (TypeError, OSError):
        import yaml
        from easydict import EasyDict

        with open(config, encoding="utf-8") as stream:
            return EasyDict(yaml.safe_load(stream))


def main(root: str, builder: str, build: str, reader: str, read: str, config: str) -> None:
    sys.path[0] = root
    described = config_of(reader, read, config)
    place = module_of(builder)
    importlib.import_module(place.rpartition(".")[0] or place)  # the package registers the models
    model = getattr(importlib.import_module(place), build)(described.model)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    print("\n" + MARK + json.dumps(shapes), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
