"""Files behind `http:` and `https:`. Proxies and `~/.netrc` are as the environment has them."""

from __future__ import annotations

import errno
import re
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def open_source(uri: str, *, stall: float) -> HttpSource:
    """Return the file at `uri`."""
    return HttpSource(uri, stall)


@dataclass(frozen=True, slots=True)
class HttpSource:
    """One URL."""

    uri: str
    stall: float

    def open(self, start: int = 0, stop: int | None = None) -> HttpStream:
        """See `Source.open`."""
        return _open_http(self.uri, start, stop, self.stall)

    def close(self) -> None:
        """See `Source.close`: every stream has its own connection."""


class HttpStream:
    """One answer."""

    def __init__(self, file: Any, start: int) -> None:  # noqa: ANN401 - of fsspec
        """Read the headers of fsspec's `file`, of which `start` was asked."""
        self._file = file
        headers = file.r.headers
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        length = headers.get("Content-Length", "")
        self.start = 0
        self.total: int | None = None
        tag = headers.get("ETag", "")
        self.version: str | None = tag if tag.startswith('"') else None
        if file.r.status == HTTPStatus.PARTIAL_CONTENT and found is not None:
            self.start = int(found[1])
            self.total = int(found[2]) if found[2] != "*" else None
            if self.start != start:
                raise ConnectionError(f"asked for bytes from {start} on, got {self.start}")
        elif length.isdigit() and "Content-Encoding" not in headers:
            self.total = int(length)

    def read(self, count: int) -> bytes:
        """See `Stream.read`."""
        with _translated():
            data: bytes = self._file.read(count)
        return data

    def close(self) -> None:
        """See `Stream.close`."""
        self._file.close()


def _open_http(source: str, start: int, stop: int | None, stall: float) -> HttpStream:
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
    if start or stop is not None:
        headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
    try:
        with _translated():
            # block_size=0 makes it one streamed request; with a size given, no HEAD goes before it.
            file = filesystem.open(source, block_size=0, size=1, headers=headers)
    except OSError as error:
        if error.errno == errno.ESPIPE and start:  # what was kept is longer than what is there
            return _open_http(source, 0, None, stall)
        raise
    try:
        return HttpStream(file, start)
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
