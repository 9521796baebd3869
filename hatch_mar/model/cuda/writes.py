"""What a function may leave behind when it is over: read from its source, without running it.

Whatever it may have been is told: who is suspected wrongly is served a little slower, and who is
not suspected at all might answer one client with what belongs to another.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import textwrap
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MUTATORS = frozenset(
    {
        *("add", "append", "appendleft", "clear", "difference_update", "discard", "extend"),
        *("extendleft", "insert", "intersection_update", "move_to_end", "pop", "popitem"),
        *("popleft", "put", "put_nowait", "remove", "reverse", "rotate", "setdefault"),
        *("sort", "subtract", "symmetric_difference_update", "update", "update_inplace", "write"),
    }
)
"""Methods that change what they are called on; torch's end in an underscore."""
WRITERS = frozenset(
    {
        *("copyto", "delattr", "delitem", "heapify", "heappop", "heappush", "heappushpop"),
        *("heapreplace", "insort", "insort_left", "insort_right", "next", "setattr", "setitem"),
        *("shuffle",),
    }
)
"""Functions that change their first argument."""
_VIEWS = frozenset({"get", "items", "setdefault", "values"})
"""Methods that give out what their owner keeps."""
_PASSERS = frozenset({"enumerate", "iter", "reversed", "zip"})
"""Functions that give out what is in their arguments."""
_UNKNOWN = object()


Code: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def read_source(function: Any) -> Code | None:  # noqa: ANN401
    """Return the source of `function` itself; None if it cannot be told."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function.__code__)))
    except (OSError, TypeError, SyntaxError):
        return None
    if len(tree.body) == 1 and isinstance(tree.body[0], ast.FunctionDef | ast.AsyncFunctionDef):
        return tree.body[0]
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
    return found[0] if len(found) == 1 else None


def find_write(
    tree: Code,
    *,
    bound: bool = True,
    given: bool = False,
    scope: Callable[[str], Any] = lambda _: _UNKNOWN,
) -> str | None:
    """Return how a function may keep something beyond its end; None if it does not.

    It changes what hangs on `self` or is not its own, or hands `self` to somebody who might.

    Args:
        tree: Its definition.
        bound: Whether its first argument is `self`.
        given: Whether it is given what others keep.
        scope: What a name that is not its own stands for; see `look_up`.
    """
    parameters = _list_parameters(tree)
    own = parameters[0] if parameters and bound else ""
    kept = {own, *_list_kept_defaults(tree), *(parameters if given else ())}
    foreign = _list_foreign(tree)
    roots = (kept | foreign | _list_aliases(tree, kept | foreign)) - {""}
    changes = (_find_change(node, own, roots, scope) for node in ast.walk(tree))
    flaw = next(filter(None, changes), None)
    if flaw is None and own and _is_given_away(tree, own):
        return f"gives `{own}` away"
    return flaw


def _find_change(
    node: ast.AST, own: str, roots: set[str], scope: Callable[[str], Any]
) -> str | None:
    """Return how `node` changes what hangs on one of `roots`; None if it does not."""
    if isinstance(node, ast.Global | ast.Nonlocal):
        return f"writes to the global {node.names[0]!r}"
    if isinstance(node, ast.Attribute) and node.attr == "__dict__" and find_root(node) in roots:
        return f"uses `{ast.unparse(node)}`"
    changed: list[ast.expr] = []
    if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
        changed = [node]
    elif isinstance(node, ast.AugAssign):
        changed = [node.target]
    elif isinstance(node, ast.Call):
        changed = [each for each in _list_changed(node, scope) if not _is_name(each, own)]
    found = next((each for each in changed if find_root(each) in roots), None)
    return None if found is None else f"changes `{ast.unparse(found)}`"


def _is_given_away(tree: ast.AST, own: str) -> bool:
    """Tell whether somebody else gets hold of `own` itself."""
    passed = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Subscript)
    }
    return any(
        _is_name(node, own) and id(node) not in passed and not _is_for_super(tree, node)
        for node in ast.walk(tree)
    )


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def look_up(function: Any) -> Callable[[str], Any]:  # noqa: ANN401
    """Return what tells what a global name in `function` stands for; else something unknown."""
    names = {**vars(builtins), **function.__globals__}
    return lambda name: names.get(name, sys.modules.get(name, _UNKNOWN))


def resolve(node: ast.expr, scope: Callable[[str], Any]) -> Any:  # noqa: ANN401
    """Return what `package.module.name` stands for, by way of modules; else something unknown."""
    if isinstance(node, ast.Name):
        return scope(node.id)
    if isinstance(node, ast.Attribute):
        owner = resolve(node.value, scope)
        return vars(owner).get(node.attr, _UNKNOWN) if isinstance(owner, ModuleType) else _UNKNOWN
    return _UNKNOWN


def find_root(node: ast.AST) -> str:
    """Return `self` for `self.a.b[0]`; empty if that begins with no name."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _list_changed(call: ast.Call, scope: Callable[[str], Any]) -> Iterator[ast.expr]:
    """Yield what `call` changes besides what it returns."""
    yield from (keyword.value for keyword in call.keywords if keyword.arg == "out")
    called = call.func
    name = getattr(called, "attr", getattr(called, "id", ""))
    owner = called.value if isinstance(called, ast.Attribute) else None
    kind = None if owner is None else resolve(owner, scope)
    is_mutator = name in MUTATORS or (name.endswith("_") and not name.endswith("__"))
    if call.args and (name in WRITERS or (is_mutator and isinstance(kind, type))):
        yield call.args[0]
    elif owner is not None and is_mutator and not isinstance(kind, ModuleType):
        yield owner


