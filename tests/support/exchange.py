"""One HTTP exchange on loopback: nothing added to what the test says, all of the answer kept."""

from __future__ import annotations

import http.client
import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_PATIENCE = 60.0
"""Seconds an answer may take: longer than any server here may take to replace a worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a client sends, byte for byte; `Host` and `Content-Length` are added."""

    method: str = "POST"
    path: str
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | None = None
    chunks: Sequence[bytes] = ()
    """A body sent with `Transfer-Encoding: chunked`, instead of `body`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back. Header names are lower-cased: the only thing about them HTTP calls equal."""

    status: int
    reason: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes
    whole: bool = True
    """False if the connection ended before the body did."""

    def json(self) -> Any:
        return json.loads(self.body)

    def comparable(self) -> dict[str, Any]:
        """Return the reply as `{field: value}`, with the request id replaced by its kind."""
        headers = {f"header {name}": value for name, value in self.headers.items()}
        if _UUID4.fullmatch(headers.get("header x-request-id", "")):
            headers["header x-request-id"] = "a UUID4"
        fields = {"status": self.status, "reason": self.reason, "body": self.body, **headers}
        return fields if self.whole else {**fields, "whole": False}


def exchange(url: str, call: Call, *, patience: float = _PATIENCE) -> Reply:
    """Send `call` to the server at `url` over a connection of its own.

    Raises:
        TimeoutError: there was no answer for `patience` seconds.
    """
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=patience)
    try:
        connection.putrequest(call.method, call.path, skip_accept_encoding=True)
        for name, value in call.headers:
            connection.putheader(name, value)
        if call.chunks:
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders(iter(call.chunks), encode_chunked=True)
        else:
            if call.body is not None:
                connection.putheader("Content-Length", str(len(call.body)))
            connection.endheaders(call.body)
        response = connection.getresponse()
        body, whole = _read(response)
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Reply(
            status=response.status,
            reason=response.reason,
            headers=headers,
            body=body,
            whole=whole,
        )
    finally:
        connection.close()


def _read(response: http.client.HTTPResponse) -> tuple[bytes, bool]:
    """Return the body as far as it came, and whether that is all of it."""
    pieces = []
    try:
        while piece := response.read1():
            pieces.append(piece)
    except http.client.IncompleteRead as error:
        return b"".join([*pieces, error.partial]), False
    except ConnectionError:
        return b"".join(pieces), False
    return b"".join(pieces), True


def is_close(one: Any, other: Any, *, tolerance: float = 1e-5) -> bool:
    """Say whether two JSON values are equal, their floats within `tolerance` of each other."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(one, dict) and isinstance(other, dict):
        # The order counts too: a client may print what it gets.
        return list(one) == list(other) and all(
            is_close(one[key], other[key], tolerance=tolerance) for key in one
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(
            is_close(left, right, tolerance=tolerance)
            for left, right in zip(one, other, strict=True)
        )
    return type(one) is type(other) and bool(one == other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """TorchServe and ours, with the same models loaded."""

    theirs: str
    ours: str
    their_management: str
    our_management: str

    def ask(self, call: Call) -> tuple[Reply, Reply]:
        """Return TorchServe's reply and ours."""
        return exchange(self.theirs, call), exchange(self.ours, call)

    def ask_management(self, call: Call) -> tuple[Reply, Reply]:
        return exchange(self.their_management, call), exchange(self.our_management, call)

    def answers(self, call: Call) -> tuple[Any, Any]:
        """Return both answers as JSON; both servers must have answered 200."""
        theirs, ours = self.ask(call)
        assert (theirs.status, ours.status) == (200, 200), (theirs, ours)
        return theirs.json(), ours.json()
