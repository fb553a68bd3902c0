"""What is known of a CSI2PointCloud codebase: its training scripts and the names in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..project import Definition, Project


@dataclass(frozen=True)
class TrainStep:
    """The function that trains for an epoch. loss, epoch: its parameters; gt: the name of the ground truth in it.

    epoch and gt are empty where there is none.
    """

    definition: Definition
    loss: str
    gt: str
    epoch: str


@dataclass(frozen=True)
class Script:
    """One training script and the names in its main function. Those a script does not have are empty.

    yaml_path: holds the path of the YAML. config: what was read from it. root: the dataset's folder. epochs: how many
    there are. loss: the loss object. lines: where each of these is assigned last. model: the arguments that the network
    is built with, where they are literals; dataset: those of make_dataset; loader: those of the validation loader, and
    loader_key what of the config is passed beside them.
    """

    file: str
    main: Definition
    step: TrainStep
    config: str
    loss: str
    yaml_path: str
    root: str
    epochs: str
    lines: dict[str, int]
    loss_class: Definition
    model_class: Definition | None
    make_dataset: Definition | None
    make_loader: Definition | None
    model: dict[str, Any]
    dataset: dict[str, Any]
    loader: dict[str, Any]
    loader_key: str


@dataclass(frozen=True)
class CsiHost:
    """A recognised codebase."""

    root: Path
    scripts: tuple[Script, ...]
    project: Project = field(compare=False, repr=False)
