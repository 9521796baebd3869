"""Where fetched weights are kept: by digest, so that every model that needs a file shares it.

    <cache>/sha256/ab/abcd...    whole files, read-only; what is here has been verified
    <cache>/partial/abcd...      what an interrupted fetch leaves for the next one, and beside it
                                 abcd....spans: which bytes of it were written
    <cache>/locks/abcd....lock   held by the one process that fetches
    <cache>/ledger/abcd....json  its size and time when it was verified, and its last use

A file gets its name under `sha256/` by a rename, after its last byte was hashed and is on the disk,
and nobody may write to it from then on. That is why later starts need not hash it again: they look
at its size and its time of modification, which the ledger holds. A file that the ledger does not
know, because somebody copied it there, or that was touched since, is hashed once more.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.errors import WeightsError
from hatch_mar.weights.digest import check_sha256, hash_file
from hatch_mar.weights.ledger import Ledger
from hatch_mar.weights.partial import Partial, notes_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from filelock import BaseFileLock

    from hatch_mar.weights.reference import Reference

CACHE_VARIABLE = "HATCH_MAR_CACHE_DIR"

logger = logging.getLogger("hatch_mar.weights")


class Cache:
    """A content-addressed directory, shared by any number of processes."""

    def __init__(
        self, directory: Path | None = None, *, environ: Mapping[str, str] = os.environ
    ) -> None:
        """Use `directory`; by default `$HATCH_MAR_CACHE_DIR`, else the user's cache directory."""
        self.directory = directory if directory is not None else default_directory(environ)

    def path_of(self, sha256: str) -> Path:
        """Return where the file with this digest is, or would be.

        Raises:
            WeightsError: it is no sha256.
        """
        return self.directory / "sha256" / check_sha256(sha256)[:2] / sha256

    def partial_of(self, sha256: str) -> Path:
        """Return where the file with this digest grows while it is fetched."""
        return self.directory / "partial" / check_sha256(sha256)

    def has(self, reference: Reference) -> bool:
        """Say whether the file is here, whole."""
        path = self.path_of(reference.sha256)
        try:
            size = path.stat().st_size
        except OSError:
            return False
        return reference.size is None or size == reference.size

    @property
    def ledger(self) -> Ledger:
        """What is known of the files here."""
        return Ledger(self.directory / "ledger")

    def is_unchanged(self, reference: Reference) -> bool:
        """Say whether the file is here, whole, and as it was when it was verified.

        A look at its size and its time: see `hatch_mar.weights.ledger` for how far that goes.
        """
        entry = self.ledger.read(reference.sha256)
        try:
            status = self.path_of(reference.sha256).stat()
        except OSError:
            return False
        return entry is not None and entry.fits(status) and self.has(reference)

    def confirm(self, reference: Reference) -> bool:
        """Say whether the file is here and right; hash it if it is here but not vouched for.

        It is wrong where somebody wrote to it, or put another file there: the next fetch replaces
        it, and a warning says so.
        """
        if self.is_unchanged(reference):
            return True
        if not self.has(reference):
            return False
        path = self.path_of(reference.sha256)
        logger.info("%s: was touched since it was verified, or put there by hand; hashing it", path)
        try:
            status = path.stat()
            digest, _ = hash_file(path)
        except OSError:
            return False
        if digest != reference.sha256:
            logger.warning("%s: is damaged; it has sha256 %s", path, digest)
            return False
        if not path.is_symlink():  # whose file may be somebody's own
            with suppress(OSError):
                path.chmod(0o444)
        self.ledger.vouch(digest, status)
        return True

    @contextmanager
    def lock(self, sha256: str) -> Iterator[None]:
        """Be the only process that fetches the file with this digest; wait for another to end.

        Raises:
            WeightsError: the cache cannot be written.
        """
        with self._writing():
            lock = self._make_lock(check_sha256(sha256))
            self.partial_of(sha256).parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def try_lock(self, sha256: str) -> Iterator[bool]:
        """As `lock`, but do not wait: yield whether nobody else holds it."""
        try:
            lock = self._make_lock(sha256)
            lock.acquire(blocking=False)
        except OSError:  # filelock's own is one
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def open_partial(self, sha256: str) -> Partial:
        """Return what an earlier fetch has left of a file, or the beginnings of one.

        Raises:
            WeightsError: the cache cannot be written.
        """
        with self._writing():
            return Partial(self.partial_of(sha256))

    def publish(self, sha256: str, partial: Partial) -> Path:
        """Give what is in `partial`, which is whole and verified, its name; return its path.

        Raises:
            WeightsError: the cache cannot be written.
        """
        path = self.path_of(sha256)
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.finish()
            partial.path.chmod(0o444)
            partial.path.replace(path)
            _sync(path.parent)
            notes_of(partial.path).unlink(missing_ok=True)
            self.ledger.vouch(sha256, path.stat())
        return path

    def _make_lock(self, sha256: str) -> BaseFileLock:
        try:
            from filelock import FileLock  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise WeightsError(
                "locking the cache needs filelock: pip install 'hatch-mar[serve]'"
            ) from error
        path = self.directory / "locks" / f"{sha256}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WeightsError(
                f"{self.directory}: the cache cannot be written: {error.strerror or error}; "
                f"set {CACHE_VARIABLE} to a directory with room"
            ) from error


def find_cached(reference: Reference) -> Path | None:
    """Return the file of `reference` in the user's cache, if it is there; nothing is fetched."""
    try:
        cache = Cache()
    except WeightsError:  # without platformdirs, nobody has ever put anything there
        return None
    return cache.path_of(reference.sha256) if cache.has(reference) else None


def default_directory(environ: Mapping[str, str]) -> Path:
    """Return `$HATCH_MAR_CACHE_DIR`, or the platform's cache directory of the user."""
    configured = environ.get(CACHE_VARIABLE)
    if configured:
        try:
            return Path(configured).expanduser().absolute()
        except RuntimeError as error:
            raise WeightsError(
                f"{CACHE_VARIABLE} is {configured!r}, and nobody has that home directory; "
                "set it to an absolute path"
            ) from error
    try:
        from platformdirs import user_cache_path  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise WeightsError(
            f"set {CACHE_VARIABLE}, or install platformdirs: pip install 'hatch-mar[serve]'"
        ) from error
    path = user_cache_path("hatch-mar", appauthor=False)
    if not path.is_absolute():  # of a user whom nobody has given a home, as containers have them
        raise WeightsError(f"you have no home directory; set {CACHE_VARIABLE} to an absolute path")
    return path


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
