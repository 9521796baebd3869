"""The model store: a directory of archives, and what may be fetched into it."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.errors import DownloadArchiveError, ModelNotFoundError, RegistrationError
from hatch_mar.weights.stores import open_source
from hatch_mar.weights.uri import redact

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK = 1 << 20
_SHOWN = 300
"""Characters of a `url` that messages repeat."""
_FETCHED = re.compile(r"(https?|file|s3|gs|az|hf)://", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An archive that can be opened."""

    path: Path
    fetched: bool = False
    """Whether it is in the store for this registration alone, and goes with the model."""


class ModelStore:
    """Finds what a registration's `url` names."""

    def __init__(self, directory: Path | None, *, allowed_urls: Sequence[str] = ()) -> None:
        """Look in `directory`; fetch what matches one of `allowed_urls` whole.

        Where TorchServe allows any http, https and file URL unless told otherwise, none is here.
        """
        self.directory = directory
        self._allowed = tuple(re.compile(pattern) for pattern in allowed_urls)

    def find(self, url: str) -> Found:
        """Return the archive that `url` names: in the store, a directory, or fetched. Takes time.

        Raises:
            ModelNotFoundError: there is none, or it may not be fetched.
            DownloadArchiveError: it cannot be fetched.
            RegistrationError: the store has a file of that name already.
        """
        if not url:
            raise ModelNotFoundError("empty url")
        if ".." in url:
            raise ModelNotFoundError(f"Relative path is not allowed in url: {url}")
        if _FETCHED.match(url):
            return self._fetch(url)
        path = Path(url)
        try:
            if path.is_absolute() and path.is_dir():
                return Found(path=path)
            if self.directory is not None and path.name and (self.directory / path.name).exists():
                return Found(path=self.directory / path.name)
        except (OSError, UnicodeError):
            pass  # a name so long, or such that no file system has it
        raise ModelNotFoundError(f"Model not found at: {_shorten(url)}")

    def _fetch(self, url: str) -> Found:
        if not any(pattern.fullmatch(url) for pattern in self._allowed):
            raise ModelNotFoundError(f"Given URL {redact(url)} does not match any allowed URL(s)")
        name = Path(redact(url)).name
        if self.directory is None or not name:
            raise ModelNotFoundError(f"Model not found at: {redact(url)}")
        target = self.directory / name
        if target.exists():
            raise RegistrationError(f"Model file already exists {name}")
        try:
            _download(url, target)
        except FileExistsError as error:
            raise RegistrationError(f"Model file already exists {name}") from error
        except OSError as error:
            raise DownloadArchiveError(
                f"Failed to download archive from: {redact(url)}: {error.strerror or error}"
            ) from error
        return Found(path=target, fetched=True)


def _shorten(url: str) -> str:
    """Return `url` as far as an error message may repeat it."""
    text = url.encode(errors="backslashreplace").decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _download(url: str, target: Path) -> None:
    """Fetch `url` to `target`, which is there whole or not at all."""
    descriptor, name = tempfile.mkstemp(prefix=".fetching-", dir=target.parent)
    part = Path(name)
    try:
        with (
            os.fdopen(descriptor, "wb") as file,
            closing(open_source(url)) as source,
            closing(source.open()) as stream,
        ):
            while data := stream.read(CHUNK):
                file.write(data)
        part.chmod(0o644)
        target.hardlink_to(part)  # unlike a rename, never over what somebody else put there
    finally:
        part.unlink()
