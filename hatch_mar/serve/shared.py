"""Large bodies in memory that the door and a worker both map, so that no socket carries them.

The memory has no name. It is handed over as a file descriptor beside the frame that speaks of it
(`SCM_RIGHTS`), and lives as long as somebody has it open or mapped: whoever dies leaves nothing.
What is handed over cannot shrink any more (`F_SEAL_SHRINK`): reading behind its end would be fatal.

Most of the time that a large body takes, the kernel finds pages for it. So who has written one
keeps the memory for the next: its first page says whether it is free, and whoever has read it says
so there when nothing in the program looks at it any more. Who keeps a view of a body, or dies,
never does, and has the memory to himself.
"""

from __future__ import annotations

import array
import fcntl
import mmap
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.serve.frames import Buffer

SHARED_FROM = 1 << 20
"""Bodies of so many bytes are shared: below, a system call or two more cost what copies cost."""
MOST_AT_ONCE = 200
"""File descriptors that may go with one frame; the kernel takes 253."""
CAN_SHARE = hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS")
_KEPT, _LARGEST_KEPT = 8, 16 << 20
"""How many memories a process keeps for bodies to come, and of how many bytes at most: a body may
get one that is larger than itself."""
_HEAD = mmap.PAGESIZE
"""Where the body begins: only whole pages can be mapped."""
_TAKEN, _FREE, _SHARED_ON = b"\0", b"\1", b"\2"
"""What the first byte says. Nobody can tell who else sees a body once its reader has handed it on,
or was forked: that memory is not used again."""
_RIGHTS_SPACE = socket.CMSG_SPACE(MOST_AT_ONCE * array.array("i").itemsize)
# Plain numbers, here and where they are used: flags of `enum` take a microsecond to be combined.
_CLOSE_ON_EXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))


class SharedMemory(mmap.mmap):
    """Bytes that can be read and handed over; `memoryview` of it is a body like any other."""

    descriptor: int
    is_ours: bool
    """Whether this process has written it."""
    readers = 0
    """How many processes it was handed to."""
    _generation: int
    """How often this process had been forked before."""

    def __new__(cls, descriptor: int, size: int, *, is_ours: bool = False) -> Self:
        """Map `size` bytes of `descriptor`, which belongs to this object from now on.

        Raises:
            OSError: they cannot be mapped, or could shrink.
        """
        try:
            if not _is_sealed(descriptor):
                raise OSError("it could shrink")  # noqa: TRY301 - as what cannot be mapped
            self = super().__new__(
                cls, descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ, offset=_HEAD
            )
        except (OSError, ValueError) as error:
            os.close(descriptor)
            raise OSError(f"{size} bytes of shared memory cannot be mapped: {error}") from error
        self.descriptor = descriptor
        self.is_ours = is_ours
        self._generation = _spares.generation
        return self

    def __del__(self) -> None:
        """Let go of the memory: nobody can see it any more through this object."""
        was_forked = self._generation != _spares.generation
        if self.is_ours and self.readers <= 1 and not was_forked:
            if not self.readers:
                os.pwrite(self.descriptor, _FREE, 0)
            _spares.put(self.descriptor)
            return
        if not self.is_ours and os.pread(self.descriptor, 1, 0) == _TAKEN:
            os.pwrite(self.descriptor, _SHARED_ON if was_forked else _FREE, 0)
        os.close(self.descriptor)


class _Spares:
    """Memory that this process has written and handed over, for the next body once it is free.

    Any thread may come in the middle of anything here, and the garbage collector too: hence no loop
    over what can change, and no count that is trusted.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.generation = 0
        """How often the process was forked: a child sees what its parent saw, unasked."""
        self._descriptors: deque[int] = deque()

    def take(self) -> int | None:
        """Return a descriptor of memory that nobody looks at, if there is one."""
        for _ in range(len(self._descriptors)):
            descriptor = self._pop()
            if descriptor is None:
                break
            state = os.pread(descriptor, 1, 0)
            if state == _FREE:
                return descriptor
            if state == _SHARED_ON:
                os.close(descriptor)
            else:
                self._descriptors.append(descriptor)
        return None

    def put(self, descriptor: int) -> None:
        """Keep `descriptor`, and let go of another if that is one too many."""
        if os.fstat(descriptor).st_size > _LARGEST_KEPT:
            os.close(descriptor)
            return
        self._descriptors.append(descriptor)
        if len(self._descriptors) > _KEPT and (oldest := self._pop()) is not None:
            os.close(oldest)

    def clear(self) -> None:
        """Let go of all."""
        while (descriptor := self._pop()) is not None:
            os.close(descriptor)

    def fork(self) -> None:
        """Reuse nothing that is in use now: parent and child may read on, each on its own."""
        self.generation += 1
        self.clear()

    def _pop(self) -> int | None:
        try:
            return self._descriptors.popleft()
        except IndexError:
            return None


_spares = _Spares()
os.register_at_fork(before=_spares.fork)


class Writer:
    """Memory to be shared that is being filled, as bytes arrive and never before."""

    _descriptor = -1

    def __init__(self) -> None:
        """Begin with nothing.

        Raises:
            OSError: there is no such memory here.
        """
        self.size = 0
        spare = _spares.take()
        if spare is None:
            spare = os.memfd_create("hatch-mar", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._descriptor = spare
        os.pwrite(spare, _TAKEN, 0)

    def write(self, data: Buffer) -> None:
        """Append `data`.

        Raises:
            OSError: there is no memory for it.
        """
        rest = memoryview(data).cast("B")
        while rest:
            count = os.pwrite(self._descriptor, rest, _HEAD + self.size)
            self.size += count
            rest = rest[count:]

    def read(self) -> bytearray:
        """Return what was written so far."""
        data = bytearray()
        while piece := os.pread(self._descriptor, self.size - len(data), _HEAD + len(data)):
            data += piece
        return data

    def finish(self) -> memoryview:
        """Return what was written, fit to be handed over; nothing can be added any more.

        Raises:
            OSError: it cannot be mapped.
        """
        if not _is_sealed(self._descriptor):  # else it was handed over before
            fcntl.fcntl(
                self._descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
            )
        return memoryview(SharedMemory(os.dup(self._descriptor), self.size, is_ours=True))

    def __del__(self) -> None:
        """Let go of the memory; who has it from `finish` keeps it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _is_sealed(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)


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


def send(sock: socket.socket, data: Buffer, memories: Sequence[SharedMemory]) -> int:
    """Send some of `data`, with `memories` beside its first byte; return how many bytes.

    Raises:
        OSError: as `socket.send` does.
    """
    if not memories:
        return sock.send(data)
    for memory in memories:
        if not memory.is_ours:
            os.pwrite(memory.descriptor, _SHARED_ON, 0)
        memory.readers += 1
    try:
        return socket.send_fds(sock, [data], [memory.descriptor for memory in memories])
    except OSError:
        for memory in memories:
            memory.readers -= 1
        raise


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
