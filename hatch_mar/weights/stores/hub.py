"""The Hugging Face Hub, through huggingface_hub's own client: its token, endpoint and proxies.

A file is one request, which the Hub sends on to where it keeps big files. No copy goes into the
library's own cache.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from hatch_mar.weights.address import HubAddress
from hatch_mar.weights.digest import is_sha256
from hatch_mar.weights.network import Network, RefusedError, Zone, find_proxy
from hatch_mar.weights.stores.answers import (
    explain_status,
    is_behind_the_end,
    read_content_range,
    read_length,
    write_range,
)
from hatch_mar.weights.stores.protocol import Resolved

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_REDIRECTS = 10
_CHUNK = 1 << 20
_LOGIN = "set HF_TOKEN, or `hf auth login`, to a token that may read it"
_QUOTED = re.compile(r'(?:W/)?"(.*)"')


def open_source(uri: str, *, stall: float) -> HubSource:
    """Return the file at `uri`."""
    return HubSource(HubAddress.parse(uri), stall)


def resolve(uri: str, *, stall: float) -> Resolved:
    """Return `uri` at the commit that its revision is now, with what the Hub knows of the file."""
    return open_source(uri, stall=stall).resolve()


@dataclass(frozen=True, slots=True)
class HubSource:
    """One file of a repository."""

    address: HubAddress
    stall: float
    network: Network = field(default_factory=Network)

    def open(self, start: int = 0, stop: int | None = None) -> HubStream:
        """See `Source.open`."""
        try:
            with _explained(self.address) as hub:
                return HubStream(self.address, self._ask(hub, start, stop))
        except OSError as error:
            if start and is_behind_the_end(error):  # what was kept is longer than what is there
                return self.open()
            raise

    def resolve(self) -> Resolved:
        """Ask the Hub for the commit, the size and, of big files, the digest."""
        with _explained(self.address) as hub:
            found = hub.get_hf_file_metadata(_url_of(hub, self.address), timeout=self.stall)
        address = self.address.at(found.commit_hash) if found.commit_hash else self.address
        sha256 = found.etag if is_sha256(found.etag) else None  # of small files, git's SHA-1
        return Resolved(source=str(address), size=found.size, sha256=sha256)

    def close(self) -> None:
        """See `Source.close`: the connections are the library's, for the whole process."""

    def _ask(self, hub: Any, start: int, stop: int | None) -> list[Any]:  # noqa: ANN401 - a module
        """Return the answers, each of which led to the next one; the last one has the bytes."""
        headers = {**hub.utils.build_hf_headers(), "Accept-Encoding": "identity"}
        wanted = write_range(start, stop)
        if wanted:
            headers["Range"] = wanted
        client = hub.utils.get_session()
        request = client.build_request(
            "GET", _url_of(hub, self.address), headers=headers, timeout=self.stall
        )
        answers: list[Any] = []
        from_public = False
        while request is not None and len(answers) <= MOST_REDIRECTS:
            from_public |= self._look_at(request.url, from_public=from_public) is Zone.PUBLIC
            answers.append(client.send(request, stream=True, follow_redirects=False))
            asked, request = request, answers[-1].next_request
            if request is not None:
                answers[-1].close()
                if asked.url.scheme == "https" != request.url.scheme:
                    raise PermissionError("the Hub redirects from https to what is none")
        if request is not None:
            raise OSError("the Hub redirects without end")
        answer = answers[-1]
        try:
            if answer.status_code >= HTTPStatus.BAD_REQUEST:
                answer.read()  # the reason, for the library to look at
            hub.utils.hf_raise_for_status(answer)
        except BaseException:
            answer.close()
            raise
        return answers

    def _look_at(self, url: Any, *, from_public: bool) -> Zone:  # noqa: ANN401 - of httpx
        """Return where `url` leads. The library resolves names once more: see `network`.

        Raises:
            PermissionError: nobody may connect there.
            ConnectionError: the name is not known.
        """
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            if find_proxy(url.scheme, url.host, port) is not None:
                return self.network.zone_behind_proxy(url.host, from_public=from_public)
            found = self.network.addresses_of(url.host, port, from_public=from_public)
        except RefusedError as error:
            raise PermissionError(f"refused to connect: {error}") from error
        except (OSError, UnicodeError) as error:
            raise ConnectionError("cannot connect: the server's name is not known") from error
        return next((zone for _, zone in found), Zone.PRIVATE)


