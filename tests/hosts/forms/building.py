"""A form: a small host of our own writing, what its three training steps must give, and how it is run and compared.

Every form trains the same network in its own way: `torch.manual_seed(0)`, one Linear(3, 3), then three times
`torch.rand(2, 16, 3)` and `torch.rand(2, 24, 3)` (prediction's input and truth) and one step of SGD. So what its
weights must be with a loss in place of its Chamfer is known from :func:`expected`, whatever the host looks like. A
form draws its clouds from the global generator: whoever draws from it in between moves the weights.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from forking import HOME, Done, Forking
from torch import Tensor

from apml_plugin import APML

LOSS = "{NAME: APML, reduction: mean}"
TRAINS, STOPS, EITHER = "trains", "stops", "trains or stops"


@dataclass(frozen=True)
class Form:
    """A host and what is expected of it.

    Attributes:
        files: path -> text.
        run: what `apml run --loss` does with the untouched host: TRAINS, STOPS, or EITHER where that depends on how
            the plugin was installed; "" if it is not tried.
        patch: the same of `apml patch` and then plain `python`; STOPS means that the patch is refused.
        words, cwd: how its author starts it. patched_words: how, once it is patched, if that differs.
        stages: every how-manieth point each stage has, in the order in which the losses are added.
        total: the number that is differentiated, from the stages' losses.
        evaluation: a script that prints `val NUMBER` for the saved weights, with the host's own metric.
        kept: files besides `evaluation` that a patch must not touch.
        packages: path -> text of libraries that the host needs, installed beside it.
        by_hand: file -> replacements (old, new) with which its author puts the two lines in.
        ends: how its lines end.
    """

    files: dict[str, str]
    run: str = TRAINS
    patch: str = TRAINS
    words: tuple[str, ...] = ("main.py",)
    patched_words: tuple[str, ...] = ()
    cwd: str = "."
    stages: tuple[int, ...] = (1,)
    total: Callable[[list[Tensor]], Any] = sum
    lr: float = 0.1
    dtype: torch.dtype = torch.float32
    weights: str = "weights.pth"
    evaluation: str = ""
    kept: tuple[str, ...] = ()
    packages: dict[str, str] = field(default_factory=dict)
    by_hand: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    ends: str = "\n"


def expected(form: Form, *losses: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The 12 weights after the form's training with `losses`: one, or one for each stage."""
    per_stage = losses * len(form.stages) if len(losses) == 1 else losses
    torch.manual_seed(0)
    move = torch.nn.Linear(3, 3, dtype=form.dtype)
    for _ in range(3):
        x, gt = torch.rand(2, 16, 3, dtype=form.dtype), torch.rand(2, 24, 3, dtype=form.dtype)
        fine = move(x)
        stages = zip(per_stage, form.stages, strict=True)
        value = form.total([loss(fine[:, ::every], gt) for loss, every in stages])
        gradients = torch.autograd.grad(value, list(move.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(move.parameters(), gradients, strict=True):
                weight -= form.lr * gradient
    return torch.cat([weight.detach().flatten() for weight in move.parameters()])


def with_apml(form: Form) -> Tensor:
    return expected(form, APML(reduction="mean"))


def _chamfer(p: float, power: int, weight: float) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(a: Tensor, b: Tensor) -> Tensor:
        d = torch.cdist(a, b, p=p) ** power
        return weight * (d.min(2)[0].mean() + d.min(1)[0].mean())

    return loss


def with_a_chamfer(form: Form) -> list[Tensor]:
    """The weights with each Chamfer distance that hosts here have, in each stage."""
    known = (_chamfer(2, 1, 0.5), _chamfer(2, 1, 1.0), _chamfer(2, 2, 1.0), _chamfer(1, 1, 1.0))
    return [expected(form, *chosen) for chosen in itertools.product(known, repeat=len(form.stages))]


class Clone:
    """A form on disk, and what its runs leave there."""

    def __init__(self, form: Form, folder: Path) -> None:
        self.form, self.root, self.site = form, folder / "clone", folder / "env" / "site-packages"
        for root, files in ((self.root, form.files), (self.site, form.packages)):
            root.mkdir(parents=True)
            for name, text in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(text.lstrip("\n").replace("\n", form.ends).encode())
        self.cwd = self.root / form.cwd
        self.weights_file = self.root / form.weights

    def snapshot(self) -> dict[str, str]:
        """The files of the host itself, without what its runs wrote."""
        paths = [p for p in sorted(self.root.rglob("*")) if p.is_file() and "__pycache__" not in p.parts]
        files = {p.relative_to(self.root).as_posix(): p for p in paths if p != self.weights_file}
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}

    def start(self, python: Forking, words: tuple[str, ...] = (), **env: str) -> Done:
        """Runs `words` (by default the form's own) in the form's folder, with nothing left of an earlier run."""
        self.weights_file.unlink(missing_ok=True)
        return self.go_on(python, words or self.form.words, **env)

    def go_on(self, python: Forking, words: tuple[str, ...], **env: str) -> Done:
        path = os.pathsep.join(map(str, [*([self.site] if self.form.packages else []), HOME]))
        return python(words, self.cwd, PYTHONPATH=path, **env)

    def weights(self) -> Tensor:
        """The saved weights, one after the other, in whatever the form wraps its state."""
        state = torch.load(self.weights_file, weights_only=True)
        while not all(isinstance(value, Tensor) for value in state.values()):
            state = next(value for value in state.values() if isinstance(value, dict))
        return torch.cat([value.flatten() for value in state.values()])


def assert_trained(clone: Clone, done: Done, own: Tensor) -> None:
    """The run ended well, and its weights are those of APML, which are not `own`, those of the host's Chamfer."""
    assert done.returncode == 0, done.said
    assert clone.weights_file.is_file(), done.said
    got, wanted = clone.weights(), with_apml(clone.form)
    near = 1e-10 if clone.form.dtype == torch.float64 else 2e-6
    assert (own - wanted).abs().max() > 1000 * near, "this form cannot tell the losses apart"
    assert not torch.allclose(got, own, rtol=0, atol=100 * near), f"it trained with its own Chamfer\n{done.said}"
    torch.testing.assert_close(got, wanted, rtol=0, atol=near, msg=lambda text: f"{text}\n{done.said}")


def validation(done: Done) -> str:
    """The last `val NUMBER` that a process printed, every digit of it."""
    lines = [line for line in done.stdout.splitlines() if line.startswith("val ")]
    return lines[-1] if lines else ""
