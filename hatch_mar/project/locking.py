"""`hatch-mar lock`: look at every reference, and write down which bytes it is.

This is the one place of the workshop that opens connections, and only for what is not locked yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

from hatch_mar.errors import OfflineError, Problem, ProblemsError, WeightsError
from hatch_mar.project.pinning import (
    Wanted,
    find_drift,
    find_stale,
    find_twins,
    local_file,
    problem_of,
    size_here,
)
from hatch_mar.project.shards import (
    LONGEST_INDEX,
    TOO_LONG,
    ShardsError,
    beside,
    is_index,
    may_name_others,
    read_named,
    sibling,
)
from hatch_mar.weights.digest import hash_file
from hatch_mar.weights.fetch import OFFLINE_VARIABLE, Progress, acquire, fetch, is_offline
from hatch_mar.weights.lockfile import COMMAND, LOCK_NAME, Lock, LockedFile
from hatch_mar.weights.reference import Reference
from hatch_mar.weights.stores import resolve
from hatch_mar.weights.uri import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from hatch_mar.weights.cache import Cache

State = Literal["new", "changed", "unchanged"]


class Tell(Protocol):
    """Shows how far the work on one file is."""

    def __call__(
        self, target: str, size: int | None, *, reading: bool = False
    ) -> AbstractContextManager[Progress]:
        """Return what is told of the bytes of `target`: those fetched, or with `reading` hashed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """What a run found."""

    lock: Lock
    states: Mapping[str, State]
    """By target: what became of each entry."""
    removed: tuple[str, ...] = ()
    """Targets of entries that are gone."""
    notes: tuple[str, ...] = ()
    """What may be wrong, and stopped nothing."""


def make_lock(
    wanted: Sequence[Wanted],
    old: Lock,
    cache: Cache,
    *,
    tell: Tell,
    environ: Mapping[str, str],
    upgrade: bool = False,
) -> Locked:
    """Return the lock of everything that is `wanted`.

    Entries of `old` whose source is what it was are kept, and nobody is asked about them, unless
    `upgrade` says so; files of this machine are hashed each time.

    Raises:
        ProblemsError: the author's digests are not those of the files, or shards cannot be found.
        WeightsError: files cannot be found or fetched; all of them are named.
    """
    twins = list(find_twins(wanted))
    if twins:
        raise ProblemsError(twins)
    own = frozenset(each.target for each in wanted)
    work = _Locking(old, cache, tell, environ, upgrade=upgrade, own=own)
    for each in wanted:
        work.add(each)
    if work.problems:
        raise ProblemsError(list(dict.fromkeys(work.problems)))
    if work.failures:
        kind = OfflineError if all(isinstance(e, OfflineError) for e in work.failures) else None
        raise (kind or WeightsError)("\n".join(dict.fromkeys(map(str, work.failures))))
    lock = Lock(files=tuple(sorted(work.found.values(), key=lambda file: file.target)))
    return Locked(
        lock=lock,
        states={file.target: _compare(old.find(file.target), file) for file in lock.files},
        removed=tuple(file.target for file in old.files if file.target not in work.found),
        notes=tuple(dict.fromkeys(work.notes)),
    )


def check_lock(wanted: Sequence[Wanted], lock: Lock) -> list[Problem]:
    """Return how `lock` and what is `wanted` differ. Local files are read; nobody is asked."""
    problems = list(find_twins(wanted))
    problems += [problem for each in wanted for problem in find_drift(each, lock)]
    for each in (*wanted, *(inner for outer in wanted for inner in named_in(lock, outer))):
        locked = lock.find(each.target)
        if locked is None or each.file is None or size_here(each) != locked.size:
            continue
        digest, _ = hash_file(each.file)
        if digest != locked.sha256:
            said = f"'{each.source}' is not what {LOCK_NAME} has any more: its sha256 is {digest}"
            problems.append(problem_of(each, f"{said}; run `{COMMAND}`"))
    order = {file.target: index for index, file in enumerate(lock.files)}
    for file in find_stale(wanted, lock):
        key = f"weights[{order[file.target]}].target"
        message = f"nothing refers to '{file.target}' any more; run `{COMMAND}`"
        problems.append(Problem(LOCK_NAME, key, message))
    return problems


def _compare(old: LockedFile | None, new: LockedFile) -> State:
    if old is None:
        return "new"
    return "unchanged" if old == new else "changed"


