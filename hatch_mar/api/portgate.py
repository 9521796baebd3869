"""Which key a request needs, before anybody looks at what it wants.

Apart from `guard`, which is asked before a port is bound: Starlette is imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatch_mar.api.answers import answer_error
from hatch_mar.api.street import respond
from hatch_mar.api.targets import find_target
from hatch_mar.errors import WrongTokenError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from hatch_mar.api.tokens import Purpose, Tokens

_OPEN = frozenset({"/", "/api-description", "/metrics", "/livez", "/readyz"})
"""What tells nothing of a model's answers: open to whoever looks after the machine."""
_MANAGED = ("/models", "/v1/models", "/workflows")
_RENEWAL = "/token"
"""Needs the third key, which is checked where it is used."""


class PortGate:
    """Wraps an application: whoever wants more than a description of it needs the port's key.

    Where they share a port, management's routes have a gate of their own.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens, purposes: Iterable[Purpose]) -> None:
        """Lead to `app`, which serves `purposes`: inference, management or both."""
        self._app = app
        self._tokens = tokens
        self._predicts = "inference" in purposes
        self._manages = "management" in purposes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer it with a refusal."""
        if scope["type"] == "http" and self._needs_key(scope):
            from starlette.datastructures import Headers  # noqa: PLC0415 - needed for tokens alone

            authorization = Headers(scope=scope).get("authorization", "")
            try:
                self._tokens.check("inference" if self._predicts else "management", authorization)
            except WrongTokenError as error:
                await respond(answer_error(error))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _needs_key(self, scope: Scope) -> bool:
        """Tell whether this gate is the one that asks for a key."""
        path = scope["path"]
        if path in _OPEN:
            return False
        if not self._predicts:
            return not path.startswith(_RENEWAL)
        managed = self._manages and path.startswith((*_MANAGED, _RENEWAL))
        return not managed or find_target(path) is not None
