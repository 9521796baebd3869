"""The ceiling: an asyncio protocol that parses HTTP and sends the body back, in one process.

It decodes no JSON, has no routes, queue, worker, log or metrics: nothing that serves models can be
faster with the same parser and event loop.
"""

from __future__ import annotations

import asyncio
import sys

import httptools


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(self.body)
        self.transport.write(head + self.body)
        self.body = b""


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
