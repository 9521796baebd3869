"""May batches of a handler overlap? Read from its source, without running any of it."""

# ruff: noqa: ANN401 - a handler is whatever its author made it

from __future__ import annotations

import ast
import copy
import inspect
import os
import textwrap
from typing import TYPE_CHECKING, Any

from hatch_mar.model import profiling
from hatch_mar.model.base_handler import BaseHandler
from hatch_mar.model.factory import FactoryHandler
from hatch_mar.model.tracebacks import summarise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STEPS = ("preprocess", "postprocess")
"""The author's steps that run beside those of other batches."""
MUTATORS = frozenset(
    {
        *("add", "append", "appendleft", "clear", "extend", "insert", "pop", "popitem", "popleft"),
        *("put", "remove", "setdefault", "update"),
    }
)
"""Methods that change what they are called on."""


def find_obstacle(
    handler: BaseHandler | FactoryHandler | None, config: Mapping[str, Any]
) -> str | None:
    """Return why no batch of `handler` can be taken apart; None if it can."""
    if handler is None:
        return "it is neither BaseHandler's nor handler_factory's, or behind an envelope"
    section = config.get("handler")
    if profiling.is_enabled() or (isinstance(section, dict) and section.get("profile")):
        return "its steps are being measured"
    if "torch" not in type(handler.device).__module__:
        return "its model is none of torch's"
    if isinstance(handler, FactoryHandler):
        return None
    if type(handler).handle is not BaseHandler.handle or "handle" in vars(handler):
        return "it has a `handle` of its own"
    return _try_copy(handler)


def _try_copy(handler: BaseHandler) -> str | None:
    """Return why there can be no twins of `handler`; None if there can."""
    try:
        copy.copy(handler)
    except Exception as error:  # noqa: BLE001 - an author's own `__copy__` or `__reduce__`
        return f"it cannot be copied: {summarise(error)}"
    return None


def find_risk(handler: BaseHandler | FactoryHandler) -> str | None:
    """Return what may go wrong if batches of `handler` overlap; None if nothing we know of."""
    if isinstance(handler, FactoryHandler):
        return None
    for name in ("inference", *STEPS):
        if name in vars(handler):
            return f"its `{name}` is not that of its class"
    if not _is_ours(type(handler).inference):
        return "it has an `inference` of its own"
    return next(_find_state(type(handler)), None)


def count_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _find_state(kind: type) -> Iterator[str]:
    """Yield what the steps of `kind`, and the methods that they call, may leave behind."""
    waiting, seen = list(STEPS), set(STEPS)
    while waiting:
        name = waiting.pop()
        for function, bound in _list_functions(kind, name):
            ours, tree = _is_ours(function), _read(function)
            if tree is None:
                yield f"the source of `{name}` cannot be read"
                continue
            flaw = None if ours else find_write(tree, bound=bound)
            if flaw is not None:
                yield f"`{name}` {flaw}"
            used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            waiting += used - seen
            seen |= used


def find_write(tree: ast.FunctionDef | ast.AsyncFunctionDef, *, bound: bool = True) -> str | None:
    """Return how a method may keep something beyond its end; None if it does not.

    It changes what hangs on `self`, or hands `self` to somebody who might. One that is not `bound`
    has no `self`.
    """
    arguments = [*tree.args.posonlyargs, *tree.args.args]
    own = arguments[0].arg if arguments and bound else ""
    roots = {own, *_list_aliases(tree, own)} - {""}
    passed = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Subscript)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Global | ast.Nonlocal):
            return f"writes to the global {node.names[0]!r}"
        if isinstance(node, ast.Attribute | ast.Subscript) and _find_root(node) in roots:
            if not isinstance(node.ctx, ast.Load):
                return f"changes `{ast.unparse(node)}`"
            if isinstance(node, ast.Attribute) and node.attr == "__dict__":
                return f"uses `{ast.unparse(node)}`"
        if isinstance(node, ast.Call) and _mutates(node.func, own, roots):
            return f"changes `{ast.unparse(node.func.value)}`"  # type: ignore[attr-defined]
        is_own = isinstance(node, ast.Name) and node.id == own and id(node) not in passed
        if own and is_own and not _is_for_super(tree, node):
            return f"gives `{own}` away"
    return None


def _mutates(called: ast.expr, own: str, roots: set[str]) -> bool:
    """Tell whether a call of `called` is one of a mutating method of something that `self` has."""
    if not isinstance(called, ast.Attribute) or called.attr not in MUTATORS:
        return False
    owner = called.value
    return _find_root(owner) in roots and not (isinstance(owner, ast.Name) and owner.id == own)


def _list_aliases(tree: ast.AST, own: str) -> Iterator[str]:
    """Yield the local names of what hangs on `self`."""
    for node in ast.walk(tree) if own else ():
        if isinstance(node, ast.Assign) and _find_root(node.value) == own:
            yield from (each.id for each in node.targets if isinstance(each, ast.Name))


def _find_root(node: ast.expr) -> str:
    """Return `self` for `self.a.b[0]`; empty if that begins with no name."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_for_super(tree: ast.AST, name: ast.AST) -> bool:
    """Tell whether `name` is an argument of `super(...)`."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(
        isinstance(call.func, ast.Name) and call.func.id == "super" and name in call.args
        for call in calls
    )


def _list_functions(kind: type, name: str) -> Iterator[tuple[Any, bool]]:
    """Yield what the classes of a handler define as `name`, if it is code, and if it has `self`."""
    for base in kind.__mro__:
        value: Any = vars(base).get(name)
        bound = not isinstance(value, staticmethod)
        value = getattr(value, "fget", None) or getattr(value, "func", None) or value
        value = inspect.unwrap(getattr(value, "__func__", value))
        if inspect.isfunction(value):
            yield value, bound


def _is_ours(function: Any) -> bool:
    return (getattr(function, "__module__", "") or "").startswith("hatch_mar.")


def _read(function: Any) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """Return the source of `function`; None if it has none that is a definition."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, TypeError, SyntaxError):
        return None
    is_definition = len(body) == 1 and isinstance(body[0], ast.FunctionDef | ast.AsyncFunctionDef)
    return body[0] if is_definition else None  # type: ignore[return-value]
