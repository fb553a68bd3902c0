"""Where in a syntax tree an inserted line belongs."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator

from ..errors import PatchError
from .records import Line

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_DEFINITION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Every class and function with its qualified name, those inside `if` and `try` blocks included."""
    for block in blocks(tree, into_definitions=False):
        for node in block:
            if isinstance(node, Definition):
                yield prefix + node.name, node
                yield from definitions(node, f"{prefix}{node.name}.")


def place(tree: ast.Module, edit: Line) -> tuple[int, ast.stmt]:
    """(0-based line before which the edit's line goes, the statement whose indentation it gets).

    Raises PatchError if the place is missing or ambiguous.
    """
    scope = _definition(tree, edit) if edit.scope else tree
    if not edit.after:
        assert isinstance(scope, Definition)
        return scope.lineno - 1, scope
    found = [
        (statement, block, at)
        for block in blocks(scope, into_definitions=False)
        for at, statement in enumerate(block)
        if edit.after in targets(statement)
    ]
    found.sort(key=lambda item: item[0].lineno)
    try:
        statement, block, at = found[edit.which]
    except IndexError:
        where, count = edit.scope or "the top level", f"only {len(found)} times" if found else "nowhere"
        raise PatchError(
            f"{edit.file}: '{where}' binds '{edit.after}' {count}, so there is no one place to edit. "
            "Nothing was changed"
        ) from None
    end = statement.end_lineno or statement.lineno
    if at + 1 < len(block) and block[at + 1].lineno == end:
        raise PatchError(
            f"{edit.file}, line {end}: more follows on the line that binds '{edit.after}', so no line can go in "
            "between. Nothing was changed"
        )
    return end, next(other for other in block if other.lineno == statement.lineno)


def without(tree: ast.Module, lines: Collection[int]) -> ast.Module:
    """The tree (changed in place) without the statements and decorators that begin on `lines`."""
    for block in blocks(tree):
        block[:] = [statement for statement in block if first_line(statement) not in lines or _decorated(statement)]
    for _, node in definitions(tree):
        node.decorator_list = [decorator for decorator in node.decorator_list if decorator.lineno not in lines]
    return tree


def import_place(tree: ast.Module, used: int | None = None) -> int:
    """The 0-based line before which an import goes: after the docstring and the leading imports, if there are any.

    used: the first 1-based line of the top level that needs the import, which then goes above that statement.
    """
    end = 0
    for index, statement in enumerate(tree.body):
        docstring = index == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        first = first_line(statement)
        leading = docstring or isinstance(statement, ast.Import | ast.ImportFrom)
        if used is not None and used <= (statement.end_lineno or first):
            return min(first - 1, end or first - 1)
        # A statement on the line of a leading one (`import a; b = 1`) is skipped, too.
        if not leading and first > end:
            return end or first - 1
        end = statement.end_lineno or first
    return end


def first_line(statement: ast.stmt) -> int:
    return min([statement.lineno, *(int(d.lineno) for d in getattr(statement, "decorator_list", []))])


def _decorated(statement: ast.stmt) -> bool:
    return bool(getattr(statement, "decorator_list", ()))


def _definition(tree: ast.Module, edit: Line) -> Definition:
    found = [node for qualified, node in definitions(tree) if qualified == edit.scope]
    if len(found) == 1:
        return found[0]
    what = f"is defined {len(found)} times" if found else "is not defined"
    raise PatchError(f"{edit.file}: '{edit.scope}' {what}, so there is no one place to edit. Nothing was changed")


def targets(statement: ast.stmt) -> list[str]:
    """The source of each target that a plain assignment or an import binds."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in statement.names]
    if isinstance(statement, ast.Assign):
        return [ast.unparse(target) for target in statement.targets]
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        return [ast.unparse(statement.target)]
    return []


def blocks(tree: ast.AST, into_definitions: bool = True) -> Iterator[list[ast.stmt]]:
    """Every list of statements, outer ones first. into_definitions: also those of the functions and classes inside."""
    for _, value in ast.iter_fields(tree):
        children = value if isinstance(value, list) else [value]
        if children and isinstance(children[0], ast.stmt):
            yield children
        for child in children:  # no statement is below an expression
            passed = ast.expr if into_definitions else (ast.expr, *_DEFINITION)
            if isinstance(child, ast.AST) and not isinstance(child, passed):
                yield from blocks(child, into_definitions)