@dataclass(slots=True)
class _Locking:
    """One run."""

    old: Lock
    cache: Cache
    tell: Tell
    environ: Mapping[str, str]
    upgrade: bool
    own: frozenset[str]
    """Targets of the files that the author names: what others say of them counts less."""
    found: dict[str, LockedFile] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    failures: list[WeightsError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, wanted: Wanted) -> None:
        """Find one file and those that it names; what goes wrong is collected."""
        try:
            self._add(wanted)
        except ProblemsError as error:
            self.problems += error.problems
        except WeightsError as error:
            said = str(error)
            named = said if said.startswith(wanted.target) else f"{wanted.target}: {said}"
            self.failures.append(type(error)(named))
        except OSError as error:
            where = redact(wanted.places[0] if wanted.places else wanted.source)
            reason = error.strerror or error
            mistaken = isinstance(error, FileNotFoundError) and not wanted.is_named
            remedy = "; correct its `source`" if mistaken else ""
            self.failures.append(WeightsError(f"{wanted.target}: {where}: {reason}{remedy}"))

    def _add(self, wanted: Wanted) -> None:
        here = self._hash(wanted)
        kept = self._keep(wanted, here)
        if kept is not None:
            self.found[kept.target] = kept
            for each in () if wanted.is_named else named_in(self.old, wanted):
                if each.target not in self.own:
                    self.add(each)
            return
        file, path = self._look_up(wanted, here)
        self._compare_mirrors(wanted, file)
        file = self._with_names(wanted, file, path)
        self.found[file.target] = file

    def _hash(self, wanted: Wanted) -> tuple[str, int] | None:
        """Return digest and size of a file of this machine; None if it is not on it."""
        size = size_here(wanted)
        if wanted.file is None or size is None:
            return None
        with self.tell(wanted.target, size, reading=True) as progress:
            found = hash_file(wanted.file, progress)
        _check_digest(wanted, found[0], wanted.source)
        return found

    def _keep(self, wanted: Wanted, here: tuple[str, int] | None) -> LockedFile | None:
        """Return the old entry, if it still says what is wanted."""
        old = self.old.find(wanted.target)
        if old is None or (self.upgrade and (here is not None or wanted.file is None)):
            return None
        same = (old.source, old.mirrors) == (wanted.source, wanted.mirrors)
        right = wanted.sha256 in (None, old.sha256) and here in (None, (old.sha256, old.size))
        names = tuple(self.old.named_by(old))
        whole = len(names) == len(old.names) and (bool(names) or not is_index(old.target))
        if not (same and right and (whole or wanted.in_project)):
            return None
        if here is None and wanted.file is not None:
            self.notes.append(
                f"{wanted.target}: '{wanted.source}' is not on this machine; its entry is kept"
            )
        return old

    def _look_up(
        self, wanted: Wanted, here: tuple[str, int] | None
    ) -> tuple[LockedFile, Path | None]:
        """Return a new entry, and where the file's bytes are now, if they had to come here."""
        if wanted.file is not None and here is None:
            raise WeightsError(f"{wanted.target}: '{wanted.source}' does not exist on this machine")
        if here is not None:
            sha256, size = here
            resolved = self._place_of(wanted, sha256, size)
            return _entry(wanted, resolved, sha256, size), wanted.file
        return self._ask(wanted)

    def _place_of(self, wanted: Wanted, sha256: str, size: int) -> str:
        """Return where others find a file of this machine, which is compared as far as possible."""
        first = wanted.places[0]
        if not wanted.in_project or local_file(first) is not None:
            return first
        self._need_network(wanted, first)
        answer = resolve(first)
        if answer.size not in (None, size) or answer.sha256 not in (None, sha256):
            message = f"'{first}' has other bytes than '{wanted.source}'; upload it again"
            raise ProblemsError([problem_of(wanted, message)])
        return answer.source

    def _ask(self, wanted: Wanted) -> tuple[LockedFile, Path | None]:
        """Ask the store what the file is; fetch it if the store does not know its digest."""
        self._need_network(wanted, wanted.source)
        answer = resolve(wanted.source)
        known = answer.sha256 or wanted.sha256
        if known is not None and answer.size is not None:
            _check_digest(wanted, known, wanted.source)
            return _entry(wanted, answer.source, known, answer.size), None
        if is_index(wanted.target) and (answer.size or 0) > LONGEST_INDEX:
            message = f"'{redact(wanted.source)}' {TOO_LONG}"
            raise ProblemsError([problem_of(wanted, message)])
        with self.tell(wanted.target, answer.size) as progress:
            got = acquire(answer.source, self.cache, progress=progress, environ=self.environ)
        _check_digest(wanted, got.sha256, wanted.source)
        return _entry(wanted, answer.source, got.sha256, got.size), got.path

    def _compare_mirrors(self, wanted: Wanted, file: LockedFile) -> None:
        """Ask the mirrors whether they have the same file, as far as they can tell without reading.

        One that does not answer may answer to servers, so that is only noted.
        """
        for mirror in wanted.places[1:]:
            if local_file(mirror) is None and is_offline(self.environ):
                continue
            try:
                answer = resolve(mirror)
            except OSError as error:
                reason = error.strerror or error
                self.notes.append(f"{wanted.target}: mirror {redact(mirror)}: {reason}")
                continue
            if answer.size not in (None, file.size) or answer.sha256 not in (None, file.sha256):
                message = f"'{redact(mirror)}' has other bytes than '{redact(file.resolved)}'"
                raise ProblemsError([problem_of(wanted, f"{message}; take that mirror out")])

    def _need_network(self, wanted: Wanted, source: str) -> None:
        if is_offline(self.environ):
            raise OfflineError(
                f"{wanted.target}: not in {LOCK_NAME}, and {OFFLINE_VARIABLE} forbids to ask "
                f"{redact(source)}; unset it, or write the file's `sha256` and `size` yourself"
            )

    def _with_names(self, wanted: Wanted, file: LockedFile, path: Path | None) -> LockedFile:
        """Lock the files that `file` names, and return it with their targets."""
        if wanted.in_project or wanted.is_named or not may_name_others(file.target):
            return file  # what a file of the project names is wanted anyway
        if path is None:
            path = self._fetch(file)
        try:
            names = read_named(path, file.target)
        except ShardsError as error:
            raise ProblemsError([problem_of(wanted, f"'{redact(file.source)}' {error}")]) from error
        for name in names:
            if beside(file.target, name) not in self.own:
                self.add(_shard(wanted, file, name))
        return replace(file, names=tuple(beside(file.target, name) for name in names))

    def _fetch(self, file: LockedFile) -> Path:
        reference = Reference(
            target=file.target, source=file.resolved, sha256=file.sha256, size=file.size
        )
        with self.tell(file.target, file.size) as progress:
            return fetch(reference, self.cache, progress=progress, environ=self.environ)


