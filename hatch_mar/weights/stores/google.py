"""Google Cloud Storage, through gcsfs: it finds the credentials and the endpoint.

Bytes are asked for here, by its JSON API: gcsfs itself reads a range into memory before it gives a
byte of it, and tries six times before it gives an error.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
from gcsfs.core import GCSFileSystem
from google.auth.exceptions import GoogleAuthError, TransportError
from yarl import URL

from hatch_mar.weights.stores.answers import (
    explain_status,
    read_content_range,
    read_length,
    write_range,
)
from hatch_mar.weights.stores.objects import Answer
from hatch_mar.weights.stores.protocol import Resolved

if TYPE_CHECKING:
    from hatch_mar.weights.address import ObjectAddress

_LOGIN = (
    "set GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`, "
    "to those who may read it"
)


class Client:
    """One object of a bucket."""

    def __init__(self, address: ObjectAddress, stall: float) -> None:
        """See `objects.Client`."""
        self._address = address
        self._stall = stall
        self._session: aiohttp.ClientSession | None = None
        self._gcs: Any = GCSFileSystem(
            access="read_only", asynchronous=True, skip_instance_cache=True
        )

    async def connect(self) -> None:
        """See `objects.Client`."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._stall, sock_read=self._stall)
        self._session = aiohttp.ClientSession(trust_env=True, timeout=timeout)

    async def get(self, start: int, stop: int | None) -> Answer:
        """See `objects.Client`."""
        headers = {"Accept-Encoding": "identity"}
        wanted = write_range(start, stop)
        if wanted:
            headers["Range"] = wanted
        answer = await self._ask("download/storage/v1/", headers, alt="media")
        found = read_content_range(answer.headers.get("Content-Range"))

        async def close() -> None:
            answer.close()

        return Answer(
            start=found[0] if found else 0,
            total=found[1] if found else read_length(answer.headers.get("Content-Length")),
            version=answer.headers.get("X-Goog-Generation") or answer.headers.get("ETag"),
            read=answer.content.read,
            close=close,
        )

    async def resolve(self) -> Resolved:
        """See `objects.Client`."""
        async with await self._ask("storage/v1/", {}) as answer:
            found = await answer.json()
        source = str(self._address.at(str(found["generation"])))
        # What is stored packed is unpacked on its way, and nobody knows how much that will be.
        packed = found.get("contentEncoding", "identity") != "identity"
        return Resolved(source=source, size=None if packed else int(found["size"]), sha256=None)

    async def _ask(self, api: str, headers: dict[str, str], **query: str) -> aiohttp.ClientResponse:
        assert self._session is not None
        bucket, key = (
            quote(name, safe="") for name in (self._address.container, self._address.key)
        )
        root = self._gcs.base.removesuffix("storage/v1/")
        if self._address.version:
            query["generation"] = self._address.version
        await asyncio.to_thread(self._gcs.credentials.apply, headers)  # which may renew a token
        url = URL(f"{root}{api}b/{bucket}/o/{key}", encoded=True)
        answer = await self._session.get(
            url.with_query(query), headers=headers, allow_redirects=False
        )
        if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
            answer.close()
            raise self._explain_status(answer.status)
        return answer

    async def close(self) -> None:
        """See `objects.Client`."""
        if self._session is not None:
            await self._session.close()

    def _explain_status(self, status: int) -> OSError:
        anonymous = self._gcs.credentials.credentials is None
        login = f"the request was not signed: {_LOGIN}" if anonymous else _LOGIN
        missing = "the bucket has no such object, or no such generation of it"
        return explain_status(status, server="Google Cloud Storage", missing=missing, login=login)

    def explain(self, error: Exception) -> OSError:
        """See `objects.Client`."""
        name = type(error).__name__
        if isinstance(error, TimeoutError):
            return TimeoutError("Google Cloud Storage sends nothing")
        if isinstance(error, aiohttp.ClientError | TransportError):
            return ConnectionError(f"Google Cloud Storage cannot be read ({name})")
        if isinstance(error, GoogleAuthError):
            return PermissionError(f"credentials cannot be had ({name}); {_LOGIN}")
        return error if isinstance(error, OSError) else OSError(f"cannot be asked ({name})")
