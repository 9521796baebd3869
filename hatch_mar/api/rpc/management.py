"""`ManagementAPIsService`: what the REST API says, in a message."""

# ruff: noqa: ANN401, N802 - messages are classes made at run time; methods have the protocol's names

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hatch_mar.api.management import read_registration
from hatch_mar.api.rpc.refusals import explain
from hatch_mar.api.rpc.schema import message
from hatch_mar.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from hatch_mar.api.operations import Operations, Outcome

_NUMBERS = (
    *("batch_size", "initial_workers", "max_batch_delay", "response_timeout", "startup_timeout"),
)
_TEXTS = ("handler", "model_name", "runtime", "url")


class Management:
    """Manages models with `operations`."""

    def __init__(self, operations: Operations) -> None:
        """Manage with `operations`."""
        self._operations = operations

    async def DescribeModel(self, request: Any, context: Any) -> Any:
        """Return TorchServe's describe objects, as JSON."""
        found = self._operations.describe(
            request.model_name, request.model_version or None, customized=request.customized
        )
        return await _tell(found, context)

    async def ListModels(self, request: Any, context: Any) -> Any:
        """Return a page of models, as JSON."""
        del context
        found = self._operations.list_models(request.limit or None, request.next_page_token)
        return _say(json.dumps(found, indent=2, ensure_ascii=False))

    async def RegisterModel(self, request: Any, context: Any) -> Any:
        """Register a model; unlike over REST, its workers are not waited for unless asked."""
        values: dict[str, Any] = {
            name: value for name in (*_NUMBERS, *_TEXTS) if (value := getattr(request, name))
        }
        values["synchronous"] = str(request.synchronous)

        async def register() -> Outcome:
            return await self._operations.register(read_registration(values))

        return await _tell(register(), context)

    async def ScaleWorker(self, request: Any, context: Any) -> Any:
        """Set the bounds of the number of workers."""
        scaling = self._operations.scale(
            request.model_name,
            request.model_version or None,
            minimum=request.min_worker or None,
            maximum=request.max_worker or None,
            synchronous=request.synchronous,
        )
        return await _tell(scaling, context)

    async def SetDefault(self, request: Any, context: Any) -> Any:
        """Choose the version that an empty one means."""

        async def choose() -> Outcome:
            return self._operations.set_default(request.model_name, request.model_version)

        return await _tell(choose(), context)

    async def UnregisterModel(self, request: Any, context: Any) -> Any:
        """Stop serving a version."""
        leaving = self._operations.unregister(request.model_name, request.model_version or None)
        return await _tell(leaving, context)


async def _tell(work: Awaitable[Outcome | list[dict[str, Any]]], context: Any) -> Any:
    """Return what came of `work`, or end the call with its error."""
    try:
        found = await work
    except RequestError as error:
        await context.abort(*explain(error))
        raise
    if isinstance(found, list):
        return _say(json.dumps(found, indent=2, ensure_ascii=False))
    return _say(found.message)


def _say(text: str) -> Any:
    return message("management.ManagementResponse")(msg=text)
