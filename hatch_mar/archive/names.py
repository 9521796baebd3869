"""Names of members: which of them can be a file below a directory on any machine, and which cannot.

The same rules hold for what we write and for what we read, so an archive of ours is never refused.
"""

from __future__ import annotations

import re
import unicodedata

from hatch_mar.errors import UnsafeArchiveError

LONGEST_PART = 255
"""Bytes of one path component: the limit of every common file system."""
LONGEST_NAME = 4096
"""Bytes of a whole name: Linux's `PATH_MAX`."""

_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Also those that turn the text around: a name must look like what it is."""
_RESERVED = re.compile(
    r"(?:^|/)(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])(?:\.[^/]*)?(?:/|$)",
    re.IGNORECASE,
)
"""What Windows takes for a device, whatever suffix it has."""


def find_flaw(name: str) -> str | None:
    """Return why `name` is no safe member name, or None if it is one."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    parts = encoded.split(b"/")
    flaws = {
        "is empty": not name,
        "holds a control character": _CONTROL.search(name),
        "is an absolute path": name.startswith("/") or _DRIVE.match(name),
        "holds a backslash": "\\" in name,
        "holds an empty, '.' or '..' component": {b"", b".", b".."}.intersection(parts),
        "holds a name that Windows reserves for a device": _RESERVED.search(name),
        "is too long": len(encoded) > LONGEST_NAME or max(map(len, parts)) > LONGEST_PART,
    }
    return next((flaw for flaw, found in flaws.items() if found), None)


def fold(name: str) -> str:
    """Return what `name` becomes on a file system that ignores case and Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class NameLedger:
    """The names seen so far; refuses one that cannot live beside the others."""

    def __init__(self, where: str) -> None:
        """Start empty; `where` is the archive that messages name."""
        self._where = where
        self._files: dict[str, str] = {}
        self._directories: dict[str, str] = {}

    def add(self, name: str) -> None:
        """Take one more file.

        Raises:
            UnsafeArchiveError: it is no safe name, is there already (whatever the case or Unicode
                form), or is a directory of another member.
        """
        folded = self._check(name)
        other = self._files.get(folded) or self._directories.get(folded)
        if other is not None:
            raise self._collision(other, name)
        self._files[folded] = name
        if "/" in folded:
            self._add_directory(folded.rpartition("/")[0], name)

    def add_directory(self, name: str) -> None:
        """Take a directory, which may be there already: archives may list them, too.

        Raises:
            UnsafeArchiveError: it is no safe name, or a file.
        """
        self._add_directory(self._check(name), name)

    def _add_directory(self, folded: str, name: str) -> None:
        while folded:
            if folded in self._files:
                raise self._collision(self._files[folded], name)
            self._directories.setdefault(folded, name)
            folded = folded.rpartition("/")[0]

    def _check(self, name: str) -> str:
        flaw = find_flaw(name)
        if flaw is not None:
            raise UnsafeArchiveError(f"{self._where}: member {name!r} {flaw}")
        return fold(name)

    def _collision(self, one: str, other: str) -> UnsafeArchiveError:
        return UnsafeArchiveError(f"{self._where}: members {one!r} and {other!r} collide")
