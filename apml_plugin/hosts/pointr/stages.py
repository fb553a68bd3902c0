"""Which attribute of a host model holds its training loss, and what each call in `get_loss` is for.

An attribute's name does not tell (GRNet's `loss_func_2` is a gridding loss of weight zero, SnowFlakeNet's
`loss_func_PM` measures the coverage of the input), so known classes have an entry in `KNOWN`. Of any other class,
`build_loss_func` shows the attributes that hold a ChamferDistance, and `get_loss` the calls.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...errors import LossValueError
from ..project import dotted, inside, last_name


@dataclass(frozen=True)
class LossSite:
    """An attribute that holds a loss. stages: what its calls in one `get_loss` are for, in calling order.

    kept: the stages that keep the host's loss unless the YAML names them.
    """

    attribute: str
    stages: tuple[str, ...]
    kept: tuple[str, ...] = ()


_COARSE_FINE = (LossSite("loss_func", ("coarse", "fine")),)

KNOWN: dict[str, tuple[LossSite, ...]] = {
    "PCN": _COARSE_FINE,
    "FoldingNet": _COARSE_FINE,
    "TopNet": _COARSE_FINE,
    "PoinTr": _COARSE_FINE,
    # The denoising target is gathered by nearest neighbours, so it has many duplicate points.
    "AdaPoinTr": (LossSite("loss_func", ("denoise", "coarse", "fine"), kept=("denoise",)),),
    "GRNet": (LossSite("loss_func_1", ("coarse", "fine")),),
    "SnowFlakeNet": (LossSite("loss_func_CD", ("coarse", "p1", "p2", "fine")),),
}


def sites_of(
    names: Sequence[str], build: ast.FunctionDef | None, get_loss: ast.FunctionDef | None
) -> tuple[LossSite, ...]:
    """The loss attributes of a model, from the syntax trees of its two methods; () if nothing can be replaced.

    names: the class's name and those of its bases, nearest first. An entry of `KNOWN` counts only if the class assigns
    that attribute and calls it that often, because a fork may have changed either.
    """
    assigned = _chamfer_attributes(build) if build else ()
    for name in names:
        known = KNOWN.get(name, ())
        if known and all(_fits(site, assigned, get_loss) for site in known):
            return known
    return tuple(LossSite(attribute, _stages(attribute, get_loss)) for attribute in assigned)


def _fits(site: LossSite, assigned: tuple[str, ...], get_loss: ast.FunctionDef | None) -> bool:
    calls = _calls(site.attribute, get_loss) if get_loss else []
    return site.attribute in assigned and len(calls) == len(site.stages)


def _chamfer_attributes(build: ast.FunctionDef) -> tuple[str, ...]:
    """X of every `self.X = ChamferDistance...()`, with or without `.cuda()` or `.to(device)` after it."""
    found: dict[str, None] = {}
    for node in inside(build, ast.Assign):
        made = node.value
        while (
            isinstance(made, ast.Call)
            and isinstance(made.func, ast.Attribute)
            and isinstance(made.func.value, ast.Call)
        ):
            made = made.func.value
        name = last_name(made.func) if isinstance(made, ast.Call) else ""
        if name.startswith("ChamferDistance") and not name.endswith(("_PM", "_split")):
            found |= {own: None for t in node.targets if (own := dotted(t)).startswith("self.")}
    return tuple(name.removeprefix("self.") for name in found)


def _stages(attribute: str, get_loss: ast.FunctionDef | None) -> tuple[str, ...]:
    """coarse ... fine, by the position in `ret` if every call takes `ret[i]`, else by calling order."""
    calls = _calls(attribute, get_loss) if get_loss else []
    names = stage_names(max(1, len(calls)))
    indices = [n.slice for call in calls for n in call.args[:1] if isinstance(n, ast.Subscript)]
    given = [i.value for i in indices if isinstance(i, ast.Constant) and isinstance(i.value, int)]
    return tuple(names[sorted(given).index(i)] for i in given) if len(set(given)) == len(names) else names


def stage_names(count: int) -> tuple[str, ...]:
    """coarse, stage2, ..., fine."""
    return ("coarse", *(f"stage{i}" for i in range(2, count)), "fine") if count > 1 else ("fine",)


def check_stages(model: str, wanted: Iterable[str], known: Sequence[str]) -> None:
    """Raises LossValueError for a stage that a model does not have."""
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise LossValueError(
            f"loss: {model} has no stage {' or '.join(map(repr, unknown))}; its stages are {', '.join(known)}"
        )


def _calls(attribute: str, get_loss: ast.FunctionDef) -> list[ast.Call]:
    """The calls of `self.<attribute>(...)` in source order."""
    found = [call for call in inside(get_loss, ast.Call) if dotted(call.func) == f"self.{attribute}"]
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))
