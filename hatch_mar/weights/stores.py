"""The places that weights come from, each as a stream that can start in the middle.

A store never decides integrity: it gives bytes, and the reference's digest says whether they are
the right ones. What goes wrong is an `OSError` of the kind that says what to do about it:
`ConnectionError` and `TimeoutError` may pass, the others will not.
"""

from __future__ import annotations

import errno
import re
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

STALL = 60.0
"""Seconds without a byte after which a server counts as gone."""
_PASSING = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Stream(Protocol):
    """The bytes of one source, from `start` on."""

    start: int
    """Offset of the first byte: what was asked for, or 0 where the store cannot do that."""
    total: int | None
    """Bytes of the whole source, if the store knows."""

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes; none at the end. Raises `OSError` as the module says."""
        ...

    def close(self) -> None:
        """Let go of the source."""
        ...


def open_stream(source: str, start: int = 0, *, stall: float = STALL) -> Stream:
    """Open `source`, a URI or an absolute path, at the offset `start`.

    Raises:
        OSError: it cannot be opened, or nothing here reads such a source; see the module.
    """
    flaw = find_flaw(source)
    if flaw is not None:
        raise OSError(flaw)
    scheme = urlsplit(source).scheme
    if scheme not in _OPENERS:
        raise OSError(
            f"no store reads {scheme!r} sources; known are {', '.join(SCHEMES)} and paths"
        )
    return _OPENERS[scheme](source, start, stall)


def find_flaw(source: str) -> str | None:
    """Return why no store anywhere could open `source`, or None; whether it is there is not asked.

    What schemes other than ours look like is not for us to say.
    """
    try:
        parts = urlsplit(source)
        server = parts.hostname
        parts.port  # noqa: B018 - it is read when it is asked for
    except ValueError as error:
        return f"is not a URL: {str(error)[:1].lower()}{str(error)[1:]}"
    if parts.scheme in {"http", "https"} and not server:
        return "is not a URL: it names no server"
    path = unquote(parts.path) if parts.scheme else source
    if is_local(source) and not (parts.netloc in {"", "localhost"} and Path(path).is_absolute()):
        return "is not an absolute path on this machine"
    return None


def is_local(source: str) -> bool:
    """Say whether `source` is a file of this machine: reading it opens no socket."""
    return re.match(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]*:", source) is None


def redact(source: str) -> str:
    """Return `source` without what may be a secret: user, password, query."""
    try:
        parts = urlsplit(source)
    except ValueError:
        return "a source that is not a URL"
    if not parts.scheme:
        return source
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class _FileStream:
    def __init__(self, path: Path, start: int) -> None:
        self._file = path.open("rb")
        self.total: int | None = path.stat().st_size
        self.start = min(start, self.total)
        self._file.seek(self.start)

    def read(self, count: int) -> bytes:
        return self._file.read(count)

    def close(self) -> None:
        self._file.close()


def _open_file(source: str, start: int, stall: float) -> Stream:
    del stall
    parts = urlsplit(source)
    return _FileStream(Path(unquote(parts.path) if parts.scheme else source), start)


class _HttpStream:
    def __init__(self, file: Any, start: int) -> None:  # noqa: ANN401 - of fsspec
        self._file = file
        headers = file.r.headers
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        length = headers.get("Content-Length", "")
        self.start = 0
        self.total: int | None = None
        if file.r.status == HTTPStatus.PARTIAL_CONTENT and found is not None:
            self.start = int(found[1])
            self.total = int(found[2]) if found[2] != "*" else None
            if self.start != start:
                raise ConnectionError(f"asked for bytes from {start} on, got {self.start}")
        elif length.isdigit() and "Content-Encoding" not in headers:
            self.total = int(length)

    def read(self, count: int) -> bytes:
        with _translated():
            data: bytes = self._file.read(count)
        return data

    def close(self) -> None:
        self._file.close()


def _open_http(source: str, start: int, stall: float) -> Stream:
    try:
        import aiohttp  # noqa: PLC0415 - an extra
        import fsspec  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise OSError("needs fsspec: pip install 'hatch-mar[serve]'") from error
    # trust_env: proxies and ~/.netrc as the environment has them.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=stall, sock_read=stall)
    client = {"trust_env": True, "timeout": timeout}
    filesystem = fsspec.filesystem("http", client_kwargs=client, skip_instance_cache=True)
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        with _translated():
            # block_size=0 makes it one streamed request; with a size given, no HEAD goes before it.
            file = filesystem.open(source, block_size=0, size=1, headers=headers)
    except OSError as error:
        if error.errno == errno.ESPIPE and start:  # what was kept is longer than what is there
            return _open_http(source, 0, stall)
        raise
    try:
        return _HttpStream(file, start)
    except BaseException:
        file.close()
        raise


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what aiohttp raises into the `OSError` that says whether to try again."""
    import aiohttp  # noqa: PLC0415 - an extra

    try:
        yield
    except FileNotFoundError as error:  # with the URL in it, and that may hold a secret
        raise _status_error(HTTPStatus.NOT_FOUND) from error
    except aiohttp.TooManyRedirects as error:
        raise OSError("the server redirects without end") from error
    except aiohttp.RedirectClientError as error:  # with the URL in it, again
        raise OSError("the server redirects to what is no http") from error
    except aiohttp.ClientResponseError as error:
        raise _status_error(error.status) from error
    except TimeoutError as error:
        raise TimeoutError("the server sends nothing") from error
    except aiohttp.InvalidURL as error:
        raise OSError("not a URL") from error
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error) or type(error).__name__) from error


def _status_error(status: int) -> OSError:
    if status in _PASSING:
        return ConnectionError(f"the server answers {status}")
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return OSError(errno.ESPIPE, "the server has nothing from there on")
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return PermissionError(f"the server answers {status}; are the credentials set?")
    return OSError(f"the server answers {status}")


_OPENERS: Mapping[str, Callable[[str, int, float], Stream]] = {
    "": _open_file,
    "file": _open_file,
    "http": _open_http,
    "https": _open_http,
}
SCHEMES = tuple(sorted(filter(None, _OPENERS)))
"""Schemes of the sources that can be opened here."""
