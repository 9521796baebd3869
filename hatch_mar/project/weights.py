"""The files of weights, from what the author wrote to where each of them goes."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from hatch_mar.errors import ProblemsError
from hatch_mar.project.document import Origin, render
from hatch_mar.project.pinning import Wanted, as_reference, find_stale, local_file, pin
from hatch_mar.project.placement import Place, Placement, place_here, why_stuck
from hatch_mar.project.reading import Reading, is_lfs_pointer
from hatch_mar.project.secret import conceal, find_secret
from hatch_mar.project.shards import ShardsError, beside, may_name_others, read_named, sibling
from hatch_mar.project.spec import WeightsFile
from hatch_mar.project.suggestion import did_you_mean
from hatch_mar.weights.digest import hash_file
from hatch_mar.weights.lockfile import COMMAND, LOCK_NAME, Lock, read_lock
from hatch_mar.weights.uri import SCHEMES, find_flaw, redact

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from hatch_mar.project.config import Config
    from hatch_mar.project.document import KeyPath
    from hatch_mar.project.table import WeightsTable

URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]*")
"""How the name of a file ends, and that of a directory (`llama-3.1`) rarely does."""
MODEL_PATH = ("handler", "model_path")


def is_uri(text: str) -> bool:
    """Say whether `text` names something outside the project."""
    return URI.match(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """One file of weights, as the author wants it."""

    key: KeyPath
    """The table's: `("weights", 0)`."""
    source: str
    target: str
    place: Place = "auto"
    sha256: str | None = None
    size: int | None = None
    mirrors: tuple[str, ...] = ()
    primary: bool = False
    trusted_pickle: bool = False
    named_by: str = ""
    """The file that names this one, if the author did not."""
    origin: Origin | None = None
    """Where the source stands, if that is not in the table."""

    @property
    def at_path(self) -> bool:
        """Whether model-config.yaml alone says where it is, in words that a handler can follow."""
        return self.origin is not None and local_file(self.source) is not None


def resolve_weights(
    reading: Reading, config: Config, carried: Collection[str] = ()
) -> tuple[WeightsFile, ...]:
    """Return the files of weights, the primary one marked; without those that have problems.

    `carried` are the names of the files that the archive has otherwise: `handler.model_path` may
    mean one of them.
    """
    wishes = list(_read_table(reading))
    if not reading.table.weights and "weights" not in reading.broken:
        wishes += _read_model_path(reading, config, carried)
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
    if not path.is_file():
        return Lock()
    if not reading.is_inside(path):
        reading.complain_of_file(path, "", "leads out of the project; it belongs into it")
        return None
    try:
        lock = read_lock(path)
    except ProblemsError as error:
        reading.problems.extend(error.problems)
        return None
    reading.take(path)
    return lock


def _read_table(reading: Reading) -> Iterator[_Wish]:
    """Yield what `weights` says, as far as it could be anything."""
    tables = list(reading.entries("weights", reading.table.weights))
    primaries = [key for key, table in tables if table.primary]
    for key in primaries[1:]:
        reading.complain((*key, "primary"), "only one file can be the primary one")
    primary = next(iter([*primaries, *(key for key, _ in tables)]), None)
    for key, table in tables:
        fits = _check_sources(reading, table, key)
        target = _target(reading, table, key) if fits else None
        if target is None:
            continue
        yield _Wish(
            key=key,
            source=table.source,
            target=target,
            place=table.place,
            sha256=table.sha256,
            size=table.size,
            mirrors=tuple(table.mirrors),
            primary=key == primary,
            trusted_pickle=table.trusted_pickle,
        )


def _read_model_path(reading: Reading, config: Config, carried: Collection[str]) -> Iterator[_Wish]:
    """Yield the file that `handler.model_path` of model-config.yaml names, if it names one."""
    text = config.model_path
    if text is None:
        return
    origin = config.origin_of(reading, MODEL_PATH)
    if is_uri(text):
        target = _last_part(text) if _check_uri(reading, origin, text) else None
        if target:
            config.set(*MODEL_PATH, target)  # no handler of anybody's opens a URI
    elif Path(text).is_absolute():
        target = _last_part(text) if _is_like_a_file(Path(text)) else None
    else:
        target = posixpath.normpath(text)
        there = any(name == target or name.startswith(f"{target}/") for name in carried)
        if there or (reading.root / text).is_dir():
            target = None
    if target:
        key = config.placed.get(MODEL_PATH, MODEL_PATH)
        yield _Wish(key=key, source=text, target=target, primary=True, origin=origin)


def _is_like_a_file(path: Path) -> bool:
    """Say whether `path` is that of a file, which may be on another machine: not a directory."""
    return SUFFIX.fullmatch(path.suffix) is not None and not path.is_dir()


def _last_part(source: str) -> str:
    """Return what a file at `source` is called; nothing if it is not called anything."""
    name = posixpath.basename(unquote(urlsplit(source).path) if is_uri(source) else source)
    return "" if name in (".", "..") else name


