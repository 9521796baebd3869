"""What the author wishes: the files of weights as `[tool.mar]` and model-config.yaml name them."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from hatch_mar.project.pinning import local_file
from hatch_mar.project.secret import conceal, find_secret
from hatch_mar.project.suggestion import did_you_mean
from hatch_mar.weights.uri import SCHEMES, find_flaw, redact

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from hatch_mar.project.config import Config
    from hatch_mar.project.document import KeyPath, Origin
    from hatch_mar.project.placement import Place
    from hatch_mar.project.reading import Reading
    from hatch_mar.project.table import WeightsTable

URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]*")
"""How the name of a file ends, and that of a directory (`llama-3.1`) rarely does."""
MODEL_PATH = ("handler", "model_path")


def is_uri(text: str) -> bool:
    """Say whether `text` names something outside the project."""
    return URI.match(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
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


def wishes_of_table(reading: Reading) -> Iterator[Wish]:
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
        yield Wish(
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


def wishes_of_config(reading: Reading, config: Config, carried: Collection[str]) -> Iterator[Wish]:
    """Yield the file that `handler.model_path` of model-config.yaml names, if it names one."""
    text = config.model_path
    if text is None:
        return
    origin = config.origin_of(reading, MODEL_PATH)
    if not _check_source(reading, origin, text):
        return
    is_relative = not is_uri(text) and not Path(text).is_absolute()
    if is_relative and reading.locking:
        return  # a file of the project, which nobody locks
    target: str | None
    if is_uri(text):
        target = _last_part(text)
        if not target:
            reading.complain_at(origin, f"'{conceal(text)}' does not end in a file's name")
        else:
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
        yield Wish(key=key, source=text, target=target, primary=True, origin=origin)


def _is_like_a_file(path: Path) -> bool:
    """Say whether `path` is that of a file, which may be on another machine: not a directory."""
    return SUFFIX.fullmatch(path.suffix) is not None and not path.is_dir()


def _last_part(source: str) -> str:
    """Return what a file at `source` is called; nothing if it is not called anything."""
    name = posixpath.basename(unquote(urlsplit(source).path) if is_uri(source) else source)
    return "" if name in (".", "..") else name


def _check_sources(reading: Reading, table: WeightsTable, key: KeyPath) -> bool:
    """Say whether the source and its mirrors could be anywhere; complain of those that cannot."""
    origin = reading.origin((*key, "source"))
    found = [_check_source(reading, origin, table.source)]
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


def _check_source(reading: Reading, origin: Origin, source: str) -> bool:
    if is_uri(source):
        return _check_uri(reading, origin, source)
    scheme = source.strip().partition(":")[0].lower()
    if scheme not in SCHEMES or scheme == source.strip().lower():
        return True
    reading.complain_at(origin, f"begins as a URI and is none; write {scheme}://...")
    return False


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
        said = flaw or f"is of a kind that nobody knows{hint}"
        reading.complain_at(origin, f"'{conceal(uri)}' {said}")
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
