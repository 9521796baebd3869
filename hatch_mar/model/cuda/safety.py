"""May batches of a handler overlap? Read from its source, without running any of it."""

# ruff: noqa: ANN401 - a handler is whatever its author made it

from __future__ import annotations

import ast
import copy
import inspect
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hatch_mar.model import profiling
from hatch_mar.model.base_handler import BaseHandler
from hatch_mar.model.cuda.writes import find_root, find_write, look_up, read_source, resolve
from hatch_mar.model.factory import FactoryHandler
from hatch_mar.model.tracebacks import summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from hatch_mar.model.cuda.writes import Code

STEPS = ("preprocess", "postprocess")
"""The author's steps that run beside those of other batches."""
_LIBRARIES = frozenset(
    {"", "PIL", "builtins", "numpy", "timm", "torch", "torchaudio", "torchvision", "transformers"}
)
"""Packages that are no author's own: what is called there is not read."""


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
        return next(_find_state(handler, _list_functions(handler)), None)
    for name in ("inference", *STEPS):
        if name in vars(handler):
            return f"its `{name}` is not that of its class"
    if not _is_ours(type(handler).inference):
        return "it has an `inference` of its own"
    for name in STEPS:
        if not inspect.isfunction(inspect.unwrap(getattr(type(handler), name))):
            return f"its `{name}` is no function"
    steps = [visit for name in STEPS for visit in _list_methods(handler, name)]
    return next(_find_state(handler, steps), None)


def count_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _find_state(handler: Any, steps: Iterable[_Visit]) -> Iterator[str]:
    """Yield what `steps`, and what of their author's they call, may leave behind."""
    waiting, seen = [*steps], set()
    found = [*type(handler).__mro__, *(visit.function for visit in waiting)]
    home = {_find_package(each) for each in found if not _is_ours(each)} - _LIBRARIES
    while waiting:
        visit = waiting.pop()
        key = visit.function, visit.given, id(visit.owner)
        if key in seen:
            continue
        seen.add(key)
        tree, scope = read_source(visit.function), look_up(visit.function)
        if tree is None:
            yield f"the source of `{visit.name}` cannot be read"
            continue
        if not _is_ours(visit.function):
            flaw = find_write(tree, bound=visit.bound, given=visit.given, scope=scope)
            if flaw is not None:
                yield f"`{visit.name}` {flaw}"
            waiting += _list_called(visit, tree, scope, home)
        if visit.owner is not None:
            used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            waiting += [
                each
                for name in used
                for each in _list_methods(visit.owner, name)
                if visit.owner is handler or _is_authors(each.function, home)
            ]


class _Visit(NamedTuple):
    """A function to read."""

    name: str
    function: Any
    owner: Any = None
    """What its `self` is."""
    bound: bool = False
    given: bool = False
    """Whether it is given something of a `self`."""


def _list_functions(handler: FactoryHandler) -> Iterator[_Visit]:
    """Yield the author's functions of `handler`, in the names of their arguments."""
    for name in STEPS:
        function = inspect.unwrap(getattr(handler, f"_{name}"))
        known = _find_package(function) in _LIBRARIES or _is_travelling(function)
        if inspect.isfunction(function) and not known:
            yield _Visit(f"{name}_function", function)


def _is_travelling(function: Any) -> bool:
    """Tell whether `function` is of `factory.py`, or of an archive's copy of it."""
    return _is_ours(function) or hasattr(
        sys.modules.get(function.__module__), "HATCH_MAR_BASE_HANDLER"
    )


def _list_methods(owner: Any, name: str) -> Iterator[_Visit]:
    """Yield what the classes of `owner` define as `name`, if it is code, with what wraps it."""
    for base in type(owner).__mro__:
        value: Any = vars(base).get(name)
        bound = not isinstance(value, staticmethod)
        value = getattr(value, "fget", None) or getattr(value, "func", None) or value
        value = getattr(value, "__func__", value)
        while value is not None:
            inner = getattr(value, "__wrapped__", None)
            if inspect.isfunction(value) and (inner is None or not _is_ours(value)):
                yield _Visit(name, value, owner, bound)
            value = inner


def _list_called(
    visit: _Visit,
    tree: Code,
    scope: Callable[[str], Any],
    home: set[str],
) -> Iterator[_Visit]:
    """Yield the author's functions that one of them calls, and methods of what hangs on `self`."""
    arguments = [*tree.args.posonlyargs, *tree.args.args]
    own = [each.arg for each in arguments[:1]] if visit.bound else []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        called = call.func
        function = inspect.unwrap(resolve(called, scope))
        if inspect.isfunction(function) and _is_authors(function, home):
            values = [*call.args, *(keyword.value for keyword in call.keywords)]
            given = any(find_root(value) in own for value in values)
            yield _Visit(function.__name__, function, given=given)
        parts = ast.unparse(called).split(".")
        if visit.owner is not None and parts[:1] == own and len(parts) in (2, 3):
            value = inspect.getattr_static(visit.owner, parts[1], None)
            for name in parts[2:] or ("__call__", "forward"):
                found = _list_methods(value, name)
                yield from (each for each in found if _is_authors(each.function, home))


def _is_authors(value: Any, home: set[str]) -> bool:
    """Tell whether a class or function is of the packages `home`, or of a file in the archive."""
    if _find_package(value) in home:
        return True
    file = getattr(sys.modules.get(value.__module__), "__file__", None)
    if file is None or _is_ours(value) or "site-packages" in file:
        return False
    return Path(file).absolute().is_relative_to(Path.cwd())


def _find_package(value: Any) -> str:
    """Return the top of the module that a class or function is of; empty if it is of none."""
    return (getattr(value, "__module__", "") or "").partition(".")[0]


def _is_ours(value: Any) -> bool:
    return (getattr(value, "__module__", "") or "").startswith("hatch_mar.")
