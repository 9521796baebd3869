"""Azure Blob Storage, through adlfs: it finds the credentials and the account.

Bytes are asked for in pieces: its library gives none of an answer before it has the whole.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from adlfs import AzureBlobFileSystem
from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)

from hatch_mar.weights.stores.answers import explain_status, read_content_range
from hatch_mar.weights.stores.objects import Answer
from hatch_mar.weights.stores.protocol import Resolved

if TYPE_CHECKING:
    from hatch_mar.weights.address import ObjectAddress

PIECE = 4 << 20
"""Bytes of one request."""
_LOGIN = (
    "set AZURE_STORAGE_CONNECTION_STRING, or one of AZURE_STORAGE_ACCOUNT_KEY, "
    "AZURE_STORAGE_SAS_TOKEN and `az login`, to those who may read it, or AZURE_STORAGE_ANON=true"
)
_NO_ACCOUNT = (
    "nothing says which storage account: set AZURE_STORAGE_ACCOUNT_NAME or "
    "AZURE_STORAGE_CONNECTION_STRING, or write az://CONTAINER@ACCOUNT.blob.core.windows.net/BLOB"
)


class Client:
    """One blob of a container."""

    def __init__(self, address: ObjectAddress, stall: float) -> None:
        """See `objects.Client`."""
        self._address = address
        self._options = {
            "connection_timeout": stall,
            "read_timeout": stall,
            "retry_total": 0,  # who fetches tries again
            "permit_redirects": False,
        }
        try:
            self._azure: Any = AzureBlobFileSystem(
                **_account_of(address.account), skip_instance_cache=True
            )
        except ValueError as error:
            raise OSError(_NO_ACCOUNT) from error
        self._blob: Any = None

    async def connect(self) -> None:
        """See `objects.Client`."""
        self._blob = self._azure.service_client.get_blob_client(
            self._address.container, self._address.key, version_id=self._address.version
        )

    async def get(self, start: int, stop: int | None) -> Answer:
        """See `objects.Client`."""
        pieces = _Pieces(self._blob, self._options, start, stop)
        await pieces.advance()
        return Answer(
            start=start,
            total=pieces.total,
            version=pieces.version,
            read=pieces.read,
            close=pieces.close,
        )

    async def resolve(self) -> Resolved:
        """See `objects.Client`."""
        found = await self._blob.get_blob_properties(**self._options)
        address = self._address.at(found.version_id) if found.version_id else self._address
        return Resolved(source=str(address), size=found.size, sha256=None)

    async def close(self) -> None:
        """See `objects.Client`."""
        await self._azure.service_client.close()
        for credential in (self._azure.credential, self._azure.sync_credential):
            if hasattr(credential, "close"):
                closing = credential.close()
                if closing is not None:
                    await closing

    def explain(self, error: Exception) -> OSError:
        """See `objects.Client`."""
        name = type(error).__name__
        if isinstance(
            error, ServiceRequestTimeoutError | ServiceResponseTimeoutError | TimeoutError
        ):
            return TimeoutError("Azure sends nothing")
        if isinstance(error, ServiceRequestError | ServiceResponseError | IncompleteReadError):
            return ConnectionError(f"Azure cannot be read ({name})")
        if isinstance(error, HttpResponseError) and error.status_code:
            return _explain_answer(error)
        if isinstance(error, ClientAuthenticationError):
            return PermissionError(f"credentials cannot be had; {_LOGIN}")
        if isinstance(error, AzureError | ValueError):
            return OSError(f"Azure cannot be asked ({name})")
        return error if isinstance(error, OSError) else OSError(name)


class _Pieces:
    """The bytes of one blob from one offset on, all of the same state of it."""

    def __init__(
        self,
        blob: Any,  # noqa: ANN401 - of its library
        options: dict[str, Any],
        start: int,
        stop: int | None,
    ) -> None:
        self._blob = blob
        self._options = options
        self._next = start
        self._stop = stop
        self._piece = memoryview(b"")
        self._etag: str | None = None
        self.total: int | None = None
        self.version: str | None = None

    async def advance(self) -> None:
        """Ask for the next piece."""
        length = PIECE if self._stop is None else min(PIECE, self._stop - self._next)
        same = {"etag": self._etag, "match_condition": MatchConditions.IfNotModified}
        try:
            answer = await self._blob.download_blob(
                offset=self._next,
                length=length,
                max_concurrency=1,
                **(same if self._etag else {}),
                **self._options,
            )
            self._piece = memoryview(await answer.readall())
            found, whole = answer.properties, read_content_range(answer.properties.content_range)
        except HttpResponseError as error:
            if self._next or error.status_code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            found, whole = await self._blob.get_blob_properties(**self._options), None  # empty
        self.total = whole[1] if whole else int(found.size)
        self._etag = found.etag
        self.version = found.version_id or found.etag
        self._stop = self.total if self._stop is None else min(self._stop, self.total)
        self._next += len(self._piece)

    async def read(self, count: int) -> bytes:
        """Return up to `count` bytes; none at the end."""
        if not self._piece and self._stop is not None and self._next < self._stop:
            await self.advance()
        data, self._piece = self._piece[:count], self._piece[count:]
        return bytes(data)

    async def close(self) -> None:
        """Nothing is open between two pieces."""


def _account_of(account: str | None) -> dict[str, str]:
    """Return adlfs's words for `name` or `name.blob.core.windows.net`."""
    if account is None:
        return {}
    name, dot, _ = account.partition(".")
    if not dot:
        return {"account_name": name}
    return {"account_name": name, "account_host": account.replace(".dfs.", ".blob.", 1)}


def _explain_answer(error: HttpResponseError) -> OSError:
    code = getattr(error, "error_code", None)
    code = str(getattr(code, "value", code) or "")
    server = f"Azure ({code})" if code else "Azure"
    if code == "ConditionNotMet":
        return ConnectionError("the blob has changed meanwhile")
    missing = "there is no such container" if code == "ContainerNotFound" else "no such blob"
    return explain_status(int(error.status_code or 0), server=server, missing=missing, login=_LOGIN)
