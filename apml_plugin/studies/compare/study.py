"""A study: a small PCN trained on generated shapes with each loss and seed. Only the loss differs.

Results are kept, so a second run continues where the first stopped.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from apml_plugin import __version__
from apml_plugin.errors import HostError, LossArgumentError, LossValueError
from apml_plugin.files.writing import write_whole
from apml_plugin.losses import PointLoss
from apml_plugin.metrics import METRICS, Metric, Pair, find
from apml_plugin.models import PCN
from apml_plugin.registry import LOSSES, arguments_of, build_loss
from apml_plugin.shapes import FAMILIES, camera, draw_points, make_shape, visible_from
from apml_plugin.shapes.dataset import shape_seed
from apml_plugin.studies.machine import threads

DEFAULT: tuple[str | dict[str, Any], ...] = (
    "ChamferL1",
    "ChamferL2",
    {"NAME": "DCD", "alpha": 200, "n_lambda": 0.5},  # its authors' setting for PCN; 1000 does not train from scratch
    "InfoCD",
    "HyperCD",
    "Sinkhorn",
    "EMD",
    "APML",
)
"""Compared by default. ApproximateEMD is left out: on clouds this small it costs more than EMD."""


@dataclass(frozen=True)
class Size:
    """All that a result depends on, except the loss and the seed."""

    train: int = 32
    """Training shapes of each of the five families."""
    test: int = 6
    """Held-out shapes of each family."""
    points: int = 256
    partial: int = 256
    channels: int = 128
    """Width of the network."""
    batch: int = 8
    steps: int = 250
    lr: float = 0.003
    looks: int = 10
    """How often the held-out shapes are measured during training, for the learning curves."""


QUICK = Size(train=8, test=2, points=128, partial=128, steps=40, looks=4)
COLUMNS: dict[str, Metric] = {
    metric.heading: metric
    for metric in (
        METRICS["CDL1"], METRICS["CDL2"], METRICS["EMD"], find("F@5%"), METRICS["DCD"], METRICS["Uniformity"]
    )
}  # fmt: skip
"""Heading: metric. The F-score's threshold, 5 % of the shape's diagonal, is about the spacing of 256 points."""
CURVES = ("CD-L1", "EMD")


@dataclass(frozen=True)
class Contestant:
    """A loss of the study: its name in the report, and its config as under ``loss:``."""

    label: str
    config: dict[str, Any]

    @property
    def described(self) -> str:
        loss = build_loss(self.config)
        return loss.describe() if isinstance(loss, PointLoss) else self.label


@dataclass(frozen=True)
class Data:
    """Partial clouds (S, n, 3) and whole ones (S, N, 3), for training and held out."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    names: list[str]


@dataclass(frozen=True)
class Result:
    """One loss trained from one seed."""

    values: dict[str, float]
    """Means over the held-out shapes, by the headings of ``COLUMNS``."""
    curve: list[dict[str, float]]
    """``step`` and the metrics ``CURVES``."""
    step_seconds: float
    """Median wall time of a training step."""
    loss_seconds: float
    """The part of it that the loss takes, forward and backward."""
    pred: np.ndarray[Any, np.dtype[np.float32]]
    """(S, N, 3) float32."""


Results = dict[str, list[Result]]
"""Label of a loss: its results, in the order of the seeds."""


