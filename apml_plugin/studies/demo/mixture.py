"""``apml demo mixture``: PointGMM and its registration, trained on generated shapes and tried on held-out ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from apml_plugin.losses import APML, ChamferL2
from apml_plugin.losses.mixture import GMM, HGMM, EigenPenalty, Hierarchy, PoseLoss
from apml_plugin.metrics.sets import coverage_of, mmd_of, pairwise_distances
from apml_plugin.models import PCN, PointGMM
from apml_plugin.models.pointgmm import PointGMMRegistration, mixture_to_points, refine
from apml_plugin.models.pointgmm.registration import Pose, angle_between, compose, inverse, move, random_pose
from apml_plugin.shapes import make_shape
from apml_plugin.studies.reports import bars, titled_table

from . import mixture_pictures as pictures

DENSE = 4096
LEVELS = (8, 32, 128)
BOUND = 1e-5
"""Of the variances: a standard deviation of 0.3 % of a shape's diagonal."""


@dataclass(frozen=True)
class Size:
    """Numbers of shapes, steps, clouds in a batch, points of a cloud, and measurements during training."""

    train: int = 96
    held_out: int = 24
    steps: int = 900
    registration_steps: int = 800
    batch: int = 8
    points: int = 512
    logs: int = 12


QUICK = Size(train=4, held_out=2, steps=6, registration_steps=6, batch=4, points=128, logs=3)


@dataclass
class Outcome:
    """The results of a run."""

    logged: list[float] = field(default_factory=list)
    """Held-out negative log-likelihood per point in nats, during training."""
    refined: dict[int, tuple[float, float]] = field(default_factory=dict)
    """EM iterations: negative log-likelihood of the points that EM used, and of other points of the same shapes."""
    sets: list[tuple[str, float, float, float]] = field(default_factory=list)
    """Model, coverage, minimum matching distance (Chamfer-L2), seconds of training."""
    angles: Tensor = field(default_factory=lambda: torch.zeros(0))
    """Error of each registration trial in degrees."""
    pictures: list[Path] = field(default_factory=list)


