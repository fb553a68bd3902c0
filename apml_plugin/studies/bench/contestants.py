"""What is timed: a name and a function of pred and gt. Ours are found here, the others in ``peers.py``.

A contestant is found by its name alone, so that a fresh process can be told which one to run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from apml_plugin.errors import LossArgumentError, LossValueError
from apml_plugin.functional import apml_loss, chamfer_distance
from apml_plugin.matching import backends
from apml_plugin.studies.bench.peers import PEERS
from apml_plugin.studies.bench.timing import problem_of

DEFAULT_LOSSES = ("APML", "ChamferL1", "ChamferL2")

Call = Callable[[Tensor, Tensor], Any]


@dataclass(frozen=True)
class Contestant:
    """One thing to time.

    Attributes:
        name: what the tables call it, and what :func:`contestant` finds it by.
        call: pred (B, N, 3) and gt (B, M, 3) to a loss.
        ours: whether it goes above the line in a ratio, or below.
        growth: time grows as points to this power; predicts which cases are too long.
        gradient: False where there is nothing to differentiate and only the forward call is timed.
        note: what a reader must know to read its figures.
    """

    name: str
    call: Call
    ours: bool
    growth: float = 1.0
    gradient: bool = True
    note: str = ""


def contestant(name: str) -> Contestant:
    """One of ours (``APML``, ``APML dense``, any ``loss:`` of a YAML) or, by its own name, a peer.

    Raises:
        ApmlError: no such loss or backend, or arguments it does not take.
        ImportError: a peer that cannot be imported here.
    """
    peer = next((peer for peer in PEERS if peer.name == name), None)
    if peer is not None:
        return Contestant(peer.name, peer.load(), False, peer.growth, peer.gradient, peer.note)
    return our(name)


def our(name: str) -> Contestant:
    """One of ours. A registered loss may come with arguments: ``{NAME: APML, p_min: 0.5}``."""
    if name == "APML":
        return Contestant(name, apml_loss, True)
    if name in ("ChamferL1", "ChamferL2"):
        return Contestant(name, functools.partial(chamfer_distance, norm=name[-2:]), True)
    if name.startswith("APML ") and name[5:] in backends.BACKENDS:
        backend = name[5:]
        return Contestant(
            name, functools.partial(apml_loss, backend=backend), True, growth=2.0 if backend == "dense" else 1.0
        )
    from apml_plugin.registry import build_loss  # needs mmengine, which the names above do without

    return Contestant(name, build_loss(_written(name)), True)


def auto_backend(points: int, device: str, dtype: torch.dtype) -> str:
    """The backend that APML's ``auto`` takes for clouds of that many points, or why it takes none."""
    cloud = torch.empty(1, 1, 3, device=device, dtype=dtype).expand(1, points, 3)
    try:
        return backends.choose("auto", cloud, cloud).name
    except Exception as error:
        return problem_of(error)


def check_runs(one: Contestant, device: str, dtype: torch.dtype) -> None:
    """Calls it once on eight points: what cannot work at all is said before anything is timed.

    Raises:
        ApmlError: with the loss's own reason.
    """
    cloud = torch.rand(1, 8, 3, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    loss = one.call(cloud, cloud + 1)
    if not isinstance(loss, Tensor):
        raise LossValueError(f"{one.name} gave {type(loss).__name__}, not a tensor: it cannot be timed as a loss")


def _written(text: str) -> Any:
    """A loss as a YAML says it, under ``loss:``."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = str(getattr(error, "problem", None) or error)
        raise LossArgumentError(f"--loss {text!r} is no YAML ({reason}); write {{NAME: APML, p_min: 0.5}}") from None
