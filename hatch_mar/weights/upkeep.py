"""The cache seen as a whole: what is in it, whether it is right, and what can go.

Whoever serves a file holds it, by a shared lock on the file itself; whoever fetches one holds the
lock of its digest. The kernel drops both when their process ends, however it ends. Nothing that is
held is removed, and a file that is removed all the same stays whole for those who have it open.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hatch_mar.archive.measure import hash_stream
from hatch_mar.errors import WeightsError
from hatch_mar.weights.cache import CACHE_VARIABLE
from hatch_mar.weights.digest import is_sha256
from hatch_mar.weights.partial import notes_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hatch_mar.archive.measure import Advance
    from hatch_mar.weights.cache import Cache


_BLOCK = 512
"""Bytes of the blocks that `st_blocks` counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One file of a cache, or what an interrupted fetch left of one."""

    key: str
    """Its sha256; of a part whose digest nobody knew, that of its source's name; of compiled code
    what it is called, `<kind>/<fingerprint>`."""
    path: Path
    size: int
    """Bytes."""
    whole: bool
    """False: a part, which the next fetch takes up."""
    since: float
    """When it was published, or last written to; seconds since the epoch."""
    used: float
    """When it was last used."""
    models: tuple[str, ...] = ()
    """Who used it: `name version`."""
    compiled: bool = False
    """Whether it is code that was compiled for this machine, not weights: a file, or a tree."""


State = Literal["right", "damaged", "unreadable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What became of one file under `verify`."""

    item: Item
    state: State
    found: str
    """The sha256 that it has, or why it cannot be read."""
    removed: bool = False


