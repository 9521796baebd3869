"""Files behind `http:` and `https:`. Proxies and `~/.netrc` are as the environment has them.

Redirects are followed here, one by one: not from `https` to `http`, not from a public to a private
address (see `hatch_mar.weights.network`), and to another server without the credentials.
"""

from __future__ import annotations

import netrc
import os
import time
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from hatch_mar import __version__
from hatch_mar.weights.network import Network, Zone
from hatch_mar.weights.stores.answers import (
    explain_status,
    is_behind_the_end,
    read_content_range,
    read_length,
    write_range,
)
from hatch_mar.weights.stores.protocol import BusyError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

    from hatch_mar.weights.stores.routes import Routes

MOST_REDIRECTS = 10
_REDIRECTS = {
    HTTPStatus.MOVED_PERMANENTLY,
    HTTPStatus.FOUND,
    HTTPStatus.SEE_OTHER,
    HTTPStatus.TEMPORARY_REDIRECT,
    HTTPStatus.PERMANENT_REDIRECT,
}
_BUSY = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}


def open_source(uri: str, *, stall: float) -> HttpSource:
    """Return the file at `uri`."""
    return HttpSource(uri, stall)


@dataclass(slots=True)
class HttpSource:
    """One URL."""

    uri: str
    stall: float
    network: Network = field(default_factory=Network)
    _routes: Routes | None = None
    _version: str | None = None
    """Of the last answer: further parts are asked for only if the file is still the same."""

    def open(self, start: int = 0, stop: int | None = None) -> HttpStream:
        """See `Source.open`."""
        headers = {"Accept-Encoding": "identity", "User-Agent": f"hatch-mar/{__version__}"}
        wanted = write_range(start, stop)
        if wanted is not None:
            headers["Range"] = wanted
            if self._version is not None:
                headers["If-Range"] = self._version
        try:
            stream = HttpStream(self._follow(headers), start)
        except OSError as error:
            if is_behind_the_end(error) and wanted is not None:
                return self.open()  # what was kept is longer than what is there
            raise
        if not stream.is_usable or (wanted is None and stream.start):
            stream.close()
            if wanted is None:
                raise ConnectionError("the server sends a part of what it was asked for")
            return self.open()
        self._version = stream.version
        return stream

    def close(self) -> None:
        """See `Source.close`."""
        if self._routes is not None:
            self._routes.close()

    def _follow(self, headers: dict[str, str]) -> BaseHTTPResponse:
        """Ask, and follow redirects to the answer."""
        routes = self._connect()
        parts = urlsplit(self.uri)
        credentials = _credentials_for(parts)
        here = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")
        home, from_public = here, False
        for _ in range(MOST_REDIRECTS + 1):
            sent = headers
            if credentials is not None and _is_same_server(home, here):
                sent = {**headers, "Authorization": credentials}
            response, zone = routes.ask(here.geturl(), sent, from_public=from_public)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return _check_status(response)
            response.close()
            here = _redirect(here, location)
            from_public |= zone is Zone.PUBLIC
        raise OSError("the server redirects without end")

    def _connect(self) -> Routes:
        if self._routes is None:
            try:
                from hatch_mar.weights.stores.routes import Routes  # noqa: PLC0415 - an extra
            except ImportError as error:
                raise OSError("needs urllib3: pip install 'hatch-mar[serve]'") from error
            self._routes = Routes(self.network, stall=self.stall)
        return self._routes


class HttpStream:
    """One answer."""

    def __init__(self, response: BaseHTTPResponse, start: int) -> None:
        """Read the headers of `response`, of which `start` was asked."""
        self._response = response
        headers = response.headers
        tag = headers.get("ETag", "")
        self._is_coded = headers.get("Content-Encoding", "identity").lower() != "identity"
        self.start = 0
        self.total: int | None = None
        self.version: str | None = None
        self.is_usable = True
        """Whether these are bytes of the file, from an offset that is known."""
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            found = read_content_range(headers.get("Content-Range"))
            self.is_usable = found is not None and found[0] == start and not self._is_coded
            self.start, self.total = found or (0, None)
        elif not self._is_coded:
            self.total = read_length(headers.get("Content-Length"))
        if tag.startswith('"') and not self._is_coded:  # W/"..." is a weak one
            self.version = tag

    def read(self, count: int) -> bytes:
        """See `Stream.read`."""
        from hatch_mar.weights.stores.routes import translated  # noqa: PLC0415 - an extra

        with translated():
            if self._is_coded:
                return self._response.read(count, decode_content=True)
            return self._response.read1(count)

    def close(self) -> None:
        """See `Stream.close`."""
        with suppress(RuntimeError, ValueError):  # it has been read to its end
            self._response.shutdown()
        self._response.close()


def _redirect(here: SplitResult, location: str) -> SplitResult:
    """Return where `location` leads from `here`; the URLs may hold secrets and are not shown."""
    try:
        there = urlsplit(urljoin(here.geturl(), location))
        there.port  # noqa: B018 - it is read when it is asked for
    except ValueError as error:
        raise OSError("the server redirects to what is not a URL") from error
    if there.scheme not in {"http", "https"} or not there.hostname:
        raise OSError("the server redirects to what is no http")
    if here.scheme == "https" and there.scheme == "http":
        raise PermissionError("the server redirects from https to http, where anybody may listen")
    return there._replace(netloc=there.netloc.rpartition("@")[2], fragment="")


def _is_same_server(home: SplitResult, here: SplitResult) -> bool:
    """Say whether credentials for `home` may be sent: to its encrypted twin as well."""
    if home.hostname != here.hostname:
        return False
    ports = home.port, here.port
    if home.scheme == here.scheme:
        default = {"http": 80, "https": 443}[home.scheme]
        return (ports[0] or default) == (ports[1] or default)
    return home.scheme == "http" and ports[0] in {None, 80} and ports[1] in {None, 443}


def _credentials_for(parts: SplitResult) -> str | None:
    """Return the `Authorization` for a URL: of its user, or of `~/.netrc` (or `$NETRC`)."""
    if parts.username is not None:
        return _basic(unquote(parts.username), unquote(parts.password or ""))
    path = Path(os.environ.get("NETRC") or "~/.netrc")
    try:
        found = netrc.netrc(path.expanduser()).authenticators(parts.hostname or "")
    except netrc.NetrcParseError as error:  # its message may quote a password
        raise OSError(f"{path}: line {error.lineno} cannot be read; correct it") from None
    except (OSError, UnicodeDecodeError, RuntimeError):  # RuntimeError: there is no home
        return None
    return _basic(found[0], found[2]) if found is not None else None


def _basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii")


def _check_status(response: BaseHTTPResponse) -> BaseHTTPResponse:
    if response.status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
        return response
    response.close()
    asked = _read_retry_after(response.headers.get("Retry-After", ""))
    if response.status in _BUSY and asked is not None:
        raise BusyError(f"the server answers {response.status}", retry_after=asked)
    raise explain_status(
        response.status,
        server="the server",
        missing="the server answers 404: there is no such file",
        login="are the credentials set?",
    )


def _read_retry_after(text: str) -> float | None:
    """Return the seconds of a `Retry-After` header, a number or a date (RFC 9110, 10.2.3)."""
    if text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