def named_in(lock: Lock, wanted: Wanted) -> Iterator[Wanted]:
    """Yield the files that the lock says `wanted` names."""
    locked = lock.find(wanted.target)
    for each in lock.named_by(locked) if locked is not None else ():
        yield Wanted(
            target=each.target,
            source=each.source,
            file=local_file(each.source),
            mirrors=each.mirrors,
            is_named=True,
            origin=wanted.origin,
            digest_origin=wanted.digest_origin,
        )


def _shard(wanted: Wanted, file: LockedFile, name: str) -> Wanted:
    """Return a file that `file` calls `name`, at the revision at which `file` was found."""
    source = sibling(file.resolved, name)
    return Wanted(
        target=beside(file.target, name),
        source=source,
        file=local_file(source),
        mirrors=tuple(sibling(mirror, name) for mirror in wanted.mirrors),
        is_named=True,
        origin=wanted.origin,
        digest_origin=wanted.digest_origin,
    )


def _entry(wanted: Wanted, resolved: str, sha256: str, size: int) -> LockedFile:
    if wanted.size not in (None, size):
        message = f"is {size} bytes, but its `size` says {wanted.size}; correct one"
        raise ProblemsError([problem_of(wanted, f"'{redact(wanted.source)}' {message}")])
    return LockedFile(
        target=wanted.target,
        source=wanted.source,
        resolved=resolved,
        size=size,
        sha256=sha256,
        mirrors=wanted.mirrors,
    )


def _check_digest(wanted: Wanted, sha256: str, source: str) -> None:
    """Hold what was found against what the author wrote.

    Raises:
        ProblemsError: they are not the same.
    """
    if wanted.sha256 in (None, sha256):
        return
    message = f"is {wanted.sha256}, but '{redact(source)}' has {sha256}; correct one of them"
    origin = wanted.digest_origin
    raise ProblemsError([Problem(origin.file, origin.key, message)])