Fate = Literal["removed", "in use", "not ours"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What became of one item that was to go."""

    item: Item
    fate: Fate


def list_items(cache: Cache) -> list[Item]:
    """Return everything in the cache, what was used last first. Foreign files are no part of it.

    Raises:
        WeightsError: the cache cannot be read.
    """
    try:
        items = [*_whole_files(cache), *_parts(cache), *_compiled(cache)]
    except OSError as error:
        raise WeightsError(
            f"{cache.directory}: the cache cannot be read: {error.strerror or error}; set "
            f"{CACHE_VARIABLE} to another directory, or make it readable"
        ) from error
    return sorted(items, key=lambda item: (-item.used, item.key))


def verify_item(
    cache: Cache, item: Item, *, fix: bool = False, advance: Advance | None = None
) -> Checked:
    """Hash one whole file again; with `fix`, remove it if it is not what its name says.

    A file that is not right is never used again, removed or not: the next fetch replaces it.
    """
    try:
        with item.path.open("rb") as file:
            status = os.fstat(file.fileno())
            found, _ = hash_stream(file, advance=advance)
    except OSError as error:
        return Checked(item=item, state="unreadable", found=error.strerror or str(error))
    if found == item.key:
        cache.ledger.vouch(item.key, status)
        return Checked(item=item, state="right", found=found)
    cache.ledger.forget(item.key)
    return Checked(item=item, state="damaged", found=found, removed=fix and _remove(cache, item))


def choose(
    items: list[Item], *, now: float, max_size: int | None = None, older_than: float | None = None
) -> list[Item]:
    """Return what has to go, least recently used first.

    Args:
        items: What is there.
        now: Seconds since the epoch.
        max_size: Bytes that may stay, all together; None: any number.
        older_than: What was not used for so many seconds goes; None: age is no reason.
    """
    left = sum(item.size for item in items)
    gone = []
    for item in sorted(items, key=lambda item: (item.used, item.key)):
        too_old = older_than is not None and now - item.used > older_than
        too_much = max_size is not None and left > max_size
        if too_old or too_much:
            gone.append(item)
            left -= item.size
    return gone


def prune(
    cache: Cache,
    *,
    now: float,
    max_size: int | None = None,
    older_than: float | None = None,
    dry_run: bool = False,
) -> Iterator[Pruned]:
    """Remove what has to go (see `choose`), and yield what became of it.

    What somebody uses stays, and then something else may have to go in its place. With `dry_run`
    everything stays, and what is yielded is what would become of it.

    Raises:
        WeightsError: the cache cannot be read.
    """
    items = list_items(cache)
    held = [item for item in items if item.whole and _is_served(item.path)]
    for item in choose(items, now=now, max_size=max_size, older_than=older_than):
        if item in held:
            yield Pruned(item=item, fate="in use")
    room = None if max_size is None else max_size - sum(item.size for item in held)
    free = [item for item in items if item not in held]
    for item in choose(free, now=now, max_size=room, older_than=older_than):
        yield Pruned(item=item, fate=_prune_one(cache, item, dry_run=dry_run))


def hold(path: Path) -> int | None:
    """Hold a file of a cache against `prune`, until the descriptor that is returned is closed.

    Return None if the file is gone: it has to be fetched again. Where the file system has no
    locks, the file is held by being open: what was removed stays whole for its holder.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be read: {error.strerror}; make it readable, or set {CACHE_VARIABLE} "
            "to a directory of your own"
        ) from error
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    if _is_still(path, descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _list(directory: Path, depth: int = 1) -> Iterator[Path]:
    """Yield what is so deep below `directory`; unlike a glob, raise if that cannot be seen."""
    try:
        inside = list(directory.iterdir())
    except FileNotFoundError:
        return
    for path in inside:
        if depth == 1:
            yield path
        elif path.is_dir():
            yield from _list(path, depth - 1)


def _whole_files(cache: Cache) -> Iterator[Item]:
    for path in _list(cache.directory / "sha256", depth=2):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # somebody else prunes
        if not (is_sha256(path.name) and stat.S_ISREG(status.st_mode)):
            continue
        entry = cache.ledger.read(path.name)
        yield Item(
            key=path.name,
            path=path,
            size=status.st_size,
            whole=True,
            since=status.st_mtime,
            used=cache.ledger.last_use(path.name) or status.st_mtime,
            models=entry.models if entry is not None else (),
        )


def _parts(cache: Cache) -> Iterator[Item]:
    for path in _list(cache.directory / "partial"):
        if not is_sha256(path.name):
            continue  # notes on a part go with it
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # it is whole now
        yield Item(
            key=path.name,
            path=path,
            size=min(status.st_size, status.st_blocks * _BLOCK),  # there may be gaps
            whole=False,
            since=status.st_mtime,
            used=status.st_mtime,
        )


def _compiled(cache: Cache) -> Iterator[Item]:
    """Yield what `hatch_mar.model.cuda.kept` has put there; who runs it has a copy open."""
    for path in _list(cache.directory / "compiled", depth=2):
        if path.name.startswith("."):
            continue  # locks, and what is being made
        found = [each.lstat() for each in (path, *path.rglob("*")) if not each.is_dir()]
        since = max((status.st_mtime for status in found), default=path.stat().st_mtime)
        yield Item(
            key=f"{path.parent.name}/{path.name}",
            path=path,
            size=sum(status.st_size for status in found),
            whole=False,
            since=since,
            used=max((status.st_atime for status in found), default=since),
            compiled=True,
        )


def _prune_one(cache: Cache, item: Item, *, dry_run: bool) -> Fate:
    if item.compiled:
        return "removed" if dry_run or _remove(cache, item) else "not ours"
    if not item.whole:
        with cache.try_lock(item.key) as free:
            if not free:
                return "in use"
            return "removed" if dry_run or _remove(cache, item) else "not ours"
    with suppress(FileNotFoundError):
        descriptor = os.open(item.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if not _lock_alone(descriptor):
                return "in use"
            return "removed" if dry_run or _remove(cache, item) else "not ours"
        finally:
            os.close(descriptor)
    return "removed"


def _is_served(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _lock_alone(descriptor)
    finally:
        os.close(descriptor)


def _lock_alone(descriptor: int) -> bool:
    """Whether nobody else holds the file; it is held alone then, until the descriptor is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: who has the file open keeps its bytes
    return True


def _remove(cache: Cache, item: Item) -> bool:
    """Remove an item and what is known of it; return whether that could be done."""
    try:
        if item.compiled and item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink(missing_ok=True)
        if item.whole:
            cache.ledger.forget(item.key)
        elif not item.compiled:
            notes_of(item.path).unlink(missing_ok=True)
    except OSError:
        return False
    return True
