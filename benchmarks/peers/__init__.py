"""The servers that are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.archive_servers import HatchMarPeer, TorchServePeer
from benchmarks.peers.python_servers import ASYNCIO, FASTAPI, LITSERVE, MOSEC

if TYPE_CHECKING:
    from benchmarks.peers.peer import Peer

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        ASYNCIO,
        HatchMarPeer(),
        FASTAPI,
        MOSEC,
        LITSERVE,
        TorchServePeer(name="torchserve-quiet", quiet=True),
        TorchServePeer(),
    )
}
