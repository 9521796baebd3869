"""What the operator asked to serve: files, directories, wheels, installed models, a model store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.errors import RegistrationError, TargetError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hatch_mar.archive.read import Archive

_RENAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]*)=(?P<what>.+)", re.DOTALL)
_STORED = (".mar", ".model", ".tar.gz")
"""Suffixes of the files that `--models all` takes, as TorchServe does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One model to serve."""

    what: str
    """As the operator wrote it, without a new name."""
    path: Path | None = None
    """None for an installed model."""
    name: str | None = None
    """Name to serve it under; None: its own."""
    url: str | None = None
    """Where `path` is fetched from if it is not there."""

    def open(self) -> Archive:
        """Open what it names.

        Raises:
            TargetError: no such model is installed.
            ArchiveError: it cannot be read.
        """
        if self.path is None:
            from hatch_mar.archive.installed import open_installed  # noqa: PLC0415 - see cli

            return open_installed(self.what)
        from hatch_mar.archive.read import open_archive  # noqa: PLC0415 - the same

        if self.url is not None and not self.path.exists():
            from hatch_mar.serve import ModelStore  # noqa: PLC0415 - the same

            try:
                ModelStore(self.path.parent, allowed_urls=[re.escape(self.url)]).find(self.url)
            except RegistrationError:  # two names of one link: the other was first
                if not self.path.exists():
                    raise
        return open_archive(self.path)


def find_targets(
    models: Iterable[str], *, store: Path | None = None, stored: Iterable[str] = ()
) -> list[Target]:
    """Return what `models` (paths or names) and `stored` (entries of `store`, or `all`) ask for.

    Raises:
        TargetError: one of them is not there, or nothing is asked for.
    """
    targets = [_find(text) for text in models]
    if store is not None:
        if not store.is_dir():
            raise TargetError(f"{store}: --model-store is no directory")
        for text in stored:
            targets += list_store(store) if text == "all" else [_find_stored(text, store)]
    elif tuple(stored):
        raise TargetError("--models names files of a --model-store: give one")
    if not targets:
        raise TargetError(
            "nothing to serve: name a .mar file, a directory, a wheel or an installed model"
        )
    return targets


def _split(text: str) -> tuple[str | None, str]:
    """Return the new name and the rest of `name=what`; a path that exists is never split."""
    found = None if Path(text).exists() else _RENAMED.fullmatch(text)
    return (found["name"], found["what"]) if found else (None, text)


def _find(text: str) -> Target:
    name, what = _split(text)
    path = Path(what)
    if path.exists():
        return Target(what=what, path=path, name=name)
    if "/" in what or what.endswith((*_STORED, ".whl", ".tgz")):
        raise TargetError(f"{what}: no such file or directory")
    return Target(what=what, name=name)


def _find_stored(text: str, store: Path) -> Target:
    """Find one entry of a model store, by its name in there; an absolute path is taken as it is."""
    name, what = _split(text)
    path = store / what
    if not path.exists():
        raise TargetError(f"{what}: not in the model store {store}")
    return Target(what=what, path=path, name=name)


def list_store(store: Path) -> list[Target]:
    """Return every archive of a model store, as `--models all` takes them."""
    return [
        Target(what=path.name, path=path)
        for path in sorted(store.iterdir())
        if not path.name.startswith(".") and (path.is_dir() or path.name.endswith(_STORED))
    ]
