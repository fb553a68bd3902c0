"""Hosts that train with a Chamfer function of their own (SeedFormer, SVDFormer, InfoCD, PointAttN, ...).

The function is kept; its decorator takes over only in training calls. One that measures one direction, or whose
indices go on, stays.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ...patching import Edit
from . import chamfers, staged
from .project import Node, Project, own_code
from .sites import SOURCE, Kept, Refused, Site


def find(project: Project, reached: set[Node], training: set[Node]) -> Iterator[Site | Kept | Refused]:
    """What the functions reached from training measure."""
    for node in sorted(reached - training):
        reading = None if is_forward(project, node) else chamfers.read(project, node)
        if reading is None:
            continue
        file, name = node
        if reading.kind == chamfers.ONE_SIDED:
            yield Kept(file, reading.line, name, "measures one direction only (partial matching)")
        elif reading.kind == chamfers.INDICES and (line := staged.line(project, node)):
            yield Site(file, reading.line, name, f"two-sided Chamfer in {line.after}; the indices stay its own", line)
        elif reading.kind == chamfers.INDICES:
            why = "gives the nearest neighbours' indices or raw distances on, for others to use, besides its value"
            yield Refused(file, reading.line, name, why)
        elif reading.kind == chamfers.WEIGHED:
            why = "a further argument takes part in its value, which a loss of two clouds knows nothing of"
            yield Refused(file, reading.line, name, why)
        elif flow := _into_network(project, node, reached):
            why = f"its value also goes into the network ({flow[0]}:{flow[1]}), so it is part of the architecture"
            yield Refused(file, reading.line, name, why)
        else:
            vector = reading.kind == chamfers.PER_SAMPLE
            what = "two-sided Chamfer, " + ("one value per sample" if vector else "one number")
            arguments = "(per_sample=True)" if vector else ""
            yield Site(file, reading.line, name, what, Edit(file, name, "trains_with_loss", SOURCE, False, arguments))


def in_networks(project: Project, reached: set[Node]) -> Iterator[Kept]:
    """Chamfer objects that a network calls on its own way: they stay what they are."""
    for node in sorted(reached):
        if not is_forward(project, node):
            continue
        objects = chamfers.chamfer_objects(project, node)
        for inner in own_code(project.nodes[node]):
            if isinstance(inner, ast.Call) and ast.unparse(inner.func) in objects:
                yield Kept(node[0], inner.lineno, node[1], f"{ast.unparse(inner.func)} is used inside the network")
                break


def is_forward(project: Project, node: Node) -> bool:
    """A method `forward` of a class that derives from some Module."""
    owner = project.owner(node)
    tree = project.nodes[owner] if owner else None
    module = isinstance(tree, ast.ClassDef) and any(ast.unparse(base).endswith("Module") for base in tree.bases)
    return module and node[1].endswith(".forward")


def _into_network(project: Project, site: Node, reached: set[Node]) -> tuple[str, int] | None:
    """Where a network's forward feeds the site's value into one of its own layers."""
    for node in sorted(reached):
        if not is_forward(project, node):
            continue
        tainted: set[str] = set()
        for inner in own_code(project.nodes[node]):
            if isinstance(inner, ast.Call) and ast.unparse(inner.func).startswith("self."):
                names = {n.id for a in inner.args for n in ast.walk(a) if isinstance(n, ast.Name)}
                direct = any(_calls(project, node, argument, site) for argument in inner.args)
                if direct or names & tainted:
                    return node[0], inner.lineno
            if isinstance(inner, ast.Assign):
                names = {n.id for n in ast.walk(inner.value) if isinstance(n, ast.Name)}
                if _calls(project, node, inner.value, site) or names & tainted:
                    tainted |= {n.id for t in inner.targets for part in _ours(t) for n in ast.walk(part)
                                if isinstance(n, ast.Name)}  # fmt: skip
    return None


def _ours(target: ast.expr) -> list[ast.expr]:
    """What of an unpacked result becomes ours: the leading Chamfer values, not the raw distances behind them."""
    return target.elts[:2] if isinstance(target, ast.Tuple | ast.List) else [target]


def _calls(project: Project, within: Node, expression: ast.expr, site: Node) -> bool:
    return any(
        isinstance(n, ast.Call) and project.resolve(within[0], n.func, within) == site for n in ast.walk(expression)
    )
