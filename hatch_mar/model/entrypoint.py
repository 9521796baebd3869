"""Find the handler that a manifest names, in TorchServe's order, and say truly why if it fails.

1. A module of the archive (or of the environment) of that name. If it exists it is the handler: an
   import that fails inside it is reported as what it is, never as a missing default handler.
2. A default handler.

In a module: the function that the name gives after a colon, else `handle`; else its only class;
else, which TorchServe does not know, its only `handler_factory(...)` object.
"""

from __future__ import annotations

import atexit
import dataclasses
import importlib
import importlib.util
import inspect
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from hatch_mar.errors import HandlerError
from hatch_mar.model.base_handler import BaseHandler
from hatch_mar.model.classes import classes_of
from hatch_mar.model.envelopes import find_envelope
from hatch_mar.model.factory import FactoryHandler
from hatch_mar.model.tracebacks import render_traceback, summarise
from hatch_mar.ts.finder import has_own_base_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import ModuleType

    from hatch_mar.model.context import Context

DEFAULT_HANDLERS = {
    "base_handler": "hatch_mar.model.base_handler",
    **{
        name: f"hatch_mar.model.handlers.{name}"
        for name in (
            "image_classifier",
            "image_segmenter",
            "object_detector",
            "text_classifier",
            "densenet_handler",
            "dali_image_classifier",
            "vllm_handler",
            "trt_llm_handler",
        )
    },
}
"""Names a manifest may use without bringing a module, and the module with the one class of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPoint:
    """A handler, whatever shape its author gave it."""

    initialize: Callable[[Context], Any]
    handle: Callable[[Sequence[dict[str, Any]], Context], Any]
    retry_safe: bool
    """Whether a batch may be run again: what ran before its failure left nothing behind."""
    coroutine: Callable[[Sequence[dict[str, Any]], Context], Any] | None = None
    """`handle` as its author wrote it, if that is a coroutine function."""
    handler: BaseHandler | FactoryHandler | None = None
    """The object behind it whose steps can be run one by one, if it is of a kind that we know."""


def find_entry_point(handler: str, model_dir: Path) -> EntryPoint:
    """Import and, if it is a class, instantiate `handler`.

    Raises:
        HandlerError: there is no such handler, or it is not one, or its module raised.
    """
    name, _, attribute = handler.partition(":")
    module = _import_handler(handler, name, model_dir)
    found = getattr(module, attribute or "handle", None)
    if inspect.isclass(found):
        return _from_class(found, handler)
    if callable(found):
        return _from_function(found)
    classes = classes_of(module)
    if len(classes) == 1 and hasattr(classes[0], "handle"):
        return _from_class(classes[0], handler)
    factories = [value for value in vars(module).values() if isinstance(value, FactoryHandler)]
    if len(factories) == 1:
        return _from_function(factories[0])
    raise HandlerError(_why_not(handler, attribute, classes))


def wrap_entry_point(entry: EntryPoint, envelope: str | None) -> EntryPoint:
    """Return `entry` behind the envelope of that name; initialising it goes past the envelope.

    Raises:
        HandlerError: there is no such envelope.
    """
    if not envelope:
        return entry
    wrapped = find_envelope(envelope)(entry.handle).handle
    return dataclasses.replace(entry, handle=wrapped, coroutine=None, handler=None)


def _import_handler(handler: str, name: str, model_dir: Path) -> ModuleType:
    module = _find_module(name, model_dir)
    if module is None:
        known = ", ".join(DEFAULT_HANDLERS)
        files = ", ".join(sorted(path.name for path in model_dir.glob("*.py"))) or "none"
        raise HandlerError(
            f"handler {handler!r}: there is no such module and no such default handler; "
            f"Python files in the archive: {files}; default handlers: {known}"
        )
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise HandlerError(
            f"handler {handler!r}: importing it failed: {summarise(error)}",
            traceback=render_traceback(error),
        ) from error


def _find_module(name: str, model_dir: Path) -> str | None:
    """Return the module that `name`, a module or a path as archivers write it, stands for."""
    bare = name.removesuffix(".py")
    last = bare.rpartition("/")[2]
    if last == "base_handler" and not has_own_base_handler(model_dir):
        return DEFAULT_HANDLERS[last]
    for candidate in dict.fromkeys((last, bare.strip("/").replace("/", "."))):
        if candidate and _exists(candidate):
            return candidate
    return DEFAULT_HANDLERS.get(last)


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError as error:
        # Either a package on the way to `module` does not exist, or one of them imports something
        # that does not: only then is there something to import, and to fail with the true reason.
        return error.name is None or not f"{module}.".startswith(f"{error.name}.")
    except Exception:  # noqa: BLE001 - the import itself will show it
        return True


def _from_function(function: Callable[..., Any]) -> EntryPoint:
    handle = _as_synchronous(function)
    return EntryPoint(
        initialize=lambda context: handle(None, context),
        handle=handle,
        retry_safe=isinstance(function, FactoryHandler),
        coroutine=function if inspect.iscoroutinefunction(function) else None,
        handler=function if isinstance(function, FactoryHandler) else None,
    )


def _from_class(handler_class: type, handler: str) -> EntryPoint:
    try:
        instance: Any = handler_class()
    except (Exception, SystemExit) as error:
        raise HandlerError(
            f"handler {handler!r}: {handler_class.__name__}() failed: {summarise(error)}",
            traceback=render_traceback(error),
        ) from error
    if not callable(getattr(instance, "handle", None)):
        raise HandlerError(
            f"handler {handler!r}: class {handler_class.__name__!r} has no method `handle`"
        )
    return EntryPoint(
        initialize=_as_synchronous(getattr(instance, "initialize", _have_nothing_to_do)),
        handle=_as_synchronous(instance.handle),
        coroutine=instance.handle if inspect.iscoroutinefunction(instance.handle) else None,
        retry_safe=isinstance(instance, BaseHandler) and handler_class.handle is BaseHandler.handle,  # type: ignore[attr-defined]
        handler=instance if isinstance(instance, BaseHandler) else None,
    )


def _have_nothing_to_do(_: Context) -> None:
    """Initialise a handler whose class has no method for it."""


def _as_synchronous(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, run to its end on the handler's loop if it is a coroutine function."""
    if not inspect.iscoroutinefunction(function):
        return function
    return lambda *arguments: handler_loop().run(function(*arguments))


@cache
def handler_loop() -> Any:  # noqa: ANN401 - an asyncio.Runner
    """Return the one loop of the one handler: `handle` may use what `initialize` opened on it."""
    from asyncio import Runner  # noqa: PLC0415 - most handlers are not coroutines

    runner = Runner()
    atexit.register(runner.close)  # the worker's end is the handler's
    return runner


def _why_not(handler: str, attribute: str, classes: Sequence[type]) -> str:
    names = ", ".join(repr(one.__name__) for one in classes) or "none"
    wanted = f"neither {attribute!r} nor" if attribute else "neither a function `handle` nor"
    return (
        f"handler {handler!r}: has {wanted} exactly one class with a method `handle`; "
        f"classes defined in it: {names}; name the right one as `file.py:name`"
    )