def contestants(entries: Sequence[Any]) -> list[Contestant]:
    """Losses from names or mappings, with ``reduction: mean`` where they take one; ``DEFAULT`` if there are none.

    Raises the registry's errors, and LossArgumentError for a loss that cannot be compared.
    """
    result: list[Contestant] = []
    for entry in entries or DEFAULT:
        if not isinstance(entry, (str, dict)):
            raise LossArgumentError(f"--loss {entry!r} must be a name or a mapping such as {{NAME: DCD, alpha: 40}}")
        config = {"NAME": entry} if isinstance(entry, str) else dict(entry)
        given = {key: value for key, value in config.items() if key not in ("NAME", "type")}
        name = str(config.get("NAME") or config.get("type") or "+".join(map(str, config)))
        label = name + (f"({', '.join(f'{k}={v}' for k, v in given.items())})" if given else "")
        loss = build_loss(config)
        if getattr(loss, "needs", ""):
            raise LossArgumentError(f"--loss {label} cannot be compared here: it needs {loss.needs}, not two clouds")
        cls = LOSSES.module_dict.get(name)
        if cls is not None and "reduction" in arguments_of(cls) and "reduction" not in given:
            config["reduction"] = "mean"
        if label in [c.label for c in result]:
            raise LossArgumentError(f"--loss {label} is given twice")
        result.append(Contestant(label, config))
    return result


def make_data(size: Size) -> Data:
    """The same shapes for every loss and every seed. Held-out shapes come from other seeds than training shapes."""
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {"train": [], "test": []}
    names = []
    for family, (taxonomy, _) in FAMILIES.items():
        for subset, count in (("train", size.train), ("test", size.test)):
            for k in range(count):
                key = shape_seed(k, subset)
                rng = np.random.default_rng([key, int(taxonomy)])
                surface = make_shape(family, key)
                seen = surface[visible_from(surface, camera(rng))]
                clouds = draw_points(seen, size.partial, rng), draw_points(surface, size.points, rng)
                parts[subset].append((torch.from_numpy(clouds[0]), torch.from_numpy(clouds[1])))
                if subset == "test":
                    names.append(f"{family} {k + 1}")
    train, test = ((torch.stack([p for p, _ in pairs]), torch.stack([w for _, w in pairs])) for pairs in parts.values())
    return Data(train, test, names)


