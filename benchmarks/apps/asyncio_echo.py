"""The ceiling: an asyncio protocol that parses HTTP and sends the body back, in one process.

    python asyncio_echo.py PORT [ANSWER]

With an ANSWER it sends that back instead. It decodes no JSON, has no routes, queue, worker, log or
metrics: nothing that serves models can be faster with the same parser and event loop.
"""

from __future__ import annotations

import asyncio
import sys

import httptools

ANSWER = sys.argv[2].encode() if len(sys.argv) > 2 else None


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self.body) if ANSWER is None else ANSWER
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body)
        self.body.clear()


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
