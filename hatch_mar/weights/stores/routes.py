"""The way to a web server: straight, to an address that was looked at first, or through a proxy.

Proxies are those of `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in either case.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    HTTPError,
    IncompleteRead,
    LocationParseError,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ProxySchemeUnknown,
    ReadTimeoutError,
)
from urllib3.util import Timeout, Url, connection, parse_url

from hatch_mar.weights.network import Network, RefusedError, Zone, find_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_E = TypeVar("_E", bound=BaseException)
_PORTS = {"http": 80, "https": 443}
_KEPT = 16
"""Idle connections to one server that are kept for the next part."""


class _Guarded(HTTPConnection):
    """A connection to an address that may be connected to."""

    zone: Zone = Zone.PUBLIC

    def __init__(self, *args: Any, network: Network, from_public: bool, **options: Any) -> None:  # noqa: ANN401 - urllib3's
        super().__init__(*args, **options)
        self._network = network
        self._from_public = from_public

    def _new_conn(self) -> socket.socket:
        """Resolve, look, connect: where urllib3's own SOCKS connections do what is theirs."""
        try:
            found = self._network.addresses_of(self.host, self.port, from_public=self._from_public)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except UnicodeError as error:  # of a part that is empty, or too long for the DNS
            raise LocationParseError("its server has no name that could be") from error
        failure: OSError = OSError("it has no address")
        for address, self.zone in found:
            try:
                return connection.create_connection(
                    (address, self.port),
                    self.timeout,
                    source_address=self.source_address,
                    socket_options=self.socket_options,
                )
            except OSError as error:
                failure = error
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, "no answer") from failure
        raise NewConnectionError(self, "no connection") from failure


class _GuardedTLS(_Guarded, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls: ClassVar[type] = _Guarded  # type: ignore[misc]


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls: ClassVar[type] = _GuardedTLS  # type: ignore[misc]


class Routes:
    """Connections that are kept between requests. May be used from several threads at once."""

    def __init__(self, network: Network, *, stall: float) -> None:
        """Prepare to connect to what `network` allows; `stall` is a limit in seconds."""
        self._network = network
        self._timeout = Timeout(connect=stall, read=stall)
        self._pools: dict[tuple[str | int | bool | None, ...], _Pool | _TLSPool] = {}
        self._proxies: dict[str, urllib3.ProxyManager] = {}

    def ask(
        self, url: str, headers: Mapping[str, str], *, from_public: bool
    ) -> tuple[urllib3.BaseHTTPResponse, Zone]:
        """Send a GET; return the answer, whose body is still to be read, and where it is from.

        Redirects are not followed.

        Args:
            url: Absolute, without a user.
            headers: What to send.
            from_public: Whether a public server has named this one.

        Raises:
            OSError: as `hatch_mar.weights.stores` says.
        """
        with translated():
            parts = parse_url(url)
            proxy = _proxy_of(parts)
            if proxy is None:
                return self._ask_directly(parts, headers, from_public=from_public)
            zone = self._network.zone_behind_proxy(_host(parts), from_public=from_public)
            if proxy not in self._proxies:
                self._proxies[proxy] = self._proxy_manager(proxy)
            manager = self._proxies[proxy]
            return manager.urlopen("GET", url, headers=headers, **_STREAMED), zone

    def _ask_directly(
        self, parts: Url, headers: Mapping[str, str], *, from_public: bool
    ) -> tuple[urllib3.BaseHTTPResponse, Zone]:
        key = parts.scheme, parts.host, parts.port, from_public
        if key not in self._pools:
            kind = _TLSPool if parts.scheme == "https" else _Pool
            self._pools[key] = kind(
                parts.host or "",
                parts.port or _PORTS[parts.scheme or "http"],  # else guessed from an IPv6's end
                timeout=self._timeout,
                maxsize=_KEPT,
                network=self._network,
                from_public=from_public,
            )
        response = self._pools[key].urlopen("GET", parts.request_uri, headers=headers, **_STREAMED)
        zone: Zone = getattr(response.connection, "zone", Zone.PUBLIC)
        return response, zone

    def _proxy_manager(self, proxy: str) -> urllib3.ProxyManager:
        user = parse_url(proxy).auth
        credentials = urllib3.make_headers(proxy_basic_auth=user) if user else None
        return urllib3.ProxyManager(
            proxy, proxy_headers=credentials, timeout=self._timeout, maxsize=_KEPT
        )

    def close(self) -> None:
        """Close the connections that nobody reads from."""
        for pool in self._pools.values():
            pool.close()
        for manager in self._proxies.values():
            manager.clear()


_STREAMED: dict[str, Any] = {
    "redirect": False,
    "retries": False,
    "preload_content": False,
    "decode_content": False,
}


def _host(parts: Url) -> str:
    return (parts.host or "").strip("[]")


def _proxy_of(parts: Url) -> str | None:
    scheme = parts.scheme or "http"
    return find_proxy(scheme, _host(parts), parts.port or _PORTS[scheme])


@contextmanager
def translated() -> Iterator[None]:
    """Turn what urllib3 raises into the `OSError` that says whether to try again.

    Its own messages name hosts and URLs, and those may hold secrets: none of them is passed on.
    """
    try:
        yield
    except RefusedError as error:
        raise PermissionError(f"refused to connect: {error}") from error
    except ReadTimeoutError as error:
        raise TimeoutError("the server sends nothing") from error
    except HTTPError as error:
        lasting = _find_lasting_reason(error)
        if lasting is not None:
            raise OSError(lasting) from error
        raise ConnectionError(_find_passing_reason(error)) from error


def _find_lasting_reason(error: HTTPError) -> str | None:
    """Return what is wrong that will be wrong the next time as well."""
    certificate = _find(ssl.SSLCertVerificationError, error)
    if certificate is not None:
        return (
            f"the server's certificate is not trusted: {certificate.verify_message}; "
            "SSL_CERT_FILE names the authorities that are"
        )
    if isinstance(error, ProxySchemeUnknown):
        return "the proxy of the environment is neither http nor https"
    if isinstance(error, LocationValueError):
        return "not a URL"
    if isinstance(error, DecodeError):
        return "the server sends a compressed answer that is broken"
    return None


def _find_passing_reason(error: HTTPError) -> str:
    if isinstance(error, NameResolutionError):
        return "cannot connect: the server's name is not known"
    if isinstance(error, ConnectTimeoutError):  # and what urllib3 derives from it
        return f"cannot connect: {_cause_of(error)}"
    if isinstance(error, ProxyError):
        said = error.original_error
        status = str(said) if type(said) is OSError else _cause_of(said)
        return f"the proxy does not connect: {status}"
    return f"the connection broke: {_cause_of(error)}"


def _cause_of(error: BaseException) -> str:
    """Return what the system said, or else what kind of error it was."""
    if _find(IncompleteRead, error) is not None:
        return "the server hung up before the end"
    found = _find(OSError, error)
    if found is not None and found.strerror:
        return found.strerror
    if isinstance(error, ProtocolError):
        return "the server hung up, or what it sends is no HTTP"
    return "no answer" if isinstance(error, ConnectTimeoutError) else type(error).__name__


def _find(kind: type[_E], error: BaseException | None) -> _E | None:
    while error is not None:
        for each in (error, *error.args):
            if isinstance(each, kind):
                return each
        error = error.__cause__ or error.__context__
    return None
