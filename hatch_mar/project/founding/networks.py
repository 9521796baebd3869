"""The network in a Python file: which of its classes is the model, and what its constructor asks.

Found by reading. A class counts if it has a `forward`, its own or from the same file, or if its
base is one of torch's modules; a class that another one is built of is a part and not the model.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hatch_mar.project.source import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BASES = ("Module", "LightningModule", "Sequential", "PreTrainedModel")
"""Last names of classes that make their subclasses networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One class that is a model."""

    name: str
    required: tuple[str, ...] = ()
    """Arguments of its constructor without a default."""
    accepted: tuple[str, ...] = ()
    """All arguments that may be named."""
    open_ended: bool = False
    """Whether any name will do (`**kwargs`)."""


def read_networks(source: bytes) -> tuple[Network, ...]:
    """Return the models of a Python file; without the classes that others of it are built of.

    Raises:
        SourceError: it is not Python.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        line = f"line {error.lineno}: " if error.lineno else ""
        raise SourceError(f"{line}{error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise SourceError(f"cannot be read: {error}") from error
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    found = {name: node for name, node in classes.items() if _is_network(node, classes)}
    parts = {used for node in found.values() for used in _names_in(node) if used != node.name}
    whole = [name for name in found if name not in parts] or list(found)
    return tuple(_describe(found[name], classes) for name in whole)


def class_names(source: bytes) -> tuple[str, ...]:
    """Return the names of all classes at module level; none if it is not Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return tuple(node.name for node in tree.body if isinstance(node, ast.ClassDef))


def _is_network(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> bool:
    return any(
        any(isinstance(each, ast.FunctionDef) and each.name == "forward" for each in step.body)
        or any(base.rpartition(".")[2] in BASES for base in map(ast.unparse, step.bases))
        for step in _ancestry(node, classes)
    )


def _ancestry(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    """Yield a class and those of the same file that it inherits from, nearest first."""
    queue, seen = [node], {node.name}
    while queue:
        step = queue.pop(0)
        yield step
        for base in map(ast.unparse, step.bases):
            if base in classes and base not in seen:
                seen.add(base)
                queue.append(classes[base])


def _names_in(node: ast.ClassDef) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _describe(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> Network:
    constructors = (
        each
        for step in _ancestry(node, classes)
        for each in step.body
        if isinstance(each, ast.FunctionDef) and each.name == "__init__"
    )
    constructor = next(constructors, None)
    if constructor is None:
        return Network(name=node.name, open_ended=True)
    arguments = constructor.args
    positional = [*arguments.posonlyargs, *arguments.args][1:]
    free = positional[: len(positional) - len(arguments.defaults)]
    free += [
        each
        for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is None
    ]
    return Network(
        name=node.name,
        required=tuple(each.arg for each in free),
        accepted=tuple(each.arg for each in (*positional, *arguments.kwonlyargs)),
        open_ended=arguments.kwarg is not None,
    )
