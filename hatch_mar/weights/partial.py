"""A file that is not whole yet, and what is known of it.

    <cache>/partial/abcd...         the bytes, each at its place; holes where there are none yet
    <cache>/partial/abcd....spans   JSON: which bytes have been written, and what they are bytes of

The second file follows the first, by a moment, and is never ahead of it: what it does not
name counts as not written, so a process may be killed at any moment. Bytes it names are never
written to again. What is contiguous from the beginning is hashed as it grows.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Span = tuple[int, int]
"""First byte, and the one after the last."""

SAVE_EVERY = 0.25
"""Seconds of work that a killed process loses at most."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What bytes are bytes of."""

    source: str
    """Digest of the source's URI, which may hold secrets."""
    version: str | None
    """See `hatch_mar.weights.stores.protocol.Stream.version`."""
    total: int | None
    """Bytes of the whole."""
    boot: str
    """Since when this machine is up: what was not synced before it went down may be zeros."""

    @classmethod
    def of(cls, source: str, version: str | None, total: int | None) -> Origin:
        """Return the origin of bytes that come from `source` now."""
        digest = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()
        boot = ""
        with suppress(OSError):
            boot = _BOOT.read_text(encoding="ascii").strip()
        return cls(source=digest, version=version, total=total, boot=boot)


class Partial:
    """The two files. Only one thread at a time may call a method, except for `hash_on`."""

    def __init__(self, path: Path) -> None:
        """Take up what an earlier fetch has left at `path`, if anything.

        Raises:
            OSError: it cannot be read.
        """
        self.path = path
        self._notes = notes_of(path)
        self._file: int | None = None
        self._forget()
        self._take_up()

    def _forget(self) -> None:
        self.origin: Origin | None = None
        self._spans: list[Span] = []
        self._hash = hashlib.sha256()
        self.hashed = 0
        """How many bytes from the beginning have been hashed."""
        self._saved_at = 0.0
        self._is_saved = True

    def _take_up(self) -> None:
        if self.path.is_symlink():
            return  # not ours: what it leads to may be anything
        try:
            raw = json.loads(self._notes.read_bytes())
            origin = Origin(**raw["origin"])
            spans = list(_read_spans(raw["spans"], self.path.stat().st_size))
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, RecursionError):
            return  # not ours: what is not known to be written is not there
        self.origin, self._spans = origin, spans

    @property
    def prefix(self) -> int:
        """How many bytes are here from the beginning on, without a hole."""
        return self._spans[0][1] if self._spans and self._spans[0][0] == 0 else 0

    @property
    def present(self) -> int:
        """How many bytes are here."""
        return sum(stop - start for start, stop in self._spans)

    @property
    def end(self) -> int:
        """The byte after the last one that is here."""
        return self._spans[-1][1] if self._spans else 0

    def gaps(self, total: int) -> Iterator[Span]:
        """Yield what is missing of a file of `total` bytes, in order."""
        at = 0
        for start, stop in self._spans:
            if at < start:
                yield at, start
            at = stop
        if at < total:
            yield at, total

    def belong_to(self, origin: Origin) -> None:
        """Write down what the bytes are of that come next."""
        if origin != self.origin:
            self.origin = origin
            self._is_saved = False

    def write(self, start: int, data: bytes) -> None:
        """Put `data` at its place; what is already there from an earlier write is not touched.

        Raises:
            OSError: the disk does not take it.
        """
        descriptor = self._open()
        view = memoryview(data)
        at = start
        while view:
            written = os.pwrite(descriptor, view, at)
            view, at = view[written:], at + written
        self._add((start, at))

    def _open(self) -> int:
        """Return the file's descriptor; a file without notes is replaced, for nobody knows it.

        No link is followed: where others may write to the cache, it would choose what we write to.
        """
        if self._file is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            if not self._spans:
                self.path.unlink(missing_ok=True)
                flags |= os.O_EXCL
            self._file = os.open(self.path, flags, 0o644)
        return self._file

    def _add(self, span: Span) -> None:
        merged: list[Span] = []
        for start, stop in sorted([*self._spans, span]):
            if merged and start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(stop, merged[-1][1])
            else:
                merged.append((start, stop))
        self._spans, self._is_saved = merged, False

    def is_due(self) -> bool:
        """Say whether it is time to write down again what is here."""
        return not self._is_saved and time.monotonic() - self._saved_at >= SAVE_EVERY

    def save(self) -> None:
        """Write down what is here, if that has changed.

        Raises:
            OSError: the disk does not take it.
        """
        if self._is_saved or self.origin is None or self._file is None:
            return
        text = json.dumps({"origin": asdict(self.origin), "spans": self._spans})
        new = self._notes.with_name(self._notes.name + ".new")
        new.unlink(missing_ok=True)
        with new.open("x", encoding="utf-8") as file:  # through no link either
            file.write(text)
        new.replace(self._notes)
        self._saved_at, self._is_saved = time.monotonic(), True

    def hash_on(self, prefix: int, buffer: bytearray) -> None:
        """Hash a buffer full of what follows the bytes that are hashed, up to `prefix` bytes.

        Others may write meanwhile, beyond `prefix`.

        Raises:
            OSError: it cannot be read.
        """
        view = memoryview(buffer)[: prefix - self.hashed]
        count = os.preadv(self._open(), [view], self.hashed)
        if not count:
            raise OSError("somebody cut it off")
        self._hash.update(view[:count])
        self.hashed += count

    def hexdigest(self) -> str:
        """Return the sha256 of the bytes that have been hashed."""
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Remove both files, and begin again; first the one that vouches for the other."""
        self.close()
        self._notes.unlink(missing_ok=True)
        self._notes.with_name(self._notes.name + ".new").unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self._forget()

    def finish(self) -> None:
        """Cut off what was not hashed, and put the rest on the disk: the file gets its name next.

        Raises:
            OSError: the disk does not take it.
        """
        descriptor = self._open()  # an empty file has never been written to
        os.ftruncate(descriptor, self.hashed)
        os.fsync(descriptor)
        self.close()

    def close(self) -> None:
        """Close the file. What was not saved is lost."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def notes_of(path: Path) -> Path:
    """Return where it is written down what the partial file at `path` holds."""
    return path.with_name(path.name + ".spans")


def _read_spans(raw: Any, size: int) -> Iterator[Span]:  # noqa: ANN401 - of JSON
    """Yield the spans of a file of `size` bytes.

    Raises:
        ValueError, TypeError: they make no sense.
    """
    at = -1
    for start, stop in raw:
        if not (type(start) is type(stop) is int and at < start < stop <= size):
            raise ValueError(f"{start!r}-{stop!r} of {size} bytes")
        yield start, stop
        at = stop