def _list_parameters(tree: Code) -> list[str]:
    return [each.arg for each in (*tree.args.posonlyargs, *tree.args.args, *tree.args.kwonlyargs)]


def _list_kept_defaults(tree: Code) -> Iterator[str]:
    """Yield the parameters whose default is one object for all calls, which may change."""
    arguments = tree.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + [*arguments.defaults]
    pairs = [
        *zip(positional, defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    for argument, default in pairs:
        if default is not None and not isinstance(default, ast.Constant):
            yield argument.arg


def _list_foreign(tree: ast.AST) -> set[str]:
    """Return the names in a function that are not bound there: of modules, of those around it."""
    arguments = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    stored = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    caught = {node.name for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)}
    return {node.id for node in names} - arguments - stored - caught


def _list_aliases(tree: ast.AST, roots: set[str]) -> set[str]:
    """Return the local names of what hangs on `roots`, by any number of steps."""
    found: set[str] = set()
    bindings = [*_list_bindings(tree)]
    while True:
        new = {
            name.id
            for target, value in bindings
            if any(root in roots | found for root in _list_origins(value))
            for name in ast.walk(target)
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
        } - found
        if not new:
            return found
        found |= new


def _list_bindings(tree: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            yield from ((target, node.value) for target in node.targets)
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            yield node.target, node.value
        elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            yield node.target, node.iter
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            yield node.optional_vars, node.context_expr


def _list_origins(value: ast.expr) -> Iterator[str]:
    """Yield the names of which `value` may be a part, not what is made of it."""
    parts: list[ast.expr] = []
    if isinstance(value, ast.Attribute | ast.Subscript | ast.Name):
        yield find_root(value)
    elif isinstance(value, ast.BoolOp):
        parts = value.values
    elif isinstance(value, ast.Tuple | ast.List):
        parts = value.elts
    elif isinstance(value, ast.IfExp):
        parts = [value.body, value.orelse]
    elif isinstance(value, ast.NamedExpr | ast.Starred):
        parts = [value.value]
    elif isinstance(value, ast.Call):
        parts = _list_passed_on(value)
    for part in parts:
        yield from _list_origins(part)


def _list_passed_on(call: ast.Call) -> list[ast.expr]:
    """Return of what the result of `call` may be a part."""
    called = call.func
    if isinstance(called, ast.Attribute):
        return [called.value] if called.attr in _VIEWS else []
    return call.args if getattr(called, "id", "") in _PASSERS else []


def _is_for_super(tree: ast.AST, name: ast.AST) -> bool:
    """Tell whether `name` is an argument of `super(...)`."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(
        isinstance(call.func, ast.Name) and call.func.id == "super" and name in call.args
        for call in calls
    )
