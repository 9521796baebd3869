"""The ports: bound before anything is loaded, served by uvicorn, closed without a lost answer."""

from __future__ import annotations

import asyncio
import errno
import socket
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from hatch_mar.errors import AddressInUseError

if TYPE_CHECKING:
    from pathlib import Path

    import uvicorn
    from starlette.types import ASGIApp

    from hatch_mar.api.lane import Lane

_BACKLOG = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What an encrypted port shows, and what it proves it with: PEM files."""

    certificate: Path
    """With its chain, if it has one."""
    private_key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen, and how the operator said so."""

    purposes: tuple[str, ...]
    """Of `inference`, `management` and `metrics`, those that it is for."""
    host: str
    port: int
    """0 for any free one."""
    flag: str
    """The option that chose the port, to name when it is taken."""
    certificate: Certificate | None = None
    """None: not encrypted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundSocket:
    """An address that is ours: who connects waits until it is served."""

    address: Address
    socket: socket.socket

    @property
    def url(self) -> str:
        """The address as a URL, without a trailing slash."""
        host, port = self.socket.getsockname()[:2]
        scheme = "http" if self.address.certificate is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def bind(address: Address) -> BoundSocket:
    """Bind `address`.

    Raises:
        AddressInUseError: somebody listens there; the message names the flag.
        OSError: the host is not this machine's, or the port needs rights that we lack.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # Named, since asyncio turns Nagle's algorithm off only for what says that it is TCP: else each
    # answer in two pieces waits for the client's delayed acknowledgement, 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host.strip("[]"), address.port))
        # Listening at once makes the port ours: two sockets may be bound to one port, not listen.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        where, purpose = f"{address.host}:{address.port}", address.purposes[0]
        if error.errno == errno.EADDRINUSE:
            raise AddressInUseError(
                f"{where}: the {purpose} port is taken; choose another with {address.flag}"
            ) from error
        raise OSError(error.errno, f"{where}: {error.strerror}; see {address.flag}") from error
    listener.setblocking(False)
    return BoundSocket(address=address, socket=listener)


class Listener:
    """One port being served."""

    def __init__(self, bound: BoundSocket, app: ASGIApp, lane: Lane) -> None:
        """Serve `app` on `bound`, with predictions in the fast `lane` where it takes them."""
        self._bound = bound
        self._server = _make_server(app, lane, bound.address.certificate)

    async def open(self) -> None:
        """Accept connections from now on."""
        self._server.config.load()
        self._server.lifespan = self._server.config.lifespan_class(self._server.config)
        await self._server.startup(sockets=[self._bound.socket])

    async def close(self, *, timeout: float) -> None:  # noqa: ASYNC109 - not a cancellation
        """Take no new connection or request, and return when what was accepted is answered.

        After `timeout` seconds what is left is cut off.
        """
        if timeout <= 0:
            self._cut_off()
        self._server.config.timeout_graceful_shutdown = max(1, round(timeout))
        await self._server.shutdown(sockets=[self._bound.socket])
        self._cut_off()
        await asyncio.sleep(0)  # `connection_lost` of those is called in the next round

    def _cut_off(self) -> None:
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()


def _make_server(app: ASGIApp, lane: Lane, certificate: Certificate | None) -> uvicorn.Server:
    """Return a server that reads no configuration of its own and handles no signals.

    Encrypted, it speaks TLS 1.2 and newer (the default of Python's `ssl`).
    """
    import uvicorn  # noqa: PLC0415 - sockets are bound, and errors told, before uvicorn is loaded

    from hatch_mar.api.fastlane import FastLane  # noqa: PLC0415 - the same

    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=cast("type[asyncio.Protocol]", partial(FastLane, lane)),
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=round(lane.idle_timeout),
            ssl_certfile=None if certificate is None else certificate.certificate,
            ssl_keyfile=None if certificate is None else certificate.private_key,
        )
    )