class _Work:
    """Turns wishes into files, complaining of those that cannot be met."""

    def __init__(self, reading: Reading, lock: Lock | None, targets: set[str]) -> None:
        self.lock = lock
        self._reading = reading
        self._targets = targets

    def resolve(self, wish: _Wish) -> Iterator[WeightsFile]:
        """Yield the file itself, and the files that it names."""
        if is_uri(wish.source) or Path(wish.source).is_absolute():
            yield from self._remote(wish)
        else:
            yield from self._local(wish)

    def _complain(self, wish: _Wish, key: str, message: str) -> None:
        self._reading.complain_at(self._origin(wish, key), message)

    def _origin(self, wish: _Wish, key: str) -> Origin:
        return wish.origin or self._reading.origin((*wish.key, key))

    def _remote(self, wish: _Wish) -> Iterator[WeightsFile]:
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
        what = "a URI" if is_uri(wish.source) else "a path outside of the project"
        why = f"its source is {what}" if wish.place == "auto" else f'`place = "{wish.place}"`'
        yield from self._refer(wish, file, why)

    def _local(self, wish: _Wish) -> Iterator[WeightsFile]:
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

    def _locate(self, wish: _Wish) -> Path | None:
        reading = self._reading
        if wish.origin is None and not wish.named_by:
            return reading.locate((*wish.key, "source"), wish.source)
        path = reading.root / wish.source
        by = f"'{wish.named_by}' names " if wish.named_by else ""
        if not reading.is_inside(path):
            self._complain(wish, "source", f"{by}'{wish.source}', which leads out of the project")
        elif not path.is_file():
            why = reading.why_missing(wish.source)
            said = f"{by}'{wish.source}', which {why}" if by else f"'{wish.source}' {why}"
            self._complain(wish, "source", said)
        else:
            return path
        return None

    def _is_known(self, wish: _Wish) -> bool:
        locked = self.lock.find(wish.target) if self.lock is not None else None
        return wish.sha256 is not None or (locked is not None and locked.source == wish.source)

    def _is_what_it_should_be(self, wish: _Wish, path: Path) -> bool:
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
        digest, _ = hash_file(path)
        if wish.sha256 != digest:
            said = f"is not that of '{wish.source}', which has {digest}"
            self._complain(wish, "sha256", said)
        return wish.sha256 == digest

    def _embed(self, wish: _Wish, path: Path, placement: Placement) -> Iterator[WeightsFile]:
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
        )

    def _refer(self, wish: _Wish, file: Path | None, why: str) -> Iterator[WeightsFile]:
        """Yield the reference, and those to the files that the lock says it names."""
        wanted = Wanted(
            target=wish.target,
            source=wish.source,
            file=file,
            in_project=not is_uri(wish.source) and not Path(wish.source).is_absolute(),
            mirrors=wish.mirrors,
            sha256=wish.sha256,
            size=wish.size,
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
            )

    def _named_here(self, wish: _Wish, path: Path) -> Iterator[WeightsFile]:
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


def _check_sources(reading: Reading, table: WeightsTable, key: KeyPath) -> bool:
    """Say whether the source and its mirrors could be anywhere; complain of those that cannot."""
    origin = reading.origin((*key, "source"))
    found = [_check_uri(reading, origin, table.source)] if is_uri(table.source) else []
    for index, mirror in enumerate(table.mirrors):
        where = (*key, "mirrors", index)
        if is_uri(mirror):
            found.append(_check_uri(reading, reading.origin(where), mirror))
        elif not Path(mirror).is_absolute():
            reading.complain(
                where, f"'{mirror}' is no URI such as https://..., and no absolute path"
            )
            found.append(False)
    return all(found)


def _check_uri(reading: Reading, origin: Origin, uri: str) -> bool:
    secret = find_secret(uri)
    if secret is not None:
        reading.complain_at(
            origin,
            f"'{redact(uri)}' holds {secret}, which everybody who has the archive could read; "
            "leave it out, and let servers log in by their own ~/.netrc",
        )
        return False
    flaw = find_flaw(uri)
    scheme = uri.partition(":")[0].lower()
    hint = "" if scheme in SCHEMES else did_you_mean(scheme, SCHEMES)
    if flaw is not None or hint:
        reading.complain_at(origin, f"'{uri}' {flaw or f'is of a kind that nobody knows{hint}'}")
        return False
    if scheme not in SCHEMES:
        reading.notes.append(
            f"{redact(uri)}: this hatch-mar fetches {', '.join(SCHEMES)} only; a server needs one "
            f"that fetches {scheme}, or the file in its cache"
        )
    return True


def _target(reading: Reading, table: WeightsTable, key: KeyPath) -> str | None:
    """Return where the handler expects the file; None after complaining."""
    if table.target is None:
        name = _last_part(table.source)
        if not name:
            reading.complain(
                (*key, "target"),
                f"'{conceal(table.source)}' does not end in a file's name; give one as `target`",
            )
            return None
        return name
    target = posixpath.normpath(table.target)
    if table.target.endswith("/"):
        reading.complain(
            (*key, "target"), f"'{table.target}' is a folder; write the file's name too"
        )
        return None
    if target.startswith(("/", "../")) or target in (".", ".."):
        reading.complain((*key, "target"), f"'{table.target}' is not a file in the model directory")
        return None
    return target
