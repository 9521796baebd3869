"""TorchServe's token authorization: three keys, in a file that only the owner reads.

The inference key opens the inference port, the management key the management port, and the API key
renews the other two. TorchServe answers 400 to a wrong one, and so do we; unlike it we compare in
constant time.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hatch_mar.errors import WrongTokenError

if TYPE_CHECKING:
    from collections.abc import Callable

KEY_FILE = "key_file.json"
"""Its name in the working directory of the runner."""
Purpose = Literal["management", "inference"]
_BEARER = re.compile(r"Bearer\s+(\S+)")
"""Case matters, as in TorchServe."""
_KEY_BYTES = 6
_REFUSED = 400


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Key:
    value: str
    expires: datetime

    def as_dict(self) -> dict[str, str]:
        text = self.expires.isoformat(timespec="microseconds").replace("+00:00", "Z")
        return {"key": self.value, "expiration time": text}


class Tokens:
    """The keys of one runner."""

    def __init__(
        self, directory: Path, *, lifetime: timedelta, now: Callable[[], datetime] = _now
    ) -> None:
        """Make the keys, and write `key_file.json` into `directory`.

        Raises:
            OSError: it cannot be written.
        """
        self.path = directory / KEY_FILE
        self._lifetime = lifetime
        self._now = now
        self._api = _make_key()
        self._keys: dict[Purpose, _Key] = {
            "management": self._fresh(),
            "inference": self._fresh(),
        }
        self._write()

    def check(self, purpose: Purpose, authorization: str) -> None:
        """Return if the header `authorization` opens the port for `purpose`.

        Raises:
            WrongTokenError: (400) it does not, or does no longer.
        """
        key = self._keys[purpose]
        if not _matches(authorization, key.value) or self._now() >= key.expires:
            raise _refusal("Authorization")

    def renew(self, purpose: str | None, authorization: str) -> None:
        """Replace the key for `purpose`: what `GET /token?type=` of the management port does.

        Raises:
            WrongTokenError: (400) the header does not hold the API key, or there is no such key.
            OSError: the file cannot be written; the old key goes on.
        """
        if not _matches(authorization, self._api) or purpose not in self._keys:
            raise _refusal("Authentication")
        before = self._keys.copy()
        self._keys["management" if purpose == "management" else "inference"] = self._fresh()
        try:
            self._write()
        except OSError:
            self._keys = before
            raise

    def remove(self) -> None:
        """Remove the file: its keys open nothing any more."""
        with suppress(OSError):
            self.path.unlink()

    def _fresh(self) -> _Key:
        return _Key(_make_key(), self._now() + self._lifetime)

    def _write(self) -> None:
        document = {name: key.as_dict() for name, key in self._keys.items()}
        text = json.dumps({**document, "API": {"key": self._api}}, indent=2)
        # mkstemp lets nobody else read; whoever reads the old file meanwhile reads all of it.
        descriptor, name = tempfile.mkstemp(prefix=f".{KEY_FILE}.", dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _make_key() -> str:
    return secrets.token_urlsafe(_KEY_BYTES)


def _matches(authorization: str, key: str) -> bool:
    found = _BEARER.fullmatch(authorization)
    given = found[1] if found else ""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), key.encode())


def _refusal(what: str) -> WrongTokenError:
    return WrongTokenError(
        f"Token {what} failed. Token either incorrect, expired, or not provided correctly",
        status=_REFUSED,
    )
