"""HTTP/1 whatever else a client asks for: `Upgrade` is an offer, and this server takes none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hatch_mar.api.scope import HEADERS_AS_SENT

if TYPE_CHECKING:
    from hatch_mar.api.exchange import RawHeaders

_TUNNEL = b"CONNECT"


class PlainProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with requests for another one read as if they had not asked.

    The parser leaves off behind the head of such a request, for whoever speaks the other protocol.
    Its body would be lost: that of everything `curl --http2` sends, for one (RFC 9110, 7.8).
    """

    def __init__(self, **uvicorn: Any) -> None:  # noqa: ANN401 - uvicorn's own arguments
        """Begin with no request; the arguments are what uvicorn gives every protocol."""
        super().__init__(**uvicorn)
        self._raw: RawHeaders = []
        """The headers of the latest request, as they were sent."""
        self._in_head = False
        self._head_size = 0
        self.in_message = False
        """Whether the parser is inside a request, and not between two."""

    def on_message_begin(self) -> None:
        """Begin a request: uvicorn's own preparations wait until we know that it is uvicorn's."""
        self.url = b""
        self._raw = []
        self._in_head = self.in_message = True
        self._head_size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the header as the client sent it; what trails a body is not kept."""
        if self._in_head:
            self._raw.append((name, value))

    def on_headers_complete(self) -> None:
        """Hand the request to uvicorn."""
        url = self.url
        super().on_message_begin()
        self.url = url
        for name, value in self._raw:
            super().on_header(name, value)
        self.scope["extensions"] = {HEADERS_AS_SENT: {"raw": self._raw}}
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Tell uvicorn, unless the request is about to be read again."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def feed(self, data: bytes) -> None:
        """Parse `data`.

        Raises:
            HttpParserError: it is no HTTP.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                if self.asks_for_tunnel():
                    return
                data = self._begin_again() + data[offer.args[0] :]
            except httptools.HttpParserCallbackError as error:
                if isinstance(error.__context__, httptools.HttpParserInvalidURLError):
                    raise error.__context__ from None  # uvicorn's: the client's fault, not ours
                raise
            else:
                return

    def asks_for_tunnel(self) -> bool:
        """Tell whether the request is for a proxy, which we are not."""
        return bool(self.parser.get_method() == _TUNNEL)

    def offers_upgrade(self) -> bool:
        """Tell whether the request, its head complete, will be read again without its offer."""
        return bool(self.parser.should_upgrade()) and not self.asks_for_tunnel()

    def _begin_again(self) -> bytes:
        """Put a new parser in place, and return the head for it, without what the old one met."""
        old = self.parser
        version = old.get_http_version().encode()
        lines = [old.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self._raw if name.lower() != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        return b"\r\n".join((*lines, b"", b""))