def run(out: Path, *, report: bool = False, quick: bool = False, family: str = "chair", seed: int = 0) -> Outcome:
    """Trains, measures, writes ``mixture_*.png`` into ``out`` and prints the results.

    Args:
        report: also trains PCN with ChamferL2 and with APML on the same clouds for as many steps, and compares.
        quick: tiny sizes, which show that it runs and little else.
        family: the kind of shape.
    """
    size, console, outcome = QUICK if quick else Size(), Console(), Outcome()
    out.mkdir(parents=True, exist_ok=True)
    with _seeded(seed):
        train, held_out = _shapes(family, size)
        started = time.perf_counter()
        net = train_mixture(train, held_out, size, outcome, console)
        seconds = time.perf_counter() - started
        seen, unseen = held_out[:, : DENSE // 2], held_out[:, DENSE // 2 :]
        with torch.no_grad():
            mixtures = net.mixture(seen[:, : size.points])
            between = net.between(held_out[0, : size.points], held_out[1, : size.points], 6)
        outcome.refined = _refined(mixtures, seen, unseen, (0, 1, 3, 10))
        outcome.pictures.append(pictures.levels(mixtures, held_out, out / "mixture_levels.png"))
        outcome.pictures.append(pictures.interpolation(between, out / "mixture_interpolation.png"))
        if report:
            clouds = mixture_to_points(mixtures, size.points)
            outcome.sets.append(_judged("PointGMM (HGMM)", clouds, unseen[:, : size.points], seconds))
            started = time.perf_counter()
            clouds = mixture_to_points(refine(mixtures, seen, 10, min_eigenvalue=BOUND), size.points)
            seconds += time.perf_counter() - started
            outcome.sets.append(_judged("PointGMM, 10 EM iterations", clouds, unseen[:, : size.points], seconds))
            for name, loss in (("PCN with ChamferL2", ChamferL2()), ("PCN with APML", APML(reduction="mean"))):
                started = time.perf_counter()
                clouds = _completed(train_pcn(train, loss, size, name, console), seen[:, : size.points])
                took = time.perf_counter() - started
                outcome.sets.append(_judged(name, clouds, unseen[:, : size.points], took))
        registration = train_registration(train, size, console)
        outcome.angles, cases = registration_trials(registration, held_out, 50, size.points // 4)
        outcome.pictures.append(pictures.registration(cases, outcome.angles, out / "mixture_registration.png"))
    _print(outcome, family, console)
    return outcome


def train_mixture(train: Tensor, held_out: Tensor, size: Size, outcome: Outcome, console: Console) -> PointGMM:
    """A small PointGMM of the clouds (S, DENSE, 3), in evaluation mode; its held-out likelihoods are logged."""
    net = PointGMM(size.points, 64, 96, LEVELS, (32, 64, 256), dropout=0.0, min_eigenvalue=BOUND)
    likelihood, flatness = HGMM(), EigenPenalty()

    def step(clouds: Tensor) -> Tensor:
        output = net.output(clouds, draw=False)
        return likelihood(output, clouds) + 10 * flatness(output)

    def log() -> None:
        net.eval()
        with torch.no_grad():
            seen = net.mixture(held_out[:, : size.points])
            outcome.logged.append(float(GMM()(seen, held_out[:, DENSE // 2 :][:, :1024])))
        net.train()

    _train(net, step, train, size, size.steps, "PointGMM", console, log)
    return net.eval()


def train_pcn(train: Tensor, loss: nn.Module, size: Size, name: str, console: Console) -> PCN:
    """A small PCN that reconstructs its input clouds, in evaluation mode."""
    net = PCN(num_pred=size.points, encoder_channel=256, grid=2)

    def step(clouds: Tensor) -> Tensor:
        coarse, fine = net(clouds)
        return loss(coarse, clouds) + loss(fine, clouds)

    _train(net, step, train, size, size.steps, name, console)
    return net.eval()


def train_registration(train: Tensor, size: Size, console: Console) -> PointGMMRegistration:
    """A small registration network of the clouds, in evaluation mode."""
    net = PointGMMRegistration(32, 64, 64, LEVELS[:2], (32, 64, 256), neighbours=10, min_eigenvalue=1e-4, dropout=0.0)

    # Published weights are 50 and 10; a larger weight of the angle needs fewer steps.
    pose = PoseLoss(100, 200)

    def step(clouds: Tensor) -> Tensor:
        return net.loss(clouds, random_pose(len(clouds)), pose)

    # More clouds with fewer points: each cloud gives only one angle to learn from.
    many = replace(size, points=size.points // 4, batch=2 * size.batch)
    _train(net, step, train, many, size.registration_steps, "registration", console)
    return net.eval()


def registration_trials(
    net: PointGMMRegistration, shapes: Tensor, trials: int, points: int, seed: int = 7
) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
    """(trials,) degrees off for random poses of random shapes, and (source, target, source moved) of each trial.

    Source and target are different points of the same shape, at different poses.
    """
    g = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(shapes), (trials,), generator=g)
    order = torch.stack([torch.randperm(shapes.shape[1], generator=g)[: 2 * points] for _ in range(trials)])
    clouds = shapes[chosen[:, None], order]
    at_source, at_target = random_pose(trials, generator=g), random_pose(trials, generator=g)
    source, target = move(clouds[:, :points], at_source, net.axis), move(clouds[:, points:], at_target, net.axis)
    pose: Pose = net.register(source, target)
    off = angle_between(pose, compose(at_target, inverse(at_source, net.axis), net.axis))
    return off, list(zip(source, target, move(source, pose, net.axis), strict=True))


def running_mean(values: Sequence[float], window: int = 3) -> list[float]:
    """Means of ``window`` values in a row."""
    return [sum(values[i : i + window]) / window for i in range(len(values) - window + 1)]


def _train(
    net: nn.Module,
    step: Callable[[Tensor], Tensor],
    shapes: Tensor,
    size: Size,
    steps: int,
    name: str,
    console: Console,
    log: Callable[[], None] | None = None,
) -> None:
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    net.train()
    with bars(console) as progress:
        task = progress.add_task(f"training {name}", total=steps, note="")
        for i in range(steps):
            chosen = torch.randint(len(shapes), (size.batch, 1))
            clouds = shapes[chosen, torch.randint(shapes.shape[1] // 2, (size.batch, size.points))]
            optimizer.zero_grad()
            step(clouds).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            optimizer.step()
            schedule.step()
            if log is not None and (i + 1) % max(1, steps // size.logs) == 0:
                log()
            progress.advance(task)


def _shapes(family: str, size: Size) -> tuple[Tensor, Tensor]:
    """(train, DENSE, 3) and (held_out, DENSE, 3); no seed is in both."""
    clouds = torch.stack([torch.from_numpy(make_shape(family, s, DENSE)) for s in range(size.train + size.held_out)])
    return clouds[: size.train], clouds[size.train :]


def _refined(
    mixtures: Hierarchy, seen: Tensor, unseen: Tensor, counts: Sequence[int], shapes: int = 12
) -> dict[int, tuple[float, float]]:
    """Number of EM iterations on the seen points: their negative log-likelihood, and that of the unseen ones."""
    seen, unseen = seen[:shapes], unseen[:shapes]
    now, done = mixtures.flat().map(lambda t: t[:shapes]), 0
    values = {}
    for count in counts:
        now, done = refine(now, seen, count - done, min_eigenvalue=BOUND), count
        with torch.no_grad():
            values[count] = float(GMM()(now, seen)), float(GMM()(now, unseen))
    return values


def _completed(net: nn.Module, clouds: Tensor) -> Tensor:
    with torch.no_grad():
        fine: Tensor = net(clouds)[1]
    return fine


def _judged(name: str, clouds: Tensor, references: Tensor, seconds: float) -> tuple[str, float, float, float]:
    distances = pairwise_distances(clouds, references)
    return name, float(coverage_of(distances)), float(mmd_of(distances)), seconds


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        yield


def _print(outcome: Outcome, family: str, console: Console) -> None:
    logged = " ".join(f"{value:.2f}" for value in outcome.logged)
    falls = all(b < a for a, b in pairwise(running_mean(outcome.logged)))
    console.print(f"Negative log-likelihood of held-out {family} shapes, nats per point, during training: {logged}")
    console.print(f"Its running mean over 3 {'falls at every step' if falls else 'does not fall at every step'}.")
    columns = ["iterations", "points it used", "other points of the same shapes"]
    table = titled_table("EM from the predicted mixture, nats per point", [], columns)
    for count, (seen, unseen) in outcome.refined.items():
        table.add_row(str(count), f"{seen:.3f}", f"{unseen:.3f}")
    console.print(table)
    if outcome.sets:
        columns = ["coverage", "MMD (Chamfer-L2)", "seconds"]
        table = titled_table("Reconstructions of held-out shapes, equal steps", ["model"], columns)
        for name, covered, distance, seconds in outcome.sets:
            table.add_row(name, f"{covered:.0%}", f"{1000 * distance:.3f}e-3", f"{seconds:.0f}")
        console.print(table)
    within = int((outcome.angles < 10).sum())
    console.print(
        f"Registration of held-out {family} shapes at random poses: {within} of {len(outcome.angles)} trials within 10 "
        f"degrees, median {float(outcome.angles.median()):.1f} degrees."
    )
    for path in outcome.pictures:
        print(path)
