"""A request's body that comes in pieces, and takes no more memory than has come."""

from __future__ import annotations

from hatch_mar.serve.shared import CAN_SHARE, SHARED_FROM, Writer


class GatheredBody:
    """Pieces of a body: when it grows large, in memory that a worker can map."""

    __slots__ = ("_data", "_writer", "size")

    def __init__(self, first: bytes) -> None:
        """Begin with the `first` piece."""
        self.size = len(first)
        self._data = bytearray(first)
        self._writer: Writer | None = None

    def add(self, piece: bytes) -> None:
        """Append a piece."""
        before, self.size = self.size, self.size + len(piece)
        if self._writer is not None:
            try:
                self._writer.write(piece)
            except OSError:  # some of the piece may be there
                self._data = self._writer.read()
                self._writer = None
            else:
                return
        self._data += memoryview(piece)[len(self._data) - before :]
        if before < SHARED_FROM <= self.size and CAN_SHARE:
            self._share()

    def whole(self) -> bytearray | memoryview:
        """Return all of it; nothing is added any more."""
        if self._writer is not None:
            try:
                return self._writer.finish()
            except OSError:
                self._data = self._writer.read()
        return self._data

    def _share(self) -> None:
        try:
            writer = Writer()
            writer.write(self._data)
        except OSError:
            return
        self._writer, self._data = writer, bytearray()
