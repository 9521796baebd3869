"""The files of weights, from what the author wrote to where each of them goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.archive.names import find_flaw as find_name_flaw
from hatch_mar.errors import Problem, ProblemsError
from hatch_mar.project.document import Origin, render
from hatch_mar.project.pinning import Wanted, as_reference, find_stale, local_file, pin
from hatch_mar.project.placement import Placement, place_here, why_stuck
from hatch_mar.project.reading import Reading, is_lfs_pointer
from hatch_mar.project.secret import conceal, find_secret
from hatch_mar.project.shards import ShardsError, beside, may_name_others, read_named, sibling
from hatch_mar.project.spec import WeightsFile
from hatch_mar.project.wishes import Wish, is_uri, wishes_of_config, wishes_of_table
from hatch_mar.weights.digest import hash_once
from hatch_mar.weights.lockfile import COMMAND, LOCK_NAME, Lock, read_lock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from hatch_mar.project.config import Config


def resolve_weights(
    reading: Reading, config: Config, carried: Collection[str] = ()
) -> tuple[WeightsFile, ...]:
    """Return the files of weights, the primary one marked; without those that have problems.

    `carried` are the names of the files that the archive has otherwise: `handler.model_path` may
    mean one of them.
    """
    wishes = list(wishes_of_table(reading))
    if not reading.table.weights and "weights" not in reading.broken:
        wishes += wishes_of_config(reading, config, carried)
    work = _Work(reading, _read_lock(reading), {wish.target for wish in wishes})
    found = [file for wish in wishes for file in work.resolve(wish)]
    for file in find_stale(reading.wanted, work.lock or Lock()):
        reading.notes.append(
            f"{LOCK_NAME}: nothing refers to '{file.target}' any more; `{COMMAND}` takes it out"
        )
    return tuple(found)


def _read_lock(reading: Reading) -> Lock | None:
    """Return the lock, an empty one if there is none; None after complaining of it."""
    path = reading.root / LOCK_NAME
    if not path.exists():
        return Lock()
    if not reading.is_inside(path):
        reading.complain_of_file(path, "", "leads out of the project; it belongs into it")
        return None
    try:
        lock = read_lock(path)
    except ProblemsError as error:
        reading.problems.extend(error.problems)
        return None
    problems = list(_secrets_of(lock))
    reading.problems.extend(problems)
    if problems:
        return None
    reading.take(path)
    return lock


def _secrets_of(lock: Lock) -> Iterator[Problem]:
    """Yield what somebody wrote into the lock by hand, and nobody may read in the archive."""
    for index, file in enumerate(lock.files):
        for key, uris in (("source", [file.source, *file.mirrors]), ("resolved", [file.resolved])):
            for secret in filter(None, map(find_secret, uris)):
                yield Problem(
                    LOCK_NAME,
                    f"weights[{index}].{key}",
                    f"holds {secret}, which everybody who has the archive could read; take it out, "
                    f"and run `{COMMAND}`",
                )


class _Work:
    """Turns wishes into files, complaining of those that cannot be met."""

    def __init__(self, reading: Reading, lock: Lock | None, targets: set[str]) -> None:
        self.lock = lock
        self._reading = reading
        self._targets = targets

    def resolve(self, wish: Wish) -> Iterator[WeightsFile]:
        """Yield the file itself, and the files that it names."""
        if is_uri(wish.source) or Path(wish.source).is_absolute():
            yield from self._remote(wish)
        else:
            yield from self._local(wish)

    def _complain(self, wish: Wish, key: str, message: str) -> None:
        self._reading.complain_at(self._origin(wish, key), message)

    def _origin(self, wish: Wish, key: str) -> Origin:
        return wish.origin or self._reading.origin((*wish.key, key))

    def _remote(self, wish: Wish) -> Iterator[WeightsFile]:
        if wish.place == "embed":
            self._complain(
                wish,
                "place",
                f"'{conceal(wish.source)}' is not here to be embedded, and a build opens no "
                "connection; download it into the project, or leave out `place`",
            )
            return
        file = local_file(wish.source)
        if file is not None and file.is_relative_to(self._reading.root):
            inner = file.relative_to(self._reading.root).as_posix()
            self._complain(wish, "source", f"'{wish.source}' is in the project; write '{inner}'")
            return
        if file is not None and file.is_dir():
            self._complain(wish, "source", f"'{wish.source}' is a directory, not a file")
            return
        if file is not None and file.exists() and not file.is_file():
            self._complain(wish, "source", f"'{wish.source}' is a device or a pipe, not a file")
            return
        what = "a URI" if is_uri(wish.source) else "a path outside of the project"
        why = f"its source is {what}" if wish.place == "auto" else f'`place = "{wish.place}"`'
        yield from self._refer(wish, file, why)

    def _local(self, wish: Wish) -> Iterator[WeightsFile]:
        """Embed a file of the project, or refer to where else it is."""
        reading = self._reading
        place = reading.root / wish.source
        if wish.mirrors and not place.exists() and self._is_known(wish):
            yield from self._refer(wish, place, "it is not here")  # as in an unpacked sdist
            return
        path = self._locate(wish)
        if path is None or not self._is_what_it_should_be(wish, path):
            return
        size = path.stat().st_size
        placement = place_here(wish.place, reading.table.wheel, size)
        if placement.embed:
            yield from self._embed(wish, path, placement)
        elif not wish.mirrors:
            stuck = why_stuck(wish.source, wish.place, reading.table.wheel, size)
            self._complain(wish, "source", stuck)
        else:
            yield from self._refer(wish, path, placement.reason)
        yield from self._named_here(wish, path)

    def _locate(self, wish: Wish) -> Path | None:
        reading = self._reading
        if wish.origin is None and not wish.named_by:
            return reading.locate((*wish.key, "source"), wish.source)
        path = reading.root / wish.source
        by = f"'{wish.named_by}' names " if wish.named_by else ""
        if not reading.is_inside(path):
            self._complain(wish, "source", f"{by}'{wish.source}', which leads out of the project")
        elif not path.is_file():
            why = reading.why_missing(wish.source)
            why = why.partition(";")[0] if by else why  # it is not the author who misspelt it
            said = f"{by}'{wish.source}', which {why}" if by else f"'{wish.source}' {why}"
            self._complain(wish, "source", said)
        else:
            return path
        return None

    def _is_known(self, wish: Wish) -> bool:
        locked = self.lock.find(wish.target) if self.lock is not None else None
        return wish.sha256 is not None or (locked is not None and locked.source == wish.source)

    def _is_what_it_should_be(self, wish: Wish, path: Path) -> bool:
        if is_lfs_pointer(path):
            said = f"'{wish.source}' is a Git LFS pointer; run `git lfs pull`"
            self._complain(wish, "source", said)
            return False
        size = path.stat().st_size
        if wish.size not in (None, size):
            said = f"is {wish.size}, but '{wish.source}' has {size} bytes"
            self._complain(wish, "size", said)
            return False
        if wish.sha256 is None:
            return True
        digest = hash_once(path)
        if wish.sha256 != digest:
            said = f"is not that of '{wish.source}', which has {digest}"
            self._complain(wish, "sha256", said)
        return wish.sha256 == digest

    def _embed(self, wish: Wish, path: Path, placement: Placement) -> Iterator[WeightsFile]:
        self._reading.take(path)
        if placement.remarkable:
            self._reading.notes.append(f"{wish.target}: in the archive, for {placement.reason}")
        yield WeightsFile(
            target=wish.target,
            key=render(wish.key),
            path=path,
            reason=placement.reason,
            primary=wish.primary,
            trusted_pickle=wish.trusted_pickle,
            named_by=wish.named_by,
        )

    def _refer(self, wish: Wish, file: Path | None, why: str) -> Iterator[WeightsFile]:
        """Yield the reference, and those to the files that the lock says it names."""
        flaw = find_name_flaw(wish.target)
        if flaw is not None:
            self._complain(wish, "target", f"'{wish.target}' {flaw}; give another one")
            return
        wanted = Wanted(
            target=wish.target,
            source=wish.source,
            file=file,
            in_project=not is_uri(wish.source) and not Path(wish.source).is_absolute(),
            mirrors=wish.mirrors,
            sha256=wish.sha256,
            size=wish.size,
            in_table=wish.origin is None,
            origin=self._origin(wish, "source"),
            digest_origin=self._origin(wish, "sha256"),
        )
        self._reading.wanted.append(wanted)
        if self.lock is None or self._reading.locking:
            return
        pinned = pin(wanted, self.lock)
        if isinstance(pinned, list):
            self._reading.problems.extend(pinned)
            return
        self._reading.notes.append(f"{wish.target}: by reference, for {why}")
        yield WeightsFile(
            target=wish.target,
            key=render(wish.key),
            reference=pinned,
            reason=why,
            primary=wish.primary,
            at_path=wish.at_path,
            trusted_pickle=wish.trusted_pickle,
            named_by=wish.named_by,
        )
        locked = self.lock.find(wish.target)
        if locked is None or wanted.in_project:
            return
        for each in self.lock.named_by(locked):
            if each.target in self._targets:
                continue
            self._targets.add(each.target)
            yield WeightsFile(
                target=each.target,
                key=render(wish.key),
                reference=as_reference(each, each.mirrors),
                reason=f"'{wish.target}' names it",
                trusted_pickle=wish.trusted_pickle,
                named_by=wish.target,
            )

    def _named_here(self, wish: Wish, path: Path) -> Iterator[WeightsFile]:
        """Yield the files that one of the project names: they are beside it."""
        if not may_name_others(wish.target):
            return
        try:
            names = read_named(path, wish.target)
        except (ShardsError, OSError) as error:
            self._complain(wish, "source", f"'{wish.source}' {error}")
            return
        for name in names:
            target = beside(wish.target, name)
            if target in self._targets:
                continue
            self._targets.add(target)
            shard = replace(
                wish,
                source=sibling(wish.source, name),
                target=target,
                mirrors=tuple(sibling(mirror, name) for mirror in wish.mirrors),
                sha256=None,
                size=None,
                primary=False,
                named_by=wish.target,
            )
            yield from self._local(shard)