class HubStream:
    """One answer."""

    def __init__(self, address: HubAddress, answers: list[Any]) -> None:
        """Read the headers of the last answer, and of those of the Hub that led there."""
        self._address = address
        self._answer = answer = answers[-1]
        self._chunks = answer.iter_raw(_CHUNK)
        self._kept = memoryview(b"")
        found = read_content_range(answer.headers.get("Content-Range"))
        self.start = found[0] if found else 0
        self.total = found[1] if found else read_length(answer.headers.get("Content-Length"))
        self.version = _version_of(answers)

    def read(self, count: int) -> bytes:
        """See `Stream.read`."""
        if not self._kept:
            with _explained(self._address):
                self._kept = memoryview(next(self._chunks, b""))
        data, self._kept = self._kept[:count], self._kept[count:]
        return bytes(data)

    def close(self) -> None:
        """See `Stream.close`."""
        self._answer.close()


def _version_of(answers: list[Any]) -> str | None:
    """Return the digest by which the Hub knows the file: the first that any answer tells."""
    for answer in answers:
        tag = answer.headers.get("X-Linked-ETag") or answer.headers.get("ETag")
        found = _QUOTED.fullmatch(tag or "")
        if found:
            return found[1]
    return None


def _url_of(hub: Any, address: HubAddress) -> str:  # noqa: ANN401 - huggingface_hub
    url: str = hub.hf_hub_url(
        address.repository, address.path, repo_type=address.kind, revision=address.revision
    )
    return url


@contextmanager
def _explained(address: HubAddress) -> Iterator[Any]:
    """Give huggingface_hub; turn what it raises into the errors that `stores` promises."""
    try:
        import huggingface_hub as hub  # noqa: PLC0415 - an extra
        from huggingface_hub import errors  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise OSError("hf:// needs huggingface_hub: pip install 'hatch-mar[hf]'") from error
    try:
        yield hub
    except errors.OfflineModeIsEnabled as error:
        raise OSError("HF_HUB_OFFLINE forbids to ask the Hub; unset it") from error
    except errors.HfHubHTTPError as error:
        raise _explain_answer(error, address, errors) from error
    except errors.HTTPError as error:  # of httpx, in whichever edition the library has
        name = type(error).__name__
        if "Timeout" in name:
            raise TimeoutError("the Hub sends nothing") from error
        raise ConnectionError(f"the Hub cannot be read ({name})") from error
    except errors.HFValidationError as error:
        raise OSError("no repository of the Hub can have that name") from error


def _explain_answer(error: Any, address: HubAddress, errors: Any) -> OSError:  # noqa: ANN401
    """Say in our words what the Hub's are: those hold the URLs of redirects, which let in."""
    repository = f"'{address.repository}'"
    if isinstance(error, errors.GatedRepoError):
        return PermissionError(f"{repository} is gated: accept its terms on its page, and {_LOGIN}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return PermissionError(
            f"there is no {address.kind} {repository}, or it is private: {_LOGIN}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return FileNotFoundError(f"{repository} has no revision '{address.revision}'")
    if isinstance(error, errors.EntryNotFoundError):
        return FileNotFoundError(
            f"{repository} has no file '{address.path}' at '{address.revision}'"
        )
    missing = "the Hub has no such file"
    status = error.response.status_code
    return explain_status(status, server="the Hub", missing=missing, login=_LOGIN)
