"""What can be known of a Python file without running it."""

from __future__ import annotations

import ast
import keyword
import sys
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Initialize = Literal["inherited", "own"]
FACTORY_NAME = "handler_factory"
FACTORY_MODULES = frozenset({"base_handler", "hatch_mar", "hatch_mar.model.factory"})


class SourceError(Exception):
    """A file that is not Python, with the line in its message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One import statement's hold on one module."""

    module: str
    """Absolute name, or what follows the dots of a relative one."""
    names: Mapping[str, str]
    """Local name to imported name; the module's own name for a plain `import`."""
    level: int
    """Dots of a relative import."""
    line: int
    fallback: bool
    """Inside a `try` that catches ImportError, or in its handler: may fail without harm."""
    star: bool = False

    @property
    def top(self) -> str:
        """First part of the module's name."""
        return self.module.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSource:
    """One class at module level."""

    name: str
    bases: tuple[str, ...]
    """Dotted, as written."""
    methods: frozenset[str]
    passes_initialize_on: bool
    """Whether its own `initialize` calls the inherited one."""


class Module:
    """One Python file, read."""

    def __init__(self, tree: ast.Module) -> None:
        """Look at the statements that run on import."""
        self._statements = list(_toplevel(tree.body, fallback=False))

    @cached_property
    def classes(self) -> dict[str, ClassSource]:
        """Classes defined in this very file, by name."""
        found = (node for node, _ in self._statements if isinstance(node, ast.ClassDef))
        return {node.name: _read_class(node) for node in found}

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Imports that run when the module is imported, in their order."""
        return tuple(
            found
            for node, fallback in self._statements
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for found in _read_import(node, fallback=fallback)
        )

    @cached_property
    def names(self) -> frozenset[str]:
        """Every name that is bound at module level, however."""
        return frozenset(name for node, _ in self._statements for name in _bound_names(node))

    @cached_property
    def factories(self) -> tuple[str, ...]:
        """Names bound to the result of `handler_factory(...)`."""
        return tuple(
            name
            for node, _ in self._statements
            if isinstance(node, (ast.Assign, ast.AnnAssign))
            and isinstance(node.value, ast.Call)
            and self._is_factory(ast.unparse(node.value.func))
            for name in _bound_names(node)
        )

    @property
    def has_star_import(self) -> bool:
        """Whether names may be bound that nobody can see."""
        return any(each.star for each in self.imports)

    def _is_factory(self, function: str) -> bool:
        """Say whether `function`, as written, is handler_factory under some name."""
        owner, _, attribute = function.rpartition(".")
        for each in self.imports:
            if each.module not in FACTORY_MODULES:
                continue
            if not owner and each.names.get(function) == FACTORY_NAME:
                return True
            if attribute == FACTORY_NAME and each.names.get(owner) == each.module:
                return True
        return False


def find_flaw_of_module(name: str) -> str | None:
    """Return why a server could not import a file of this name, at the root of a model; or None."""
    if not name.isidentifier() or keyword.iskeyword(name):
        return "cannot be imported; rename it"
    if name in sys.stdlib_module_names:
        return (
            "has the name of a module of Python's own, which would be imported instead; rename it"
        )
    return None


def read_module(path: Path) -> Module:
    """Read a Python file.

    Raises:
        SourceError: it cannot be read, or is not Python.
    """
    try:
        return parse_module(path.read_bytes(), path.name)
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}") from error


def parse_module(source: bytes, name: str) -> Module:
    """Read the source of the file `name`.

    Raises:
        SourceError: it is not Python.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the author's invalid escapes are the author's
            return Module(ast.parse(source, filename=name))
    except SyntaxError as error:
        line = f"line {error.lineno}: " if error.lineno else ""
        raise SourceError(f"{line}{error.msg}") from error
    except ValueError as error:  # what older releases of Python say of a null byte
        raise SourceError(str(error)) from error
    except (RecursionError, MemoryError) as error:  # Python's parser, of what is nested too deeply
        raise SourceError("is too deeply nested to be read") from error


def _toplevel(body: list[ast.stmt], *, fallback: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """Yield the statements that run on import, also those inside `if`, `try` and `with`."""
    for node in body:
        yield node, fallback
        if isinstance(node, ast.If):
            if not ast.unparse(node.test).endswith("TYPE_CHECKING"):
                yield from _toplevel(node.body, fallback=fallback)
            yield from _toplevel(node.orelse, fallback=fallback)
        elif isinstance(node, (ast.Try, ast.TryStar)):
            guarded = fallback or any(map(_catches_import_error, node.handlers))
            yield from _toplevel(node.body, fallback=guarded)
            for handler in node.handlers:
                yield from _toplevel(handler.body, fallback=guarded)
            yield from _toplevel([*node.orelse, *node.finalbody], fallback=fallback)
        elif isinstance(node, (ast.With, ast.For, ast.While)):
            yield from _toplevel(node.body, fallback=fallback)


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    caught = ast.unparse(handler.type) if handler.type else "Exception"
    return any(name in caught for name in ("ImportError", "ModuleNotFoundError", "Exception"))


def _read_class(node: ast.ClassDef) -> ClassSource:
    methods = {
        each.name: each
        for each in node.body
        if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assigned = {name for each in node.body for name in _bound_names(each)}
    initialize = methods.get("initialize")
    return ClassSource(
        name=node.name,
        bases=tuple(ast.unparse(base) for base in node.bases),
        methods=frozenset(methods) | assigned,
        passes_initialize_on=initialize is not None
        and any(
            isinstance(each, ast.Attribute) and each.attr == "initialize"
            for each in ast.walk(initialize)
        ),
    )


def _read_import(node: ast.Import | ast.ImportFrom, *, fallback: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            local = alias.asname or alias.name
            yield Import(
                module=alias.name,
                names={local: alias.name},
                level=0,
                line=node.lineno,
                fallback=fallback,
            )
        return
    yield Import(
        module=node.module or "",
        names={alias.asname or alias.name: alias.name for alias in node.names},
        level=node.level,
        line=node.lineno,
        fallback=fallback,
        star=any(alias.name == "*" for alias in node.names),
    )


def _bound_names(node: ast.stmt) -> Iterator[str]:
    """Yield the names that one statement binds in its own scope."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0]
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            for each in ast.walk(target):
                if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                    yield each.id