def train(contestant: Contestant, seed: int, size: Size, data: Data, tick: Callable[[], None]) -> Result:
    """Trains from scratch and measures. A seed means the same first weights and the same batches for every loss.

    The loss compares both stages: the fine cloud with the truth, the coarse one with as many of its points.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = PCN(size.points, size.channels, grid=2)
    loss = build_loss(contestant.config)
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=size.lr)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [round(0.7 * size.steps)], gamma=0.2)
    partials, wholes = data.train
    some = torch.arange(0, len(data.names), max(1, size.test // 2))
    curve = [_look(net, data, some, 0)]
    looks = {round(size.steps * (k + 1) / size.looks) for k in range(size.looks)}
    step_times, loss_times = [], []
    for step in range(1, size.steps + 1):
        chosen = torch.randperm(len(wholes), generator=order)[: size.batch]
        begin = time.perf_counter()
        optimizer.zero_grad()
        loss_times.append(_backward(net, loss, partials[chosen], wholes[chosen], f"{contestant.label}, step {step}"))
        optimizer.step()
        schedule.step()
        step_times.append(time.perf_counter() - begin)
        if step in looks:
            curve.append(_look(net, data, some, step))
        tick()
    pred = predict(net, data.test[0])
    return Result(
        measure(pred, data.test[1], tuple(COLUMNS)),
        curve,
        float(np.median(step_times)),
        float(np.median(loss_times)),
        pred.numpy(),
    )


def _backward(net: nn.Module, loss: nn.Module, partial: Tensor, gt: Tensor, where: str) -> float:
    """Fills the gradients, and returns the seconds that the loss itself took, forward and backward."""
    stages = net(partial)
    leaves = [stage.detach().requires_grad_() for stage in stages]
    begin = time.perf_counter()
    value = sum(loss(leaf, gt[:, : leaf.shape[1]]) for leaf in leaves)
    value.backward()
    spent = time.perf_counter() - begin
    gradients = [leaf.grad for leaf in leaves]
    if not all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients):
        raise LossValueError(f"{where}: the loss has no finite gradient; compare without it")
    torch.autograd.backward(stages, gradients)
    return spent


def predict(net: nn.Module, partial: Tensor) -> Tensor:
    """(S, N, 3): the fine clouds."""
    net.eval()
    with torch.no_grad():
        fine: Tensor = net(partial)[-1]
    net.train()
    return fine


def measure(pred: Tensor, gt: Tensor, columns: Sequence[str]) -> dict[str, float]:
    """Means over the shapes."""
    pairs = [Pair.checked(x, y) for x, y in zip(pred, gt, strict=True)]
    return {name: float(np.mean([COLUMNS[name].of_pair(pair) for pair in pairs])) for name in columns}


def _look(net: nn.Module, data: Data, some: Tensor, step: int) -> dict[str, float]:
    return {"step": step, **measure(predict(net, data.test[0][some]), data.test[1][some], CURVES)}


def run(
    out: Path,
    losses: Sequence[Contestant],
    seeds: int,
    size: Size,
    begin: Callable[[str], None] = lambda what: None,
    tick: Callable[[int], None] = lambda steps: None,
) -> tuple[Results, Data]:
    """Trains what ``out/results`` does not hold yet, seed by seed, so that losses are always almost equally far.

    ``begin`` is called with the name of the next training, ``tick`` with the number of steps that were done.

    Raises HostError if ``out`` cannot be used or holds a study of another size or version.
    """
    if seeds < 1:
        raise LossValueError(f"--seeds {seeds} must be 1 or more; 3 are usual")
    folder = out / "results"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"--out {out}: cannot make the folder {folder} ({error.strerror}); give another") from None
    done: dict[tuple[str, int], Result] = {}
    for loss in losses:  # results are read first, so that a wrong folder is reported before minutes of training
        for seed in range(seeds):
            path = _path(folder, loss, seed)
            if path.exists():
                done[loss.label, seed] = load(path, _settings(loss, seed, size))
    data = make_data(size)
    for seed in range(seeds):
        for loss in losses:
            begin(f"{loss.label}, seed {seed + 1} of {seeds}")
            if (loss.label, seed) in done:
                tick(size.steps)
                continue
            # One thread gives the same numbers on any number of cores, and small networks gain nothing from more.
            with threads(1):
                result = train(loss, seed, size, data, lambda: tick(1))
            save(_path(folder, loss, seed), result, _settings(loss, seed, size))
            done[loss.label, seed] = result
    return {loss.label: [done[loss.label, seed] for seed in range(seeds)] for loss in losses}, data


def _settings(loss: Contestant, seed: int, size: Size) -> dict[str, Any]:
    return {"loss": loss.described, "seed": seed, "version": __version__, **asdict(size)}


def _path(folder: Path, loss: Contestant, seed: int) -> Path:
    name = re.sub(r"[^\w.=-]+", "_", loss.label)
    if name != loss.label:  # otherwise two labels could share a file
        name = f"{name[:60]}-{hashlib.sha256(loss.label.encode()).hexdigest()[:8]}"
    return folder / f"{name}-seed{seed}.npz"


def save(path: Path, result: Result, settings: dict[str, Any]) -> None:
    numbers = {key: value for key, value in asdict(result).items() if key != "pred"}
    text = json.dumps({"settings": settings, **numbers})
    write_whole(path, lambda stream: np.savez(stream, pred=result.pred, said=np.array(text)), force=True)


def load(path: Path, settings: dict[str, Any]) -> Result:
    """A saved result. Raises HostError if it is unreadable or was made with other settings."""
    try:
        with np.load(path) as saved:
            pred, numbers = saved["pred"], json.loads(str(saved["said"]))
        before = numbers.pop("settings")
        result = Result(pred=pred, **numbers)
    except Exception as error:
        raise HostError(f"{path} is not a result of this study ({error}); delete it or give another --out") from None
    other = [f"{key} {before.get(key)!r}, not {value!r}" for key, value in settings.items() if before.get(key) != value]
    if other:
        raise HostError(f"{path} belongs to another study: {'; '.join(other)}. Give another --out, or delete it")
    return result
