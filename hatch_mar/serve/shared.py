"""Large bodies in memory that the door and a worker both map, so that no socket carries them.

The memory has no name. It is handed over as a file descriptor beside the frame that speaks of it
(`SCM_RIGHTS`), and lives as long as somebody has it open or mapped: whoever dies leaves nothing.
What is handed over cannot shrink any more (`F_SEAL_SHRINK`): reading behind its end would be fatal.
"""

from __future__ import annotations

import array
import fcntl
import mmap
import os
import socket
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.serve.frames import Buffer

SHARED_FROM = 1 << 20
"""Bodies of so many bytes are shared: below, a system call or two more cost what copies cost."""
MOST_AT_ONCE = 200
"""File descriptors that may go with one frame; the kernel takes 253."""
CAN_SHARE = hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS")
_RIGHTS_SPACE = socket.CMSG_SPACE(MOST_AT_ONCE * array.array("i").itemsize)
# Plain numbers, here and where they are used: flags of `enum` take a microsecond to be combined.
_CLOSE_ON_EXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))


class SharedMemory(mmap.mmap):
    """Bytes that can be read and handed over; `memoryview` of it is a body like any other."""

    descriptor: int

    def __new__(cls, descriptor: int, size: int) -> Self:
        """Map `size` bytes of `descriptor`, which belongs to this object from now on.

        Raises:
            OSError: they cannot be mapped, or could shrink.
        """
        try:
            _check_seals(descriptor)
            self = super().__new__(cls, descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ)
        except (OSError, ValueError) as error:
            os.close(descriptor)
            raise OSError(f"{size} bytes of shared memory cannot be mapped: {error}") from error
        self.descriptor = descriptor
        return self

    def __del__(self) -> None:
        """Let go of the memory."""
        os.close(self.descriptor)


class Writer:
    """Memory to be shared that is being filled, as bytes arrive and never before."""

    def __init__(self) -> None:
        """Begin with nothing.

        Raises:
            OSError: there is no such memory here.
        """
        self._descriptor = os.memfd_create("hatch-mar", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.size = 0

    def write(self, data: Buffer) -> None:
        """Append `data`.

        Raises:
            OSError: there is no memory for it.
        """
        rest = memoryview(data).cast("B")
        while rest:
            count = os.pwrite(self._descriptor, rest, self.size)
            self.size += count
            rest = rest[count:]

    def read(self) -> bytearray:
        """Return what was written so far."""
        data = bytearray()
        while piece := os.pread(self._descriptor, self.size - len(data), len(data)):
            data += piece
        return data

    def finish(self) -> memoryview:
        """Return what was written, fit to be handed over; nothing can be added any more.

        Raises:
            OSError: it cannot be mapped.
        """
        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        return memoryview(SharedMemory(os.dup(self._descriptor), self.size))

    def __del__(self) -> None:
        """Let go of the memory; who has it from `finish` keeps it."""
        os.close(self._descriptor)


def _check_seals(descriptor: int) -> None:
    if not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
        raise OSError("it could shrink")


def share(data: Buffer) -> SharedMemory | None:
    """Return shared memory with `data` in it, without a copy if it is there already.

    None where it is too small to be worth it, or cannot be shared.
    """
    known = find(data)
    size = data.nbytes if isinstance(data, memoryview) else len(data)
    if known is not None or size < SHARED_FROM or not CAN_SHARE:
        return known
    try:
        writer = Writer()
        writer.write(data)
        return find(writer.finish())
    except OSError:
        return None  # the socket can carry it


def find(data: Buffer) -> SharedMemory | None:
    """Return the shared memory that `data` is all of, if there is one."""
    memory: object = data.obj if isinstance(data, memoryview) else None
    return memory if isinstance(memory, SharedMemory) and len(memory) == len(data) else None


def send_tail(sock: int, tail: memoryview) -> int:
    """Let the kernel send some of `tail`, the end of shared memory or all of it; return how much.

    No process copies it, and nobody has to map it (sendfile(2)).

    Args:
        sock: The descriptor of a socket that does not block.
        tail: What to send, of a `SharedMemory`.

    Raises:
        BlockingIOError: there is no room.
        OSError: the connection is lost.
    """
    memory = tail.obj
    assert isinstance(memory, SharedMemory)
    return os.sendfile(sock, memory.descriptor, len(memory) - len(tail), len(tail))


def send(sock: socket.socket, data: Buffer, memories: Sequence[SharedMemory]) -> int:
    """Send some of `data`, with `memories` beside its first byte; return how many bytes.

    Raises:
        OSError: as `socket.send` does.
    """
    if not memories:
        return sock.send(data)
    return socket.send_fds(sock, [data], [memory.descriptor for memory in memories])


def receive_into(sock: socket.socket, space: Buffer, flags: int) -> tuple[int, list[int]]:
    """Receive once into `space`; return how many bytes, and the descriptors that came along.

    Raises:
        OSError: as `socket.recv_into` does.
    """
    count, control, _, _ = sock.recvmsg_into([space], _RIGHTS_SPACE, int(flags) | _CLOSE_ON_EXEC)
    return count, _read_rights(control) if control else []


def receive(sock: socket.socket, size: int, flags: int) -> tuple[bytes, list[int]]:
    """Receive at most `size` bytes once, and the descriptors that came along.

    Raises:
        OSError: as `socket.recv` does.
    """
    data, control, _, _ = sock.recvmsg(size, _RIGHTS_SPACE, int(flags) | _CLOSE_ON_EXEC)
    return data, _read_rights(control) if control else []


def _read_rights(control: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)
